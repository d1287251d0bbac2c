//! Annals, an event store to embed: a directory, no server.
//!
//! Applications append the facts that happened to named streams, and rebuild any state by replaying them. An
//! append is acknowledged once it is on stable storage; a batch is visible whole or not at all; every event has a
//! position in one order without gaps, and a version in its stream; an append can be made conditional on the
//! versions of streams, and on no event behind a position matching a query.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! use annals::{NewEvent, Read, Store};
//!
//! let store = Store::open(dir.path())?;
//! store.append(NewEvent::new("order-42", "OrderPlaced").json(r#"{"total":12}"#))?.wait()?;
//! for event in store.read(Read::all())? {
//!     println!("{:?}", event?);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Whoever has to react to events follows the store ([`Store::follow`]), or becomes a member of a durable subscription
//! ([`Store::create_subscription`], [`Store::join`]), which knows what is done with.
//!
//! It is not a message broker, and not a database to query: it stores events, in order, for good.

#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests set the clock by hand"))]
mod clock;
mod disk;
mod format;
mod index;
mod log;
#[cfg(all(test, annals_loom))]
mod models;
mod prefetch;
mod store;
mod striped;
mod subscription;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;

pub use annals_types::{
    Advance, Append, AppendError, Appended, Bound, Condition, ContentKind, Cursor, CursorAt, Damage,
    DamageKind, Delivery, DeliveryId, DeliveryOrder, DiskChoice, EventStore, ExpectedVersion, Follow,
    Followed, Head, Histogram, InputError, IoFailure, Load, Membership, Nack, NewEvent, NewSnapshot,
    NewSubscription, OpenError, Parked, ParkedChoice, PassedOver, Position, Query, QueryItem, Read,
    ReadError, Record, Settings, Snapshot, Start, Stat, StoreError, SubscriptionError, SubscriptionMember,
    SubscriptionStatus, Timestamp, Uuid, Verified, Version, Writes, category, limits,
};
pub use store::Store;
pub use store::commit::{TriedAppends, TryAppendError};
pub use store::event_store::ReaderStream;
pub use store::follow::{Following, FollowingStream};
pub use store::member::{Acknowledger, Member};
pub use store::query::Touched;
pub use store::read::Reader;
pub use store::snapshots::Loaded;
pub use store::streams::Streams;
pub use store::ticket::Ticket;
