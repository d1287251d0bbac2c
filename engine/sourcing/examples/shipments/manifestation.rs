//! Manifestation and documents of a shipment: all its legs with the carriers, then its papers. From outside it is one operation.

use annals_sourcing::{Decider, DomainEvent};
use std::collections::BTreeMap;

/// The stream `ID-Shipment`.
#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum ManifestationEvent {
    #[event("ManifestationStarted")]
    Started { shipment: String, legs: u32, documents: Vec<String> },
    #[event("LegManifestationRequested")]
    LegRequested { shipment: String, leg: u32 },
    #[event("LegManifested")]
    LegManifested { shipment: String, leg: u32, tracking_number: String },
    #[event("LegManifestationFailed")]
    LegFailed { shipment: String, leg: u32, reason: String },
    /// The other leg cannot be had: this one is of no use.
    #[event("LegCancelRequested")]
    LegCancelRequested { shipment: String, leg: u32 },
    #[event("LegCancelled")]
    LegCancelled { shipment: String, leg: u32 },
    #[event("DocumentRequested")]
    DocumentRequested { shipment: String, document: String },
    #[event("DocumentMade")]
    DocumentMade { shipment: String, document: String, url: String },
    #[event("ManifestationCompleted")]
    Completed { shipment: String, tracking_numbers: Vec<String>, documents: Vec<String> },
    #[event("ManifestationFailed")]
    Failed { shipment: String, reason: String },
}

#[derive(Clone, Debug)]
pub enum ManifestationCommand {
    Start {
        shipment: String,
        legs: u32,
        documents: Vec<String>,
    },
    /// What a carrier says of a leg: its tracking number, or why not.
    AnswerLeg {
        leg: u32,
        answer: Result<String, String>,
    },
    /// A carrier has cancelled a leg.
    LegIsCancelled {
        leg: u32,
    },
    DocumentIsMade {
        document: String,
        url: String,
    },
    Cancel,
}

#[derive(Clone, Debug, Default)]
pub struct ManifestationState {
    shipment: String,
    wanted: Vec<String>,
    /// The legs; `None`: the carrier has not answered.
    legs: BTreeMap<u32, Option<Result<String, String>>>,
    documents: BTreeMap<String, Option<String>>,
    is_over: bool,
}

/// All the other papers in one.
const COMBINED: &str = "combined-document";

#[derive(Clone)]
pub struct Manifestation;

impl Decider for Manifestation {
    type State = ManifestationState;
    type Command = ManifestationCommand;
    type Event = ManifestationEvent;
    type Error = &'static str;

    fn initial(&self) -> ManifestationState {
        ManifestationState::default()
    }

    fn evolve(&self, state: &mut ManifestationState, event: &ManifestationEvent) {
        match event {
            ManifestationEvent::Started { shipment, documents, .. } => {
                state.shipment.clone_from(shipment);
                state.wanted.clone_from(documents);
            }
            ManifestationEvent::LegRequested { leg, .. } => drop(state.legs.insert(*leg, None)),
            ManifestationEvent::LegManifested { leg, tracking_number, .. } => {
                state.legs.insert(*leg, Some(Ok(tracking_number.clone())));
            }
            ManifestationEvent::LegFailed { leg, reason, .. } => {
                drop(state.legs.insert(*leg, Some(Err(reason.clone()))))
            }
            ManifestationEvent::DocumentRequested { document, .. } => {
                drop(state.documents.insert(document.clone(), None))
            }
            ManifestationEvent::DocumentMade { document, url, .. } => {
                state.documents.insert(document.clone(), Some(url.clone()));
            }
            ManifestationEvent::Completed { .. } | ManifestationEvent::Failed { .. } => state.is_over = true,
            ManifestationEvent::LegCancelRequested { .. } | ManifestationEvent::LegCancelled { .. } => {}
        }
    }

    fn decide(
        &self,
        state: &ManifestationState,
        command: &ManifestationCommand,
    ) -> Result<Vec<ManifestationEvent>, &'static str> {
        let shipment = || state.shipment.clone();
        match command {
            ManifestationCommand::Start { shipment, legs, documents } if state.shipment.is_empty() => {
                let started = ManifestationEvent::Started {
                    shipment: shipment.clone(),
                    legs: *legs,
                    documents: documents.clone(),
                };
                let legs = (1..=*legs)
                    .map(|leg| ManifestationEvent::LegRequested { shipment: shipment.clone(), leg });
                Ok([started].into_iter().chain(legs).collect())
            }
            ManifestationCommand::Start { .. } => Err("it was started before"),
            ManifestationCommand::AnswerLeg { leg, answer } => match state.legs.get(leg) {
                Some(None) => Ok(answered(self, state, *leg, answer)),
                Some(Some(_)) => Err("this leg was answered before"),
                None => Err("there is no such leg"),
            },
            ManifestationCommand::LegIsCancelled { leg } => {
                Ok(vec![ManifestationEvent::LegCancelled { shipment: shipment(), leg: *leg }])
            }
            ManifestationCommand::DocumentIsMade { document, url } => match state.documents.get(document) {
                Some(None) => Ok(made(self, state, document, url)),
                _ => Err("nobody waits for this document"),
            },
            ManifestationCommand::Cancel if state.is_over => Ok(vec![]),
            ManifestationCommand::Cancel => {
                let mut events = undone(state);
                events.push(ManifestationEvent::Failed {
                    shipment: shipment(),
                    reason: "cancelled".to_owned(),
                });
                Ok(events)
            }
        }
    }
}

/// What follows from an answer: when all legs have theirs, the papers, or the end.
fn answered(
    decider: &Manifestation,
    state: &ManifestationState,
    leg: u32,
    answer: &Result<String, String>,
) -> Vec<ManifestationEvent> {
    let shipment = state.shipment.clone();
    let answered = match answer {
        Ok(number) => ManifestationEvent::LegManifested {
            shipment: shipment.clone(),
            leg,
            tracking_number: number.clone(),
        },
        Err(reason) => {
            ManifestationEvent::LegFailed { shipment: shipment.clone(), leg, reason: reason.clone() }
        }
    };
    let mut state = state.clone();
    decider.evolve(&mut state, &answered);
    let mut events = vec![answered];
    if state.is_over {
        // It was cancelled meanwhile: this leg, too, is of no use.
        if answer.is_ok() {
            events.push(ManifestationEvent::LegCancelRequested { shipment, leg });
        }
    } else if state.legs.values().all(Option::is_some) {
        match state.legs.values().find_map(|answer| answer.as_ref()?.as_ref().err()) {
            Some(reason) => {
                events.extend(undone(&state));
                events.push(ManifestationEvent::Failed { shipment, reason: reason.clone() });
            }
            None => {
                events.extend(state.wanted.iter().map(|document| ManifestationEvent::DocumentRequested {
                    shipment: shipment.clone(),
                    document: document.clone(),
                }))
            }
        }
    }
    events
}

/// The legs that were manifested are cancelled: the compensation.
fn undone(state: &ManifestationState) -> Vec<ManifestationEvent> {
    let manifested = state.legs.iter().filter(|(_, answer)| matches!(answer, Some(Ok(_))));
    manifested
        .map(|(leg, _)| ManifestationEvent::LegCancelRequested {
            shipment: state.shipment.clone(),
            leg: *leg,
        })
        .collect()
}

/// What follows from a document: when all are there, the one that has them all; when that is there, the end.
fn made(
    decider: &Manifestation,
    state: &ManifestationState,
    document: &str,
    url: &str,
) -> Vec<ManifestationEvent> {
    let shipment = state.shipment.clone();
    let made = ManifestationEvent::DocumentMade {
        shipment: shipment.clone(),
        document: document.to_owned(),
        url: url.to_owned(),
    };
    let mut state = state.clone();
    decider.evolve(&mut state, &made);
    let mut events = vec![made];
    if state.documents.values().all(Option::is_some) && !state.is_over {
        events.push(if document == COMBINED {
            let tracking_numbers = state.legs.into_values().filter_map(|answer| answer?.ok()).collect();
            let documents = state.documents.into_values().flatten().collect();
            ManifestationEvent::Completed { shipment, tracking_numbers, documents }
        } else {
            ManifestationEvent::DocumentRequested { shipment, document: COMBINED.to_owned() }
        });
    }
    events
}
