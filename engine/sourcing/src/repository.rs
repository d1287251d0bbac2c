//! Load, decide, append, and again where others were quicker.

mod attempt;
mod state;

pub(crate) use attempt::is_behind;
pub(crate) use state::Held;
pub use state::{ReplayReport, Replayed};

use crate::boundary::Boundary;
use crate::codec::{Codec, Json};
use crate::context::Context;
use crate::decider::Decider;
use crate::decoding::{Decoding, UnknownType};
use crate::error::{HandleError, SourcingError};
use crate::event::DomainEvent;
use crate::pause::Pauses;
use crate::snapshots::{SnapshotPolicy, Snapshots};
use crate::upcast::UpcastError;
use annals_types::{Append, Appended, EventStore, Load, NewEvent, NewSnapshot, Position, Version};
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// Streams of one kind, or what queries select, and what decides about them. Cheap to clone.
///
/// Promise: a command is decided on a state that nothing was added to when its events were appended; all of its events are there, or none.
pub struct Repository<S, D: Decider, C = Json> {
    inner: Arc<Inner<S, D, C>>,
}

struct Inner<S, D: Decider, C> {
    store: S,
    decider: D,
    decoding: Decoding<D::Event, C>,
    snapshots: Option<Snapshots<D::State>>,
    attempts_max: u32,
    pauses: Pauses,
    cache: Option<Mutex<LruCache<String, Held<D::State>>>>,
}

/// How often a command is tried where others are quicker, unless said otherwise.
pub const ATTEMPTS_MAX: u32 = 25;

/// What a command led to.
#[derive(Clone, Debug)]
pub struct Handled<E, T> {
    /// Its events, in order; none: it was allowed, and nothing happened.
    pub events: Vec<E>,
    /// The state with them.
    pub state: T,
    /// What the append became; `None`: there were no events.
    pub appended: Option<Appended>,
    /// Where the first event is that the same command led to before, where it is done only once ([`Context::once`]): then this is no event, and
    /// the state is that of now.
    pub repeated: Option<Position>,
    /// How often it was tried.
    pub attempts: u32,
    /// What was replayed for the state that was decided on.
    pub report: ReplayReport,
}

impl<E, T> Handled<E, T> {
    /// The position of the last of its events: whoever wants to read them in a read model waits until that has come so far. `None`: there are none.
    #[must_use]
    pub fn last_position(&self) -> Option<Position> {
        let appended = self.appended.as_ref().filter(|_| !self.events.is_empty())?;
        appended.positions.end.get().checked_sub(1).map(Position::new)
    }
}

impl<S: EventStore, D: Decider> Repository<S, D> {
    /// Of this store and decider, events in JSON.
    ///
    /// # Errors
    /// The upcasts of the decider's events are not complete.
    pub fn new(store: S, decider: D) -> Result<Self, UpcastError> {
        Self::in_codec(store, decider, Json)
    }
}

impl<S: EventStore, D: Decider, C: Codec> Repository<S, D, C> {
    /// Of this store and decider, events in this codec.
    ///
    /// # Errors
    /// The upcasts of the decider's events are not complete.
    pub fn in_codec(store: S, decider: D, codec: C) -> Result<Self, UpcastError> {
        let inner = Inner {
            store,
            decider,
            decoding: Decoding::new(codec)?,
            snapshots: None,
            attempts_max: ATTEMPTS_MAX,
            pauses: Pauses::conflicts(),
            cache: None,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    fn set(mut self, change: impl FnOnce(&mut Inner<S, D, C>)) -> Self {
        change(Arc::get_mut(&mut self.inner).expect("it is set up before it is shared"));
        self
    }

    /// Keeps snapshots of states, each of one stream: what is decided about several streams or a query has none.
    ///
    /// # Panics
    /// As all settings: when the repository was cloned before.
    #[must_use]
    pub fn snapshots(self, snapshots: Snapshots<D::State>) -> Self {
        self.set(|inner| inner.snapshots = Some(snapshots))
    }

    /// Remembers the states of this many streams, the ones used last; of decisions about several streams or a query, nothing. Commands are decided on them without a look at the store: what has come since
    /// makes the append be refused, and the decision be made again. A refusal is never given on a remembered state alone.
    #[must_use]
    pub fn cache(self, streams: NonZeroUsize) -> Self {
        self.set(|inner| inner.cache = Some(Mutex::new(LruCache::new(streams))))
    }

    /// Sets how often a command is tried while others are quicker: at least once. Default: [`ATTEMPTS_MAX`].
    #[must_use]
    pub fn attempts_max(self, attempts: u32) -> Self {
        self.set(|inner| inner.attempts_max = attempts.max(1))
    }

    /// Sets what becomes of events of types that the decider doesn't have. Default: they are errors.
    #[must_use]
    pub fn unknown(self, unknown: UnknownType) -> Self {
        self.set(|inner| inner.decoding.unknown = unknown)
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.inner.store
    }

    /// The decider.
    #[must_use]
    pub fn decider(&self) -> &D {
        &self.inner.decider
    }

    /// The state now; the initial one where there is no event.
    ///
    /// Where [`SnapshotPolicy::AfterReplayed`] asks for it, a snapshot is written.
    ///
    /// # Errors
    /// The store fails, or an event cannot be read.
    pub async fn load(&self, boundary: impl Into<Boundary<'_>>) -> Result<Replayed<D::State>, SourcingError> {
        let boundary = boundary.into();
        let held = self.now(&boundary).await?;
        self.remember(&boundary, &held);
        let mut replayed = held.into_replayed(&boundary);
        if let (Some(stream), Some(version), Some(snapshots)) =
            (boundary.stream(), replayed.version, &self.inner.snapshots)
            && let SnapshotPolicy::AfterReplayed(count) = snapshots.policy
            && replayed.report.events > count
        {
            // The state is there all the same: on a store that only reads, or has no room.
            if let Err(error) = self.write_snapshot(snapshots, stream, version, &replayed.state).await {
                replayed.report.snapshot_failure = Some(error.to_string());
            }
        }
        Ok(replayed)
    }

    /// The state now, of something that there is.
    ///
    /// # Errors
    /// [`SourcingError::NotFound`] where the stream has no event; otherwise as [`load`](Self::load).
    pub async fn find(&self, stream: &str) -> Result<Replayed<D::State>, SourcingError> {
        let replayed = self.load(stream).await?;
        if replayed.version.is_none() {
            return Err(SourcingError::NotFound { stream: stream.to_owned() });
        }
        Ok(replayed)
    }

    /// The state of a stream as it was: at a version, a position, or a time, from the newest snapshot that is not behind that, or without
    /// snapshots. The state that is remembered plays no part.
    ///
    /// ```
    /// # use annals_types::{Load, Version};
    /// let then = Load::stream("account-7").until(Version::new(41)).without_snapshots();
    /// ```
    ///
    /// # Errors
    /// The store fails, or an event cannot be read.
    pub async fn replay(&self, load: &Load<'_>) -> Result<Replayed<D::State>, SourcingError> {
        let held = self.load_stream(load).await?;
        Ok(held.into_replayed(&Boundary::Stream(load.stream.clone())))
    }

    /// Writes a snapshot of the state now, whatever the policy. `None`: there is no event to have a state of.
    ///
    /// # Errors
    /// The store fails, or an event cannot be read.
    ///
    /// # Panics
    /// Where nothing says how states are written: see [`snapshots`](Self::snapshots).
    pub async fn snapshot(&self, stream: &str) -> Result<Option<Version>, SourcingError> {
        let snapshots = self.inner.snapshots.as_ref().expect("the repository was told how to keep snapshots");
        let replayed = self.load(stream).await?;
        let Some(version) = replayed.version else { return Ok(None) };
        self.write_snapshot(snapshots, stream, version, &replayed.state).await?;
        Ok(Some(version))
    }

    pub(crate) fn codec(&self) -> &C {
        &self.inner.decoding.codec
    }

    pub(crate) fn pauses(&self) -> Pauses {
        self.inner.pauses
    }

    /// Has a command decided, and its events appended.
    ///
    /// # Errors
    /// It is refused, or others were quicker each time, or the store fails.
    pub async fn handle(
        &self,
        boundary: impl Into<Boundary<'_>>,
        command: &D::Command,
        context: &Context,
    ) -> Result<Handled<D::Event, D::State>, HandleError<D::Error>> {
        self.transact(boundary, context, |state| self.inner.decider.decide(state, command)).await
    }

    /// The same for a command that was made for one version of a stream, the last one when somebody looked (as HTTP's `If-Match`); `None`: for a stream
    /// without events. Where the stream is at another version, nothing is done.
    ///
    /// # Errors
    /// [`HandleError::OutOfDate`] where it is at another one; otherwise as [`handle`](Self::handle).
    pub async fn handle_at(
        &self,
        stream: &str,
        version: Option<Version>,
        command: &D::Command,
        context: &Context,
    ) -> Result<Handled<D::Event, D::State>, HandleError<D::Error>> {
        let decide = |state: &D::State| self.inner.decider.decide(state, command);
        self.attempt(&stream.into(), Some(version), context, decide, |append| append).await
    }

    /// What a command would lead to now. Nothing is appended.
    ///
    /// # Errors
    /// It would be refused, or the store fails.
    pub async fn dry_run(
        &self,
        boundary: impl Into<Boundary<'_>>,
        command: &D::Command,
    ) -> Result<Handled<D::Event, D::State>, HandleError<D::Error>> {
        let boundary = boundary.into();
        let held = self.now(&boundary).await?;
        let events = self.inner.decider.decide(&held.state, command).map_err(HandleError::Refused)?;
        let (_, state) = self.outcome(&boundary, &held.state, &events, &Context::default())?;
        Ok(Handled { events, state, appended: None, repeated: None, attempts: 0, report: held.report })
    }

    /// The same for a decision that is made here: it may be asked for several times.
    ///
    /// # Errors
    /// As those of [`handle`](Self::handle).
    pub async fn transact<F>(
        &self,
        boundary: impl Into<Boundary<'_>>,
        context: &Context,
        decide: F,
    ) -> Result<Handled<D::Event, D::State>, HandleError<D::Error>>
    where
        F: Fn(&D::State) -> Result<Vec<D::Event>, D::Error> + Send + Sync,
    {
        self.transact_with(boundary, context, decide, |append| append).await
    }

    /// The same, with more in the append: conditions, or a cursor that it moves. It is one batch, so all holds or nothing is done.
    ///
    /// A condition of yours that does not hold, or a cursor that is not where it was expected, is no conflict that another decision would mend: it is an error at once.
    /// What you add is appended where the decision leads to no event, too.
    ///
    /// # Errors
    /// As those of [`handle`](Self::handle).
    pub async fn transact_with<F, W>(
        &self,
        boundary: impl Into<Boundary<'_>>,
        context: &Context,
        decide: F,
        with: W,
    ) -> Result<Handled<D::Event, D::State>, HandleError<D::Error>>
    where
        F: Fn(&D::State) -> Result<Vec<D::Event>, D::Error> + Send + Sync,
        W: for<'a> Fn(Append<'a>) -> Append<'a> + Send + Sync,
    {
        self.attempt(&boundary.into(), None, context, decide, with).await
    }

    /// The event to be stored.
    pub(crate) fn new_event(
        &self,
        boundary: &Boundary<'_>,
        event: &D::Event,
        context: &Context,
    ) -> Result<NewEvent<'static>, SourcingError> {
        let event_type = event.event_type();
        let place = self.inner.decider.place(event);
        let own = boundary.stream();
        let stream = match (place.stream, own) {
            (Some(stream), _) => stream.into_owned(),
            (None, Some(own)) => own.to_owned(),
            (None, None) => return Err(SourcingError::NoPlace { event_type: event_type.name }),
        };
        let data = event.encode(&self.inner.decoding.codec).map_err(|error| SourcingError::Unwritable {
            what: format!("an event of type {:?}", event_type.name),
            reason: error.to_string(),
        })?;
        let mut new = NewEvent::new(stream, event_type.name).binary(data);
        new.content = C::CONTENT;
        new.tags = place.tags;
        Ok(match place.sagas {
            Some(sagas) => context.clone().sagas(sagas).put(new, event_type.schema),
            None => context.put(new, event_type.schema),
        })
    }

    async fn write_snapshot(
        &self,
        snapshots: &Snapshots<D::State>,
        stream: &str,
        version: Version,
        state: &D::State,
    ) -> Result<(), SourcingError> {
        let snapshot = new_snapshot(snapshots, stream, state)?;
        Ok(self.inner.store.write_snapshot(&snapshot, version).await?)
    }
}

fn new_snapshot<T>(
    snapshots: &Snapshots<T>,
    stream: &str,
    state: &T,
) -> Result<NewSnapshot<'static>, SourcingError> {
    let data = snapshots.encode(state).map_err(|error| SourcingError::Unwritable {
        what: format!("the state of {stream:?}"),
        reason: error.to_string(),
    })?;
    Ok(NewSnapshot {
        stream: stream.to_owned().into(),
        name: snapshots.name.clone().into(),
        schema: snapshots.schema,
        data: data.into(),
    })
}

impl<S, D: Decider, C> Clone for Repository<S, D, C> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<S, D: Decider, C> std::fmt::Debug for Repository<S, D, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("snapshots", &self.inner.snapshots).finish_non_exhaustive()
    }
}
