//! Projections: read models that follow the log.

mod handlers;
mod model;
mod question;
mod running;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use handlers::Handlers;
pub use model::{Applied, Cursored, Handling, InMemory, Live, ModelError, ParkedEvent, Parking, ReadModel};
pub use running::{ProjectionState, ProjectionStatus, Running};
#[cfg(feature = "sqlite")]
pub use sqlite::{Schema, SqliteModel};

use self::question::{Question, asked};
use crate::happening::{Happening, Watcher};
use crate::pause::{ENDED, Pauses};
use crate::stream::{next, ready};
use crate::upcast::UpcastError;
use annals_types::{EventStore, Follow, Followed, Position, Query, Read, Record, StoreError};
use std::fmt;
use std::time::Duration;
use tokio::sync::mpsc;

/// What becomes of an event whose handler keeps failing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFailure {
    /// It is parked: set aside, told, kept, and it can be tried again. What comes behind it goes on.
    #[default]
    Park,
    /// The projection stands still there.
    Suspend,
}

/// Keeps a read model up to date with the log.
///
/// Promise: each event that matters to it is handled in the order of the store, none is left out without a trace, and where the model keeps its progress
/// with itself ([`InMemory`], `SqliteModel`) each is in it exactly once. Of an event that fails, nothing is in the model; it is tried again,
/// and then parked, or everything stands still.
pub struct Projector<S, R: ReadModel> {
    store: S,
    model: R,
    handlers: Handlers<R::Model>,
    query: Query<'static>,
    batch_max: usize,
    retries_max: u32,
    pauses: Pauses,
    on_failure: OnFailure,
    watcher: Watcher,
    /// What the model has noted that it has come to, since following began.
    passed: Option<Position>,
    /// What is asked of it while it runs.
    questions: Option<mpsc::Receiver<Question>>,
    /// How often following has ended, one time after the other.
    ended: u32,
}

/// Why a projection does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What keeps the model failed.
    #[error("the read model cannot be kept: {0}")]
    Model(ModelError),
    /// An event failed, and the projection is to stand still where one does.
    #[error("the event at position {position} failed {failures} times; the last time: {reason}")]
    Suspended {
        /// The event.
        position: Position,
        /// How often it was tried.
        failures: u32,
        /// What its handler said.
        reason: String,
    },
    /// The upcasts of what it handles are not complete.
    #[error(transparent)]
    Upcast(#[from] UpcastError),
}

/// A model that is kept in a store fails as that does.
fn of_model(error: ModelError) -> ProjectionError {
    match error.downcast::<StoreError>() {
        Ok(error) => ProjectionError::Store(*error),
        Err(error) => ProjectionError::Model(error),
    }
}

impl<S: EventStore, R: ReadModel> Projector<S, R> {
    /// Keeps this model up to date, by these handlers.
    ///
    /// # Errors
    /// The upcasts of what is handled are not complete.
    pub fn new(store: S, model: R, handlers: Handlers<R::Model>) -> Result<Self, UpcastError> {
        let query = handlers.query()?;
        Ok(Self {
            store,
            model,
            handlers,
            query,
            batch_max: 1_000,
            retries_max: 3,
            pauses: Pauses { first: Duration::from_millis(50), longest: Duration::from_secs(5) },
            on_failure: OnFailure::default(),
            watcher: Watcher::default(),
            passed: None,
            questions: None,
            ended: 0,
        })
    }

    /// Sets which events it follows: fewer than those that it has handlers for, such as those of a category.
    #[must_use]
    pub fn query(mut self, query: impl Into<Query<'static>>) -> Self {
        self.query = query.into();
        self
    }

    /// Sets how many events are handled together, and kept together: 1 to 10,000. Default: 1,000.
    #[must_use]
    pub fn batch_max(mut self, events: usize) -> Self {
        self.batch_max = events.clamp(1, 10_000);
        self
    }

    /// Sets how often an event that fails is tried again, and the pauses before that. Default: three times, after 50, 100 and 200 ms.
    #[must_use]
    pub fn retries(mut self, retries_max: u32, pauses: Pauses) -> Self {
        (self.retries_max, self.pauses) = (retries_max, pauses);
        self
    }

    /// Sets what becomes of an event that keeps failing. Default: it is parked.
    #[must_use]
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }

    /// Sets who is told what happens.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&Happening<'_>) + Send + Sync + 'static) -> Self {
        self.watcher = Watcher::new(watch);
        self
    }

    /// The model.
    pub fn model(&mut self) -> &mut R {
        &mut self.model
    }

    /// Handles what there is now.
    ///
    /// # Errors
    /// The store or the model fails, or an event does and everything is to stand still then.
    pub async fn catch_up(&mut self) -> Result<(), ProjectionError> {
        let mut following = self.begin().await?;
        while !self.step(&mut following).await? {}
        Ok(())
    }

    /// Empties the model and handles everything again.
    ///
    /// # Errors
    /// As those of [`catch_up`](Self::catch_up).
    pub async fn rebuild(&mut self) -> Result<(), ProjectionError> {
        self.model.reset(None).await.map_err(of_model)?;
        self.catch_up().await
    }

    /// Handles what there is and what will come. It may be dropped at any moment; see [`spawn`](Self::spawn) for one that can be paused.
    ///
    /// # Errors
    /// As those of [`catch_up`](Self::catch_up).
    pub async fn run(&mut self) -> Result<(), ProjectionError> {
        let mut following = self.begin().await?;
        loop {
            self.step(&mut following).await?;
        }
    }

    /// The events that are parked, in the order of the store.
    ///
    /// # Errors
    /// The model fails.
    pub async fn parked(&mut self) -> Result<Vec<ParkedEvent>, ProjectionError> {
        self.model.parked().await.map_err(of_model)
    }

    /// Has what is parked handled now; how many events could be, and stay parked no more.
    ///
    /// # Errors
    /// The store or the model fails.
    pub async fn replay_parked(&mut self) -> Result<usize, ProjectionError> {
        let mut handled = 0;
        for parked in self.parked().await? {
            let mut event = self.store.read(&Read::all().from(parked.position).limit(1)).await?;
            let Some(event) = next(&mut event).await.transpose()? else { continue };
            let Self { model, handlers, .. } = self;
            let handle = |model: &mut R::Model, record: &Record| handlers.handle(model, record);
            let applied = model.apply_parked(&event, &handle).await.map_err(of_model)?;
            handled += applied.events;
        }
        Ok(handled)
    }

    pub(crate) async fn begin(&mut self) -> Result<S::Following, ProjectionError> {
        let position = self.model.position().await.map_err(of_model)?;
        self.watcher.tell(&Happening::Started { after: position });
        self.passed = position;
        let mut follow = Follow::query(self.query.clone());
        if let Some(position) = position {
            follow = follow.after(position);
        }
        Ok(self.store.follow(&follow).await?)
    }

    /// Handles what is there, once something is; whether all that there was is handled.
    pub(crate) async fn step(&mut self, following: &mut S::Following) -> Result<bool, ProjectionError> {
        let mut events = Vec::new();
        let mut caught_up = None;
        let mut next = None;
        let items = loop {
            // Nothing that has come is lost where a question comes first.
            tokio::select! {
                question = asked(&mut self.questions) => self.answer(question).await,
                items = ready(following, self.batch_max) => break items,
            }
        };
        if items.is_empty() {
            // Nothing more comes of it: it is begun anew, but not in a hurry.
            self.ended += 1;
            self.rest(Pauses::outages(), self.ended, ENDED).await;
            *following = self.begin().await?;
        } else {
            self.ended = 0;
        }
        for item in items {
            let item = item?;
            next = Some(item.next_position());
            match item {
                Followed::Event(record) => events.push(record),
                Followed::CaughtUp { next } => caught_up = Some(next),
                Followed::Progress { .. } => {}
            }
        }
        if let Some(last) = next.and_then(|next| next.get().checked_sub(1)).map(Position::new) {
            if !events.is_empty() {
                self.watcher.tell(&Happening::Read { events: events.len() });
            }
            // Where nothing has come, there is nothing to note either.
            if self.passed < Some(last) {
                self.apply(&events, last).await?;
                self.passed = Some(last);
            }
            if !events.is_empty() {
                self.watcher.tell(&Happening::Handled { events: events.len(), last });
            }
        }
        if let Some(next) = caught_up {
            self.watcher.tell(&Happening::CaughtUp { next });
        }
        Ok(caught_up.is_some())
    }

    async fn apply(&mut self, events: &[Record], last: Position) -> Result<(), ProjectionError> {
        let (mut done, mut failures) = (0, 0);
        loop {
            let Self { model, handlers, .. } = self;
            let handle = |model: &mut R::Model, record: &Record| handlers.handle(model, record);
            let applied = model.apply(&events[done..], last, &handle).await.map_err(of_model)?;
            if applied.events > 0 {
                (done, failures) = (done + applied.events, 0);
            }
            let (Some(failure), Some(event)) = (applied.failure, events.get(done)) else { return Ok(()) };
            failures += 1;
            let reason = failure.to_string();
            let position = event.position();
            if failures <= self.retries_max {
                self.rest(self.pauses, failures, &reason).await;
            } else if self.on_failure == OnFailure::Park {
                self.model.park(event, failures, &reason).await.map_err(of_model)?;
                self.watcher.tell(&Happening::Parked { position, reason: &reason });
                (done, failures) = (done + 1, 0);
            } else {
                self.watcher.tell(&Happening::Suspended { reason: &reason });
                return Err(ProjectionError::Suspended { position, failures, reason });
            }
        }
    }
}

impl<S, R: ReadModel> fmt::Debug for Projector<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Projector").field("query", &self.query).finish_non_exhaustive()
    }
}
