//! The collection of a shipment: when the carrier comes for it.

use annals_sourcing::{Decider, DomainEvent};

/// The stream `ID-Collection`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum CollectionEvent {
    #[event("CollectionStarted")]
    Started { shipment: String },
    #[event("CollectionScheduled")]
    Scheduled { shipment: String, days_ahead: u32 },
    #[event("CollectionBookingRequested")]
    BookingRequested { shipment: String, attempt: u32 },
    #[event("CollectionBooked")]
    Booked { shipment: String, reference: String },
    #[event("CollectionFailed")]
    Failed { shipment: String, reason: String },
}

#[derive(Clone, Debug)]
pub enum CollectionCommand {
    Start {
        shipment: String,
    },
    /// What the carrier says: the booking's reference, or why not.
    Answer(Result<String, String>),
    /// The customer, or somebody for them, tries it once more.
    BookAnew,
}

#[derive(Clone, Debug, Default)]
pub struct CollectionState {
    shipment: String,
    attempts: u32,
    is_waiting: bool,
    is_booked: bool,
}

#[derive(Clone)]
pub struct Collection;

impl Decider for Collection {
    type State = CollectionState;
    type Command = CollectionCommand;
    type Event = CollectionEvent;
    type Error = &'static str;

    fn initial(&self) -> CollectionState {
        CollectionState::default()
    }

    fn evolve(&self, state: &mut CollectionState, event: &CollectionEvent) {
        match event {
            CollectionEvent::Started { shipment } => state.shipment.clone_from(shipment),
            CollectionEvent::Scheduled { .. } => {}
            CollectionEvent::BookingRequested { attempt, .. } => {
                (state.attempts, state.is_waiting) = (*attempt, true)
            }
            CollectionEvent::Booked { .. } => (state.is_waiting, state.is_booked) = (false, true),
            CollectionEvent::Failed { .. } => state.is_waiting = false,
        }
    }

    fn decide(
        &self,
        state: &CollectionState,
        command: &CollectionCommand,
    ) -> Result<Vec<CollectionEvent>, &'static str> {
        let shipment = state.shipment.clone();
        match command {
            CollectionCommand::Start { shipment } if state.shipment.is_empty() => Ok(vec![
                CollectionEvent::Started { shipment: shipment.clone() },
                CollectionEvent::Scheduled { shipment: shipment.clone(), days_ahead: 1 },
                CollectionEvent::BookingRequested { shipment: shipment.clone(), attempt: 1 },
            ]),
            CollectionCommand::Start { .. } => Err("it was started before"),
            CollectionCommand::Answer(_) if !state.is_waiting => Err("nobody waits for an answer"),
            CollectionCommand::Answer(Ok(reference)) => {
                Ok(vec![CollectionEvent::Booked { shipment, reference: reference.clone() }])
            }
            CollectionCommand::Answer(Err(reason)) => {
                Ok(vec![CollectionEvent::Failed { shipment, reason: reason.clone() }])
            }
            CollectionCommand::BookAnew if state.is_waiting || state.is_booked || shipment.is_empty() => {
                Err("there is nothing to book anew")
            }
            CollectionCommand::BookAnew => {
                Ok(vec![CollectionEvent::BookingRequested { shipment, attempt: state.attempts + 1 }])
            }
        }
    }
}
