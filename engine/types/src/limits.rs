//! Every limit of the store, each with its reason. Other crates assert relations against these.

use std::time::Duration;

/// Longest stream name, in bytes. Long enough for a category, a tenant and two UUIDs; short enough
/// that a batch of ten thousand distinct streams stays far below [`BATCH_BYTES_MAX`].
pub const STREAM_NAME_BYTES_MAX: usize = 512;
/// Longest event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 256;
/// Longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 256;
/// Most tags on one event. Each tag is an index entry, so this bounds the work an event can cause.
pub const TAGS_MAX: usize = 64;
/// Largest event data, in bytes (16 MiB): an event is a fact, not a file.
pub const DATA_BYTES_MAX: usize = 16 << 20;
/// Largest event metadata, in bytes (64 KiB).
pub const METADATA_BYTES_MAX: usize = 64 << 10;
/// Most events in one batch. Bounds the time the commit's critical section can be held.
pub const BATCH_EVENTS_MAX: usize = 10_000;
/// Largest encoded batch, in bytes (64 MiB). Also bounds what repair has to search.
pub const BATCH_BYTES_MAX: usize = 64 << 20;
/// Most conditions in one batch; as many as there can be streams in it.
pub const CONDITIONS_MAX: usize = 10_000;
/// Most items of a query. Each is looked up by itself, so this bounds the work that a query is.
pub const QUERY_ITEMS_MAX: usize = 128;
/// Most types of an item of a query; most tags are [`TAGS_MAX`], as no event has more.
pub const QUERY_TYPES_MAX: usize = 64;
/// Most conditions on queries in one batch: each is searched for while others wait.
pub const QUERY_CONDITIONS_MAX: usize = 128;
/// Longest that a store's writer may look for the next append before it sleeps: longer than a thread takes to wake, many times
/// over.
pub const LINGER_MAX: Duration = Duration::from_millis(1);
/// Longest name of a cursor, in bytes.
pub const CURSOR_NAME_BYTES_MAX: usize = 256;
/// Most cursors of a store. They are kept in memory, and written with the list of segments.
pub const CURSORS_MAX: usize = 10_000;
/// Most cursors that one append sets.
pub const ADVANCES_MAX: usize = 16;
/// Largest snapshot, in bytes (64 MiB): what is larger had better be a read model.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;
/// Longest name of a snapshot, in bytes.
pub const SNAPSHOT_NAME_BYTES_MAX: usize = 256;
/// Most snapshots of a stream and name that may be kept: each that is older than the newest that can be used is looked at.
pub const SNAPSHOTS_KEPT_MAX: u32 = 1_000;
/// Most durable subscriptions of a store.
pub const SUBSCRIPTIONS_MAX: usize = 10_000;
/// Most members of a durable subscription.
pub const MEMBERS_MAX: usize = 1_000;
/// Most events that a member of a durable subscription may hold at a time.
pub const IN_FLIGHT_MAX: u32 = 1_000;
/// Most events that a durable subscription has in flight or waiting, over all members: each is written down until it is
/// acknowledged.
pub const OPEN_MAX: usize = 10_000;
/// Of these, how many may wait for others or for their retry: so far it is read ahead of what cannot be handed out.
pub const WAITING_MAX: usize = 1_000;
/// Most parked events of a durable subscription. It stops where there would be more.
pub const PARKED_MAX: usize = 10_000;
/// Longest reason for which an event is parked or a subscription stopped, in bytes; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 1_024;
/// Longest handling time-out of a durable subscription, and longest pause before a retry.
pub const HANDLING_TIMEOUT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// How far a given event time may be ahead of both the clock and the event before it (one minute,
/// in nanoseconds): a wrong far-future time would raise every later event's time for good.
pub const TIME_AHEAD_NS_MAX: u64 = 60 * 1_000_000_000;

/// Smallest size of a first log segment, in bytes; allowed for tests.
pub const SEGMENT_BYTES_FLOOR: u64 = 16 << 10;
/// Largest configurable log segment, in bytes (1 GiB): offsets within a segment stay within 32 bits.
pub const SEGMENT_BYTES_CEILING: u64 = 1 << 30;

/// Memory that logs are written from, over all stores of the process (1 GiB). Each store takes some 20 MiB when it is
/// busy; beyond this, each waits for what it has on its way and keeps nothing that is durable.
pub const LOG_MEMORY_BYTES_MAX: usize = 1 << 30;

/// Most heads of streams that may be remembered: some gigabytes.
pub const CACHED_HEADS_MAX: usize = 32_000_000;

const _: () = assert!(DATA_BYTES_MAX + METADATA_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(BATCH_EVENTS_MAX <= u16::MAX as usize, "a stream's ordinal in its batch is 16 bits");
const _: () = assert!((BATCH_BYTES_MAX as u64) < SEGMENT_BYTES_CEILING);
