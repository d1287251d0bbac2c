//! Durable subscriptions: named, kept in the store, with members that handle what they are handed.

use crate::append::Append;
use crate::error::InputError;
use crate::event::{Record, check_name};
use crate::follow::{Follow, Start};
use crate::limits;
use crate::position::{Position, Timestamp};
use crate::query::Query;
use crate::read::Read;
use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

/// Who is handed events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Membership {
    /// One member; while others wait, the next one takes over when it leaves, or is silent or holds an event for the
    /// handling time-out.
    #[default]
    Exclusive,
    /// All members, each event to one of them.
    Shared,
}

/// What waits until earlier events are done: acknowledged, skipped or parked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum DeliveryOrder {
    /// An event waits for the earlier ones of its stream. Where 1,000 wait, no more is looked for until fewer do.
    #[default]
    ByStream,
    /// An event waits for all earlier ones: they are handed out one at a time.
    Total,
    /// None waits.
    Unordered,
}

/// A durable subscription to be created: what it brings, and how.
///
/// ```
/// use annals_types::{NewSubscription, QueryItem};
/// use std::time::Duration;
/// let invoicing = NewSubscription::new("invoicing")
///     .query(QueryItem::new().of_type("OrderPlaced"))
///     .shared()
///     .in_flight_max(8)
///     .handling_timeout(Duration::from_secs(10))
///     .retries(3, Duration::from_millis(200), Duration::from_secs(5));
/// assert!(invoicing.validate().is_ok());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewSubscription<'a> {
    /// Its name, up to 256 bytes.
    pub name: Cow<'a, str>,
    /// The stream that it is about; `None`: everything.
    pub stream: Option<Cow<'a, str>>,
    /// Of that, the events that match.
    pub query: Query<'a>,
    /// Where it begins. Default: with the first event.
    pub start: Start,
    /// Who is handed events. Default: one member.
    pub membership: Membership,
    /// What waits for what. Default: events of one stream for each other.
    pub order: DeliveryOrder,
    /// How many events a member may hold at a time, 1 to 1,000; all members together hold 10,000 at most. Default: 32.
    pub in_flight_max: u32,
    /// How long a member may hold an event, and how long the one member of an exclusive subscription may not be heard of
    /// while others wait for its place: 1 ms to a day. Default: 30 seconds.
    pub handling_timeout: Duration,
    /// How often an event is handed out again after it failed before it is parked. Default: 10.
    pub retries_max: u32,
    /// The pause after the first failure of an event; each further one doubles it. Of each, between half and all is waited,
    /// by chance. Default: 100 ms.
    pub backoff: Duration,
    /// The longest pause, up to a day. Default: 30 seconds.
    pub backoff_max: Duration,
    /// Whether how far it has come is the cursor of the same name, which its member sets with what it appends:
    /// exactly once. It stops where it would park an event. Default: no.
    pub by_cursor: bool,
}

impl<'a> NewSubscription<'a> {
    /// A subscription to everything, from the first event on.
    pub fn new(name: impl Into<Cow<'a, str>>) -> Self {
        Self {
            name: name.into(),
            stream: None,
            query: Query::all(),
            start: Start::First,
            membership: Membership::default(),
            order: DeliveryOrder::default(),
            in_flight_max: 32,
            handling_timeout: Duration::from_secs(30),
            retries_max: 10,
            backoff: Duration::from_millis(100),
            backoff_max: Duration::from_secs(30),
            by_cursor: false,
        }
    }

    /// Brings the events of one stream alone.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<Cow<'a, str>>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// Brings the events alone that match.
    #[must_use]
    pub fn query(mut self, query: impl Into<Query<'a>>) -> Self {
        self.query = query.into();
        self
    }

    /// Sets where it begins.
    #[must_use]
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Has its members compete for the events.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.membership = Membership::Shared;
        self
    }

    /// Sets what waits for what.
    #[must_use]
    pub fn order(mut self, order: DeliveryOrder) -> Self {
        self.order = order;
        self
    }

    /// Sets how many events a member may hold at a time.
    #[must_use]
    pub fn in_flight_max(mut self, events: u32) -> Self {
        self.in_flight_max = events;
        self
    }

    /// Sets how long a member may hold an event, or not be heard of.
    #[must_use]
    pub fn handling_timeout(mut self, timeout: Duration) -> Self {
        self.handling_timeout = timeout;
        self
    }

    /// Sets how often an event is handed out again after it failed, and the shortest and longest pause before that.
    #[must_use]
    pub fn retries(mut self, retries_max: u32, backoff: Duration, backoff_max: Duration) -> Self {
        self.retries_max = retries_max;
        (self.backoff, self.backoff_max) = (backoff, backoff_max);
        self
    }

    /// Makes the cursor of the same name say how far it has come: the member advances it with what it appends
    /// ([`Delivery::handled_by`]), and so handles each event exactly once. Events come one at a time, to one member. One that
    /// leads to no append is acknowledged alone; one that would be parked stops the subscription.
    #[must_use]
    pub fn by_cursor(mut self) -> Self {
        (self.by_cursor, self.order) = (true, DeliveryOrder::Total);
        self
    }

    /// What it follows.
    #[must_use]
    pub fn follow(&self) -> Follow<'a> {
        Follow { stream: self.stream.clone(), query: self.query.clone(), start: self.start, ..Follow::all() }
    }

    /// The same, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> NewSubscription<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        NewSubscription {
            name: owned(self.name),
            stream: self.stream.map(owned),
            query: self.query.into_owned(),
            ..self
        }
    }

    /// Checks that it keeps to the limits and that its parts fit each other.
    ///
    /// # Errors
    /// The first thing that is over a limit, malformed or does not fit.
    pub fn validate(&self) -> Result<(), InputError> {
        check_subscription_name(&self.name)?;
        Read {
            from: self.start.bound(),
            stream: self.stream.clone(),
            query: self.query.clone(),
            ..Read::all()
        }
        .validate()?;
        let check = |setting, value, min, max| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(InputError::Setting { setting, value, min, max })
            }
        };
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let longest = ms(limits::HANDLING_TIMEOUT_MAX);
        check("in_flight_max", self.in_flight_max.into(), 1, limits::IN_FLIGHT_MAX.into())?;
        check("handling_timeout in milliseconds", ms(self.handling_timeout), 1, longest)?;
        check("backoff_max in milliseconds", ms(self.backoff_max), 0, longest)?;
        check("backoff in milliseconds", ms(self.backoff), 0, ms(self.backoff_max))?;
        let is_one_by_one = self.membership == Membership::Exclusive && self.order == DeliveryOrder::Total;
        if self.by_cursor && !is_one_by_one {
            return Err(InputError::CursorOfMany);
        }
        Ok(())
    }

    /// The first setting that differs from that of another, by name.
    #[must_use]
    pub fn difference(&self, other: &NewSubscription<'_>) -> Option<&'static str> {
        let parts = [
            (self.name == other.name, "name"),
            (self.stream == other.stream, "stream"),
            (self.query == other.query, "query"),
            (self.start == other.start, "start"),
            (self.membership == other.membership, "membership"),
            (self.order == other.order, "order"),
            (self.in_flight_max == other.in_flight_max, "number of events in flight"),
            (self.handling_timeout == other.handling_timeout, "handling time-out"),
            (self.retries_max == other.retries_max, "number of retries"),
            (self.backoff == other.backoff, "pause before a retry"),
            (self.backoff_max == other.backoff_max, "longest pause before a retry"),
            (self.by_cursor == other.by_cursor, "use of a cursor"),
        ];
        parts.into_iter().find(|(is_same, _)| !is_same).map(|(_, what)| what)
    }
}

/// Checks the name of a subscription; it may be that of a cursor, too.
///
/// # Errors
/// It is empty, too long, or has a control character.
pub fn check_subscription_name(name: &str) -> Result<(), InputError> {
    check_name("subscription name", name, limits::CURSOR_NAME_BYTES_MAX)
}

/// Which hand-out of which event: what is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeliveryId {
    /// The event's position.
    pub position: Position,
    /// The number of the hand-out, of all of its subscription since that was first used by this process.
    pub number: u64,
}

/// An event that was handed to a member: it is the member's to acknowledge.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What to acknowledge.
    pub id: DeliveryId,
    /// 1, or more where it failed before.
    pub attempt: u32,
    /// The event.
    pub event: Record,
    /// Of a subscription by cursor: where that was when the event was handed out.
    pub cursor: Option<CursorAt>,
}

/// A cursor, at some moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CursorAt {
    /// Its name.
    pub name: Arc<str>,
    /// Where it was.
    pub position: Option<Position>,
}

impl Delivery {
    /// Has an append handle the event, exactly once: it moves the cursor of a subscription by cursor to the event, on the
    /// condition that it is where it was when the event was handed out. To other subscriptions' it adds nothing.
    ///
    /// Where it is refused with [`AppendError::WrongCursor`](crate::AppendError::WrongCursor), another member has handled the event.
    #[must_use]
    pub fn handled_by<'a>(&self, append: Append<'a>) -> Append<'a> {
        match &self.cursor {
            None => append,
            Some(CursorAt { name, position }) => append
                .expect_cursor(name.to_string(), *position)
                .advance(name.to_string(), Some(self.event.position())),
        }
    }
}

impl Deref for Delivery {
    type Target = Record;

    fn deref(&self) -> &Record {
        &self.event
    }
}

/// What is to become of an event that a member could not handle, and why it could not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Nack<'a> {
    /// It is handed out again after a pause; after too many failures it is parked.
    Retry(Cow<'a, str>),
    /// It is set aside, and what waits for it goes on.
    Park(Cow<'a, str>),
    /// It is done with: nobody is handed it again. The reason is not kept.
    Skip(Cow<'a, str>),
    /// The subscription stops: it hands out nothing, this event included, until it is resumed.
    Stop(Cow<'a, str>),
}

impl<'a> Nack<'a> {
    /// It is to be handed out again.
    pub fn retry(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::Retry(reason.into())
    }

    /// It is to be set aside.
    pub fn park(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::Park(reason.into())
    }

    /// It is to be done with.
    pub fn skip(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::Skip(reason.into())
    }

    /// The subscription is to stop.
    pub fn stop(reason: impl Into<Cow<'a, str>>) -> Self {
        Self::Stop(reason.into())
    }
}

/// An event that was set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parked {
    /// Its position.
    pub position: Position,
    /// How often it failed.
    pub failures: u32,
    /// When it was set aside.
    pub time: Timestamp,
    /// Why; up to 1 KiB.
    pub reason: String,
}

/// Which parked events.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ParkedChoice {
    /// All that there are.
    All,
    /// Those at these positions, each of which must be parked.
    At(Vec<Position>),
}

impl From<Position> for ParkedChoice {
    fn from(position: Position) -> Self {
        Self::At(vec![position])
    }
}

/// How a durable subscription stands.
///
/// What only the process that has the store open for writing knows is `None` where another asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SubscriptionStatus {
    /// What it was created with.
    pub settings: NewSubscription<'static>,
    /// Where it began, or was reset to.
    pub start: Start,
    /// All before this position was looked at.
    pub next: Position,
    /// Events of the log from there on, whether they match or not.
    pub lag: u64,
    /// Events that members hold.
    pub in_flight: Option<u64>,
    /// Events before `next` that are not done: in flight, waiting for others, or for their retry.
    pub open: u64,
    /// Events that are set aside.
    pub parked: u64,
    /// The first event that is not done, where there is one, and its time.
    pub oldest: Option<(Position, Timestamp)>,
    /// Members, those who wait for their turn included.
    pub members: Option<u64>,
    /// Why it is stopped; `None`: it is not.
    pub stopped: Option<String>,
}
