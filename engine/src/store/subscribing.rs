//! The front door of durable subscriptions.

use super::Store;
use super::commit;
use super::core::Core;
use super::hub::read_on;
use super::member::Member;
use super::read::Reader;
use super::subscriptions::{self, refused};
use crate::subscription::{Machine, Outline, ParkedEntry, Standing};
use annals_types::{
    Append, NewSubscription, Parked, ParkedChoice, Position, Read, Record, Start, SubscriptionError,
    SubscriptionStatus, Timestamp, check_subscription_name,
};
use std::sync::Arc;

impl Store {
    /// Creates a durable subscription; it is durable when this returns. `false`: there was one with just these settings,
    /// and it goes on.
    ///
    /// # Errors
    /// [`SubscriptionError::Exists`] if there is one with other settings; [`SubscriptionError::Input`],
    /// [`SubscriptionError::AfterTheEnd`] and [`SubscriptionError::TooMany`]; failures of reading and writing its state.
    pub fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, SubscriptionError> {
        subscriptions::refuse_if_closed(&self.handle.core)?;
        subscriptions::create(&self.handle.core, new)
    }

    /// Becomes a member of a durable subscription, to be handed its events.
    ///
    /// # Errors
    /// [`SubscriptionError::Unknown`], [`SubscriptionError::TooManyMembers`]; failures of reading its state.
    pub fn join(&self, subscription: &str) -> Result<Member, SubscriptionError> {
        Member::join(&self.handle.core, subscription)
    }

    /// How a durable subscription stands. A store that is open for reading alone says what was noted last.
    ///
    /// # Errors
    /// [`SubscriptionError::Unknown`]; failures of reading its state.
    pub fn subscription(&self, name: &str) -> Result<SubscriptionStatus, SubscriptionError> {
        let core = &self.handle.core;
        let mut status = self.with_outline(name, |outline, open| status(core, outline, open))?;
        // Not while members wait: looking for it may take a while.
        status.oldest = oldest(core, &status);
        Ok(status)
    }

    /// How all durable subscriptions stand, by name.
    ///
    /// # Errors
    /// Failures of reading their state.
    pub fn subscriptions(&self) -> Result<Vec<SubscriptionStatus>, SubscriptionError> {
        let names = subscriptions::names(&self.handle.core)?;
        let standing = names.iter().map(|name| self.subscription(name));
        // Some may be deleted meanwhile.
        standing.filter(|status| !matches!(status, Err(SubscriptionError::Unknown { .. }))).collect()
    }

    /// The parked events of a durable subscription, in position order.
    ///
    /// # Errors
    /// As those of [`Store::subscription`].
    pub fn parked(&self, subscription: &str) -> Result<Vec<Parked>, SubscriptionError> {
        let parked = |(&position, entry): (&u64, &ParkedEntry)| Parked {
            position: Position::new(position),
            failures: entry.failures,
            time: entry.time,
            reason: entry.reason.clone(),
        };
        self.with_outline(subscription, |outline, _| outline.parked.iter().map(parked).collect())
    }

    /// Has parked events handed out again, as if for the first time. Durable when this returns. How many there were.
    ///
    /// # Errors
    /// [`SubscriptionError::NotParked`], [`SubscriptionError::Unknown`]; failures of writing its state.
    pub fn replay_parked(
        &self,
        subscription: &str,
        which: &ParkedChoice,
    ) -> Result<usize, SubscriptionError> {
        subscriptions::change(&self.handle.core, subscription, |machine| {
            let positions = chosen(machine, which);
            machine.replay(&positions).map_err(|refusal| refused(subscription, refusal))
        })
    }

    /// Is done with parked events. Durable when this returns. How many there were.
    ///
    /// # Errors
    /// As those of [`Store::replay_parked`].
    pub fn discard_parked(
        &self,
        subscription: &str,
        which: &ParkedChoice,
    ) -> Result<usize, SubscriptionError> {
        subscriptions::change(&self.handle.core, subscription, |machine| {
            let positions = chosen(machine, which);
            machine.discard(&positions).map_err(|refusal| refused(subscription, refusal))
        })
    }

    /// Begins a durable subscription again, from there. Members stay; what they hold is no longer theirs. Events that are
    /// parked there come again. Durable when this returns. A subscription by cursor has its cursor set, too.
    ///
    /// # Errors
    /// [`SubscriptionError::Unknown`], [`SubscriptionError::AfterTheEnd`], [`SubscriptionError::Input`]; failures of
    /// writing its state.
    pub fn reset_subscription(&self, name: &str, start: Start) -> Result<(), SubscriptionError> {
        let core = &self.handle.core;
        let settings = subscriptions::find(core, name)?.inner.lock().machine.outline().settings.clone();
        let next = subscriptions::resolve(core, &settings, start)?;
        let cursor = settings.by_cursor.then(|| next.checked_sub(1).map(Position::new));
        subscriptions::change(core, name, |machine| {
            if let Some(handled) = cursor {
                // First, and while nobody is handed anything: who handles an event finds the cursor moved, and is refused.
                commit::append(core, &Append::new().advance(name, handled))?.wait()?;
            }
            machine.reset(start, next);
            Ok(())
        })
    }

    /// Has a durable subscription hand out nothing until it is resumed. Durable when this returns.
    ///
    /// # Errors
    /// [`SubscriptionError::Unknown`]; failures of writing its state.
    pub fn stop_subscription(&self, name: &str, reason: &str) -> Result<(), SubscriptionError> {
        subscriptions::change(&self.handle.core, name, |machine| {
            machine.stop(reason);
            Ok(())
        })
    }

    /// Has a durable subscription that was stopped hand out events again. Durable when this returns.
    ///
    /// # Errors
    /// As those of [`Store::stop_subscription`].
    pub fn resume_subscription(&self, name: &str) -> Result<(), SubscriptionError> {
        subscriptions::change(&self.handle.core, name, |machine| {
            machine.resume();
            Ok(())
        })
    }

    /// Deletes a durable subscription and all that is known of it. Durable when this returns. The cursor of one by cursor
    /// stays.
    ///
    /// # Errors
    /// As those of [`Store::stop_subscription`].
    pub fn delete_subscription(&self, name: &str) -> Result<(), SubscriptionError> {
        subscriptions::delete(&self.handle.core, name)
    }

    fn with_outline<T>(
        &self,
        name: &str,
        look: impl FnOnce(&Outline, Open) -> T,
    ) -> Result<T, SubscriptionError> {
        let core = &self.handle.core;
        check_subscription_name(name)?;
        if subscriptions::refuse_if_closed(core).is_ok() {
            let hub = subscriptions::find(core, name)?;
            let machine = &hub.inner.lock().machine;
            let (first, held) = (machine.first_open(), Some((machine.in_flight(), machine.member_count())));
            return Ok(look(machine.outline(), Open { count: machine.open_count(), first, held }));
        }
        let Some(Standing { outline, open }) = subscriptions::stand(core, name)? else {
            return Err(SubscriptionError::Unknown { name: name.to_owned() });
        };
        Ok(look(&outline, Open { count: open.len(), first: open.keys().next().copied(), held: None }))
    }
}

/// What of a subscription is open.
struct Open {
    count: usize,
    first: Option<u64>,
    /// What members hold, and how many these are: known by the process that has the store open for writing.
    held: Option<(usize, usize)>,
}

fn chosen(machine: &Machine, which: &ParkedChoice) -> Vec<Position> {
    match which {
        ParkedChoice::All => machine.outline().parked.keys().copied().map(Position::new).collect(),
        ParkedChoice::At(positions) => positions.clone(),
    }
}

/// All but the time of the first event that is not done.
fn status(core: &Core, outline: &Outline, open: Open) -> SubscriptionStatus {
    let count = |number: usize| number as u64;
    SubscriptionStatus {
        settings: outline.settings.clone(),
        start: outline.start,
        next: Position::new(outline.next),
        lag: core.watermark.position().saturating_sub(outline.next),
        in_flight: open.held.map(|(in_flight, _)| count(in_flight)),
        open: count(open.count),
        parked: count(outline.parked.len()),
        oldest: open.first.map(|position| (Position::new(position), Timestamp::ZERO)),
        members: open.held.map(|(_, members)| count(members)),
        stopped: outline.stopped.clone(),
    }
}

/// The first event that is not done. Of what is damaged, nothing is known.
fn oldest(core: &Arc<Core>, status: &SubscriptionStatus) -> Option<(Position, Timestamp)> {
    let read = match status.oldest {
        Some((position, _)) => Read::all().from(position),
        None => read_on(&status.settings, status.start, status.next.get()),
    };
    let mut events = Reader::new(core, &read).ok()?.map_while(Result::ok);
    let is_to_come = |event: &Record| status.oldest.is_some() || !status.start.is_behind(event);
    events.find(is_to_come).map(|first| (first.position(), first.time()))
}
