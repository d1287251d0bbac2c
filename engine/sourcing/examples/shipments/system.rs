//! Who hears whom: the whole system, on any store.

use super::collection::{Collection, CollectionCommand};
use super::manifestation::{Manifestation, ManifestationCommand, ManifestationEvent};
use super::process::{Process, ProcessCommand, ProcessEvent, ProcessTrigger, Refusal};
use annals_sourcing::{
    Context, Deadline, DomainEvent, HandleError, Order, Reactor, Repository, SourcingError, TimeoutElapsed,
    Timers,
};
use annals_types::{EventStore, Record};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When somebody tries a collection anew that has failed, in this example.
const BOOK_ANEW_AFTER: Duration = Duration::from_millis(300);
/// States that are remembered, each some hundred bytes.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

pub struct System<S> {
    pub processes: Repository<S, Process>,
    manifestations: Repository<S, Manifestation>,
    collections: Repository<S, Collection>,
    /// Events that were handled, and commands.
    pub messages: Arc<AtomicU64>,
    /// How long the carrier may take for a manifestation, before it is cancelled.
    pub manifestation_max: Duration,
    /// Whether there is a carrier who answers.
    pub is_answered: bool,
}

pub fn process(shipment: &str) -> String {
    format!("{shipment}-Process")
}

/// Decisions of the process become commands for those who do the work: its outbox.
fn delegate_manifestation(decision: &ProcessEvent, _: &Record) -> Option<Order<ManifestationCommand>> {
    let (shipment, command) = match decision {
        ProcessEvent::ManifestationRequested { shipment, legs, documents } => {
            let (shipment, documents) = (shipment.clone(), documents.clone());
            (shipment.clone(), ManifestationCommand::Start { shipment, legs: *legs, documents })
        }
        ProcessEvent::ManifestationCancelRequested { shipment } => {
            (shipment.clone(), ManifestationCommand::Cancel)
        }
        _ => return None,
    };
    Some(Order::new(format!("{shipment}-Shipment"), command))
}

/// What collections hear: the process, the carrier's answers, and the customer.
#[derive(DomainEvent)]
enum CollectionTrigger {
    #[event("CollectionRequested")]
    Requested { shipment: String },
    #[event("CollectionBookingRequested")]
    BookingRequested { shipment: String, attempt: u32 },
    #[event("TimeoutElapsed")]
    Elapsed(TimeoutElapsed),
}

fn delegate_collection(trigger: &CollectionTrigger, event: &Record) -> Option<Order<CollectionCommand>> {
    let (shipment, command) = match trigger {
        CollectionTrigger::Requested { shipment } => {
            (shipment.as_str(), CollectionCommand::Start { shipment: shipment.clone() })
        }
        // The carrier, who is outside of the system in truth: collections of 2 fail, those of 3 do at first.
        CollectionTrigger::BookingRequested { shipment, attempt } => {
            let fails = shipment.ends_with('2') || (shipment.ends_with('3') && *attempt == 1);
            let answer =
                if fails { Err("no van is free".to_owned()) } else { Ok(event.id().simple().to_string()) };
            (shipment.as_str(), CollectionCommand::Answer(answer))
        }
        CollectionTrigger::Elapsed(elapsed) => {
            let (_, shipment) = elapsed.key.split_once(' ').filter(|(what, _)| *what == "booking")?;
            (shipment, CollectionCommand::BookAnew)
        }
    };
    Some(Order::new(format!("{shipment}-Collection"), command))
}

/// The carrier's answers about legs and the makers of documents, who are outside of the system in truth: shipments of 1 fail in their last leg.
fn carry(requested: &ManifestationEvent, event: &Record) -> Option<Order<ManifestationCommand>> {
    let (shipment, command) = match requested {
        ManifestationEvent::LegRequested { shipment, leg } => {
            let is_last = *leg == if shipment.starts_with('1') { 1 } else { 2 };
            let fails = shipment.ends_with('1') && is_last;
            let answer = if fails {
                Err("the carrier does not go there".to_owned())
            } else {
                Ok(event.id().simple().to_string())
            };
            (shipment, ManifestationCommand::AnswerLeg { leg: *leg, answer })
        }
        ManifestationEvent::LegCancelRequested { shipment, leg } => {
            (shipment, ManifestationCommand::LegIsCancelled { leg: *leg })
        }
        ManifestationEvent::DocumentRequested { shipment, document } => {
            let url = format!("https://documents.example/{shipment}/{document}");
            (shipment, ManifestationCommand::DocumentIsMade { document: document.clone(), url })
        }
        _ => return None,
    };
    Some(Order::new(format!("{shipment}-Shipment"), command))
}

/// What deadlines follow from: of the process, and of collections that failed.
#[derive(DomainEvent)]
enum TimedEvent {
    #[event("ManifestationRequested")]
    ManifestationRequested { shipment: String },
    #[event("ManifestationAccepted")]
    ManifestationAccepted { shipment: String },
    #[event("ProcessFailed")]
    Failed { shipment: String },
    #[event("CollectionFailed")]
    CollectionFailed { shipment: String },
}

fn deadlines(event: &TimedEvent, record: &Record, manifestation_max: Duration) -> Option<Deadline> {
    match event {
        TimedEvent::ManifestationRequested { shipment } => Some(Deadline::after(
            record,
            manifestation_max,
            process(shipment),
            format!("manifestation {shipment}"),
        )),
        TimedEvent::ManifestationAccepted { shipment } | TimedEvent::Failed { shipment } => {
            Some(Deadline::clear(format!("manifestation {shipment}")))
        }
        TimedEvent::CollectionFailed { shipment } if shipment.ends_with('3') => {
            Some(Deadline::after(record, BOOK_ANEW_AFTER, process(shipment), format!("booking {shipment}")))
        }
        TimedEvent::CollectionFailed { .. } => None,
    }
}

impl<S: EventStore> System<S> {
    pub fn new(store: S) -> Result<Self, SourcingError> {
        Ok(Self {
            processes: Repository::new(store.clone(), Process::default())?.cache(REMEMBERED),
            manifestations: Repository::new(store.clone(), Manifestation)?.cache(REMEMBERED),
            collections: Repository::new(store, Collection)?.cache(REMEMBERED),
            messages: Arc::default(),
            manifestation_max: Duration::from_secs(60),
            is_answered: true,
        })
    }

    /// Has a shipment arranged.
    pub async fn start(&self, shipment: &str) -> Result<(), HandleError<Refusal>> {
        let command = ProcessCommand::Start { shipment: shipment.to_owned() };
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.processes
            .handle(process(shipment), &command, &Context::new().source("shipments"))
            .await
            .map(drop)
    }

    /// Has a shipment that is being arranged go on by another definition.
    pub async fn change_category(&self, shipment: &str, category: &str) -> Result<(), HandleError<Refusal>> {
        let command =
            ProcessCommand::ChangeCategory { shipment: shipment.to_owned(), category: category.to_owned() };
        let context = Context::new().source("shipments");
        self.processes.handle(process(shipment), &command, &context).await.map(drop)
    }

    /// The same route; it counts the event that it is given, and the command that it makes.
    fn counting<T, C>(
        &self,
        route: impl Fn(&T, &Record) -> Option<Order<C>> + Send + Sync,
    ) -> impl Fn(&T, &Record) -> Option<Order<C>> + Send + Sync {
        let messages = Arc::clone(&self.messages);
        move |trigger, event| {
            let order = route(trigger, event);
            messages.fetch_add(1 + u64::from(order.is_some()), Ordering::Relaxed);
            order
        }
    }

    /// Runs everything, until it is dropped or fails.
    pub async fn run(&self) -> Result<(), SourcingError> {
        let hear = |trigger: &ProcessTrigger, _: &Record| {
            Some(Order::new(process(trigger.shipment()), ProcessCommand::Hear(trigger.clone())))
        };
        let (processes, manifestations) = (self.processes.clone(), self.manifestations.clone());
        let store = processes.store().clone();
        let hearing = Reactor::new("shipment-process", processes, self.counting(hear))?;
        let outbox = self.counting(delegate_manifestation);
        let manifestation = Reactor::new("shipment-manifestation", manifestations.clone(), outbox)?;
        let carrier = Reactor::new("shipment-carrier", manifestations, self.counting(carry))?;
        let outbox = self.counting(delegate_collection);
        let collection = Reactor::new("shipment-collection", self.collections.clone(), outbox)?;
        let max = self.manifestation_max;
        let due = move |event: &TimedEvent, record: &Record| deadlines(event, record, max);
        let timers = Timers::new("shipment-timers", store, due)?;
        let carrying =
            async { if self.is_answered { carrier.run().await } else { std::future::pending().await } };
        tokio::try_join!(hearing.run(), manifestation.run(), carrying, collection.run(), timers.run())?;
        Ok(())
    }
}
