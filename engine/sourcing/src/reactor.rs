//! What follows from events: each is handled exactly once, whatever ends or fails in between.

mod batch;

use self::batch::{Batch, Working};
use crate::boundary::Boundary;
use crate::codec::{Codec, Json};
use crate::context::Context;
use crate::decider::Decider;
use crate::decoding::{Decoded, Decoding, UnknownType};
use crate::error::SourcingError;
use crate::event::{DomainEvent, query_of};
use crate::happening::{Happening, Watcher};
use crate::pause::{ENDED, Pauses, is_passing};
use crate::repository::Repository;
use crate::saga::SagaContext;
use crate::stream::ready;
use crate::upcast::UpcastError;
use annals_types::{AppendError, EventStore, Follow, Followed, Position, Query, Record, StoreError};
use std::fmt;
use std::time::Duration;

/// A command that follows from an event, and the stream that decides about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order<C> {
    /// The stream.
    pub stream: String,
    /// What is asked of it.
    pub command: C,
    /// The steps of sagas that it is.
    pub sagas: SagaContext,
}

impl<C> Order<C> {
    /// This command for this stream.
    pub fn new(stream: impl Into<String>, command: C) -> Self {
        Self { stream: stream.into(), command, sagas: SagaContext::default() }
    }

    /// Sets the steps of sagas that it is.
    #[must_use]
    pub fn sagas(mut self, sagas: SagaContext) -> Self {
        self.sagas = sagas;
        self
    }
}

/// Handles the events that matter to it, in the order of the store: each may lead to commands, which a decider judges.
///
/// Promise: what follows from an event is in the store exactly once. The events that the commands lead to are appended in one batch with the
/// reactor's cursor, the *inbox*: either both are there or neither, also over the end of the process, a second process that does the same, and answers that
/// were lost. Because it follows the log, what makes commands of a process manager's decisions is its *outbox*: they are sent when the decision is
/// durable, and not before.
///
/// A process manager is a decider whose commands are what its reactor makes of other's events: its own events are its decisions, and its state is what
/// they made of it.
///
/// Events are handled up to 256 at a time, so that one durable write serves them all; within that, each is decided on what the ones before it led to.
/// Several processes may run the same reactor: one works, the others stand by.
pub struct Reactor<S, T, D: Decider, C, F> {
    name: String,
    cursor: String,
    repository: Repository<S, D, C>,
    triggers: Decoding<T, C>,
    query: Query<'static>,
    route: F,
    batch_max: usize,
    patience: Duration,
    pauses: Pauses,
    watcher: Watcher,
}

/// A trigger was refused by the decider that it was for: what an event of this type, in the stream `refused-NAME` of the reactor of that name, says.
#[derive(
    Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize, annals_sourcing_derive::DomainEvent,
)]
#[event("TriggerRefused")]
pub struct TriggerRefused {
    /// Position of the trigger.
    pub position: u64,
    /// Its type.
    pub event_type: String,
    /// Who refused.
    pub stream: String,
    /// Why.
    pub reason: String,
}

/// Conflicts of a batch before it is decided in two parts.
const CONFLICTS_MAX: u32 = 3;

/// Whether an append is refused for its size.
fn is_too_much(error: &StoreError) -> bool {
    matches!(error, StoreError::Append(AppendError::Input(_)))
}

/// How far a run of a reactor goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    CaughtUp,
    Forever,
}

impl<S, T, D, C, F, O> Reactor<S, T, D, C, F>
where
    S: EventStore,
    T: DomainEvent,
    D: Decider,
    D::Error: fmt::Display,
    C: Codec,
    F: Fn(&T, &Record) -> O + Send + Sync,
    O: IntoIterator<Item = Order<D::Command>>,
    O::IntoIter: Send,
    D::Command: Send,
{
    /// Under this name; its cursor is `reactor:NAME`. `route` says what an event leads to; it is pure.
    ///
    /// It follows all events of the types of `T`, and of those that its upcasts begin with; see [`query`](Self::query).
    ///
    /// # Errors
    /// The upcasts of `T` are not complete.
    pub fn new(
        name: impl Into<String>,
        repository: Repository<S, D, C>,
        route: F,
    ) -> Result<Self, UpcastError> {
        let name = name.into();
        Ok(Self {
            cursor: format!("reactor:{name}"),
            name,
            triggers: Decoding::new(repository.codec().clone())?.unknown(UnknownType::Skip),
            repository,
            query: query_of::<T>(),
            route,
            batch_max: 256,
            patience: Duration::from_secs(1),
            pauses: Pauses::outages(),
            watcher: Watcher::default(),
        })
    }

    /// Sets which events it follows, if not all of its types.
    #[must_use]
    pub fn query(mut self, query: impl Into<Query<'static>>) -> Self {
        self.query = query.into();
        self
    }

    /// Sets how many events are handled together: 1 to 1,000. Default: 256.
    #[must_use]
    pub fn batch_max(mut self, events: usize) -> Self {
        self.batch_max = events.clamp(1, 1_000);
        self
    }

    /// Sets how long one that stands by waits for the one that works before it takes over. Default: a second.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Sets who is told what happens.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&Happening<'_>) + Send + Sync + 'static) -> Self {
        self.watcher = Watcher::new(watch);
        self
    }

    /// Handles what there is and what will come. It may be dropped at any moment.
    ///
    /// # Errors
    /// The store fails for good, or an event cannot be read: it stands still there, and skips nothing.
    pub async fn run(&self) -> Result<(), SourcingError> {
        self.go(Until::Forever).await
    }

    /// Handles what there is now.
    ///
    /// # Errors
    /// As those of [`run`](Self::run).
    pub async fn catch_up(&self) -> Result<(), SourcingError> {
        self.go(Until::CaughtUp).await
    }

    async fn go(&self, until: Until) -> Result<(), SourcingError> {
        let mut failures = 0;
        let mut stands_by = false;
        loop {
            match self.follow(until, stands_by, &mut failures).await {
                Ok(()) => return Ok(()),
                Err(Halt::Outrun) => {
                    stands_by = true;
                    self.watcher.tell(&Happening::StoodBack);
                }
                Err(Halt::Ended) => self.pauses.rest(&self.watcher, &mut failures, ENDED).await,
                Err(Halt::Failed(SourcingError::Store(error))) if is_passing(&error) => {
                    self.pauses.rest(&self.watcher, &mut failures, &error.to_string()).await;
                }
                Err(Halt::Failed(error)) => {
                    self.watcher.tell(&Happening::Suspended { reason: &error.to_string() });
                    return Err(error);
                }
            }
        }
    }

    /// How far it has come, whoever did it.
    async fn position(&self) -> Result<Option<Position>, StoreError> {
        Ok(self.repository.store().cursor(&self.cursor).await?.and_then(|cursor| cursor.position))
    }

    /// Follows from the cursor on, until it must be looked up again.
    async fn follow(&self, until: Until, mut stands_by: bool, failures: &mut u32) -> Result<(), Halt> {
        let store = self.repository.store();
        let mut cursor = self.position().await?;
        self.watcher.tell(&Happening::Started { after: cursor });
        let mut follow = Follow::query(self.query.clone());
        if let Some(position) = cursor {
            follow = follow.after(position);
        }
        let mut following = store.follow(&follow).await?;
        loop {
            let mut triggers = Vec::new();
            let mut caught_up = None;
            let items = ready(&mut following, self.batch_max).await;
            if items.is_empty() {
                return Err(Halt::Ended);
            }
            for item in items {
                match item? {
                    Followed::Event(record) => triggers.push(record),
                    Followed::CaughtUp { next } => caught_up = Some(next),
                    Followed::Progress { .. } => {}
                }
            }
            if stands_by && !triggers.is_empty() {
                tokio::time::sleep(self.patience).await;
                if self.position().await? != cursor {
                    return Err(Halt::Outrun);
                }
                stands_by = false;
            }
            if let Some(last) = triggers.last().map(Record::position) {
                self.watcher.tell(&Happening::Read { events: triggers.len() });
                self.handle(&triggers, cursor).await?;
                cursor = Some(last);
                *failures = 0;
                self.watcher.tell(&Happening::Handled { events: triggers.len(), last });
            }
            if let Some(next) = caught_up {
                self.watcher.tell(&Happening::CaughtUp { next });
                if until == Until::CaughtUp {
                    return Ok(());
                }
            }
        }
    }

    /// Handles these events, in one append.
    async fn handle(&self, triggers: &[Record], cursor: Option<Position>) -> Result<(), Halt> {
        let mut conflicts = 0;
        loop {
            let Some(last) = triggers.last() else { return Ok(()) };
            let mut batch = match self.decide(triggers, conflicts > 0).await {
                Ok(batch) => batch,
                // What comes before the one that fails is done with first.
                Err((index, _)) if index > 0 => {
                    let (done, rest) = triggers.split_at(index);
                    Box::pin(self.handle(done, cursor)).await?;
                    return Box::pin(self.handle(rest, done.last().map(Record::position))).await;
                }
                // Perhaps only on what is remembered.
                Err((_, SourcingError::CannotJudge { .. })) if conflicts == 0 => {
                    conflicts = 1;
                    continue;
                }
                Err((_, error)) => return Err(error.into()),
            };
            let append = batch
                .guarded()
                .expect_cursor(&*self.cursor, cursor)
                .advance(&*self.cursor, Some(last.position()));
            match self.repository.store().append(append).await {
                Ok(appended) => {
                    for (position, reason) in std::mem::take(&mut batch.refusals) {
                        self.watcher.tell(&Happening::Refused { position, reason: &reason });
                    }
                    batch.remember(&self.repository, appended.positions.end);
                    return Ok(());
                }
                Err(StoreError::Append(AppendError::WrongCursor { .. })) => return Err(Halt::Outrun),
                // Together they are too much; or somebody else writes to one of so many streams again and again.
                Err(error)
                    if triggers.len() > 1
                        && (is_too_much(&error) || (error.is_conflict() && conflicts >= CONFLICTS_MAX)) =>
                {
                    batch.forget_what_is_ahead(&error, &self.repository);
                    let (first, rest) = triggers.split_at(triggers.len() / 2);
                    Box::pin(self.handle(first, cursor)).await?;
                    return Box::pin(self.handle(rest, first.last().map(Record::position))).await;
                }
                Err(error) => {
                    conflicts += 1;
                    batch.forget_what_is_ahead(&error, &self.repository);
                    if !error.is_conflict() {
                        return Err(SourcingError::from(error).into());
                    }
                    self.repository.pauses().wait(conflicts).await;
                }
            }
        }
    }

    /// What the events lead to; or which of them fails, and why.
    async fn decide(
        &self,
        triggers: &[Record],
        looks_again: bool,
    ) -> Result<Batch<D>, (usize, SourcingError)> {
        let mut batch = Batch::new(looks_again);
        for (index, record) in triggers.iter().enumerate() {
            let failed = |error| (index, error);
            let Decoded::Event { event: trigger, .. } = self.triggers.decode(record).map_err(failed)? else {
                continue;
            };
            let orders: Vec<_> = (self.route)(&trigger, record).into_iter().collect();
            for order in orders {
                let context = Context::caused_by(record).source(self.name.clone()).sagas(order.sagas.clone());
                self.obey(&mut batch, &order, &context, record).await.map_err(failed)?;
            }
        }
        Ok(batch)
    }

    /// Loads a stream's state, with what this batch has put into the stream already.
    async fn take_up(
        &self,
        batch: &mut Batch<D>,
        boundary: &Boundary<'_>,
        stream: &str,
    ) -> Result<(), SourcingError> {
        let mut held = self.repository.begin(boundary).await?;
        let put = batch.elsewhere.remove(stream).unwrap_or_default();
        if (batch.looks_again || !put.is_empty()) && !held.is_fresh {
            self.repository.catch_up(boundary, &mut held).await?;
            self.repository.remember(boundary, &held);
        }
        let seen = held.seen.clone();
        for event in &put {
            self.repository.decider().evolve(&mut held.state, event);
        }
        let working = Working { seen, held, written: put.len() as u64, has_led: false };
        batch.working.insert(stream.to_owned(), working);
        Ok(())
    }

    async fn obey(
        &self,
        batch: &mut Batch<D>,
        order: &Order<D::Command>,
        context: &Context,
        record: &Record,
    ) -> Result<(), SourcingError> {
        let boundary = Boundary::from(&order.stream);
        if !batch.working.contains_key(&order.stream) {
            self.take_up(batch, &boundary, &order.stream).await?;
        }
        let working = batch.working.get_mut(&order.stream).expect("it was just put there");
        let decider = self.repository.decider();
        let mut decided = decider.decide(&working.held.state, &order.command);
        if !working.held.is_fresh
            && working.written == 0
            && !matches!(&decided, Ok(events) if !events.is_empty())
        {
            self.repository.catch_up(&boundary, &mut working.held).await?;
            working.seen = working.held.seen.clone();
            decided = decider.decide(&working.held.state, &order.command);
        }
        match decided {
            Ok(events) => {
                working.has_led |= !events.is_empty();
                for event in events {
                    let new = self.repository.new_event(&boundary, &event, context)?;
                    match batch.working.get_mut(&*new.stream) {
                        Some(target) => {
                            decider.evolve(&mut target.held.state, &event);
                            target.written += 1;
                        }
                        None => batch.elsewhere.entry(new.stream.to_string()).or_default().push(event),
                    }
                    batch.append.events.push(new);
                }
            }
            Err(refusal) if decider.cannot_judge(&refusal) => {
                return Err(SourcingError::CannotJudge {
                    position: record.position(),
                    event_type: record.event_type().to_owned(),
                    stream: order.stream.clone(),
                    reason: refusal.to_string(),
                });
            }
            Err(refusal) => {
                let reason = refusal.to_string();
                batch.refusals.push((record.position(), reason.clone()));
                let refused = TriggerRefused {
                    position: record.position().get(),
                    event_type: record.event_type().to_owned(),
                    stream: order.stream.clone(),
                    reason,
                };
                let data = refused.encode(&Json).expect("texts and numbers can be written");
                let mut new = annals_types::NewEvent::new(
                    format!("refused-{}", self.name),
                    TriggerRefused::TYPES[0].name,
                );
                new.data = data.into();
                // The step was tried, and has failed.
                let context = context.clone().sagas(context.sagas.clone().all_failed(&refused.reason));
                batch.append.events.push(context.put(new, 1));
            }
        }
        Ok(())
    }
}

/// Why following ends.
enum Halt {
    /// Nothing more comes of it: it is begun anew.
    Ended,
    /// Another one has moved the cursor.
    Outrun,
    /// It failed.
    Failed(SourcingError),
}

impl From<SourcingError> for Halt {
    fn from(error: SourcingError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

impl<S, T, D: Decider, C, F> fmt::Debug for Reactor<S, T, D, C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor")
            .field("name", &self.name)
            .field("query", &self.query)
            .finish_non_exhaustive()
    }
}
