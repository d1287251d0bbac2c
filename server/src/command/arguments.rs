//! The command line: every command and option, with its help.

mod server;

pub(crate) use server::{Serve, Serving, Store, StoreAction, Tls, TlsAction, Token, TokenAction};

use super::values::{
    DiskName, OrderName, Place, ResetTo, Start, parse_expected, parse_place, parse_reset, parse_start,
};
use annals::{ExpectedVersion, Query, QueryItem, Uuid};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Annals, an event store: durable, ordered, conditional appends to streams.
#[derive(Debug, Parser)]
#[command(
    name = "annals",
    version,
    after_help = "Exit codes:\n  0 done  1 failed  2 wrong usage  3 a condition did not hold  4 damage  5 in use, or server not reached\n\nExample:\n  annals import events.jsonl.gz --data ./data\n  annals read --stream order-42 --json"
)]
pub(crate) struct Arguments {
    /// The store, or a directory of stores [default: ./data]
    // Not global: with `append`, `--data` is the event's data. See `Directory`.
    #[arg(long, value_name = "DIR", env = "ANNALS_DATA")]
    pub(crate) data: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Common {
    /// Which store of a directory of stores [default: default]
    #[arg(long, global = true, value_name = "NAME", env = "ANNALS_STORE")]
    pub(crate) store: Option<String>,
    /// Print for machines: one JSON object a line, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// A TOML file with settings; flags and ANNALS_* variables are stronger
    #[arg(long, global = true, value_name = "FILE", env = "ANNALS_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Work on a store of this server, and not on a directory
    #[arg(long, global = true, value_name = "HOST:PORT", env = "ANNALS_SERVER")]
    pub(crate) server: Option<String>,
    /// A file with the token that the server asks for
    #[arg(long, global = true, value_name = "FILE", env = "ANNALS_TOKEN")]
    pub(crate) token: Option<PathBuf>,
    /// Encrypt what is said, and trust servers whose certificates this authority has signed (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "ANNALS_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// The client's certificate, for a server that asks for one (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "ANNALS_CERT")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", env = "ANNALS_KEY")]
    pub(crate) key: Option<PathBuf>,
    /// Say to other machines what others can read on its way, a token even; to serve: listen to them, though what is said
    /// can be read or, without tokens, anybody may do anything
    #[arg(long, global = true)]
    pub(crate) insecure: bool,
}

/// `--data DIR` after the name of a command, stronger than before it. `append` has its own.
#[derive(Debug, Default, Args)]
pub(crate) struct Directory {
    /// The store, or a directory of stores [default: ./data]
    // Not the same to the parser as that before the command: one of the environment is weaker.
    #[arg(id = "directory", long = "data", value_name = "DIR", global = true)]
    pub(crate) data: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Append the events of a file of JSON lines, adding nothing twice
    #[command(after_help = IMPORT_EXAMPLE)]
    Import(Import),
    /// Print events as JSON lines that import takes back
    #[command(after_help = "Example:\n  annals export --stream order-42 > order-42.jsonl")]
    Export(Export),
    /// Append one event, or one batch of events
    #[command(after_help = APPEND_EXAMPLE)]
    Append(Append),
    /// Print events
    #[command(after_help = READ_EXAMPLE)]
    Read(Read),
    /// Print events as they come, until interrupted
    #[command(after_help = "Example:\n  annals follow --from start --json")]
    Follow(Follow),
    /// List the streams with their heads
    #[command(after_help = "Example:\n  annals streams --category order")]
    Streams(Streams),
    /// Describe the store
    #[command(after_help = "Example:\n  annals stat --json")]
    Stat(Directory),
    /// Check every checksum, chain and index
    #[command(after_help = "Example:\n  annals verify --data ./backup && echo sound")]
    Verify(Directory),
    /// Serve stores over the network, until a signal
    #[command(after_help = "Example:\n  annals serve --data ./data --listen 127.0.0.1:4777")]
    Serve(Serve),
    /// List, show or delete snapshots
    #[command(
        after_help = "Example:\n  annals snapshot list --stream order-42\n  annals snapshot show order-42 --version 41"
    )]
    Snapshot(Snapshot),
    /// Create, list and administer durable subscriptions
    #[command(
        after_help = "Example:\n  annals subscription create invoicing --type OrderPlaced --shared\n  annals subscription list"
    )]
    Subscription(Subscription),
    /// Create, list and drop the stores of a directory, or of a server
    #[command(after_help = "Example:\n  annals store create tenant-7 --server 127.0.0.1:4777")]
    Store(Store),
    /// Create, list and revoke the tokens that a server asks for
    #[command(after_help = "Example:\n  annals token create billing --right append --prefix order-")]
    Token(Token),
    /// Make certificates for a server and its clients, for development
    #[command(after_help = "Example:\n  annals tls init --out ./tls")]
    Tls(Tls),
    /// Print how a stream came to be what it is: its newest snapshot, the events behind it, and what each of them brought
    #[command(after_help = REPLAY_EXAMPLE)]
    Replay(Replay),
    /// Print the tree of a conversation (by its correlation), or of what an event or a command caused (by its id)
    #[command(after_help = "Example:\n  annals trace 01908a5c-3f1e-7cc0-8000-000000000001")]
    Trace(Trace),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  annals completions bash > /etc/bash_completion.d/annals")]
    Completions(Completions),
    /// Print the manual page of annals, or of one of its commands
    #[command(after_help = "Example:\n  annals man > annals.1\n  annals man import > annals-import.1")]
    Man(Man),
}

const REPLAY_EXAMPLE: &str = "\
What an event does to a state is the application's to say. Shown is which fields of the data are there for the first time (+),
and which have another value than before (~).

Example:
  annals replay order-42
  annals replay order-42 --until 2026-11-22T01:00:00Z --no-snapshots";

const IMPORT_EXAMPLE: &str = "\
Each line is an event: {\"stream\":\"order-42\",\"type\":\"OrderPlaced\",\"data\":{…}} with, optionally,
\"tags\", \"metadata\", \"id\", \"correlation\", \"causation\" and \"time\" (RFC 3339) or \"ts\" (seconds).

Example:
  annals import events.jsonl.gz
  zcat events.jsonl.gz | annals import - --batch 5000 --json";

const APPEND_EXAMPLE: &str = "\
The store's directory goes before the command: annals --data DIR append … Behind it, a --data that
is an existing directory and no JSON is the store's directory, too, unless that was given before; beside
the event's own --data, so is one that begins with / or . and does not exist yet.
Whitespace around the JSON is not part of the data; the rest is stored byte for byte.

Example:
  annals append order-42 --type OrderPlaced --data '{\"total\":12}' --expect none --tag customer:7
  annals append --batch batch.json";

const READ_EXAMPLE: &str = "\
Example:
  annals read --stream order-42
  annals read --type OrderPlaced --type OrderPaid --tag customer:7
  annals read --backwards --limit 10 --json
  annals read --from 2026-11-22T00:00:00Z --until 2026-11-22T23:59:59Z";

/// Options of `import`.
#[derive(Debug, Args)]
pub(crate) struct Import {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// JSON lines, plain or compressed with gzip or zstd; - for standard input
    #[arg(value_name = "FILE|-")]
    pub(crate) file: PathBuf,
    /// Events a batch, up to 10,000 [default: 1000]
    #[arg(long, value_name = "COUNT", env = "ANNALS_BATCH")]
    pub(crate) batch: Option<u64>,
    /// Count lines that are no events, and go on
    #[arg(long)]
    pub(crate) skip_bad: bool,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
}

/// Options of `export`.
#[derive(Debug, Args)]
pub(crate) struct Export {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(flatten)]
    pub(crate) selection: Selection,
}

/// Options of `append`.
#[derive(Debug, Args)]
pub(crate) struct Append {
    /// The stream of the event
    #[arg(required_unless_present = "batch")]
    pub(crate) stream: Option<String>,
    /// What happened
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "batch")]
    pub(crate) event_type: Option<String>,
    /// Its data: JSON, @ and the name of a file with it, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-", allow_hyphen_values = true)]
    pub(crate) data: Vec<String>,
    /// What is expected of the stream, else nothing is written
    #[arg(long, value_name = "any|none|exists|N", default_value = "any", value_parser = parse_expected)]
    pub(crate) expect: ExpectedVersion,
    /// A tag; may be given several times
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,
    /// Its id; repeating an append with the same id and --expect none or N adds nothing twice
    #[arg(long, value_name = "UUID")]
    pub(crate) id: Option<Uuid>,
    /// Its metadata
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// One atomic batch {"events":[…],"conditions":[…]} from a file, or - for standard input
    #[arg(long, value_name = "FILE|-", conflicts_with_all = SINGLE_EVENT)]
    pub(crate) batch: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
}

/// What describes one event, and so does not go with a batch.
const SINGLE_EVENT: [&str; 6] = ["stream", "event_type", "expect", "tag", "id", "metadata"];

/// Options of `read`.
#[derive(Debug, Args)]
pub(crate) struct Read {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// First event: a position (with --stream a version) or a time (RFC 3339)
    #[arg(long, value_name = "N|TIME", value_parser = parse_place)]
    pub(crate) from: Option<Place>,
    /// Last event: a position (with --stream a version) or a time (RFC 3339)
    #[arg(long, value_name = "N|TIME", value_parser = parse_place)]
    pub(crate) until: Option<Place>,
    /// Newest first; --from is then the upper end and --until the lower
    #[arg(long)]
    pub(crate) backwards: bool,
    /// At most this many events
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
    /// Afterwards, say on standard error how much was looked at
    #[arg(long)]
    pub(crate) explain: bool,
}

/// Options of `follow`.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Where to begin: at the start, at the end, or at a position (with --stream a version) [default: end]
    #[arg(long, value_name = "start|end|N", value_parser = parse_start)]
    pub(crate) from: Option<Start>,
    /// Follow as a member of this durable subscription: what was printed before is not printed again. It is created
    /// where there is none, and goes on where it stands where there is one. The store is open for writing meanwhile,
    /// so that no other process can append to it
    #[arg(long, value_name = "NAME")]
    pub(crate) subscription: Option<String>,
}

/// Options of `subscription`.
#[derive(Debug, Args)]
pub(crate) struct Subscription {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(subcommand)]
    pub(crate) action: SubscriptionAction,
}

/// What to do with durable subscriptions.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionAction {
    /// Create one; one that is there with the same settings stays as it is
    #[command(
        after_help = "Example:\n  annals subscription create invoicing --type OrderPlaced --from start --shared"
    )]
    Create(Box<SubscriptionCreate>),
    /// List all, and how they stand
    #[command(after_help = "Example:\n  annals subscription list --json")]
    List,
    /// Print how one stands
    #[command(after_help = "Example:\n  annals subscription show invoicing")]
    Show(SubscriptionName),
    /// Begin again from a place: what is before it counts as done, and what is parked behind it comes again
    #[command(after_help = "Example:\n  annals subscription reset invoicing --from 2026-11-22T00:00:00Z")]
    Reset {
        #[command(flatten)]
        name: SubscriptionName,
        /// From where: the start, the end, a position, or a time (RFC 3339)
        #[arg(long, value_name = "start|end|N|TIME", value_parser = parse_reset)]
        from: ResetTo,
    },
    /// Hand out nothing until it is resumed
    #[command(after_help = "Example:\n  annals subscription stop invoicing --reason 'the printer is broken'")]
    Stop {
        #[command(flatten)]
        name: SubscriptionName,
        /// Why
        #[arg(long, default_value = "stopped by hand")]
        reason: String,
    },
    /// Hand out events again
    #[command(after_help = "Example:\n  annals subscription resume invoicing")]
    Resume(SubscriptionName),
    /// List the parked events, and why they were parked
    #[command(after_help = "Example:\n  annals subscription parked invoicing --json")]
    Parked(SubscriptionName),
    /// Hand out parked events again, all of them or those at some positions
    #[command(after_help = "Example:\n  annals subscription replay invoicing --position 17")]
    Replay {
        #[command(flatten)]
        name: SubscriptionName,
        /// The position of a parked event; may be given several times [default: all]
        #[arg(long, value_name = "N")]
        position: Vec<u64>,
    },
    /// Be done with parked events
    #[command(after_help = "Example:\n  annals subscription discard invoicing --position 17")]
    Discard {
        #[command(flatten)]
        name: SubscriptionName,
        /// The position of a parked event; may be given several times
        #[arg(long, value_name = "N", required_unless_present = "all")]
        position: Vec<u64>,
        /// All that are parked
        #[arg(long, conflicts_with = "position")]
        all: bool,
    },
    /// Delete one, and all that is known of it; events stay
    #[command(after_help = "Example:\n  annals subscription delete invoicing")]
    Delete(SubscriptionName),
}

/// Which subscription.
#[derive(Debug, Args)]
pub(crate) struct SubscriptionName {
    /// Its name
    pub(crate) name: String,
}

/// Settings of a subscription that is created.
#[derive(Debug, Args)]
pub(crate) struct SubscriptionCreate {
    #[command(flatten)]
    pub(crate) name: SubscriptionName,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Where to begin: the start, the end, a position (with --stream a version), or a time (RFC 3339)
    #[arg(long, value_name = "start|end|N|TIME", default_value = "start", value_parser = parse_reset)]
    pub(crate) from: ResetTo,
    /// Have its members compete, instead of one member after the other
    #[arg(long)]
    pub(crate) shared: bool,
    /// What an event waits for: earlier ones of its stream, all earlier ones, or nothing
    #[arg(long, value_enum, default_value_t = OrderName::Stream)]
    pub(crate) order: OrderName,
    /// How many events a member may hold at a time
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    pub(crate) in_flight_max: u32,
    /// How long a member may hold an event, or not be heard of
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) handling_timeout: f64,
    /// How often an event is tried again before it is parked
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    pub(crate) retries: u32,
    /// The pause after the first failure; each further one doubles it
    #[arg(long, value_name = "SECONDS", default_value_t = 0.1)]
    pub(crate) backoff: f64,
    /// The longest pause
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub(crate) backoff_max: f64,
    /// How far it has come is the cursor of the same name, set by what its member appends: exactly once
    #[arg(long, conflicts_with_all = ["shared", "order"])]
    pub(crate) by_cursor: bool,
}

/// Options of `snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Snapshot {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(subcommand)]
    pub(crate) action: SnapshotAction,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub(crate) enum SnapshotAction {
    /// List those that can be used, the one written last first
    #[command(after_help = "Example:\n  annals snapshot list --json")]
    List {
        /// Only those of this stream
        #[arg(long)]
        stream: Option<String>,
    },
    /// Print a stream's snapshot: its state as it is, or with --json all that is known of it
    #[command(after_help = "Example:\n  annals snapshot show order-42 > state.json")]
    Show(SnapshotChoice),
    /// Delete a stream's snapshots; the state they hold is folded from the events then
    #[command(after_help = "Example:\n  annals snapshot delete order-42 --version 41")]
    Delete(SnapshotChoice),
}

/// Which snapshot.
#[derive(Debug, Args)]
pub(crate) struct SnapshotChoice {
    /// The stream that it is of
    pub(crate) stream: String,
    /// Its name; most have none
    #[arg(long, default_value = "")]
    pub(crate) name: String,
    /// The version that it is of [default: to show, the one written last; to delete, all]
    #[arg(long, value_name = "N")]
    pub(crate) version: Option<u64>,
}

/// Options of `streams`.
#[derive(Debug, Args)]
pub(crate) struct Streams {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// Only streams of this category: the part of the name before its first -
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// Only streams whose name begins with this
    #[arg(long)]
    pub(crate) prefix: Option<String>,
}

/// Options of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

/// Options of `man`.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command whose page is wanted
    pub(crate) command: Option<String>,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// The stream
    pub(crate) stream: String,
    /// The last event: a version or a time (RFC 3339)
    #[arg(long, value_name = "N|TIME", value_parser = parse_place)]
    pub(crate) until: Option<Place>,
    /// Begin with the first event, whatever snapshots there are
    #[arg(long)]
    pub(crate) no_snapshots: bool,
    /// Use the snapshots of this name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) name: String,
}

/// Options of `trace`.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// A correlation, or what caused events: the id of an event or of a command
    #[arg(value_name = "UUID")]
    pub(crate) id: Uuid,
    /// At most this many events
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub(crate) limit: usize,
}

/// Which events; without any of these, all.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct Selection {
    /// Only events of this stream
    #[arg(long)]
    pub(crate) stream: Option<String>,
    /// Only events of streams of this category: the part of the name before its first -
    #[arg(long)]
    pub(crate) category: Option<String>,
    /// Only events of this type, or of any of several
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) event_type: Vec<String>,
    /// Only events with this tag, or with all of several
    #[arg(long)]
    pub(crate) tag: Vec<String>,
    /// Only events of this conversation
    #[arg(long, value_name = "UUID")]
    pub(crate) correlation: Option<Uuid>,
}

impl Selection {
    /// What of the stream, or of everything, is selected: all of the options together.
    pub(crate) fn query(&self) -> Query<'_> {
        let item = QueryItem {
            types: self.event_type.iter().map(|event_type| event_type.as_str().into()).collect(),
            tags: self.tag.iter().map(|tag| tag.as_str().into()).collect(),
            category: self.category.as_deref().map(Into::into),
            correlation: self.correlation,
            ..QueryItem::new()
        };
        if item.is_all() { Query::all() } else { item.into() }
    }

    /// The whole selection, as a read.
    pub(crate) fn read(&self) -> annals::Read<'_> {
        let read = self.stream.as_deref().map_or_else(annals::Read::all, annals::Read::stream);
        annals::Read { query: self.query(), ..read }
    }
}

/// Settings of a store that is opened for writing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args)]
#[command(next_help_heading = "Settings of the store")]
pub(crate) struct Tuning {
    /// How the log is written
    #[arg(long, value_enum, env = "ANNALS_DISK")]
    pub(crate) disk: Option<DiskName>,
    /// Size of the first log segment
    #[arg(long, value_name = "BYTES", env = "ANNALS_SEGMENT_BYTES_FIRST")]
    pub(crate) segment_bytes_first: Option<u64>,
    /// Size up to which each next log segment doubles
    #[arg(long, value_name = "BYTES", env = "ANNALS_SEGMENT_BYTES_MAX")]
    pub(crate) segment_bytes_max: Option<u64>,
    /// The newest events that are kept in memory
    #[arg(long, value_name = "BYTES", env = "ANNALS_RECENT_BYTES")]
    pub(crate) recent_bytes: Option<u64>,
    /// Heads of streams that are remembered in memory
    #[arg(long, value_name = "COUNT", env = "ANNALS_CACHED_HEADS")]
    pub(crate) cached_heads: Option<usize>,
    /// Newest events whose ids are known, so that they are not appended twice
    #[arg(long, value_name = "COUNT", env = "ANNALS_ID_WINDOW")]
    pub(crate) id_window: Option<u64>,
    /// Compress batches larger than this
    #[arg(long, value_name = "BYTES", env = "ANNALS_COMPRESS_ABOVE_BYTES")]
    pub(crate) compress_above_bytes: Option<usize>,
    /// Snapshots that are kept of each stream and name
    #[arg(long, value_name = "COUNT", env = "ANNALS_SNAPSHOTS_KEPT")]
    pub(crate) snapshots_kept: Option<u32>,
}
