//! What became of sagas: for each run its steps, when they were taken, and which failed or hang.

use crate::context::{Context, Metadata};
use crate::event::DomainEvent;
use crate::projection::Handlers;
use crate::saga::SagaContext;
use crate::{Json, SourcingError};
use annals_types::{Append, EventStore, NewEvent, Position, Record, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use uuid::Uuid;

/// A step of a saga was begun, and may take its time: an event of the stream `saga-INSTANCE`. When it is done, the event that it is says so.
#[derive(
    Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize, annals_sourcing_derive::DomainEvent,
)]
#[event("SagaStepInitiated")]
pub struct SagaStepInitiated {
    /// The saga.
    pub saga: String,
    /// The step.
    pub step: String,
}

impl SagaContext {
    /// Notes in the store that these steps are begun. It is not needed, but who wants to see what hangs.
    ///
    /// # Errors
    /// The store does not do it.
    pub async fn initiate<S: EventStore>(&self, store: &S, context: &Context) -> Result<(), SourcingError> {
        let mut append = Append::new();
        for (saga, step) in self.iter() {
            let initiated = SagaStepInitiated { saga: saga.to_owned(), step: step.name.clone() };
            let mut new = NewEvent::new(format!("saga-{}", step.instance), SagaStepInitiated::TYPES[0].name);
            new.data = initiated.encode(&Json).expect("texts can be written").into();
            let context = context.clone().sagas(self.only(saga)?);
            append = append.event(context.put(new, 1));
        }
        if !append.events.is_empty() {
            store.append(append).await?;
        }
        Ok(())
    }
}

/// Runs of sagas, as their events tell. Feed it by [`SagaView::handlers`].
///
/// ```
/// use annals_sourcing::{InMemory, SagaView};
/// let model = InMemory::<SagaView>::default();
/// let handlers = SagaView::handlers();
/// // Projector::new(store, model.clone(), handlers)?.spawn();
/// assert_eq!(model.with(|sagas| sagas.runs().count()), 0);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SagaView {
    runs: BTreeMap<Uuid, SagaRun>,
}

/// One run of a saga.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SagaRun {
    /// The saga's name.
    pub saga: String,
    /// Which run of it.
    pub instance: Uuid,
    steps: BTreeMap<Uuid, StepView>,
}

/// One step of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The steps that it follows.
    pub previous: BTreeSet<Uuid>,
    /// When it was begun, where that was noted.
    pub initiated: Option<Timestamp>,
    /// When it was done; `None`: it is not.
    pub processed: Option<Timestamp>,
    /// The event that it is: its position, stream and type. Of several, the first.
    pub event: Option<(Position, String, String)>,
    /// Why it failed; `None`: it did not.
    pub failure: Option<String>,
}

impl StepView {
    /// How long it took, where it is known when it was begun and it is done.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let (initiated, processed) = (self.initiated?, self.processed?);
        Some(Duration::from_nanos(processed.get().saturating_sub(initiated.get())))
    }
}

impl SagaView {
    /// What is done with events: those that are steps of sagas are noted.
    #[must_use]
    pub fn handlers() -> Handlers<Self> {
        Handlers::new().each(|view: &mut Self, event| {
            view.note(event);
            Ok(())
        })
    }

    /// Has an event become part of it.
    pub fn note(&mut self, event: &Record) {
        let is_begun = event.event_type() == SagaStepInitiated::TYPES[0].name;
        for (saga, step) in Metadata::of(event).sagas.iter() {
            let run = self.runs.entry(step.instance).or_insert_with(|| SagaRun {
                saga: saga.to_owned(),
                instance: step.instance,
                steps: BTreeMap::new(),
            });
            let view = run.steps.entry(step.id).or_insert_with(|| StepView {
                id: step.id,
                name: step.name.clone(),
                previous: step.previous.clone(),
                initiated: None,
                processed: None,
                event: None,
                failure: None,
            });
            if is_begun {
                view.initiated.get_or_insert(event.time());
            } else {
                // A step that fails later has failed.
                view.failure = step.failure.clone().or(view.failure.take());
                if view.processed.is_none() {
                    view.processed = Some(event.time());
                    let (stream, event_type) = (event.stream().to_owned(), event.event_type().to_owned());
                    view.event = Some((event.position(), stream, event_type));
                }
            }
        }
    }

    /// A run.
    #[must_use]
    pub fn run(&self, instance: Uuid) -> Option<&SagaRun> {
        self.runs.get(&instance)
    }

    /// All runs, in the order of their instances, which is that in which they were launched.
    pub fn runs(&self) -> impl Iterator<Item = &SagaRun> {
        self.runs.values()
    }

    /// Steps that were begun before this time and are not done.
    pub fn hanging(&self, before: Timestamp) -> impl Iterator<Item = (&SagaRun, &StepView)> {
        let hangs = move |step: &&StepView| {
            step.processed.is_none() && step.initiated.is_some_and(|begun| begun < before)
        };
        self.runs().flat_map(move |run| run.steps.values().filter(hangs).map(move |step| (run, step)))
    }

    /// Steps that failed.
    pub fn failed(&self) -> impl Iterator<Item = (&SagaRun, &StepView)> {
        self.runs().flat_map(|run| {
            run.steps.values().filter(|step| step.failure.is_some()).map(move |step| (run, step))
        })
    }
}

impl SagaRun {
    /// Its steps: each behind those that it follows, and else as they were begun or done.
    #[must_use]
    pub fn steps(&self) -> Vec<&StepView> {
        let mut left: Vec<_> = self.steps.values().collect();
        left.sort_by_key(|step| (step.initiated.or(step.processed), step.id));
        let mut placed = BTreeSet::new();
        let mut ordered = Vec::with_capacity(left.len());
        while !left.is_empty() {
            // A step that is not known holds up nobody.
            let is_next = |step: &&StepView| {
                step.previous.iter().all(|id| placed.contains(id) || !self.steps.contains_key(id))
            };
            // Steps that follow each other in a circle are nobody's: then they come as they are.
            let next = left.remove(left.iter().position(is_next).unwrap_or(0));
            placed.insert(next.id);
            ordered.push(next);
        }
        ordered
    }

    /// Whether all its steps are done, and none failed.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.steps.values().all(|step| step.processed.is_some() && step.failure.is_none())
    }
}
