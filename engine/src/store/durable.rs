//! The front door of durable subscriptions.

use super::Store;
use super::commit;
use super::core::Core;
use super::member::Member;
use super::read::Reader;
use super::subscriptions;
use crate::subscription::{Machine, ParkedEntry, Standing};
use annals_types::{
    Append, NewSubscription, Parked, ParkedChoice, Position, Start, SubscriptionError, SubscriptionStatus,
    Timestamp, check_subscription_name,
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
        self.with_standing(name, |standing| match standing {
            Known::Used(machine) => status(core, &Facts::of_machine(machine)),
            Known::Noted(standing) => status(core, &Facts::of_standing(standing)),
        })
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
        self.with_standing(subscription, |standing| {
            let entries = match standing {
                Known::Used(machine) => machine.parked(),
                Known::Noted(standing) => &standing.parked,
            };
            entries.iter().map(parked).collect()
        })
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
        subscriptions::change(&self.handle.core, subscription, |inner| {
            let positions = chosen(&inner.machine, which);
            inner.machine.replay(&positions)
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
        subscriptions::change(&self.handle.core, subscription, |inner| {
            let positions = chosen(&inner.machine, which);
            inner.machine.discard(&positions)
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
        let settings = subscriptions::find(core, name)?.inner.lock().machine.settings().clone();
        let next = subscriptions::resolve(core, &settings, start)?;
        if settings.by_cursor {
            // First: until the rest is done, the cursor counts.
            let handled = next.checked_sub(1).map(Position::new);
            commit::append(core, &Append::new().advance(name, handled))?.wait()?;
        }
        subscriptions::change(core, name, |inner| {
            inner.reset(start, next);
            Ok(())
        })
    }

    /// Has a durable subscription hand out nothing until it is resumed. Durable when this returns.
    ///
    /// # Errors
    /// [`SubscriptionError::Unknown`]; failures of writing its state.
    pub fn stop_subscription(&self, name: &str, reason: &str) -> Result<(), SubscriptionError> {
        subscriptions::change(&self.handle.core, name, |inner| {
            inner.machine.stop(reason);
            Ok(())
        })
    }

    /// Has a durable subscription that was stopped hand out events again. Durable when this returns.
    ///
    /// # Errors
    /// As those of [`Store::stop_subscription`].
    pub fn resume_subscription(&self, name: &str) -> Result<(), SubscriptionError> {
        subscriptions::change(&self.handle.core, name, |inner| {
            inner.machine.resume();
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

    fn with_standing<T>(
        &self,
        name: &str,
        look: impl FnOnce(Known<'_>) -> T,
    ) -> Result<T, SubscriptionError> {
        let core = &self.handle.core;
        check_subscription_name(name)?;
        if subscriptions::refuse_if_closed(core).is_ok() {
            let hub = subscriptions::find(core, name)?;
            let inner = hub.inner.lock();
            return Ok(look(Known::Used(&inner.machine)));
        }
        match subscriptions::stand(core, name)? {
            Some(standing) => Ok(look(Known::Noted(&standing))),
            None => Err(SubscriptionError::Unknown { name: name.to_owned() }),
        }
    }
}

/// What is known of a subscription.
enum Known<'a> {
    /// By the process that has the store open for writing.
    Used(&'a Machine),
    /// By others.
    Noted(&'a Standing),
}

fn chosen(machine: &Machine, which: &ParkedChoice) -> Vec<Position> {
    match which {
        ParkedChoice::All => machine.parked().keys().copied().map(Position::new).collect(),
        ParkedChoice::At(positions) => positions.clone(),
    }
}

/// What a status says, whoever knows it.
struct Facts<'a> {
    settings: &'a NewSubscription<'static>,
    start: Start,
    next: u64,
    open: usize,
    first_open: Option<u64>,
    parked: usize,
    stopped: Option<&'a str>,
    in_flight: Option<usize>,
    members: Option<usize>,
}

impl<'a> Facts<'a> {
    fn of_machine(machine: &'a Machine) -> Self {
        Self {
            settings: machine.settings(),
            start: machine.start(),
            next: machine.next(),
            open: machine.open_count(),
            first_open: machine.first_open(),
            parked: machine.parked().len(),
            stopped: machine.stopped(),
            in_flight: Some(machine.in_flight()),
            members: Some(machine.member_count()),
        }
    }

    fn of_standing(standing: &'a Standing) -> Self {
        Self {
            settings: &standing.settings,
            start: standing.start,
            next: standing.next,
            open: standing.open.len(),
            first_open: standing.open.keys().next().copied(),
            parked: standing.parked.len(),
            stopped: standing.stopped.as_deref(),
            in_flight: None,
            members: None,
        }
    }
}

fn status(core: &Arc<Core>, facts: &Facts<'_>) -> SubscriptionStatus {
    let durable = core.watermark.position();
    let count = |number: usize| number as u64;
    SubscriptionStatus {
        settings: facts.settings.clone(),
        start: facts.start,
        next: Position::new(facts.next),
        lag: durable.saturating_sub(facts.next),
        in_flight: facts.in_flight.map(count),
        open: count(facts.open),
        parked: count(facts.parked),
        oldest: oldest(core, facts),
        members: facts.members.map(count),
        stopped: facts.stopped.map(str::to_owned),
    }
}

/// The first event that is not done. Of what is damaged, nothing is known.
fn oldest(core: &Arc<Core>, facts: &Facts<'_>) -> Option<(Position, Timestamp)> {
    let read = match facts.first_open {
        Some(position) => annals_types::Read::all().from(Position::new(position)),
        None => subscriptions::read_on(facts.settings, facts.start, facts.next),
    };
    let first = Reader::new(core, &read.limit(1)).ok()?.next()?.ok()?;
    Some((first.position(), first.time()))
}
