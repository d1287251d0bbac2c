//! Durable subscriptions: who is handed what is decided by a machine without time or disk (`subscription/`); here it gets
//! events from the log, and what must last is noted in a side store.
//!
//! What was acknowledged is noted within [`NOTE_PERIOD`]; all that somebody decided is durable before it is answered. What
//! is noted together is true together, so that after a crash a subscription stands as it stood at one moment.

use super::Store;
use super::core::Core;
use super::locate::Locator;
use super::pulse::{Pulse, Timer};
use super::query::Step;
use super::read::Reader;
use super::side::{Side, SideKind};
use super::ticket::Ticket;
use super::{commit, cursors};
use crate::clock::stopwatch;
use crate::format::subscription::Note;
use crate::log::damage_at;
use crate::log::watcher::Watcher;
use crate::subscription::{Machine, Offer, Refusal, Standing, Taken};
use annals_types::{
    Append, AppendError, Bound, DamageKind, Delivery, Follow, Nack, NewEvent, NewSubscription, Position,
    Read, ReadError, Record, Start, SubscriptionError, check_subscription_name, limits,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

/// Their side store: it says what nothing else does.
const SUBSCRIPTIONS: SideKind = SideKind { name: "subscriptions", events_min: 10_000, is_dispensable: false };
/// How long what was acknowledged may go without being noted: what a crash makes come again.
const NOTE_PERIOD: Duration = Duration::from_millis(100);

/// All of a store.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    pub(crate) side: Side,
    /// Those that were used since the store was opened. Held while one is created or deleted.
    known: Mutex<HashMap<String, Arc<Hub>>>,
}

/// One, where its members meet.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) name: String,
    pub(super) inner: Mutex<Inner>,
    /// Members that wait for what other members do.
    waiting: Mutex<Vec<(u64, Arc<Watcher>)>>,
    /// It is not used any more; see [`Inner::gone`].
    is_gone: AtomicBool,
    /// Notes what is to be noted, when its time has come.
    notes: Arc<Watcher>,
}

/// What is decided under one lock.
pub(super) struct Inner {
    pub(super) machine: Machine,
    /// Reads what is to be offered; made when it is first needed.
    reader: Option<Reader>,
    /// Where the watermark was when it was looked at.
    durable: u64,
    /// What was offered last: it is mostly what is taken next.
    offered: Option<Record>,
    /// The last notes: where they fail, so must all that follow.
    on_its_way: Option<Ticket>,
    /// Since when there is something to note.
    due: Option<Timer>,
    /// Why it is not used any more.
    gone: Option<Gone>,
}

#[derive(Clone, Debug)]
enum Gone {
    Deleted,
    Closed,
    Interrupted(String),
}

/// How far a look for the next event has come.
pub(super) enum Found {
    Delivery(Delivery),
    /// More steps are needed.
    OnTheWay,
    Nothing,
    /// Nothing, for ever.
    Ended,
}

impl Subscriptions {
    pub(crate) fn new() -> Self {
        Self { side: Side::new(SUBSCRIPTIONS), known: Mutex::default() }
    }

    /// Notes what is not noted yet, and ends all use.
    pub(crate) fn close(&self, core: &Arc<Core>) -> Result<(), AppendError> {
        for hub in self.end() {
            let mut inner = hub.inner.lock();
            if inner.gone.is_none() && inner.machine.has_changed() {
                // What cannot be noted is handed out again.
                let _ = inner.note(core).map(Ticket::wait);
            }
            hub.end(inner, Gone::Closed);
        }
        self.side.close()
    }

    /// Ends all use as it is: where closing cannot wait for anything.
    pub(crate) fn abandon(&self) {
        self.end().iter().for_each(|hub| hub.end(hub.inner.lock(), Gone::Closed));
    }

    fn end(&self) -> Vec<Arc<Hub>> {
        self.known.lock().drain().map(|(_, hub)| hub).collect()
    }
}

/// Creates a subscription; durable when this returns. Whether there was none of that name: one with the same settings is
/// left as it is.
pub(super) fn create(core: &Arc<Core>, new: &NewSubscription<'_>) -> Result<bool, SubscriptionError> {
    new.validate()?;
    let mut known = core.subscriptions.known.lock();
    let there = match known.get(&*new.name).filter(|hub| !hub.is_gone()) {
        Some(hub) => Some(hub.inner.lock().machine.settings().clone()),
        None => stand(core, &new.name)?.map(|standing| standing.settings),
    };
    if let Some(there) = there {
        let difference = there.difference(new);
        return match difference {
            None => Ok(false),
            Some(difference) => {
                Err(SubscriptionError::Exists { name: new.name.to_string(), difference: difference.into() })
            }
        };
    }
    if names(core)?.len() >= limits::SUBSCRIPTIONS_MAX {
        return Err(SubscriptionError::TooMany { name: new.name.to_string() });
    }
    let settings = new.clone().into_owned();
    let next = resolve(core, &settings, settings.start)?;
    let standing = Standing { next, ..Standing::new(settings) };
    append(core, &new.name, &standing.notes())?.wait()?;
    known.insert(new.name.to_string(), Arc::new(Hub::new(standing)));
    Ok(true)
}

/// Deletes a subscription; durable when this returns. Its members are told.
pub(super) fn delete(core: &Arc<Core>, name: &str) -> Result<(), SubscriptionError> {
    let mut known = core.subscriptions.known.lock();
    let hub = find_in(core, &mut known, name)?;
    let mut inner = hub.inner.lock();
    inner.refuse_if_gone(name)?;
    let deleted = inner.write(core, name, &[Note::Deleted]).and_then(|ticket| Ok(ticket.wait()?));
    known.remove(name);
    let gone = match &deleted {
        Ok(_) => Gone::Deleted,
        Err(error) => Gone::Interrupted(error.to_string()),
    };
    hub.end(inner, gone);
    deleted.map(drop)
}

/// The subscription of that name, to be used.
pub(super) fn find(core: &Arc<Core>, name: &str) -> Result<Arc<Hub>, SubscriptionError> {
    find_in(core, &mut core.subscriptions.known.lock(), name)
}

fn find_in(
    core: &Arc<Core>,
    known: &mut HashMap<String, Arc<Hub>>,
    name: &str,
) -> Result<Arc<Hub>, SubscriptionError> {
    check_subscription_name(name)?;
    refuse_if_closed(core)?;
    if let Some(hub) = known.get(name).filter(|hub| !hub.is_gone()) {
        return Ok(Arc::clone(hub));
    }
    let standing = stand(core, name)?.ok_or_else(|| SubscriptionError::Unknown { name: name.to_owned() })?;
    let hub = Arc::new(Hub::new(standing));
    known.insert(name.to_owned(), Arc::clone(&hub));
    Ok(hub)
}

pub(super) fn refuse_if_closed(core: &Core) -> Result<(), SubscriptionError> {
    if core.follower.get().is_some() {
        return Err(AppendError::ReadOnly.into());
    }
    if core.is_closing() { Err(SubscriptionError::Closed) } else { Ok(()) }
}

/// Names of all that there are.
pub(super) fn names(core: &Arc<Core>) -> Result<Vec<String>, ReadError> {
    let Some(side) = core.subscriptions.side.readable(core)? else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for stream in side.streams()? {
        let (name, head) = stream?;
        // One that was deleted ends with that.
        let last = side.read(Read::stream(&*name).from(head.version))?.next().transpose()?;
        if last.is_some_and(|last| last.event_type() != Note::Deleted.event_type()) {
            names.push(name.to_string());
        }
    }
    names.sort();
    Ok(names)
}

/// How a subscription stands, as it was noted. `None`: there is none.
pub(super) fn stand(core: &Arc<Core>, name: &str) -> Result<Option<Standing>, ReadError> {
    match core.subscriptions.side.readable(core)? {
        Some(side) => fold(&side, Read::stream(name), name),
        None => Ok(None),
    }
}

/// How it stands by these of its notes.
fn fold(side: &Store, read: Read<'_>, name: &str) -> Result<Option<Standing>, ReadError> {
    let mut standing = None;
    for record in side.read(read)? {
        let record = record?;
        let Some(note) = Note::decode(name, record.event_type(), record.data()) else {
            let dir = &side.handle.core.dir;
            return Err(damage_at(dir, record.position().get(), DamageKind::Malformed, None).into());
        };
        standing = Standing::fold(standing, note);
    }
    Ok(standing)
}

/// Sees to it that all notes say something.
pub(super) fn verify(side: &Store) -> Result<(), ReadError> {
    for stream in side.streams()? {
        let (name, _) = stream?;
        fold(side, Read::stream(&*name), &name)?;
    }
    Ok(())
}

/// The position that a start is at, as far as that can be said now: no event before it is to come.
pub(super) fn resolve(
    core: &Arc<Core>,
    settings: &NewSubscription<'_>,
    start: Start,
) -> Result<u64, SubscriptionError> {
    let durable = core.watermark.position();
    let next = match start.bound() {
        None if start == Start::End => durable,
        None => 0,
        Some(Bound::Position(position)) => position.get(),
        Some(_) => {
            let follow = Follow { start, ..settings.follow() };
            follow.validate()?;
            Reader::endless(core, &follow.read(), durable)?.passed().min(durable)
        }
    };
    if next > durable {
        let position = Position::new(next);
        return Err(SubscriptionError::AfterTheEnd { position, next: Position::new(durable) });
    }
    Ok(next)
}

/// Changes a subscription as somebody decided; durable when this returns.
pub(super) fn change<T>(
    core: &Arc<Core>,
    name: &str,
    change: impl FnOnce(&mut Inner) -> Result<T, Refusal>,
) -> Result<T, SubscriptionError> {
    let hub = find(core, name)?;
    let mut inner = hub.inner.lock();
    inner.refuse_if_gone(name)?;
    let changed = change(&mut inner).map_err(|refusal| refused(name, refusal))?;
    hub.note_durably(core, inner)?;
    hub.wake();
    Ok(changed)
}

/// What a refusal is to those outside.
pub(super) fn refused(name: &str, refusal: Refusal) -> SubscriptionError {
    let name = name.to_owned();
    match refusal {
        Refusal::Lost => SubscriptionError::Lost { name },
        Refusal::NotInFlight(position) => SubscriptionError::NotInFlight { position },
        Refusal::NotParked(position) => SubscriptionError::NotParked { position },
        Refusal::Stopped(reason) => SubscriptionError::Stopped { name, reason },
        Refusal::TooManyMembers => SubscriptionError::TooManyMembers { name },
    }
}

/// Appends notes, together.
fn append(core: &Arc<Core>, name: &str, notes: &[Note]) -> Result<Ticket, AppendError> {
    let events = notes.iter().map(|note| NewEvent::new(name, note.event_type()).binary(note.encode()));
    let events = events.fold(Append::new(), Append::event);
    let side = core.subscriptions.side.writable(core)?;
    let ticket = side.append(events)?;
    core.subscriptions.side.has_grown(core, side.next_position().get(), renew);
    Ok(ticket)
}

/// Leaves behind what no longer counts: of each subscription, how it stands is enough.
fn renew(core: &Arc<Core>) {
    // What fails is tried again once there is more; until then all that there is stays.
    let _ = core.subscriptions.side.renew(core, |from, end, to| {
        let Some(last) = end.get().checked_sub(1).map(Position::new) else { return Ok(()) };
        for stream in from.streams().map_err(commit::failed_read)? {
            commit::refuse_if_closed(core)?;
            let (name, _) = stream.map_err(commit::failed_read)?;
            let standing =
                fold(from, Read::stream(&*name).until(last), &name).map_err(commit::failed_read)?;
            for note in standing.iter().flat_map(Standing::notes) {
                let event = NewEvent::new(&*name, note.event_type()).binary(note.encode());
                to.append(event)?.wait()?;
            }
        }
        Ok(())
    });
}

impl Hub {
    fn new(standing: Standing) -> Self {
        let inner = Inner {
            machine: Machine::new(standing),
            reader: None,
            durable: 0,
            offered: None,
            on_its_way: None,
            due: None,
            gone: None,
        };
        Self {
            name: inner.machine.settings().name.to_string(),
            inner: Mutex::new(inner),
            waiting: Mutex::default(),
            is_gone: AtomicBool::new(false),
            notes: Arc::default(),
        }
    }

    fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Ends its use.
    fn end(&self, mut inner: parking_lot::MutexGuard<'_, Inner>, gone: Gone) {
        self.is_gone.store(true, Ordering::Release);
        inner.gone.get_or_insert(gone);
        (inner.reader, inner.offered, inner.due) = (None, None, None);
        drop(inner);
        self.wake();
    }

    /// Has a member woken by what other members do.
    pub(super) fn watch(&self, member: u64, watcher: &Arc<Watcher>, waker: &Waker) {
        if watcher.set(waker) {
            self.waiting.lock().push((member, Arc::clone(watcher)));
        }
    }

    pub(super) fn unwatch(&self, watcher: &Arc<Watcher>) {
        self.waiting.lock().retain(|(_, known)| !Arc::ptr_eq(known, watcher));
    }

    /// Has all members look again that wait.
    pub(super) fn wake(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        waiting.iter().for_each(|(_, watcher)| watcher.wake());
    }

    /// Has the members look again that may take what is there now.
    pub(super) fn wake_takers(&self, only: Option<u64>) {
        let Some(only) = only else { return self.wake() };
        let watcher = {
            let mut waiting = self.waiting.lock();
            let place = waiting.iter().position(|&(member, _)| member == only);
            place.map(|place| waiting.swap_remove(place).1)
        };
        watcher.iter().for_each(|watcher| watcher.wake());
    }

    /// Notes all that is to be noted, and waits until that is durable. Where it fails, nobody goes on from here.
    pub(super) fn note_durably(
        &self,
        core: &Arc<Core>,
        mut inner: parking_lot::MutexGuard<'_, Inner>,
    ) -> Result<(), SubscriptionError> {
        let noted = inner.note(core).and_then(|ticket| Ok(ticket.wait()?));
        if let Err(error) = noted {
            self.end(inner, Gone::Interrupted(error.to_string()));
            return Err(error);
        }
        Ok(())
    }

    /// Sees to it that what is to be noted is, in time.
    pub(super) fn note_soon(self: &Arc<Self>, core: &Arc<Core>, inner: &mut Inner) {
        if inner.due.is_none() && inner.gone.is_none() && inner.machine.is_dirty() {
            let waker =
                Waker::from(Arc::new(Noting { core: Arc::downgrade(core), hub: Arc::downgrade(self) }));
            self.notes.set(&waker);
            inner.due = Some(Pulse::wake_at(core, stopwatch() + NOTE_PERIOD, &self.notes));
        }
    }

    /// Its time has come.
    fn note_now(self: &Arc<Self>, core: &Arc<Core>) {
        let mut inner = self.inner.lock();
        inner.due = None;
        if inner.gone.is_some() || !inner.machine.is_dirty() {
            return;
        }
        match inner.note(core) {
            Ok(ticket) => inner.on_its_way = Some(ticket),
            // All that may be lost are acknowledgements.
            Err(SubscriptionError::Append(AppendError::DiskFull(_))) => self.note_soon(core, &mut inner),
            Err(error) => self.end(inner, Gone::Interrupted(error.to_string())),
        }
    }
}

/// Notes what a subscription has to note.
struct Noting {
    core: Weak<Core>,
    hub: Weak<Hub>,
}

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        if let (Some(core), Some(hub)) = (self.core.upgrade(), self.hub.upgrade()) {
            hub.note_now(&core);
        }
    }
}

impl Inner {
    pub(super) fn refuse_if_gone(&self, name: &str) -> Result<(), SubscriptionError> {
        let name = || name.to_owned();
        match &self.gone {
            None => Ok(()),
            Some(Gone::Deleted) => Err(SubscriptionError::Deleted { name: name() }),
            Some(Gone::Closed) => Err(SubscriptionError::Closed),
            Some(Gone::Interrupted(reason)) => {
                Err(SubscriptionError::Interrupted { name: name(), reason: reason.clone() })
            }
        }
    }

    /// Has what is not noted yet written.
    fn note(&mut self, core: &Arc<Core>) -> Result<Ticket, SubscriptionError> {
        let name = self.machine.settings().name.to_string();
        let ticket = self.write(core, &name, &self.machine.notes())?;
        // Not before it is written: what a full disk refuses is noted another time.
        self.machine.set_noted();
        Ok(ticket)
    }

    fn write(&mut self, core: &Arc<Core>, name: &str, notes: &[Note]) -> Result<Ticket, SubscriptionError> {
        // What failed before is missing: nothing may follow it.
        if let Some(last) = self.on_its_way.take_if(|last| last.is_settled()) {
            last.wait()?;
        }
        Ok(append(core, name, notes)?)
    }

    /// Begins again.
    pub(super) fn reset(&mut self, start: Start, next: u64) {
        self.machine.reset(start, next);
        (self.reader, self.offered) = (None, None);
    }

    /// The next event for a member, if there is one: a step on the way to it.
    pub(super) fn step(&mut self, core: &Arc<Core>, member: u64) -> Result<Found, SubscriptionError> {
        let name = self.machine.settings().name.clone();
        let taken = self.machine.take(member, stopwatch()).map_err(|refusal| refused(&name, refusal))?;
        let (id, attempt) = match taken {
            Taken::Nothing => return Ok(Found::Nothing),
            Taken::More => return self.offer_more(core),
            Taken::Delivery { id, attempt } => (id, attempt),
        };
        match self.taken_event(core, id.position) {
            Ok(Some(event)) => Ok(Found::Delivery(Delivery { id, attempt, event })),
            Ok(None) => {
                self.machine.ack(member, &[id]).map_err(|refusal| refused(&name, refusal))?;
                Ok(Found::OnTheWay)
            }
            Err(error) => {
                self.machine.give_back(member, id);
                Err(self.stop_at_damage(error))
            }
        }
    }

    /// The event that was taken. `None`: the cursor says that it is handled.
    fn taken_event(&mut self, core: &Arc<Core>, position: Position) -> Result<Option<Record>, ReadError> {
        if self.machine.settings().by_cursor {
            let cursor = cursors::get(core, &self.machine.settings().name)?;
            if cursor.is_some_and(|cursor| cursor.position >= Some(position)) {
                return Ok(None);
            }
        }
        if let Some(event) = self.offered.take_if(|event| event.position() == position) {
            return Ok(Some(event));
        }
        let mut locator = Locator::default();
        locator.keep_apart();
        Ok(Some(locator.frame(core, position.get())?.record(position.get(), None)?))
    }

    /// Looks one step further in the log.
    fn offer_more(&mut self, core: &Arc<Core>) -> Result<Found, SubscriptionError> {
        // Before the watermark: what became durable before the end is given.
        let is_over = core.watermark.is_over();
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                self.durable = core.watermark.position();
                let read = read_on(self.machine.settings(), self.machine.start(), self.machine.next());
                none.insert(Reader::endless(core, &read, self.durable)?)
            }
        };
        match reader.step() {
            Some(Ok(Step::Record(record))) if self.machine.start().is_behind(&record) => {
                self.machine.pass(record.position().get() + 1);
            }
            Some(Ok(Step::Record(record))) => {
                let hash = core.hash(record.stream());
                self.machine.offer(Offer { position: record.position().get(), hash });
                self.offered = Some(record);
            }
            Some(Ok(Step::OnTheWay)) => self.machine.pass(reader.passed().min(self.durable)),
            Some(Err(error)) => {
                self.reader = None;
                return Err(self.stop_at_damage(error));
            }
            None => {
                self.machine.pass(self.durable);
                let durable = core.watermark.position();
                if durable <= self.durable {
                    if let Some(reason) = core.watermark.poison() {
                        return Err(ReadError::Stopped { reason: Arc::clone(reason) }.into());
                    }
                    return Ok(if is_over { Found::Ended } else { Found::Nothing });
                }
                self.durable = durable;
                reader.extend(durable);
            }
        }
        Ok(Found::OnTheWay)
    }

    /// What cannot be read because it is damaged is not passed over: somebody decides where to go on.
    fn stop_at_damage(&mut self, error: ReadError) -> SubscriptionError {
        if let ReadError::Damage(damage) = &error {
            self.machine.stop(&format!("damage: {damage}; reset the subscription to go on behind it"));
        }
        error.into()
    }

    /// What a member could not handle is dealt with; whether that has to be durable before it is answered.
    pub(super) fn nack(
        &mut self,
        core: &Core,
        member: u64,
        id: annals_types::DeliveryId,
        nack: &Nack<'_>,
    ) -> Result<bool, Refusal> {
        let now = (stopwatch(), core.clock.now());
        self.machine.nack(member, id, nack, now, rand::random())?;
        Ok(self.machine.has_notes() || !matches!(nack, Nack::Retry(_)))
    }
}

/// What is read from there on.
pub(super) fn read_on<'a>(settings: &NewSubscription<'a>, start: Start, next: u64) -> Read<'a> {
    let read = Follow { start, ..settings.follow() }.read();
    // A version or time that is not there yet is waited for from the first position on.
    if next == 0 { read } else { read.from(Position::new(next)) }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner")
            .field("machine", &self.machine)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}
