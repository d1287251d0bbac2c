//! The process: what is to be done next for a shipment. Its events are its decisions; it does nothing itself.

use annals_sourcing::{Decider, Definitions, DomainEvent, Handlers, NoDefinition, TimeoutElapsed};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// Decisions of the process of a shipment; the stream `ID-Process`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum ProcessEvent {
    #[event("ProcessStarted")]
    Started { shipment: String, category: String },
    #[event("ProcessCategoryChanged")]
    CategoryChanged { shipment: String, category: String },
    #[event("ManifestationRequested")]
    ManifestationRequested { shipment: String, legs: u32, documents: Vec<String> },
    #[event("ManifestationAccepted")]
    ManifestationAccepted { shipment: String, tracking_numbers: Vec<String>, documents: Vec<String> },
    #[event("CollectionRequested")]
    CollectionRequested { shipment: String },
    #[event("ManifestationCancelRequested")]
    ManifestationCancelRequested { shipment: String },
    #[event("ProcessCompleted")]
    Completed { shipment: String, outcome: Outcome },
    #[event("ProcessFailed")]
    Failed { shipment: String, reason: String },
    /// Written by the timers; what it means is decided when it is heard.
    #[event("TimeoutElapsed")]
    Elapsed(TimeoutElapsed),
}

/// What a shipment that was arranged has.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub process_category: String,
    pub tracking_numbers: Vec<String>,
    pub documents: Vec<String>,
    pub collection_booking_reference: Option<String>,
}

/// Events of others that the process hears.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum ProcessTrigger {
    #[event("ManifestationCompleted")]
    ManifestationCompleted { shipment: String, tracking_numbers: Vec<String>, documents: Vec<String> },
    #[event("ManifestationFailed")]
    ManifestationFailed { shipment: String, reason: String },
    #[event("CollectionBooked")]
    CollectionBooked { shipment: String, reference: String },
    #[event("CollectionFailed")]
    CollectionFailed { shipment: String, reason: String },
    #[event("TimeoutElapsed")]
    Elapsed(TimeoutElapsed),
}

impl ProcessTrigger {
    /// The shipment that it is about.
    pub fn shipment(&self) -> &str {
        match self {
            Self::ManifestationCompleted { shipment, .. }
            | Self::ManifestationFailed { shipment, .. }
            | Self::CollectionBooked { shipment, .. }
            | Self::CollectionFailed { shipment, .. } => shipment,
            Self::Elapsed(elapsed) => elapsed.key.rsplit(' ').next().unwrap_or_default(),
        }
    }
}

/// What a process is told.
#[derive(Clone, Debug)]
pub enum ProcessCommand {
    /// A shipment is to be arranged.
    Start { shipment: String },
    /// It is to go on by another definition.
    ChangeCategory { shipment: String, category: String },
    /// Something happened that it may wait for.
    Hear(ProcessTrigger),
}

/// Where a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    #[default]
    None,
    Manifesting,
    Collecting,
    Completed,
    Failed,
}

#[derive(Clone, Debug, Default)]
pub struct ProcessState {
    pub stage: Stage,
    pub outcome: Outcome,
    /// Why it failed, or failed before.
    pub failure: Option<String>,
}

/// Why a process does not do what it is told.
#[derive(Clone, PartialEq, Debug)]
pub enum Refusal {
    /// It does not wait for that.
    OutOfPlace {
        stage: Stage,
        category: String,
    },
    NoDefinition(NoDefinition),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfPlace { stage, category } => {
                write!(f, "a process of category {category:?} does not wait for it when it is {stage:?}")
            }
            Self::NoDefinition(error) => error.fmt(f),
        }
    }
}

/// One way in which a process may go.
pub struct Definition {
    legs: u32,
    documents: &'static [&'static str],
    /// Whether a collection is booked at the end.
    is_collected: bool,
}

/// All of them. Those of running cases stay here until none runs by them.
fn definitions() -> Definitions<Definition> {
    let papers = &["label-1", "label-2", "receipt"];
    let customs = &["label-1", "label-2", "label-3", "label-4", "customs-invoice", "receipt"];
    Definitions::new("domestic-1.0", Definition { legs: 1, documents: papers, is_collected: true })
        .with("domestic-2.0", Definition { legs: 1, documents: &["label-1", "receipt"], is_collected: false })
        .with("international-1.0", Definition { legs: 2, documents: customs, is_collected: true })
}

/// What decides for one shipment.
#[derive(Clone)]
pub struct Process {
    definitions: Arc<Definitions<Definition>>,
}

impl Default for Process {
    fn default() -> Self {
        Self { definitions: Arc::new(definitions()) }
    }
}

impl Process {
    /// With one definition more: that of cases which began by it long ago.
    #[allow(dead_code)] // a test puts one back
    pub fn with(key: &str) -> Self {
        let old = Definition { legs: 1, documents: &["label-1"], is_collected: false };
        Self { definitions: Arc::new(definitions().with(key, old)) }
    }
}

impl Decider for Process {
    type State = ProcessState;
    type Command = ProcessCommand;
    type Event = ProcessEvent;
    type Error = Refusal;

    fn initial(&self) -> ProcessState {
        ProcessState::default()
    }

    fn evolve(&self, state: &mut ProcessState, event: &ProcessEvent) {
        match event {
            ProcessEvent::Started { category, .. } | ProcessEvent::CategoryChanged { category, .. } => {
                state.outcome.process_category.clone_from(category);
            }
            ProcessEvent::ManifestationRequested { .. } => state.stage = Stage::Manifesting,
            ProcessEvent::ManifestationAccepted { tracking_numbers, documents, .. } => {
                state.outcome.tracking_numbers.clone_from(tracking_numbers);
                state.outcome.documents.clone_from(documents);
            }
            ProcessEvent::CollectionRequested { .. } => state.stage = Stage::Collecting,
            ProcessEvent::Completed { outcome, .. } => {
                state.stage = Stage::Completed;
                state.outcome = outcome.clone();
            }
            ProcessEvent::Failed { reason, .. } => {
                state.stage = Stage::Failed;
                state.failure = Some(reason.clone());
            }
            ProcessEvent::ManifestationCancelRequested { .. } | ProcessEvent::Elapsed(_) => {}
        }
    }

    fn decide(&self, state: &ProcessState, command: &ProcessCommand) -> Result<Vec<ProcessEvent>, Refusal> {
        let category = &state.outcome.process_category;
        let out_of_place = || Refusal::OutOfPlace { stage: state.stage, category: category.clone() };
        match command {
            ProcessCommand::Start { shipment } if state.stage == Stage::None => {
                let name = if shipment.starts_with('1') { "domestic" } else { "international" };
                let (category, definition) = self.definitions.current(name).map_err(Refusal::NoDefinition)?;
                let documents = definition.documents.iter().map(|document| (*document).to_owned());
                let (shipment, documents) = (shipment.clone(), documents.collect());
                Ok(vec![
                    ProcessEvent::Started { shipment: shipment.clone(), category: category.to_owned() },
                    ProcessEvent::ManifestationRequested { shipment, legs: definition.legs, documents },
                ])
            }
            ProcessCommand::ChangeCategory { shipment, category } if state.stage == Stage::Manifesting => {
                self.definitions.get(category).map_err(Refusal::NoDefinition)?;
                let (shipment, category) = (shipment.clone(), category.clone());
                Ok(vec![ProcessEvent::CategoryChanged { shipment, category }])
            }
            ProcessCommand::Hear(_) if state.stage == Stage::None => Err(out_of_place()),
            ProcessCommand::Hear(trigger) => {
                let definition = self.definitions.get(category).map_err(Refusal::NoDefinition)?;
                hear(definition, state, trigger).ok_or_else(out_of_place)
            }
            _ => Err(out_of_place()),
        }
    }

    // What a running case hears waits until the definition that it goes by is back.
    fn cannot_judge(&self, refusal: &Refusal) -> bool {
        matches!(refusal, Refusal::NoDefinition(_))
    }
}

/// What follows from a trigger; `None`: it is out of place.
fn hear(
    definition: &Definition,
    state: &ProcessState,
    trigger: &ProcessTrigger,
) -> Option<Vec<ProcessEvent>> {
    let shipment = trigger.shipment().to_owned();
    Some(match (trigger, state.stage) {
        (ProcessTrigger::ManifestationCompleted { tracking_numbers, documents, .. }, Stage::Manifesting) => {
            let accepted = ProcessEvent::ManifestationAccepted {
                shipment: shipment.clone(),
                tracking_numbers: tracking_numbers.clone(),
                documents: documents.clone(),
            };
            let outcome = Outcome {
                process_category: state.outcome.process_category.clone(),
                tracking_numbers: tracking_numbers.clone(),
                documents: documents.clone(),
                collection_booking_reference: None,
            };
            let next = if definition.is_collected {
                ProcessEvent::CollectionRequested { shipment }
            } else {
                ProcessEvent::Completed { shipment, outcome }
            };
            vec![accepted, next]
        }
        (ProcessTrigger::ManifestationFailed { reason, .. }, Stage::Manifesting)
        | (ProcessTrigger::CollectionFailed { reason, .. }, Stage::Collecting) => {
            vec![ProcessEvent::Failed { shipment, reason: reason.clone() }]
        }
        // Also after it failed: somebody has booked anew.
        (ProcessTrigger::CollectionBooked { reference, .. }, Stage::Collecting | Stage::Failed) => {
            let outcome =
                Outcome { collection_booking_reference: Some(reference.clone()), ..state.outcome.clone() };
            vec![ProcessEvent::Completed { shipment, outcome }]
        }
        // Nobody has answered: what may have been done of it is to be undone.
        (ProcessTrigger::Elapsed(elapsed), Stage::Manifesting)
            if elapsed.key.starts_with("manifestation ") =>
        {
            vec![
                ProcessEvent::ManifestationCancelRequested { shipment: shipment.clone() },
                ProcessEvent::Failed { shipment, reason: "the carrier has not answered in time".to_owned() },
            ]
        }
        (ProcessTrigger::Elapsed(_), _) => vec![],
        _ => return None,
    })
}

/// A read model of all processes: where each is, since which event of the store, and why it failed.
pub type Overview = BTreeMap<String, (Stage, u64, Option<String>)>;

pub fn overview() -> Handlers<Overview> {
    Handlers::new().when::<ProcessEvent>(|overview: &mut Overview, event, record| {
        let (shipment, stage, failure) = match event {
            ProcessEvent::ManifestationRequested { shipment, .. } => (shipment, Stage::Manifesting, None),
            ProcessEvent::CollectionRequested { shipment } => (shipment, Stage::Collecting, None),
            ProcessEvent::Completed { shipment, .. } => (shipment, Stage::Completed, None),
            ProcessEvent::Failed { shipment, reason } => (shipment, Stage::Failed, Some(reason.clone())),
            ProcessEvent::Started { .. }
            | ProcessEvent::CategoryChanged { .. }
            | ProcessEvent::ManifestationAccepted { .. }
            | ProcessEvent::ManifestationCancelRequested { .. }
            | ProcessEvent::Elapsed(_) => return Ok(()),
        };
        overview.insert(shipment.clone(), (stage, record.position().get(), failure));
        Ok(())
    })
}
