//! Deadlines: what is due when nothing else happened by then.

use crate::clock::now;
use crate::codec::{Codec, Json};
use crate::context::Context;
use crate::decoding::{Decoded, Decoding, UnknownType};
use crate::error::SourcingError;
use crate::event::{DomainEvent, query_of};
use crate::happening::{Happening, Watcher};
use crate::pause::{ENDED, Pauses, is_passing};
use crate::stream::ready;
use crate::upcast::UpcastError;
use annals_types::{Append, EventStore, Follow, Followed, NewEvent, Position, QueryItem, Record, Timestamp};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;
use uuid::Uuid;

/// What an event says about a deadline.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deadline {
    /// This is due then; what was due by the same key is not any more.
    Set {
        /// Tells it apart from all others of the same timers: the case and the step, say.
        key: String,
        /// The stream in which a [`TimeoutElapsed`] says that the time is over.
        stream: String,
        /// When.
        at: Timestamp,
    },
    /// What was due by this key is not any more.
    Clear {
        /// The key.
        key: String,
    },
}

impl Deadline {
    /// This is due so long after the event.
    pub fn after(event: &Record, pause: Duration, stream: impl Into<String>, key: impl Into<String>) -> Self {
        let pause = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
        let at = Timestamp::new(event.time().get().saturating_add(pause));
        Self::Set { key: key.into(), stream: stream.into(), at }
    }

    /// What was due by this key is not any more.
    pub fn clear(key: impl Into<String>) -> Self {
        Self::Clear { key: key.into() }
    }
}

/// The time is over. It was caused by the event that set the deadline.
#[derive(
    Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize, annals_sourcing_derive::DomainEvent,
)]
#[event("TimeoutElapsed")]
pub struct TimeoutElapsed {
    /// The deadline's key.
    pub key: String,
    /// When it was due: nanoseconds since the Unix epoch.
    pub due: u64,
}

/// Appends a [`TimeoutElapsed`] for each deadline that passes.
///
/// Promise: deadlines are as durable as the events that set them, since they are read from these; each leads to one event, exactly once, not before its time
/// and however often the process ends; where it was cleared by an event that was durable before its time, to none.
///
/// Its cursor says from where on deadlines may be open. In memory are the open ones.
pub struct Timers<S, E, F, C = Json> {
    name: String,
    cursor: String,
    store: S,
    decoding: Decoding<E, C>,
    deadlines: F,
    pauses: Pauses,
    watcher: Watcher,
}

/// A deadline that is open.
struct Open {
    key: String,
    stream: String,
    due: Timestamp,
    /// Tells this deadline, of this event and these timers, from all others.
    tag: String,
    position: Position,
    context: Context,
}

/// The open deadlines, by key and by when they are due.
#[derive(Default)]
struct Agenda {
    by_key: HashMap<String, (Timestamp, Position)>,
    by_time: BTreeMap<(Timestamp, Position, String), Open>,
}

/// Events that are read between two settings of the cursor.
const NOTE_EVERY: u64 = 1_000;

impl<S, E, F, O> Timers<S, E, F>
where
    S: EventStore,
    E: DomainEvent,
    F: Fn(&E, &Record) -> O + Send + Sync,
    O: IntoIterator<Item = Deadline>,
{
    /// Under this name; its cursor is `timers:NAME`. `deadlines` says what an event of the types of `E` sets and clears; it is pure.
    ///
    /// # Errors
    /// The upcasts of `E` are not complete.
    pub fn new(name: impl Into<String>, store: S, deadlines: F) -> Result<Self, UpcastError> {
        Self::in_codec(name, store, deadlines, Json)
    }
}

impl<S, E, F, O, C> Timers<S, E, F, C>
where
    S: EventStore,
    E: DomainEvent,
    F: Fn(&E, &Record) -> O + Send + Sync,
    O: IntoIterator<Item = Deadline>,
    C: Codec,
{
    /// The same for events in another codec.
    ///
    /// # Errors
    /// The upcasts of `E` are not complete.
    pub fn in_codec(name: impl Into<String>, store: S, deadlines: F, codec: C) -> Result<Self, UpcastError> {
        let name = name.into();
        Ok(Self {
            cursor: format!("timers:{name}"),
            name,
            store,
            decoding: Decoding::new(codec)?.unknown(UnknownType::Skip),
            deadlines,
            pauses: Pauses::outages(),
            watcher: Watcher::default(),
        })
    }

    /// Sets who is told what happens.
    #[must_use]
    pub fn watch(mut self, watch: impl Fn(&Happening<'_>) + Send + Sync + 'static) -> Self {
        self.watcher = Watcher::new(watch);
        self
    }

    /// Watches over deadlines. It may be dropped at any moment.
    ///
    /// # Errors
    /// The store fails for good, or an event cannot be read.
    pub async fn run(&self) -> Result<(), SourcingError> {
        let mut failures = 0;
        loop {
            match self.follow(&mut failures).await {
                Ok(()) => self.pauses.rest(&self.watcher, &mut failures, ENDED).await,
                Err(SourcingError::Store(error)) if is_passing(&error) => {
                    self.pauses.rest(&self.watcher, &mut failures, &error.to_string()).await;
                }
                Err(error) => {
                    self.watcher.tell(&Happening::Suspended { reason: &error.to_string() });
                    return Err(error);
                }
            }
        }
    }

    async fn follow(&self, failures: &mut u32) -> Result<(), SourcingError> {
        let cursor = self.store.cursor(&self.cursor).await?.and_then(|cursor| cursor.position);
        self.watcher.tell(&Happening::Started { after: cursor });
        let elapsed = QueryItem::new().of_type(TimeoutElapsed::TYPES[0].name);
        let mut follow = Follow::query(query_of::<E>().or(elapsed));
        if let Some(position) = cursor {
            follow = follow.after(position);
        }
        let mut following = self.store.follow(&follow).await?;
        let mut agenda = Agenda::default();
        let mut is_current = false;
        let (mut next, mut noted) = (Position::ZERO, cursor.map_or(0, Position::get));
        loop {
            let due = agenda.first_due().filter(|_| is_current);
            let items = tokio::select! {
                biased;
                items = ready(&mut following, 1_000) => items,
                () = at(due) => {
                    self.elapse(&mut agenda, &follow, next).await?;
                    continue;
                }
            };
            if items.is_empty() {
                return Ok(());
            }
            *failures = 0;
            for item in items {
                let item = item?;
                next = item.next_position();
                match item {
                    Followed::Event(record) => self.note(&mut agenda, &record)?,
                    Followed::CaughtUp { .. } => {
                        is_current = true;
                        self.watcher.tell(&Happening::CaughtUp { next });
                    }
                    Followed::Progress { .. } => {}
                }
            }
            if next.get().saturating_sub(noted) >= NOTE_EVERY {
                noted = next.get();
                let done = agenda.oldest().unwrap_or(next).get();
                let position = done.checked_sub(1).map(Position::new);
                self.store.append(Append::new().advance(&*self.cursor, position)).await?;
            }
        }
    }

    fn note(&self, agenda: &mut Agenda, record: &Record) -> Result<(), SourcingError> {
        if record.event_type() == TimeoutElapsed::TYPES[0].name
            && let Some(Ok(elapsed)) = TimeoutElapsed::decode(record.event_type(), record.data(), &Json)
        {
            agenda.clear_if(&elapsed.key, |open| record.tags().any(|tag| tag == open.tag));
        }
        let Decoded::Event { event, .. } = self.decoding.decode(record)? else { return Ok(()) };
        for deadline in (self.deadlines)(&event, record) {
            match deadline {
                Deadline::Set { key, stream, at } => {
                    agenda.clear_if(&key, |_| true);
                    let context = Context::caused_by(record).source(self.name.clone());
                    let what = format!("{}\0{key}", self.name);
                    let tag = format!("deadline:{}", Uuid::new_v5(&record.id(), what.as_bytes()));
                    let position = record.position();
                    agenda.set(Open { key, stream, due: at, tag, position, context });
                }
                Deadline::Clear { key } => agenda.clear_if(&key, |_| true),
            }
        }
        Ok(())
    }

    /// Says of all that is due that it is. What another process has said, is not said again.
    async fn elapse(
        &self,
        agenda: &mut Agenda,
        follow: &Follow<'_>,
        next: Position,
    ) -> Result<(), SourcingError> {
        let now = now();
        // What was cleared in time is in the store by now, whether it has come here yet or not. When it comes, it is noted once more, which changes nothing:
        // what is said twice is refused.
        let mut events = self.store.read(&follow.read().from(next)).await?;
        while let Some(event) = crate::stream::next(&mut events).await {
            self.note(agenda, &event?)?;
        }
        while let Some(open) = agenda.first().filter(|open| open.due <= now) {
            let elapsed = TimeoutElapsed { key: open.key.clone(), due: open.due.get() };
            let event_type = TimeoutElapsed::TYPES[0].name;
            let mut new = NewEvent::new(open.stream.as_str(), event_type).tag(open.tag.as_str());
            new.data = elapsed.encode(&Json).expect("texts and numbers can be written").into();
            let said = QueryItem::new().of_type(event_type).tag(open.tag.as_str());
            let append = Append::from(open.context.put(new, 1)).fail_if_matches(said, Some(open.position));
            match self.store.append(append).await {
                Ok(_) => {}
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error.into()),
            }
            agenda.drop_first();
        }
        Ok(())
    }
}

impl Agenda {
    fn set(&mut self, open: Open) {
        self.by_key.insert(open.key.clone(), (open.due, open.position));
        self.by_time.insert((open.due, open.position, open.key.clone()), open);
    }

    fn clear_if(&mut self, key: &str, is_it: impl Fn(&Open) -> bool) {
        let Some((due, position)) = self.by_key.get(key) else { return };
        let place = (*due, *position, key.to_owned());
        if self.by_time.get(&place).is_some_and(is_it) {
            self.by_time.remove(&place);
            self.by_key.remove(key);
        }
    }

    fn first(&self) -> Option<&Open> {
        self.by_time.first_key_value().map(|(_, open)| open)
    }

    fn first_due(&self) -> Option<Timestamp> {
        self.first().map(|open| open.due)
    }

    fn drop_first(&mut self) {
        if let Some((_, open)) = self.by_time.pop_first() {
            self.by_key.remove(&open.key);
        }
    }

    /// The first event that set a deadline that is open.
    fn oldest(&self) -> Option<Position> {
        self.by_key.values().map(|(_, position)| *position).min()
    }
}

/// Ready then; never where there is no such time.
async fn at(due: Option<Timestamp>) {
    match due {
        None => std::future::pending().await,
        Some(due) => tokio::time::sleep(Duration::from_nanos(due.get().saturating_sub(now().get()))).await,
    }
}

impl<S, E, F, C> fmt::Debug for Timers<S, E, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").field("name", &self.name).finish_non_exhaustive()
    }
}
