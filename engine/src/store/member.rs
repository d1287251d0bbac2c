//! A member of a durable subscription: what it takes, and what it says of what it took.

use super::core::Core;
use super::pulse::{Pulse, Timer};
use super::subscriptions::{self, Found, Hub, Inner, refused};
use crate::clock::stopwatch;
use crate::log::watcher::Watcher;
use crate::subscription::Refusal;
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

/// A member of a durable subscription. It takes events, blocking ([`Member::next_within`]) or to be awaited (it is a
/// stream), and says what became of them ([`Acknowledger`], which it is, too).
///
/// Where it is dropped, or not heard of for the message time-out while others wait, what it holds is handed out again.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals::{Nack, NewEvent, NewSubscription, Store};
/// use std::time::Duration;
///
/// let store = Store::open(dir.path())?;
/// store.append(NewEvent::new("order-42", "OrderPlaced"))?.wait()?;
/// store.create_subscription(&NewSubscription::new("invoicing"))?;
/// let mut member = store.join("invoicing")?;
/// # let send_invoice = |_: &annals::Record| Ok::<(), std::io::Error>(());
/// while let Some(delivery) = member.next_within(Duration::ZERO)? {
///     match send_invoice(&delivery) {
///         Ok(()) => member.ack(delivery.id)?,
///         Err(error) => member.nack(delivery.id, &Nack::retry(error.to_string()))?,
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
    Found(Delivery),
    OnTheWay,
    /// Nothing; until then it has to look again, and whether it is its turn.
    Nothing(Instant, bool),
    Ended,
}

impl Member {
    pub(super) fn join(core: &Arc<Core>, name: &str) -> Result<Self, SubscriptionError> {
        let hub = subscriptions::find(core, name)?;
        let id = {
            let mut inner = hub.inner.lock();
            inner.refuse_if_gone(name)?;
            inner.machine.tick(stopwatch(), core.clock.now());
            inner.machine.join(stopwatch()).map_err(|refusal| refused(name, refusal))?
        };
        Ok(Self {
            acknowledger: Acknowledger { core: Arc::clone(core), hub, id },
            of_log: Arc::default(),
            of_hub: Arc::default(),
            timer: None,
            has_ended: false,
        })
    }

    /// The event that comes next for this member, within this time. `None`: there was none, or there will be none, as the
    /// store was closed ([`Member::has_ended`]).
    ///
    /// # Errors
    /// [`SubscriptionError::Lost`], [`SubscriptionError::Deleted`] and [`SubscriptionError::Interrupted`]: it is no member
    /// any more. [`SubscriptionError::Stopped`] until the subscription is resumed; damage stops it, too.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Delivery>, SubscriptionError> {
        let (mut until, mut is_watching) = (None, false);
        loop {
            let (moment, is_in_turn) = match self.look()? {
                Look::Found(delivery) => return Ok(Some(delivery)),
                Look::OnTheWay => continue,
                Look::Ended => return Ok(None),
                Look::Nothing(moment, is_in_turn) => (moment, is_in_turn),
            };
            let now = stopwatch();
            let until = *until.get_or_insert_with(|| now.checked_add(patience));
            if until.is_some_and(|until| until <= now) {
                return Ok(None);
            }
            if is_watching {
                let moment = until.map_or(moment, |until| until.min(moment));
                std::thread::park_timeout(moment.saturating_duration_since(now));
            } else {
                // Looked at once more: it may have come in between.
                self.watch(is_in_turn, &thread_waker());
            }
            is_watching = !is_watching;
        }
    }

    /// Whether nothing more will come, because the store was closed.
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
        match self.acknowledger.look() {
            Ok(Look::Ended) | Err(SubscriptionError::Closed) => {
                self.has_ended = true;
                Ok(Look::Ended)
            }
            looked => looked,
        }
    }
}

impl Acknowledger {
    /// An event is done with.
    ///
    /// That is noted within 100 ms, and when the store is closed: after a crash, what was acknowledged last may come again.
    ///
    /// # Errors
    /// [`SubscriptionError::NotInFlight`] if this member does not hold it, or not any more;
    /// [`SubscriptionError::Lost`] and others if it is no member any more.
    pub fn ack(&self, id: DeliveryId) -> Result<(), SubscriptionError> {
        self.ack_each(&[id])
    }

    /// Events are done with: all of these, or, where one is not held by this member, none.
    ///
    /// # Errors
    /// As those of [`Self::ack`].
    pub fn ack_each(&self, ids: &[DeliveryId]) -> Result<(), SubscriptionError> {
        self.say(|inner| inner.machine.ack(self.id, ids).map(|()| false))
    }

    /// An event could not be handled: it is handed out again, parked, or skipped, or the subscription stops. All but the
    /// first of these are durable when this returns.
    ///
    /// # Errors
    /// As those of [`Self::ack`]; [`SubscriptionError::Append`] where it could not be made durable.
    pub fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), SubscriptionError> {
        self.say(|inner| inner.nack(&self.core, self.id, id, nack))?;
        // Whoever waits learns of the moment when it is due.
        self.hub.wake();
        Ok(())
    }

    /// The member needs more time: it may hold all that it holds for the whole message time-out from now on.
    ///
    /// # Errors
    /// [`SubscriptionError::Lost`] and others if it is no member any more.
    pub fn renew(&self) -> Result<(), SubscriptionError> {
        self.say(|inner| inner.machine.renew(self.id, stopwatch()).map(|()| false))
    }

    /// Whether it is this member's turn: it is handed events, if there are any.
    #[must_use]
    pub fn is_in_turn(&self) -> bool {
        let inner = self.hub.inner.lock();
        inner.machine.is_in_turn(self.id)
    }

    /// Says something, which others may have waited for; whether it has to be durable before it is answered is its outcome.
    fn say(&self, say: impl FnOnce(&mut Inner) -> Result<bool, Refusal>) -> Result<(), SubscriptionError> {
        let mut inner = self.hub.inner.lock();
        inner.refuse_if_gone(&self.hub.name)?;
        let said = self.hear(&mut inner).and_then(|()| say(&mut inner));
        let takers = inner.machine.is_ready().then(|| inner.machine.only_taker());
        self.note(inner, said == Ok(true))?;
        takers.into_iter().for_each(|only| self.hub.wake_takers(only));
        said.map(drop).map_err(|refusal| refused(&self.hub.name, refusal))
    }

    /// Notes that the member was heard of, after what happened by itself before.
    fn hear(&self, inner: &mut Inner) -> Result<(), Refusal> {
        let now = stopwatch();
        inner.machine.tick(now, self.core.clock.now());
        inner.machine.hear(self.id, now)
    }

    /// Sees to it that what has changed is noted: now, or in time.
    fn note(&self, mut inner: MutexGuard<'_, Inner>, is_lasting: bool) -> Result<(), SubscriptionError> {
        if is_lasting || inner.machine.has_notes() {
            return self.hub.note_durably(&self.core, inner);
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
            looked = inner.step(&self.core, self.id).map(|found| match found {
                Found::Delivery(delivery) => Look::Found(delivery),
                Found::OnTheWay => Look::OnTheWay,
                Found::Ended => Look::Ended,
                Found::Nothing => {
                    // Who waits is heard of often enough to keep its place.
                    let latest = stopwatch() + inner.machine.settings().message_timeout / 3;
                    let moment =
                        inner.machine.next_moment(self.id).map_or(latest, |moment| moment.min(latest));
                    Look::Nothing(moment, inner.machine.is_in_turn(self.id))
                }
            });
        }
        // Damage stops it.
        let is_lasting = matches!(looked, Err(SubscriptionError::Read(ReadError::Damage(_))));
        self.note(inner, is_lasting)?;
        looked
    }
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
        self.hub.inner.lock().machine.leave(self.id);
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
                Ok(Look::Found(delivery)) => return Poll::Ready(Some(Ok(delivery))),
                Ok(Look::Ended) => return Poll::Ready(None),
                Ok(Look::OnTheWay) => {
                    // Others have their turn.
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                Ok(Look::Nothing(moment, _)) if is_watching => {
                    this.timer = Some(Pulse::wake_at(&this.core, moment, &this.of_hub));
                    return Poll::Pending;
                }
                Ok(Look::Nothing(_, is_in_turn)) => {
                    // Looked at once more: it may have come in between.
                    is_watching = true;
                    this.watch(is_in_turn, context.waker());
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
