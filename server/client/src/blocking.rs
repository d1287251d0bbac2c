//! The client without async: each call waits for its answer, on the thread that calls.
//!
//! ```no_run
//! use annals_client::{Options, blocking::Client};
//! use annals_types::{NewEvent, Read};
//!
//! let client = Client::connect(Options::new("127.0.0.1:4777"))?;
//! client.append(NewEvent::new("order-42", "OrderPlaced").json(r#"{"total":12}"#))?;
//! for event in client.read(&Read::stream("order-42"))? {
//!     println!("{}", event?.event_type());
//! }
//! # Ok::<(), annals_client::ClientError>(())
//! ```

use crate::{ClientError, Options};
use annals_types::{
    Append, Appended, Cursor, Delivery, DeliveryId, Follow, Followed, Head, Load, Loaded, Nack, NewSnapshot,
    NewSubscription, Parked, ParkedChoice, PassedOver, Read, Record, Snapshot, Start, Stat,
    SubscriptionStatus, Verified, Version,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// A client of a server, as [`crate::Client`] is. Not to be used within a tokio runtime.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: Arc<Runtime>,
    client: crate::Client,
}

/// Methods that wait for those of the same name.
macro_rules! waits {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $returns:ty;)*) => {
        impl Client {$(
            $(#[$doc])*
            ///
            /// # Errors
            /// See [`ClientError`].
            pub fn $name(&self $(, $argument: $type)*) -> Result<$returns, ClientError> {
                self.runtime.block_on(self.client.$name($($argument),*))
            }
        )*}
    };
}

waits! {
    /// A stream's last event; `None`: it has none.
    fn head(stream: &str) -> Option<Head>;
    /// Where a cursor is; `None`: it was never set.
    fn cursor(name: &str) -> Option<Cursor>;
    /// All cursors, by name.
    fn cursors() -> Vec<(String, Cursor)>;
    /// Facts about the store.
    fn stat() -> Stat;
    /// Has the store checked, and tells how many events are checked, and of how many.
    fn verify(progress: impl FnMut(u64, u64)) -> Verified;
    /// Writes a snapshot of a stream at a version.
    fn write_snapshot(snapshot: &NewSnapshot<'_>, version: Version) -> ();
    /// A stream's snapshots, the one written last first, and those that cannot be used.
    fn snapshots(stream: &str) -> (Vec<Snapshot>, Vec<PassedOver>);
    /// Names of streams that have snapshots.
    fn snapshot_streams() -> Vec<String>;
    /// Deletes a stream's snapshots of a name: that of a version, or all.
    fn delete_snapshots(stream: &str, name: &str, version: Option<Version>) -> ();
    /// Creates a durable subscription; `false`: there was one with just these settings.
    fn create_subscription(new: &NewSubscription<'_>) -> bool;
    /// How a durable subscription stands.
    fn subscription(name: &str) -> SubscriptionStatus;
    /// How all durable subscriptions stand.
    fn subscriptions() -> Vec<SubscriptionStatus>;
    /// The parked events of a durable subscription.
    fn parked(subscription: &str) -> Vec<Parked>;
    /// Has parked events handed out again; how many there were.
    fn replay_parked(subscription: &str, which: &ParkedChoice) -> usize;
    /// Is done with parked events; how many there were.
    fn discard_parked(subscription: &str, which: &ParkedChoice) -> usize;
    /// Begins a durable subscription again from a place.
    fn reset_subscription(name: &str, start: Start) -> ();
    /// Has a durable subscription hand out nothing, for a reason.
    fn stop_subscription(name: &str, reason: &str) -> ();
    /// Has a durable subscription hand out events again.
    fn resume_subscription(name: &str) -> ();
    /// Deletes a durable subscription, and all that is known of it.
    fn delete_subscription(name: &str) -> ();
    /// Names of the server's stores that this client may use.
    fn stores() -> Vec<String>;
    /// Creates a store.
    fn create_store(name: &str) -> ();
    /// Drops a store, with all that is in it.
    fn drop_store(name: &str) -> ();
}

impl Client {
    /// Connects to a server; one thread has the connection.
    ///
    /// # Errors
    /// See [`crate::Client::connect`].
    pub fn connect(options: Options) -> Result<Self, ClientError> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("annals-client").enable_all().build();
        let runtime =
            runtime.map_err(|error| ClientError::Options(format!("a thread for the connection: {error}")))?;
        let client = runtime.block_on(crate::Client::connect(options))?;
        Ok(Self { runtime: Arc::new(runtime), client })
    }

    /// Appends a batch, and waits until it is durable.
    ///
    /// # Errors
    /// See [`crate::Client::append`].
    pub fn append<'a>(&self, append: impl Into<Append<'a>>) -> Result<Appended, ClientError> {
        self.runtime.block_on(self.client.append(append))
    }

    /// Begins a pipeline: see [`crate::Client::pipeline`].
    ///
    /// # Errors
    /// See [`crate::Client::pipeline`].
    pub fn pipeline(&self) -> Result<Pipeline, ClientError> {
        let pipeline = self.runtime.block_on(self.client.pipeline())?;
        Ok(Pipeline { runtime: Arc::clone(&self.runtime), pipeline })
    }

    /// Reads a stream, or everything, up to what is durable now.
    ///
    /// # Errors
    /// See [`crate::Client::read`].
    pub fn read(&self, read: &Read<'_>) -> Result<Events, ClientError> {
        Ok(self.events(self.runtime.block_on(self.client.read(read))?))
    }

    /// Loads a stream's state: a snapshot, if there is one that can be used, and the events behind it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn load(&self, load: &Load<'_>) -> Result<Loaded<Events>, ClientError> {
        let Loaded { snapshot, events, passed_over } = self.runtime.block_on(self.client.load(load))?;
        Ok(Loaded { snapshot, events: self.events(events), passed_over })
    }

    fn events(&self, events: crate::Events) -> Events {
        Events { runtime: Arc::clone(&self.runtime), events }
    }

    /// All streams with their last events, in no particular order.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn streams(&self) -> Result<Heads, ClientError> {
        let heads = self.runtime.block_on(self.client.streams())?;
        Ok(Heads { runtime: Arc::clone(&self.runtime), heads })
    }

    /// Follows a stream, or what a query selects, or everything.
    ///
    /// # Errors
    /// See [`crate::Client::follow`].
    pub fn follow(&self, follow: &Follow<'_>) -> Result<Following, ClientError> {
        let following = self.runtime.block_on(self.client.follow(follow))?;
        Ok(Following { runtime: Arc::clone(&self.runtime), following })
    }

    /// Becomes a member of a durable subscription.
    ///
    /// # Errors
    /// See [`crate::Client::join`].
    pub fn join(&self, subscription: &str) -> Result<Deliveries, ClientError> {
        let deliveries = self.runtime.block_on(self.client.join(subscription))?;
        Ok(Deliveries { runtime: Arc::clone(&self.runtime), deliveries })
    }
}

/// Appends over one connection, decided in their order: see [`crate::Pipeline`].
#[derive(Clone, Debug)]
pub struct Pipeline {
    runtime: Arc<Runtime>,
    pipeline: crate::Pipeline,
}

impl Pipeline {
    /// Sends a batch, whose outcome is waited for later.
    ///
    /// # Errors
    /// See [`crate::Pipeline::begin`].
    pub fn begin<'a>(&self, append: impl Into<Append<'a>>) -> Result<PendingAppend, ClientError> {
        let pending = self.runtime.block_on(self.pipeline.begin(append))?;
        Ok(PendingAppend { runtime: Arc::clone(&self.runtime), pending })
    }
}

/// An append on its way.
#[derive(Debug)]
#[must_use = "an append is known to be durable only once its outcome says so"]
pub struct PendingAppend {
    runtime: Arc<Runtime>,
    pending: crate::PendingAppend,
}

impl PendingAppend {
    /// Waits for what becomes of it.
    ///
    /// # Errors
    /// See [`crate::Client::append`].
    pub fn wait(self) -> Result<Appended, ClientError> {
        self.runtime.block_on(self.pending.outcome())
    }
}

/// The events of a read, in its order.
#[derive(Debug)]
pub struct Events {
    runtime: Arc<Runtime>,
    events: crate::Events,
}

impl Iterator for Events {
    type Item = Result<Record, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.events.at_hand() {
            Some(record) => Some(Ok(record)),
            None => self.runtime.block_on(self.events.next()),
        }
    }
}

/// All streams with their last events.
#[derive(Debug)]
pub struct Heads {
    runtime: Arc<Runtime>,
    heads: crate::Heads,
}

impl Iterator for Heads {
    type Item = Result<(String, Head), ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.heads.next())
    }
}

/// What is followed, as it comes: an iterator that blocks.
#[derive(Debug)]
pub struct Following {
    runtime: Arc<Runtime>,
    following: crate::Following,
}

impl Following {
    /// What comes within this time. `None`: nothing did, or nothing more will ([`Self::has_ended`]).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Followed>, ClientError> {
        within(&self.runtime, patience, self.following.next())
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.following.has_ended()
    }
}

impl Iterator for Following {
    type Item = Result<Followed, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.following.next())
    }
}

/// A member of a durable subscription, and what it is handed.
#[derive(Debug)]
pub struct Deliveries {
    runtime: Arc<Runtime>,
    deliveries: crate::Deliveries,
}

impl Deliveries {
    /// The event that comes next for this member, within this time. `None`: there was none, or there will be none
    /// ([`Self::has_ended`]).
    ///
    /// # Errors
    /// See [`crate::Deliveries::next`].
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Delivery>, ClientError> {
        within(&self.runtime, patience, self.deliveries.next())
    }

    /// Whether it is no member any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.deliveries.has_ended()
    }

    /// Events are done with: all of these, or none.
    ///
    /// # Errors
    /// See [`crate::Deliveries::ack_each`].
    pub fn ack_each(&self, ids: &[DeliveryId]) -> Result<(), ClientError> {
        self.runtime.block_on(self.deliveries.ack_each(ids))
    }

    /// An event is done with.
    ///
    /// # Errors
    /// See [`crate::Deliveries::ack_each`].
    pub fn ack(&self, id: DeliveryId) -> Result<(), ClientError> {
        self.ack_each(&[id])
    }

    /// An event could not be handled.
    ///
    /// # Errors
    /// See [`crate::Deliveries::ack_each`].
    pub fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), ClientError> {
        self.runtime.block_on(self.deliveries.nack(id, nack))
    }

    /// The member needs more time.
    ///
    /// # Errors
    /// See [`crate::Deliveries::ack_each`].
    pub fn renew(&self) -> Result<(), ClientError> {
        self.runtime.block_on(self.deliveries.renew())
    }
}

/// What comes within a time.
fn within<T>(
    runtime: &Runtime,
    patience: Duration,
    next: impl Future<Output = Option<Result<T, ClientError>>>,
) -> Result<Option<T>, ClientError> {
    let next = runtime.block_on(async { tokio::time::timeout(patience, next).await });
    next.unwrap_or_default().transpose()
}
