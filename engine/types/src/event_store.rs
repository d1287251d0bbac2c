//! What applications need of a store, wherever it is: code that is written to it runs on an embedded store and on a server.

use crate::append::{Append, Appended};
use crate::cursor::Cursor;
use crate::error::{AppendError, Head, ReadError, SubscriptionError};
use crate::event::Record;
use crate::follow::{Follow, Followed};
use crate::position::Version;
use crate::read::Read;
use crate::snapshot::{Load, NewSnapshot, PassedOver, Snapshot};
use crate::subscription::{Delivery, DeliveryId, Nack, NewSubscription, Parked, ParkedChoice};
use futures_core::Stream;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A store, wherever it is. Cheap to clone; all clones are the same store.
///
/// An embedded store does what has to be read from the disk on the thread that polls, and an append there may have to wait
/// for the device before it first yields: as its own methods do. Promises and errors are those of the methods of the same names.
///
/// ```
/// use annals_types::{Append, EventStore, ExpectedVersion, NewEvent, StoreError};
///
/// async fn open_account<S: EventStore>(store: &S, number: u32) -> Result<bool, StoreError> {
///     let stream = format!("account-{number}");
///     let opened = NewEvent::new(stream.as_str(), "AccountOpened");
///     match store.append(Append::from(opened).expect(stream.as_str(), ExpectedVersion::NoStream)).await {
///         Ok(_) => Ok(true),
///         Err(error) if error.is_conflict() => Ok(false),
///         Err(error) => Err(error),
///     }
/// }
/// ```
pub trait EventStore: Clone + Send + Sync + 'static {
    /// The events of a read.
    type Events: Stream<Item = Result<Record, StoreError>> + Unpin + Send + 'static;
    /// What is followed.
    type Following: Stream<Item = Result<Followed, StoreError>> + Unpin + Send + 'static;
    /// A member of a durable subscription.
    type Member: SubscriptionMember;

    /// Appends a batch: all of it or nothing, durable once this is ready.
    fn append(&self, append: Append<'_>) -> impl Future<Output = Result<Appended, StoreError>> + Send;

    /// Reads up to what is durable now.
    fn read(&self, read: &Read<'_>) -> impl Future<Output = Result<Self::Events, StoreError>> + Send;

    /// Loads a stream's state: a snapshot, and the events behind it.
    fn load(&self, load: &Load<'_>) -> impl Future<Output = Result<Loaded<Self::Events>, StoreError>> + Send;

    /// Follows what is there, and then what becomes durable.
    fn follow(&self, follow: &Follow<'_>)
    -> impl Future<Output = Result<Self::Following, StoreError>> + Send;

    /// A stream's last event; `None`: it has none.
    fn head(&self, stream: &str) -> impl Future<Output = Result<Option<Head>, StoreError>> + Send;

    /// Where a cursor is; `None`: it was never set.
    fn cursor(&self, name: &str) -> impl Future<Output = Result<Option<Cursor>, StoreError>> + Send;

    /// Writes a snapshot of a stream at a version.
    fn write_snapshot(
        &self,
        snapshot: &NewSnapshot<'_>,
        version: Version,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Creates a durable subscription; `false`: there was one with just these settings.
    fn create_subscription(
        &self,
        new: &NewSubscription<'_>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The parked events of a durable subscription, in position order.
    fn parked(&self, subscription: &str) -> impl Future<Output = Result<Vec<Parked>, StoreError>> + Send;

    /// Has parked events handed out again, as if for the first time; how many there were.
    fn replay_parked(
        &self,
        subscription: &str,
        which: &ParkedChoice,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Becomes a member of a durable subscription.
    fn join(&self, subscription: &str) -> impl Future<Output = Result<Self::Member, StoreError>> + Send;
}

/// A member of a durable subscription, wherever its store is. Dropped, it is none any more.
pub trait SubscriptionMember: Send + Sync + 'static {
    /// The event that comes next for this member; it waits for it. `None`: nothing more will come.
    fn next_delivery(&mut self) -> impl Future<Output = Option<Result<Delivery, StoreError>>> + Send;

    /// Events are done with: all of these, or none.
    fn ack(&self, ids: &[DeliveryId]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// An event could not be handled.
    fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The member needs more time.
    fn renew(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A stream's state: a snapshot, if there is one that can be used, and the events behind it.
pub struct Loaded<E> {
    /// The state to begin with; `None`: begin with nothing.
    pub snapshot: Option<Snapshot>,
    /// The events that are not folded yet, in order.
    pub events: E,
    /// Snapshots that might have been used and could not be.
    pub passed_over: Vec<PassedOver>,
}

impl<E> fmt::Debug for Loaded<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.snapshot.as_ref().map(|snapshot| snapshot.version);
        f.debug_struct("Loaded").field("from", &version).finish_non_exhaustive()
    }
}

/// Why something was not done, wherever the store is.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// An append was refused, or failed.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A read failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Something about a durable subscription was not done.
    #[error(transparent)]
    Subscription(#[from] SubscriptionError),
    /// The server does not do it, or cannot be reached. Nothing was done.
    #[error("{reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// Whether the same may do later.
        is_passing: bool,
    },
    /// The server's answer was lost: it may have been done, or not.
    #[error("{reason}")]
    Unknown {
        /// What became of the answer.
        reason: String,
    },
}

impl StoreError {
    /// Whether a condition of the append did not hold: it may hold on what is there now.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let (Self::Append(error) | Self::Subscription(SubscriptionError::Append(error))) = self else {
            return false;
        };
        matches!(
            error,
            AppendError::WrongVersion { .. }
                | AppendError::QueryMatched { .. }
                | AppendError::WrongCursor { .. }
        )
    }

    /// Whether it may have been done all the same. An append with ids of its own can be repeated safely, by
    /// [`Append::again`](crate::Append::again), unless it was too late for that already.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::Append(AppendError::UnknownOutcome { .. } | AppendError::TooLateToRepeat { .. })
        )
    }
}

/// A stream whose errors are told as those of any store.
#[derive(Debug)]
pub struct AsStoreStream<S>(S);

impl<S> AsStoreStream<S> {
    /// Of this stream.
    pub fn new(stream: S) -> Self {
        Self(stream)
    }
}

impl<S, T, E> Stream for AsStoreStream<S>
where
    S: Stream<Item = Result<T, E>> + Unpin,
    E: Into<StoreError>,
{
    type Item = Result<T, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.0).poll_next(context).map(|item| item.map(|item| item.map_err(Into::into)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}
