//! A trip: a payment and a seat, side by side, and the end that waits for both; or the way back, where one of them cannot be had. Nobody is in charge:
//! each part listens to the others. The seat is a saga of its own within that of the trip.

use annals_sourcing::{
    Context, Decider, DomainEvent, HandleError, Metadata, Order, Place, Reactor, Repository, SagaContext,
    SourcingError,
};
use annals_types::{EventStore, Record};
use std::fmt;

/// The stream `trip-ID`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum TripEvent {
    #[event("TripRequested")]
    Requested { trip: String, flight: String, cents: u64 },
    /// What came of one of the two, with the step that it was.
    #[event("TripPartNoted")]
    Noted { part: Part, failure: Option<String>, step: SagaContext },
    #[event("TripConfirmed")]
    Confirmed { trip: String, step: SagaContext },
    #[event("TripCancelled")]
    Cancelled { trip: String, flight: String, reason: String, step: SagaContext },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub enum Part {
    Payment,
    Seat,
}

/// The stream `payment-TRIP`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum PaymentEvent {
    #[event("PaymentTaken")]
    Taken { trip: String, cents: u64 },
    #[event("PaymentDeclined")]
    Declined { trip: String, reason: String },
    #[event("PaymentRefunded")]
    Refunded { trip: String, cents: u64 },
}

/// The stream `flight-NAME`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum FlightEvent {
    #[event("SeatReserved")]
    Reserved { trip: String },
    #[event("SeatRefused")]
    Refused { trip: String, reason: String },
    #[event("SeatReleased")]
    Released { trip: String },
}

#[derive(Clone, Debug)]
pub enum TripCommand {
    Request { trip: String, flight: String, cents: u64 },
    Note { part: Part, failure: Option<String>, step: SagaContext },
}

#[derive(Clone, Debug, Default)]
pub struct Trip {
    trip: String,
    flight: String,
    noted: Vec<(Part, Option<String>, SagaContext)>,
    pub is_confirmed: bool,
    pub cancelled: Option<String>,
}

#[derive(Clone)]
pub struct Trips;

impl Decider for Trips {
    type State = Trip;
    type Command = TripCommand;
    type Event = TripEvent;
    type Error = Refusal;

    fn initial(&self) -> Trip {
        Trip::default()
    }

    fn evolve(&self, state: &mut Trip, event: &TripEvent) {
        match event {
            TripEvent::Requested { trip, flight, .. } => {
                (state.trip, state.flight) = (trip.clone(), flight.clone());
            }
            TripEvent::Noted { part, failure, step } => {
                state.noted.push((*part, failure.clone(), step.clone()))
            }
            TripEvent::Confirmed { .. } => state.is_confirmed = true,
            TripEvent::Cancelled { reason, .. } => state.cancelled = Some(reason.clone()),
        }
    }

    fn decide(&self, state: &Trip, command: &TripCommand) -> Result<Vec<TripEvent>, Refusal> {
        match command.clone() {
            TripCommand::Request { .. } if !state.trip.is_empty() => Err(Refusal("there is such a trip")),
            TripCommand::Request { trip, flight, cents } => {
                Ok(vec![TripEvent::Requested { trip, flight, cents }])
            }
            TripCommand::Note { part, .. } if state.noted.iter().any(|(noted, ..)| *noted == part) => {
                Err(Refusal("it is noted"))
            }
            TripCommand::Note { part, failure, step } => {
                let noted = TripEvent::Noted { part, failure: failure.clone(), step: step.clone() };
                let Some((_, other, before)) = state.noted.first().cloned() else { return Ok(vec![noted]) };
                // Both are known: what follows, follows both.
                let joined = (step + before).map_err(|_| Refusal("they are of two trips"))?;
                let (trip, flight) = (state.trip.clone(), state.flight.clone());
                let end = match failure.or(other) {
                    None => TripEvent::Confirmed { trip, step: next(&joined, "confirm", None)? },
                    Some(reason) => {
                        let step = next(&joined, "cancel", Some(&reason))?;
                        TripEvent::Cancelled { trip, flight, reason, step }
                    }
                };
                Ok(vec![noted, end])
            }
        }
    }

    fn place(&self, event: &TripEvent) -> Place {
        match event {
            TripEvent::Confirmed { step, .. } | TripEvent::Cancelled { step, .. } => {
                Place::default().sagas(step.clone())
            }
            TripEvent::Requested { .. } | TripEvent::Noted { .. } => Place::default(),
        }
    }
}

/// The next step of the trip, whichever sagas the ones before it were.
fn next(before: &SagaContext, step: &str, failure: Option<&str>) -> Result<SagaContext, Refusal> {
    let next = before.only("trip").and_then(|trip| trip.step("trip", step));
    let next = next.and_then(|next| match failure {
        Some(reason) => next.failed("trip", reason),
        None => Ok(next),
    });
    next.map_err(|_| Refusal("it is no step of a trip"))
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal(pub &'static str);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[derive(Clone, Debug)]
pub enum PaymentCommand {
    Take { trip: String, cents: u64 },
    Refund,
}

#[derive(Clone)]
pub struct Payments;

impl Decider for Payments {
    type State = Option<PaymentEvent>;
    type Command = PaymentCommand;
    type Event = PaymentEvent;
    type Error = Refusal;

    fn initial(&self) -> Self::State {
        None
    }

    fn evolve(&self, last: &mut Self::State, event: &PaymentEvent) {
        *last = Some(event.clone());
    }

    fn decide(&self, last: &Self::State, command: &PaymentCommand) -> Result<Vec<PaymentEvent>, Refusal> {
        Ok(match (last, command.clone()) {
            // So much no card is good for.
            (None, PaymentCommand::Take { trip, cents: 100_001.. }) => {
                vec![PaymentEvent::Declined { trip, reason: "the card is declined".to_owned() }]
            }
            (None, PaymentCommand::Take { trip, cents }) => vec![PaymentEvent::Taken { trip, cents }],
            (Some(_), PaymentCommand::Take { .. }) => return Err(Refusal("it was tried before")),
            (Some(PaymentEvent::Taken { trip, cents }), PaymentCommand::Refund) => {
                vec![PaymentEvent::Refunded { trip: trip.clone(), cents: *cents }]
            }
            (_, PaymentCommand::Refund) => vec![],
        })
    }
}

#[derive(Clone, Debug)]
pub enum FlightCommand {
    Reserve { trip: String },
    Release { trip: String },
}

/// The flights, of which each has so many seats.
#[derive(Clone)]
pub struct Flights {
    pub seats: usize,
}

impl Decider for Flights {
    type State = Vec<String>;
    type Command = FlightCommand;
    type Event = FlightEvent;
    type Error = Refusal;

    fn initial(&self) -> Vec<String> {
        Vec::new()
    }

    fn evolve(&self, taken: &mut Vec<String>, event: &FlightEvent) {
        match event {
            FlightEvent::Reserved { trip } => taken.push(trip.clone()),
            FlightEvent::Released { trip } => taken.retain(|taker| taker != trip),
            FlightEvent::Refused { .. } => {}
        }
    }

    fn decide(&self, taken: &Vec<String>, command: &FlightCommand) -> Result<Vec<FlightEvent>, Refusal> {
        Ok(match command.clone() {
            FlightCommand::Reserve { trip } if taken.contains(&trip) => return Err(Refusal("it has a seat")),
            FlightCommand::Reserve { trip } if taken.len() >= self.seats => {
                vec![FlightEvent::Refused { trip, reason: "the flight is full".to_owned() }]
            }
            FlightCommand::Reserve { trip } => vec![FlightEvent::Reserved { trip }],
            FlightCommand::Release { trip } if taken.contains(&trip) => vec![FlightEvent::Released { trip }],
            FlightCommand::Release { .. } => vec![],
        })
    }
}

/// What the payments and flights hear of trips.
#[derive(DomainEvent)]
enum Heard {
    #[event("TripRequested")]
    Requested { trip: String, flight: String, cents: u64 },
    #[event("TripCancelled")]
    Cancelled { trip: String, flight: String },
}

/// The step of the event, gone on from; nothing where it is no step of a trip.
fn step(event: &Record, name: &str) -> Option<SagaContext> {
    Metadata::of(event).sagas.step("trip", name).ok()
}

fn pay(heard: &Heard, event: &Record) -> Option<Order<PaymentCommand>> {
    let (trip, command, name) = match heard {
        Heard::Requested { trip, cents, .. } => {
            (trip, PaymentCommand::Take { trip: trip.clone(), cents: *cents }, "pay")
        }
        Heard::Cancelled { trip, .. } => (trip, PaymentCommand::Refund, "refund"),
    };
    Some(Order::new(format!("payment-{trip}"), command).sagas(step(event, name)?))
}

fn fly(heard: &Heard, event: &Record) -> Option<Order<FlightCommand>> {
    let (flight, command, sagas) = match heard {
        Heard::Requested { trip, flight, .. } => {
            let sagas = step(event, "seat")?.launch_within("flight", "reserve").ok()?;
            (flight, FlightCommand::Reserve { trip: trip.clone() }, sagas)
        }
        Heard::Cancelled { trip, flight } => {
            (flight, FlightCommand::Release { trip: trip.clone() }, step(event, "release")?)
        }
    };
    Some(Order::new(format!("flight-{flight}"), command).sagas(sagas))
}

/// What trips hear of the payments and flights.
#[derive(DomainEvent)]
enum Answered {
    #[event("PaymentTaken")]
    Taken { trip: String },
    #[event("PaymentDeclined")]
    Declined { trip: String, reason: String },
    #[event("SeatReserved")]
    Reserved { trip: String },
    #[event("SeatRefused")]
    Refused { trip: String, reason: String },
}

fn note(answered: &Answered, event: &Record) -> Option<Order<TripCommand>> {
    let (trip, part, failure) = match answered {
        Answered::Taken { trip } => (trip, Part::Payment, None),
        Answered::Declined { trip, reason } => (trip, Part::Payment, Some(reason.clone())),
        Answered::Reserved { trip } => (trip, Part::Seat, None),
        Answered::Refused { trip, reason } => (trip, Part::Seat, Some(reason.clone())),
    };
    let step = Metadata::of(event).sagas.into_owned();
    Some(Order::new(format!("trip-{trip}"), TripCommand::Note { part, failure, step }))
}

pub struct Agency<S> {
    pub trips: Repository<S, Trips>,
    payments: Repository<S, Payments>,
    flights: Repository<S, Flights>,
}

impl<S: EventStore> Agency<S> {
    pub fn new(store: S, seats: usize) -> Result<Self, SourcingError> {
        Ok(Self {
            trips: Repository::new(store.clone(), Trips)?,
            payments: Repository::new(store.clone(), Payments)?,
            flights: Repository::new(store, Flights { seats })?,
        })
    }

    /// Has a trip arranged.
    pub async fn request(&self, trip: &str, flight: &str, cents: u64) -> Result<(), HandleError<Refusal>> {
        let sagas = SagaContext::launch("trip", "request").map_err(SourcingError::from)?;
        let command = TripCommand::Request { trip: trip.to_owned(), flight: flight.to_owned(), cents };
        self.trips.handle(format!("trip-{trip}"), &command, &Context::new().sagas(sagas)).await.map(drop)
    }

    /// Runs all parts, until it is dropped or one fails.
    pub async fn run(&self) -> Result<(), SourcingError> {
        let payments = Reactor::new("trip-payments", self.payments.clone(), pay)?;
        let flights = Reactor::new("trip-flights", self.flights.clone(), fly)?;
        let trips = Reactor::new("trips", self.trips.clone(), note)?;
        tokio::try_join!(payments.run(), flights.run(), trips.run())?;
        Ok(())
    }
}
