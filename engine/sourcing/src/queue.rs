//! Work queues: jobs that are taken now and done later, by whoever is free.

use crate::clock::Stopwatch;
use crate::codec::{Codec, Json};
use crate::context::Context;
use crate::error::{HandleError, SourcingError};
use crate::happening::{Happening, Watcher};
use crate::pause::{ENDED, Pauses, is_passing};
use crate::stream::next;
use annals_types::{
    Append, AppendError, Delivery, EventStore, Nack, NewEvent, NewSubscription, Parked, ParkedChoice,
    Position, QueryItem, Read, StoreError, SubscriptionError, SubscriptionMember,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::future::Future;
use std::time::Duration;

/// A queue of jobs, which are events: each belongs to something that is worked on by one worker at a time.
///
/// Promise: a job that was enqueued is done, or parked, whatever ends in between. One that was completed is never done again: what completes it
/// is in the store with its results, or neither is. What a worker does outside of the store may be done more than once; the job's id is
/// the key that others can tell that by.
pub struct Queue<S> {
    store: S,
    name: String,
    settings: QueueSettings,
}

/// How a queue works: said when it is made, and so from then on. A queue that is to work in another way has another name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueueSettings {
    /// How long a worker may be silent before another one gets its job. While it works and does not block its thread, it says so by
    /// itself. Default: 30 seconds.
    pub handling_timeout: Duration,
    /// How often a job is tried again before it is parked. Default: 10.
    pub retries_max: u32,
    /// The pauses before that. Default: 100 ms to 30 s.
    pub pauses: Pauses,
    /// How long a worker waits with a job that failed because of something that has to be mended first. Default: 5 seconds.
    pub recovery: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            handling_timeout: Duration::from_secs(30),
            retries_max: 10,
            pauses: Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(30) },
            recovery: Duration::from_secs(5),
        }
    }
}

/// Why a job could not be done: what becomes of it depends on that.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum JobError {
    /// It may succeed the next time: it is tried again after a pause.
    #[error("{0}")]
    Transient(String),
    /// Something has to be mended first, by others: it is tried again after a longer one.
    #[error("{0}")]
    Recoverable(String),
    /// It will never succeed: it is parked at once.
    #[error("{0}")]
    Permanent(String),
}

impl JobError {
    /// It may succeed the next time.
    pub fn transient(reason: impl fmt::Display) -> Self {
        Self::Transient(reason.to_string())
    }

    /// Something has to be mended first.
    pub fn recoverable(reason: impl fmt::Display) -> Self {
        Self::Recoverable(reason.to_string())
    }

    /// It will never succeed.
    pub fn permanent(reason: impl fmt::Display) -> Self {
        Self::Permanent(reason.to_string())
    }
}

/// What the store refuses because of what it was given will be refused again, and so will what cannot be read or written; where the store fails in another way, or
/// others were quicker, it may succeed later.
impl From<SourcingError> for JobError {
    fn from(error: SourcingError) -> Self {
        use AppendError::{IdConflict, Input, QueryTooBroad};
        match error {
            SourcingError::Store(StoreError::Append(
                error @ (Input(_) | IdConflict { .. } | QueryTooBroad { .. }),
            )) => Self::permanent(error),
            SourcingError::Store(error) => Self::transient(error),
            other => Self::permanent(other),
        }
    }
}

/// What is refused is refused again; the rest as for a [`SourcingError`].
impl<E: fmt::Display> From<HandleError<E>> for JobError {
    fn from(error: HandleError<E>) -> Self {
        match error {
            HandleError::Conflicts { .. } | HandleError::OutOfDate { .. } => Self::transient(error),
            HandleError::Sourcing(error) => error.into(),
            refused => Self::permanent(refused),
        }
    }
}

/// A job that was enqueued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Enqueued {
    /// Its position; that of the first where it was enqueued before.
    pub position: Position,
    /// Whether there was one with this key already, and none was added.
    pub repeated: bool,
}

/// The type of a job's event, and of the one that says that it is done.
const ENQUEUED: &str = "JobEnqueued";
const COMPLETED: &str = "JobCompleted";

impl<S: EventStore> Queue<S> {
    /// The queue of this name, made where there is none: the durable subscription `queue.NAME`, to the streams of the category `queue.NAME`. A name
    /// is not empty and has no `-`, which would end the category.
    ///
    /// # Errors
    /// The name is not one, the store fails, or there is a queue of this name with other settings.
    pub async fn open(
        store: S,
        name: impl Into<String>,
        settings: QueueSettings,
    ) -> Result<Self, SourcingError> {
        let queue = Self { store, name: name.into(), settings };
        if queue.name.is_empty() || queue.name.contains('-') {
            return Err(SourcingError::QueueName { name: queue.name });
        }
        let QueueSettings { handling_timeout, retries_max, pauses, .. } = &queue.settings;
        let subscription = NewSubscription::new(queue.category())
            .query(QueryItem::new().of_type(ENQUEUED).category(queue.category()))
            .shared()
            .in_flight_max(1)
            .handling_timeout(*handling_timeout)
            .retries(*retries_max, pauses.first, pauses.longest);
        queue.store.create_subscription(&subscription).await?;
        Ok(queue)
    }

    fn category(&self) -> String {
        format!("queue.{}", self.name)
    }

    /// Enqueues a job for something, an execution say: jobs of one are done one after the other. The key makes it one: a job with the key
    /// of another one is not added.
    ///
    /// # Errors
    /// The store fails, or the job cannot be written as JSON.
    pub async fn enqueue<T: Serialize>(
        &self,
        of: &str,
        key: &str,
        job: &T,
        context: &Context,
    ) -> Result<Enqueued, SourcingError> {
        let data = Json.encode(job).map_err(|error| SourcingError::Unwritable {
            what: format!("a job of {of:?}"),
            reason: error.to_string(),
        })?;
        let tag = format!("job:{}:{key}", self.name);
        let mut new = NewEvent::new(format!("{}-{of}", self.category()), ENQUEUED).tag(tag.clone());
        new.data = data.into();
        let append = Append::from(context.put(new, 1))
            .fail_if_matches(QueryItem::new().category(self.category()).tag(tag), None);
        match self.store.append(append).await {
            Ok(appended) => Ok(Enqueued { position: appended.first_position(), repeated: false }),
            Err(StoreError::Append(AppendError::QueryMatched { position, .. })) => {
                Ok(Enqueued { position, repeated: true })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The jobs that were parked: dead letters, each with why.
    ///
    /// # Errors
    /// The store fails.
    pub async fn parked(&self) -> Result<Vec<Parked>, SourcingError> {
        Ok(self.store.parked(&self.category()).await?)
    }

    /// Has parked jobs done again, as if they were new; how many there were.
    ///
    /// # Errors
    /// The store fails, or one of them is not parked.
    pub async fn replay(&self, which: &ParkedChoice) -> Result<usize, SourcingError> {
        Ok(self.store.replay_parked(&self.category(), which).await?)
    }

    /// Becomes a worker of the queue. Any number may be.
    ///
    /// # Errors
    /// The store fails.
    pub async fn worker(&self) -> Result<Worker<S>, SourcingError> {
        let member = self.store.join(&self.category()).await?;
        let (store, settings) = (self.store.clone(), self.settings.clone());
        Ok(Worker { store, subscription: self.category(), member, settings, watcher: Watcher::default() })
    }
}

/// Somebody who does jobs. Dropped, it is none any more, and the job that it had goes to another one.
pub struct Worker<S: EventStore> {
    store: S,
    subscription: String,
    member: S::Member,
    settings: QueueSettings,
    watcher: Watcher,
}

/// A job to be done.
#[derive(Clone, Debug)]
pub struct Job {
    delivery: Delivery,
}

impl Job {
    /// What is to be done.
    ///
    /// # Errors
    /// It is of another form: [`JobError::Permanent`].
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, JobError> {
        Json.decode(self.delivery.event.data()).map_err(JobError::permanent)
    }

    /// What it is for.
    #[must_use]
    pub fn of(&self) -> &str {
        self.delivery.event.stream().split_once('-').map_or("", |(_, of)| of)
    }

    /// Which attempt this is: 1, or more where it failed before.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt
    }

    /// The event that it is.
    #[must_use]
    pub fn event(&self) -> &annals_types::Record {
        &self.delivery.event
    }

    /// The context of what follows from it.
    #[must_use]
    pub fn context(&self) -> Context {
        Context::caused_by(&self.delivery.event)
    }

    /// Has an append complete the job: with its events it says that the job is done, on the condition that nothing said so before.
    ///
    /// Where it is refused because something did, the job is done, and [`Worker::work`] takes it so.
    #[must_use]
    pub fn completed_by<'a>(&self, append: Append<'a>) -> Append<'a> {
        let event = &self.delivery.event;
        let done = NewEvent::new(event.stream().to_owned(), COMPLETED).json("{}");
        append.event(self.context().put(done, 1)).fail_if_matches(self.completion(), Some(event.position()))
    }

    fn completion(&self) -> QueryItem<'static> {
        QueryItem::new().of_type(COMPLETED).causation(self.delivery.event.id())
    }
}

impl<S: EventStore> Worker<S> {
    /// Sets who is told what happens.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&Happening<'_>) + Send + Sync + 'static) -> Self {
        self.watcher = Watcher::new(watch);
        self
    }

    /// Does jobs, one after the other, until it is dropped; where it loses its place, or the store cannot be reached for a while, it comes
    /// back. What `work` gives back is appended with the completion of the job; where the job was completed by what it did, it gives back
    /// nothing more than [`Append::new`].
    ///
    /// # Errors
    /// The store fails.
    pub async fn work<F, O>(&mut self, work: F) -> Result<(), SourcingError>
    where
        F: Fn(Job) -> O + Send + Sync,
        O: Future<Output = Result<Append<'static>, JobError>> + Send,
    {
        let (mut failures, mut joined) = (0, Stopwatch::start());
        let pauses = Pauses::outages();
        loop {
            let mut reason = match self.work_once(&work).await {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => ENDED.to_owned(),
                Err(SourcingError::Store(error)) if is_passing(&error) || has_lost_its_place(&error) => {
                    error.to_string()
                }
                Err(error) => return Err(error),
            };
            if joined.elapsed() > pauses.longest {
                failures = 0;
            }
            // Its place is gone: it takes another one, as soon as there is one to be had.
            loop {
                pauses.rest(&self.watcher, &mut failures, &reason).await;
                match self.store.join(&self.subscription).await {
                    Ok(member) => {
                        (self.member, joined) = (member, Stopwatch::start());
                        break;
                    }
                    // A store of this process that is closed stays so.
                    Err(error @ StoreError::Subscription(SubscriptionError::Closed)) => {
                        return Err(error.into());
                    }
                    Err(error) if is_passing(&error) || has_lost_its_place(&error) => {
                        reason = error.to_string()
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }

    /// Does one job; `false`: there will be none. Where this is dropped before it is ready, the job stays with the worker until the
    /// time-out, or until the worker is dropped.
    ///
    /// # Errors
    /// The store fails.
    pub async fn work_once<F, O>(&mut self, work: &F) -> Result<bool, SourcingError>
    where
        F: Fn(Job) -> O + Send + Sync,
        O: Future<Output = Result<Append<'static>, JobError>> + Send,
    {
        let Some(delivery) = self.member.next_delivery().await else { return Ok(false) };
        let job = Job { delivery: delivery? };
        // One that was completed is handed out again where its worker ended before it could say so.
        let outcome = match self.is_completed(&job).await? {
            true => Ok(()),
            false => match self.try_it(work, &job).await {
                // Another one has completed it meanwhile.
                Err(_) if self.is_completed(&job).await? => Ok(()),
                tried => tried,
            },
        };
        match self.answer(&job, outcome).await {
            // It took too long, and another one has it: what completes the job tells the two apart.
            Err(SourcingError::Store(StoreError::Subscription(SubscriptionError::NotInFlight {
                ..
            }))) => Ok(true),
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }

    async fn answer(&self, job: &Job, outcome: Result<(), JobError>) -> Result<(), SourcingError> {
        let (id, position) = (job.delivery.id, job.delivery.event.position());
        match outcome {
            Ok(()) => {
                self.member.ack(&[id]).await?;
                self.watcher.tell(&Happening::Handled { events: 1, last: position });
            }
            Err(JobError::Permanent(reason)) => {
                self.watcher.tell(&Happening::Parked { position, reason: &reason });
                self.member.nack(id, &Nack::park(reason)).await?;
            }
            Err(JobError::Transient(reason)) => {
                let (failures, pause) = (job.attempt(), self.settings.pauses.after(job.attempt()));
                self.watcher.tell(&Happening::Retried { failures, reason: &reason, pause });
                self.member.nack(id, &Nack::retry(reason)).await?;
            }
            Err(JobError::Recoverable(reason)) => {
                let (failures, pause) = (job.attempt(), self.settings.recovery);
                self.watcher.tell(&Happening::Retried { failures, reason: &reason, pause });
                self.keeping(tokio::time::sleep(pause)).await;
                self.member.nack(id, &Nack::retry(reason)).await?;
            }
        }
        Ok(())
    }

    async fn try_it<F, O>(&self, work: &F, job: &Job) -> Result<(), JobError>
    where
        F: Fn(Job) -> O + Send + Sync,
        O: Future<Output = Result<Append<'static>, JobError>> + Send,
    {
        let append = self.keeping(work(job.clone())).await?;
        if append.events.is_empty() && self.is_completed(job).await? {
            return Ok(());
        }
        match self.store.append(job.completed_by(append)).await {
            Ok(_) => Ok(()),
            Err(error) => match self.is_completed(job).await? {
                true => Ok(()),
                false => Err(JobError::transient(error)),
            },
        }
    }

    /// Works, and says now and then that it still does.
    async fn keeping<O: Future>(&self, work: O) -> O::Output {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = tokio::time::sleep(self.settings.handling_timeout / 3) => {
                    // Where it fails another one gets the job, and what completes it tells the two apart.
                    let _ = self.member.renew().await;
                }
            }
        }
    }

    async fn is_completed(&self, job: &Job) -> Result<bool, SourcingError> {
        let read = Read::query(job.completion()).from(job.delivery.event.position()).limit(1);
        let mut found = self.store.read(&read).await?;
        Ok(next(&mut found).await.transpose()?.is_some())
    }
}

/// Whether it must join again.
fn has_lost_its_place(error: &StoreError) -> bool {
    use SubscriptionError::{Closed, Interrupted, Lost};
    // A server that stops says that it is closed, and comes back; a store in this process that is closed lets nobody join.
    matches!(error, StoreError::Subscription(Closed | Lost { .. } | Interrupted { .. }))
}

impl<S> fmt::Debug for Queue<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: EventStore> fmt::Debug for Worker<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("settings", &self.settings).finish_non_exhaustive()
    }
}
