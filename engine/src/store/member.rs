//! A member of a durable subscription: what it takes, and what it says of what it took.

use super::core::Core;
use super::hub::{Found, Hub, Inner};
use super::pulse::{Pulse, Timer};
use super::subscriptions::{self, refused};
use crate::clock::stopwatch;
use crate::log::watcher::Watcher;
use crate::subscription::{Machine, MayGive, Refusal};
use annals_types::{Delivery, DeliveryId, Nack, ReadError, SubscriptionError};
use futures_core::Stream;
use parking_lot::MutexGuard;
use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Steps of a search that one look makes.
const STEPS_A_LOOK: u32 = 64;

/// A member of a durable subscription, in the process that has the store open for writing: all members are there. It takes
/// events, blocking ([`Member::next_within`]) or awaited (it is a stream), and says what became of them ([`Acknowledger`],
/// which it is, too).
///
/// An event without an answer within the handling time-out is taken back and counts as failed; after too many failures it is
/// parked. What a dropped member held is handed out again; it counts as failed where its thread panics. That a process ended
/// is not counted. The one member of an exclusive subscription loses its place if it is silent, or holds an event, for as
/// long while another waits.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals::{Nack, NewEvent, NewSubscription, Store, SubscriptionError};
/// use std::time::Duration;
///
/// let store = Store::open(dir.path())?;
/// store.append(NewEvent::new("order-42", "OrderPlaced"))?.wait()?;
/// store.create_subscription(&NewSubscription::new("invoicing"))?;
/// let mut member = store.join("invoicing")?;
/// # let send_invoice = |_: &annals::Record| Ok::<(), std::io::Error>(());
/// while let Some(delivery) = member.next_within(Duration::ZERO)? {
///     let answered = match send_invoice(&delivery) {
///         Ok(()) => member.ack(delivery.id),
///         Err(error) => member.nack(delivery.id, &Nack::retry(error.to_string())),
///     };
///     match answered {
///         // It took too long, and somebody was handed the event again.
///         Err(SubscriptionError::NotInFlight { .. }) => {}
///         answered => answered?,
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Member {
    acknowledger: Acknowledger,
    /// Wakes it for what becomes durable.
    of_log: Arc<Watcher>,
    /// Wakes it for what other members do.
    of_hub: Arc<Watcher>,
    timer: Option<Timer>,
    /// The reason for which the subscription is stopped, once that was told.
    told: Option<String>,
    has_ended: bool,
}

/// Says what became of events that a member took; can be cloned, and used from other threads.
#[derive(Clone)]
pub struct Acknowledger {
    core: Arc<Core>,
    hub: Arc<Hub>,
    id: u64,
}

/// What a look has brought.
enum Look {
    Found(Box<Delivery>),
    OnTheWay,
    /// Nothing, for now.
    Nothing(Wait),
    /// Nothing, as the subscription is stopped, for this reason.
    Stopped(String, Wait),
    Ended,
}

/// For what a member waits.
#[derive(Clone, Copy)]
struct Wait {
    /// When it has to look again in any case.
    until: Instant,
    /// Whether it is its turn, should anything come.
    is_in_turn: bool,
}

impl Member {
    pub(super) fn join(core: &Arc<Core>, name: &str) -> Result<Self, SubscriptionError> {
        let hub = subscriptions::find(core, name)?;
        let id = {
            let mut inner = hub.inner.lock();
            inner.refuse_if_gone(name)?;
            inner.machine.tick(stopwatch(), core.clock.now());
            let joined = inner.machine.join(stopwatch()).map_err(|refusal| refused(name, refusal));
            if inner.machine.has_notes() {
                hub.note_durably(core, inner, None)?;
            }
            joined?
        };
        Ok(Self {
            acknowledger: Acknowledger { core: Arc::clone(core), hub, id },
            of_log: Arc::default(),
            of_hub: Arc::default(),
            timer: None,
            told: None,
            has_ended: false,
        })
    }

    /// The event that comes next for this member, within this time. `None`: there was none, or there will be none
    /// ([`Member::has_ended`]).
    ///
    /// # Errors
    /// [`SubscriptionError::Lost`], [`SubscriptionError::Deleted`] and [`SubscriptionError::Interrupted`]: it is no member
    /// any more, and has ended. [`SubscriptionError::Stopped`], once each time that the subscription is stopped: from then
    /// on it waits until that is resumed. Damage of what was not looked at yet stops it, and is told first.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Delivery>, SubscriptionError> {
        let (mut until, mut is_watching) = (None, false);
        loop {
            let wait = match self.look()? {
                Look::Found(delivery) => return Ok(Some(*delivery)),
                Look::OnTheWay => continue,
                Look::Ended => return Ok(None),
                Look::Nothing(wait) | Look::Stopped(_, wait) => wait,
            };
            let now = stopwatch();
            let until = *until.get_or_insert_with(|| now.checked_add(patience));
            if until.is_some_and(|until| until <= now) {
                return Ok(None);
            }
            if is_watching {
                let moment = until.map_or(wait.until, |until| until.min(wait.until));
                std::thread::park_timeout(moment.saturating_duration_since(now));
            } else {
                // Looked at once more: it may have come in between.
                self.watch(wait.is_in_turn, &thread_waker());
            }
            is_watching = !is_watching;
        }
    }

    /// Whether nothing more will come: the store was closed, or it is no member any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// What can be said from other threads.
    #[must_use]
    pub fn acknowledger(&self) -> Acknowledger {
        self.acknowledger.clone()
    }

    fn watch(&self, is_in_turn: bool, waker: &Waker) {
        if is_in_turn {
            self.core.watermark.watch(&self.of_log, waker);
        }
        self.hub.watch(self.id, &self.of_hub, waker);
    }

    /// One look at what is there.
    fn look(&mut self) -> Result<Look, SubscriptionError> {
        if self.has_ended {
            return Ok(Look::Ended);
        }
        let looked = self.acknowledger.look();
        match &looked {
            Ok(Look::Stopped(reason, _)) if self.told.as_ref() != Some(reason) => {
                self.told = Some(reason.clone());
                return Err(refused(&self.hub.name, Refusal::Stopped(reason.clone())));
            }
            Ok(Look::Stopped(..)) => {}
            Ok(Look::Ended) => self.has_ended = true,
            Ok(_) => self.told = None,
            Err(SubscriptionError::Closed) => {
                self.has_ended = true;
                return Ok(Look::Ended);
            }
            Err(
                SubscriptionError::Lost { .. }
                | SubscriptionError::Deleted { .. }
                | SubscriptionError::Interrupted { .. }
                | SubscriptionError::Append(_),
            ) => self.has_ended = true,
            Err(_) => self.told = None,
        }
        looked
    }
}

impl Acknowledger {
    /// An event is done with.
    ///
    /// That is noted within 100 ms, and when the store is closed: after a crash, what was acknowledged last may come again.
    /// Where the event was taken back, it is not too late as long as nobody was handed it again.
    ///
    /// # Errors
    /// [`SubscriptionError::NotInFlight`] if it was not handed to this member, was answered, or was handed out again;
    /// [`SubscriptionError::Lost`] and others if it is no member any more.
    pub fn ack(&self, id: DeliveryId) -> Result<(), SubscriptionError> {
        self.ack_each(&[id])
    }

    /// Events are done with: all of these, or, where one is not held by this member, none.
    ///
    /// # Errors
    /// As those of [`Self::ack`].
    pub fn ack_each(&self, ids: &[DeliveryId]) -> Result<(), SubscriptionError> {
        self.say(Lasting::Soon, |inner| inner.machine.ack(self.id, ids))
    }

    /// An event could not be handled: it is handed out again, parked, or skipped, or the subscription stops. All but the
    /// first of these are durable when this returns, so that it waits for the disk.
    ///
    /// # Errors
    /// As those of [`Self::ack`]; [`SubscriptionError::Append`] where it could not be made durable.
    pub fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), SubscriptionError> {
        let lasting = if matches!(nack, Nack::Retry(_)) { Lasting::Soon } else { Lasting::Now };
        self.say(lasting, |inner| inner.nack(&self.core, self.id, id, nack))?;
        // Whoever waits learns of the moment when it is due.
        self.hub.wake();
        Ok(())
    }

    /// The member needs more time: it may hold all that it holds for the whole handling time-out from now on.
    ///
    /// # Errors
    /// [`SubscriptionError::Lost`] and others if it is no member any more.
    pub fn renew(&self) -> Result<(), SubscriptionError> {
        self.say(Lasting::Soon, |inner| inner.machine.renew(self.id, stopwatch()))
    }

    /// Whether it is this member's turn: it is handed events, if there are any.
    #[must_use]
    pub fn is_in_turn(&self) -> bool {
        !self.hub.is_gone() && self.hub.inner.lock().machine.is_in_turn(self.id)
    }

    /// Says something, which others may have waited for.
    fn say(
        &self,
        lasting: Lasting,
        say: impl FnOnce(&mut Inner) -> Result<(), Refusal>,
    ) -> Result<(), SubscriptionError> {
        let mut inner = self.hub.inner.lock();
        inner.refuse_if_gone(&self.hub.name)?;
        let heard = self.hear(&mut inner);
        let before = (lasting == Lasting::Now).then(|| inner.machine.clone());
        let (gave, was_full) = (inner.machine.may_give(), inner.machine.is_full(self.id));
        let said = heard.and_then(|()| say(&mut inner));
        let gives = inner.machine.may_give();
        let can_take =
            gives == MayGive::Ready || gives == MayGive::More && (was_full || gave == MayGive::Nothing);
        let takers = can_take.then(|| inner.machine.only_taker());
        self.note(inner, if said.is_ok() { lasting } else { Lasting::Soon }, before)?;
        takers.into_iter().for_each(|only| self.hub.wake_takers(only));
        said.map_err(|refusal| refused(&self.hub.name, refusal))
    }

    /// The member was heard of; what happened by itself happened before.
    fn hear(&self, inner: &mut Inner) -> Result<(), Refusal> {
        let now = stopwatch();
        inner.machine.tick(now, self.core.clock.now());
        inner.machine.hear(self.id, now)
    }

    /// Sees to it that what has changed is noted.
    fn note(
        &self,
        mut inner: MutexGuard<'_, Inner>,
        lasting: Lasting,
        before: Option<Machine>,
    ) -> Result<(), SubscriptionError> {
        if lasting == Lasting::Now || inner.machine.has_notes() {
            return self.hub.note_durably(&self.core, inner, before);
        }
        self.hub.note_soon(&self.core, &mut inner);
        Ok(())
    }

    fn look(&self) -> Result<Look, SubscriptionError> {
        let mut inner = self.hub.inner.lock();
        inner.refuse_if_gone(&self.hub.name)?;
        let heard = self.hear(&mut inner).map_err(|refusal| refused(&self.hub.name, refusal));
        let mut looked = heard.map(|()| Look::OnTheWay);
        for _ in 0..STEPS_A_LOOK {
            if !matches!(looked, Ok(Look::OnTheWay)) {
                break;
            }
            looked = match inner.step(&self.core, self.id) {
                Ok(Found::Delivery(delivery)) => Ok(Look::Found(delivery)),
                Ok(Found::OnTheWay) => Ok(Look::OnTheWay),
                Ok(Found::Ended) => Ok(Look::Ended),
                Ok(Found::Nothing) => Ok(Look::Nothing(self.wait(&inner))),
                Err(SubscriptionError::Stopped { reason, .. }) => {
                    Ok(Look::Stopped(reason, self.wait(&inner)))
                }
                Err(error) => Err(error),
            };
        }
        // Damage stops it.
        let is_damaged = matches!(looked, Err(SubscriptionError::Read(ReadError::Damage(_))));
        let has_failed = looked.is_err();
        self.note(inner, if is_damaged { Lasting::Now } else { Lasting::Soon }, None)?;
        if has_failed {
            // Others may get what this one did not.
            self.hub.wake();
        }
        looked
    }

    fn wait(&self, inner: &Inner) -> Wait {
        // Who waits is heard of often enough to keep its place.
        let latest = stopwatch() + inner.machine.outline().settings.handling_timeout / 3;
        Wait {
            until: inner.machine.next_moment(self.id).map_or(latest, |moment| moment.min(latest)),
            is_in_turn: inner.machine.is_in_turn(self.id),
        }
    }
}

/// When what was said has to be durable.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasting {
    /// Before it is answered.
    Now,
    Soon,
}

impl Deref for Member {
    type Target = Acknowledger;

    fn deref(&self) -> &Acknowledger {
        &self.acknowledger
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.core.watermark.unwatch(&self.of_log);
        self.hub.unwatch(&self.of_hub);
        let mut inner = self.hub.inner.lock();
        if std::thread::panicking() {
            inner.machine.fail_held(self.id, "its handler panicked", self.core.clock.now());
        }
        inner.machine.leave(self.id);
        // What cannot be noted now is handed out again.
        let _ =
            if inner.gone.is_some() { Ok(()) } else { self.acknowledger.note(inner, Lasting::Soon, None) };
        self.hub.wake();
    }
}

impl Stream for Member {
    type Item = Result<Delivery, SubscriptionError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut is_watching = false;
        loop {
            match this.look() {
                Ok(Look::Found(delivery)) => return Poll::Ready(Some(Ok(*delivery))),
                Ok(Look::Ended) => return Poll::Ready(None),
                Ok(Look::OnTheWay) => {
                    // Others have their turn.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Look::Nothing(wait) | Look::Stopped(_, wait)) if is_watching => {
                    this.timer = Some(Pulse::wake_at(&this.core, wait.until, &this.of_hub));
                    return Poll::Pending;
                }
                Ok(Look::Nothing(wait) | Look::Stopped(_, wait)) => {
                    // Looked at once more: it may have come in between.
                    is_watching = true;
                    this.watch(wait.is_in_turn, context.waker());
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// Wakes the thread that made it.
fn thread_waker() -> Waker {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    Waker::from(Arc::new(Unpark(std::thread::current())))
}

impl fmt::Debug for Acknowledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acknowledger")
            .field("subscription", &self.hub.name)
            .field("member", &self.id)
            .finish()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("subscription", &self.hub.name).field("member", &self.id).finish()
    }
}
