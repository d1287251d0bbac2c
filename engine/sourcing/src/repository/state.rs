//! How a state is had: from what is remembered, from a snapshot, and from events.

use super::{Handled, Inner, Repository};
use crate::boundary::{Boundary, Seen};
use crate::clock::Stopwatch;
use crate::codec::Codec;
use crate::decider::Decider;
use crate::decoding::{Decoded, UnknownType};
use crate::error::SourcingError;
use crate::stream::next;
use annals_types::{EventStore, Load, PassedOver, Position, Record, StoreError, Version};
use futures_core::Stream;
use std::time::Duration;

/// A state, and how far the events that made it were read.
#[derive(Clone)]
pub(crate) struct Held<T> {
    pub(crate) state: T,
    pub(crate) seen: Seen,
    pub(super) report: ReplayReport,
    /// Whether it was compared with the store since this command came.
    pub(crate) is_fresh: bool,
}

/// A state that was put together from events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replayed<T> {
    /// The state.
    pub state: T,
    /// The last version of the stream in it; `None`: it has no event, or it is about more than one stream.
    pub version: Option<Version>,
    /// Position of the last event in it.
    pub position: Option<Position>,
    /// What was done for it.
    pub report: ReplayReport,
}

/// What was done for a state.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReplayReport {
    /// Version of the snapshot that it began with; `None`: with nothing.
    pub snapshot: Option<Version>,
    /// Whether it began with a state that was remembered.
    pub from_cache: bool,
    /// Events that were applied.
    pub events: u64,
    /// Of those, the ones whose stored form was an older one.
    pub upcast: u64,
    /// Events of unknown types that were left out, or given raw.
    pub unknown: u64,
    /// Snapshots that might have been used and could not be.
    pub passed_over: Vec<PassedOver>,
    /// Why a snapshot that the policy asked for was not written when the state was loaded.
    pub snapshot_failure: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

impl<S: EventStore, D: Decider, C: Codec> Repository<S, D, C> {
    /// The state now.
    pub(super) async fn now(&self, boundary: &Boundary<'_>) -> Result<Held<D::State>, SourcingError> {
        let mut held = self.begin(boundary).await?;
        if !held.is_fresh {
            self.catch_up(boundary, &mut held).await?;
        }
        Ok(held)
    }

    /// What is remembered, or else what the store has.
    pub(crate) async fn begin(&self, boundary: &Boundary<'_>) -> Result<Held<D::State>, SourcingError> {
        if let (Some(cache), Some(stream)) = (&self.inner.cache, boundary.stream())
            && let Some(held) = cache.lock().get(stream)
        {
            let report = ReplayReport { from_cache: true, ..ReplayReport::default() };
            return Ok(Held { report, is_fresh: false, ..held.clone() });
        }
        self.stored(boundary).await
    }

    /// What the store has.
    pub(super) async fn stored(&self, boundary: &Boundary<'_>) -> Result<Held<D::State>, SourcingError> {
        match (boundary, &self.inner.snapshots) {
            (Boundary::Stream(stream), Some(_)) => self.load_stream(&Load::stream(&**stream)).await,
            _ => {
                let mut held = self.nothing();
                self.catch_up(boundary, &mut held).await?;
                Ok(held)
            }
        }
    }

    /// Puts a stream's state together, from a snapshot where there is one.
    pub(super) async fn load_stream(&self, load: &Load<'_>) -> Result<Held<D::State>, SourcingError> {
        let begun = Stopwatch::start();
        let mut load = load.clone();
        match &self.inner.snapshots {
            Some(snapshots) => load = load.name(snapshots.name.clone()).schemas(snapshots.schemas()),
            None => load = load.without_snapshots(),
        }
        let mut held = self.nothing();
        let mut loaded = self.inner.store.load(&load).await?;
        if let (Some(snapshot), Some(snapshots)) = (&loaded.snapshot, &self.inner.snapshots) {
            match snapshots.decode(snapshot) {
                Ok(state) => {
                    held.state = state;
                    held.seen = Seen::up_to(&load.stream, snapshot.version, snapshot.position);
                    held.report.snapshot = Some(snapshot.version);
                }
                Err(error) => {
                    let passed_over =
                        PassedOver { version: Some(snapshot.version), reason: error.to_string() };
                    loaded = self.inner.store.load(&load.clone().without_snapshots()).await?;
                    loaded.passed_over.push(passed_over);
                }
            }
        }
        held.report.passed_over = loaded.passed_over;
        self.fold(loaded.events, &mut held).await?;
        held.report.duration = begun.elapsed();
        held.is_fresh = true;
        Ok(held)
    }

    /// Applies what has come since.
    pub(crate) async fn catch_up(
        &self,
        boundary: &Boundary<'_>,
        held: &mut Held<D::State>,
    ) -> Result<(), SourcingError> {
        let begun = Stopwatch::start();
        let events = self.inner.store.read(&boundary.read(&held.seen)).await?;
        let (was_fresh, last) = (held.is_fresh, held.seen.last());
        self.fold(events, held).await?;
        // What is remembered, and behind which nothing is, may be of another store: a backup, or one that was made anew.
        if let Some(stream) =
            boundary.stream().filter(|_| !was_fresh && last.is_some() && held.seen.last() == last)
            && self.inner.store.head(stream).await?.map(|head| head.version) < held.seen.head(stream)
        {
            self.forget(stream);
            *held = Box::pin(self.stored(boundary)).await?;
        }
        held.report.duration += begun.elapsed();
        held.is_fresh = true;
        Ok(())
    }

    async fn fold<R>(&self, mut events: R, held: &mut Held<D::State>) -> Result<(), SourcingError>
    where
        R: Stream<Item = Result<Record, StoreError>> + Unpin + Send,
    {
        let Inner { decider, decoding, .. } = &*self.inner;
        while let Some(record) = next(&mut events).await {
            let record = record?;
            match decoding.decode(&record)? {
                Decoded::Event { event, was_upcast } => {
                    decider.evolve(&mut held.state, &event);
                    held.report.upcast += u64::from(was_upcast);
                    held.report.events += 1;
                }
                Decoded::Unknown => {
                    if decoding.unknown == UnknownType::Raw {
                        decider.evolve_raw(&mut held.state, &record);
                    }
                    held.report.unknown += 1;
                }
            }
            held.seen.note(&record);
        }
        Ok(())
    }

    pub(crate) fn remember(&self, boundary: &Boundary<'_>, held: &Held<D::State>) {
        if let (Some(cache), Some(stream)) = (&self.inner.cache, boundary.stream()) {
            let mut cache = cache.lock();
            // Another command may have remembered a later state meanwhile.
            if cache.peek(stream).is_none_or(|there| there.seen.head(stream) <= held.seen.head(stream)) {
                cache.put(stream.to_owned(), held.clone());
            }
        }
    }

    /// Remembers a state that was just appended to; what is not known to be whole is forgotten.
    pub(super) fn remember_appended(&self, boundary: &Boundary<'_>, state: &D::State, seen: Option<Seen>) {
        match (seen, boundary.stream()) {
            (Some(seen), _) => self.remember(boundary, &Held::appended(state.clone(), seen)),
            (None, Some(stream)) => self.forget(stream),
            (None, None) => {}
        }
    }

    /// Forgets what is remembered of a stream.
    pub(crate) fn forget(&self, stream: &str) {
        if let Some(cache) = &self.inner.cache {
            cache.lock().pop(stream);
        }
    }

    fn nothing(&self) -> Held<D::State> {
        let state = self.inner.decider.initial();
        Held { state, seen: Seen::default(), report: ReplayReport::default(), is_fresh: false }
    }
}

impl<T> Held<T> {
    /// A state that an append was made of.
    pub(crate) fn appended(state: T, seen: Seen) -> Self {
        Self { state, seen, report: ReplayReport::default(), is_fresh: true }
    }

    /// What a command led to that was done before.
    pub(super) fn repeated<E>(self, position: Position, attempts: u32) -> Handled<E, T> {
        let Self { state, report, .. } = self;
        Handled { events: Vec::new(), state, appended: None, repeated: Some(position), attempts, report }
    }

    pub(super) fn into_replayed(self, boundary: &Boundary<'_>) -> Replayed<T> {
        let version = boundary.stream().and_then(|stream| self.seen.head(stream));
        Replayed { state: self.state, version, position: self.seen.last(), report: self.report }
    }
}
