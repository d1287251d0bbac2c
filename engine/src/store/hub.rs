//! A subscription in use: where its members meet, the machine is given events, and its notes are written.

use super::core::Core;
use super::cursors;
use super::locate::Locator;
use super::pulse::{Pulse, Timer};
use super::query::Step;
use super::read::Reader;
use super::subscriptions::{append, refused};
use super::ticket::Ticket;
use crate::clock::stopwatch;
use crate::format::subscription::Note;
use crate::log::watcher::Watcher;
use crate::subscription::{Machine, Offer, Refusal, Standing, Taken};
use annals_types::{
    AppendError, CursorAt, Delivery, DeliveryId, Follow, Nack, NewSubscription, Position, Read, ReadError,
    Record, Start, SubscriptionError,
};
use parking_lot::{Mutex, MutexGuard};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::Duration;

/// How long what was acknowledged may go without being noted: what a crash makes come again.
const NOTE_PERIOD: Duration = Duration::from_millis(100);

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
    pub(super) gone: Option<Gone>,
}

/// Why it is not used any more.
#[derive(Clone, Debug)]
pub(super) enum Gone {
    Deleted,
    Closed,
    Interrupted(String),
}

/// How far a look for the next event has come.
pub(super) enum Found {
    Delivery(Box<Delivery>),
    /// More steps are needed.
    OnTheWay,
    Nothing,
    /// Nothing, for ever.
    Ended,
}

/// How many hand-outs there may have been before, by whatever has handed out events in this process: none has the number of
/// another.
fn deliveries_before() -> u64 {
    static MACHINES: AtomicU64 = AtomicU64::new(0);
    MACHINES.fetch_add(1, Ordering::Relaxed) << 40
}

impl Hub {
    pub(super) fn new(standing: Standing) -> Self {
        let inner = Inner {
            machine: Machine::new(standing, deliveries_before()),
            reader: None,
            durable: 0,
            offered: None,
            on_its_way: None,
            due: None,
            gone: None,
        };
        Self {
            name: inner.machine.outline().settings.name.to_string(),
            inner: Mutex::new(inner),
            waiting: Mutex::default(),
            is_gone: AtomicBool::new(false),
            notes: Arc::default(),
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Acquire)
    }

    /// Ends its use.
    pub(super) fn end(&self, mut inner: MutexGuard<'_, Inner>, gone: Gone) {
        self.is_gone.store(true, Ordering::Release);
        inner.gone.get_or_insert(gone);
        inner.due = None;
        inner.look_anew();
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

    /// Notes all that is to be noted, and waits until that is durable. Where the disk is full, all is as it was `before`;
    /// where it fails otherwise, nobody goes on from here.
    pub(super) fn note_durably(
        &self,
        core: &Arc<Core>,
        mut inner: MutexGuard<'_, Inner>,
        before: Option<Machine>,
    ) -> Result<(), SubscriptionError> {
        let noted = inner.note(core).and_then(|ticket| Ok(ticket.wait()?));
        match (noted, before) {
            (Ok(_), _) => Ok(()),
            (Err(SubscriptionError::Append(full @ AppendError::DiskFull(_))), Some(before)) => {
                inner.machine = before;
                Err(full.into())
            }
            (Err(error), _) => {
                self.end(inner, Gone::Interrupted(error.to_string()));
                Err(error)
            }
        }
    }

    /// Sees to it that what is to be noted is, in time.
    pub(super) fn note_soon(self: &Arc<Self>, core: &Arc<Core>, inner: &mut Inner) {
        let is_due = inner.machine.is_dirty() || inner.on_its_way.is_some();
        if inner.due.is_none() && inner.gone.is_none() && is_due {
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
        if inner.gone.is_some() {
            return;
        }
        let noted = if inner.machine.is_dirty() {
            inner.note(core).map(|ticket| inner.on_its_way = Some(ticket))
        } else {
            inner.check_notes().map_err(Into::into)
        };
        match noted {
            // All that may be lost are acknowledgements.
            Ok(()) | Err(SubscriptionError::Append(AppendError::DiskFull(_))) => {
                self.note_soon(core, &mut inner);
            }
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
    pub(super) fn note(&mut self, core: &Arc<Core>) -> Result<Ticket, SubscriptionError> {
        let ticket = self.write(core, &self.machine.notes())?;
        // Not before it is written: what a full disk refuses is noted another time.
        self.machine.set_noted();
        Ok(ticket)
    }

    /// Has these notes written.
    pub(super) fn write(&mut self, core: &Arc<Core>, notes: &[Note]) -> Result<Ticket, SubscriptionError> {
        let name = self.machine.outline().settings.name.clone();
        Ok(append(core, &name, notes, || self.check_notes())?)
    }

    /// Sees whether the last notes arrived: what failed is missing, and nothing may follow it.
    fn check_notes(&mut self) -> Result<(), AppendError> {
        let settled = self.on_its_way.take_if(|last| last.is_settled());
        settled.map_or(Ok(()), |last| last.wait().map(drop))
    }

    /// It may have to read from another place.
    pub(super) fn look_anew(&mut self) {
        (self.reader, self.offered) = (None, None);
    }

    /// The next event for a member, if there is one: a step on the way to it.
    pub(super) fn step(&mut self, core: &Arc<Core>, member: u64) -> Result<Found, SubscriptionError> {
        let taken = self.machine.take(member, stopwatch()).map_err(|refusal| self.refused(refusal))?;
        let (id, attempt) = match taken {
            Taken::Nothing => return Ok(Found::Nothing),
            Taken::More => return self.offer_more(core),
            Taken::Delivery { id, attempt } => (id, attempt),
        };
        let cursor = match self.cursor(core) {
            // It was handled, though that was not acknowledged.
            Ok(Some(cursor)) if cursor.position >= Some(id.position) => {
                self.machine.ack(member, &[id]).map_err(|refusal| self.refused(refusal))?;
                return Ok(Found::OnTheWay);
            }
            Ok(cursor) => cursor,
            Err(error) => {
                self.machine.give_back(member, id);
                return Err(error.into());
            }
        };
        match self.event_at(core, id.position) {
            Ok(event) => Ok(Found::Delivery(Box::new(Delivery { id, attempt, event, cursor }))),
            Err(ReadError::Damage(damage)) => {
                let damage = Nack::park(format!("damage: {damage}"));
                self.nack(core, member, id, &damage).map_err(|refusal| self.refused(refusal))?;
                Ok(Found::OnTheWay)
            }
            Err(error) => {
                self.machine.give_back(member, id);
                Err(error.into())
            }
        }
    }

    /// Where the cursor is, if there is one that says how far the subscription has come.
    fn cursor(&self, core: &Arc<Core>) -> Result<Option<CursorAt>, ReadError> {
        let settings = &self.machine.outline().settings;
        if !settings.by_cursor {
            return Ok(None);
        }
        let position = cursors::get(core, &settings.name)?.and_then(|cursor| cursor.position);
        Ok(Some(CursorAt { name: Arc::from(&*settings.name), position }))
    }

    fn event_at(&mut self, core: &Arc<Core>, position: Position) -> Result<Record, ReadError> {
        if let Some(event) = self.offered.take_if(|event| event.position() == position) {
            return Ok(event);
        }
        let mut locator = Locator::default();
        locator.keep_apart();
        Ok(locator.frame(core, position.get())?.record(position.get(), None)?)
    }

    fn refused(&self, refusal: Refusal) -> SubscriptionError {
        refused(&self.machine.outline().settings.name, refusal)
    }

    /// Looks one step further in the log.
    fn offer_more(&mut self, core: &Arc<Core>) -> Result<Found, SubscriptionError> {
        // Before the watermark: what became durable before the end is given.
        let is_over = core.watermark.is_over();
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                self.durable = core.watermark.position();
                let outline = self.machine.outline();
                let read = read_on(&outline.settings, outline.start, outline.next);
                none.insert(Reader::endless(core, &read, self.durable)?)
            }
        };
        match reader.step() {
            Some(Ok(Step::Record(record))) if self.machine.outline().start.is_behind(&record) => {
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
            let way_on = "restore that file and resume it, or reset it to a place behind";
            self.machine.stop(&format!("damage: {damage}; {way_on}"));
        }
        error.into()
    }

    /// What a member could not handle is dealt with.
    pub(super) fn nack(
        &mut self,
        core: &Core,
        member: u64,
        id: DeliveryId,
        nack: &Nack<'_>,
    ) -> Result<(), Refusal> {
        let now = (stopwatch(), core.clock.now());
        self.machine.nack(member, id, nack, now, rand::random())
    }
}

/// What is read from there on.
pub(super) fn read_on<'a>(settings: &NewSubscription<'a>, start: Start, next: u64) -> Read<'a> {
    let read = Follow { start, ..settings.follow() }.read();
    // A version or time that is not there yet is waited for from the first position on.
    if next == 0 { read } else { read.from(Position::new(next)) }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("machine", &self.machine)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}
