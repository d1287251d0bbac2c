//! Durable subscriptions: which there are, and how they stand.
//!
//! Who is handed what is decided by a machine without time or disk (`subscription/`), which its hub (`hub.rs`) gives events
//! from the log. What must last is noted in a side store, in a stream of the subscription's name: all that somebody decided,
//! before it is answered; what was acknowledged, soon. What is noted together is true together, so that after a crash a
//! subscription stands as it stood at one moment.

use super::Store;
use super::commit;
use super::core::Core;
use super::hub::{Gone, Hub};
use super::read::Reader;
use super::side::{Side, SideKind};
use super::ticket::Ticket;
use crate::format::subscription::Note;
use crate::log::damage_at;
use crate::subscription::{Machine, Refusal, Standing};
use annals_types::{
    Append, AppendError, Bound, DamageKind, Follow, NewEvent, NewSubscription, Position, Read, ReadError,
    Start, SubscriptionError, check_subscription_name, limits,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Their side store: it says what nothing else does.
const SUBSCRIPTIONS: SideKind = SideKind { name: "subscriptions", size_min: 10_000, is_dispensable: false };
/// All of a store.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    pub(crate) side: Side,
    known: Mutex<Known>,
}

/// What is known of them. Held while one is created or deleted.
#[derive(Debug, Default)]
struct Known {
    /// Those that were used since the store was opened.
    hubs: HashMap<String, Arc<Hub>>,
    /// How many there are, once they were counted.
    count: Option<usize>,
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
        self.known.lock().hubs.drain().map(|(_, hub)| hub).collect()
    }
}

/// Creates a subscription; durable when this returns. Whether there was none of that name: one with the same settings is
/// left as it is.
pub(super) fn create(core: &Arc<Core>, new: &NewSubscription<'_>) -> Result<bool, SubscriptionError> {
    new.validate()?;
    let mut known = core.subscriptions.known.lock();
    let there = match known.hubs.get(&*new.name).filter(|hub| !hub.is_gone()) {
        Some(hub) => Some(hub.inner.lock().machine.outline().settings.clone()),
        None => stand(core, &new.name)?.map(|standing| standing.outline.settings),
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
    let count = match known.count {
        Some(count) => count,
        None => names(core)?.len(),
    };
    if count >= limits::SUBSCRIPTIONS_MAX {
        return Err(SubscriptionError::TooMany { name: new.name.to_string() });
    }
    let settings = new.clone().into_owned();
    let next = resolve(core, &settings, settings.start)?;
    let standing = Standing::new(settings, next);
    append(core, &new.name, &standing.notes().collect::<Vec<_>>(), || Ok(()))?.wait()?;
    known.hubs.insert(new.name.to_string(), Arc::new(Hub::new(standing)));
    known.count = Some(count + 1);
    Ok(true)
}

/// Deletes a subscription; durable when this returns. Its members are told.
pub(super) fn delete(core: &Arc<Core>, name: &str) -> Result<(), SubscriptionError> {
    let mut known = core.subscriptions.known.lock();
    let hub = find_in(core, &mut known, name)?;
    let mut inner = hub.inner.lock();
    inner.refuse_if_gone(name)?;
    let deleted = inner.write(core, &[Note::Deleted]).and_then(|ticket| Ok(ticket.wait()?));
    known.hubs.remove(name);
    known.count = known.count.filter(|_| deleted.is_ok()).map(|count| count - 1);
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

fn find_in(core: &Arc<Core>, known: &mut Known, name: &str) -> Result<Arc<Hub>, SubscriptionError> {
    check_subscription_name(name)?;
    refuse_if_closed(core)?;
    if let Some(hub) = known.hubs.get(name).filter(|hub| !hub.is_gone()) {
        return Ok(Arc::clone(hub));
    }
    let standing = stand(core, name)?.ok_or_else(|| SubscriptionError::Unknown { name: name.to_owned() })?;
    let hub = Arc::new(Hub::new(standing));
    known.hubs.insert(name.to_owned(), Arc::clone(&hub));
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
        Some(side) => {
            if core.follower.get().is_none() {
                // What is on its way counts, whoever wrote it and gave up since.
                side.settle();
            }
            fold(&side, Read::stream(name), name)
        }
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
    change: impl FnOnce(&mut Machine) -> Result<T, SubscriptionError>,
) -> Result<T, SubscriptionError> {
    let hub = find(core, name)?;
    let mut inner = hub.inner.lock();
    inner.refuse_if_gone(name)?;
    let before = inner.machine.clone();
    let changed = change(&mut inner.machine)?;
    inner.look_anew();
    hub.note_durably(core, inner, Some(before))?;
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

/// Appends notes, together; `check` is asked once no earlier one can be lost unseen any more.
pub(super) fn append(
    core: &Arc<Core>,
    name: &str,
    notes: &[Note],
    check: impl FnOnce() -> Result<(), AppendError>,
) -> Result<Ticket, AppendError> {
    let encoded: Vec<_> = notes.iter().map(|note| (note.event_type(), note.encode())).collect();
    // What reading it costs goes with its bytes, too.
    let size = encoded.iter().map(|(_, data)| 1 + data.len() as u64 / 1_024).sum();
    let events = encoded.into_iter().map(|(event_type, data)| NewEvent::new(name, event_type).binary(data));
    let events = events.fold(Append::new(), Append::event);
    let side = core.subscriptions.side.writable(core)?;
    check()?;
    let ticket = side.append(events)?;
    core.subscriptions.side.has_grown(core, size, renew);
    Ok(ticket)
}

/// Leaves behind what no longer counts: of each subscription, how it stands is enough.
fn renew(core: &Arc<Core>) {
    // What fails is tried again once there is more; until then all that there is stays.
    let _ = core.subscriptions.side.renew(core, |from, end, to| {
        let Some(last) = end.get().checked_sub(1).map(Position::new) else { return Ok(0) };
        let (mut size, mut on_its_way) = (0, None);
        for stream in from.streams().map_err(commit::failed_read)? {
            commit::refuse_if_closed(core)?;
            let (name, _) = stream.map_err(commit::failed_read)?;
            let standing =
                fold(from, Read::stream(&*name).until(last), &name).map_err(commit::failed_read)?;
            for note in standing.iter().flat_map(Standing::notes) {
                let event = NewEvent::new(&*name, note.event_type()).binary(note.encode());
                size += 1 + event.data.len() as u64 / 1_024;
                on_its_way = Some(to.append(event)?);
            }
        }
        // Those of one thread settle in their order.
        on_its_way.map_or(Ok(()), |ticket| ticket.wait().map(drop))?;
        Ok(size)
    });
}
