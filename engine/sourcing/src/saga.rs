//! Sagas: transactions of several steps, each of which is an event somewhere and names the steps that it follows.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;
use uuid::Uuid;

/// The steps of sagas that an event is: mostly one of one saga; an event may be a step of several, one within the other.
///
/// ```
/// use annals_sourcing::SagaContext;
///
/// let booked = SagaContext::launch("trip", "book")?;
/// // Two steps that may be done side by side …
/// let paid = booked.step("trip", "pay")?;
/// let seated = booked.step("trip", "choose seats")?;
/// // … and one that waits for both.
/// let confirmed = (paid.clone() + seated.clone())?.step("trip", "confirm")?;
/// assert_eq!(confirmed.get("trip").unwrap().previous.len(), 2);
/// # Ok::<(), annals_sourcing::SagaError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaContext {
    steps: BTreeMap<String, SagaStep>,
}

/// A step of a saga.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SagaStep {
    /// Which run of the saga.
    pub instance: Uuid,
    /// The step's name.
    pub name: String,
    /// The step's id. Of contexts that were joined, one of theirs.
    pub id: Uuid,
    /// The steps that it follows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub previous: BTreeSet<Uuid>,
    /// Steps that were joined, which the next one follows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub joined: BTreeSet<Uuid>,
    /// Why it failed; `None`: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl SagaContext {
    /// The first step of a new run of a saga.
    ///
    /// # Errors
    /// A name is empty.
    pub fn launch(saga: &str, step: &str) -> Result<Self, SagaError> {
        Self::default().launch_within(saga, step)
    }

    /// Begins a run of another saga within these: what carries the context is a step of all of them.
    ///
    /// # Errors
    /// There is a saga of this name in it already, or a name is empty.
    pub fn launch_within(&self, saga: &str, step: &str) -> Result<Self, SagaError> {
        check(saga, step)?;
        if self.steps.contains_key(saga) {
            return Err(SagaError::Clash { saga: saga.to_owned() });
        }
        let mut steps = self.steps.clone();
        steps.insert(saga.to_owned(), SagaStep::new(Uuid::now_v7(), step, BTreeSet::new()));
        Ok(Self { steps })
    }

    /// The next step of one of the sagas, behind the one that this is, or those that were joined. Steps of the other sagas stay as they are.
    ///
    /// The same step behind the same ones is the same: it has the same id.
    ///
    /// # Errors
    /// The saga is not one of these, or a name is empty.
    pub fn step(&self, saga: &str, step: &str) -> Result<Self, SagaError> {
        check(saga, step)?;
        let before = self.steps.get(saga).ok_or_else(|| SagaError::Unknown { saga: saga.to_owned() })?;
        let previous =
            if before.joined.is_empty() { BTreeSet::from([before.id]) } else { before.joined.clone() };
        let next = SagaStep::new(before.instance, step, previous);
        let mut steps = self.steps.clone();
        steps.insert(saga.to_owned(), next);
        Ok(Self { steps })
    }

    /// Only one of the sagas: what follows is no step of the others.
    ///
    /// # Errors
    /// The saga is not one of these.
    pub fn only(&self, saga: &str) -> Result<Self, SagaError> {
        let step = self.steps.get(saga).ok_or_else(|| SagaError::Unknown { saga: saga.to_owned() })?;
        Ok(Self { steps: BTreeMap::from([(saga.to_owned(), step.clone())]) })
    }

    /// Says that the step of this saga failed.
    ///
    /// # Errors
    /// The saga is not one of these.
    pub fn failed(mut self, saga: &str, reason: &str) -> Result<Self, SagaError> {
        let step = self.steps.get_mut(saga).ok_or_else(|| SagaError::Unknown { saga: saga.to_owned() })?;
        step.failure = Some(reason.to_owned());
        Ok(self)
    }

    /// Says of all the steps that they failed.
    pub(crate) fn all_failed(mut self, reason: &str) -> Self {
        self.steps.values_mut().for_each(|step| step.failure = Some(reason.to_owned()));
        self
    }

    /// The step of a saga.
    #[must_use]
    pub fn get(&self, saga: &str) -> Option<&SagaStep> {
        self.steps.get(saga)
    }

    /// The sagas and their steps, in the order of the sagas' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SagaStep)> {
        self.steps.iter().map(|(saga, step)| (saga.as_str(), step))
    }

    /// Whether it is no step of any saga.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }
}

impl SagaStep {
    /// Its id follows from the run, its name and what it follows: who decides twice decides the same.
    fn new(instance: Uuid, name: &str, previous: BTreeSet<Uuid>) -> Self {
        let mut what = name.as_bytes().to_vec();
        previous.iter().for_each(|id| what.extend_from_slice(id.as_bytes()));
        let id = Uuid::new_v5(&instance, &what);
        Self { instance, name: name.to_owned(), id, previous, joined: BTreeSet::new(), failure: None }
    }
}

fn check(saga: &str, step: &str) -> Result<(), SagaError> {
    if saga.is_empty() || step.is_empty() { Err(SagaError::NoName) } else { Ok(()) }
}

/// Joins steps that were done side by side: the next step follows all of them.
impl Add for SagaContext {
    type Output = Result<Self, SagaError>;

    fn add(mut self, other: Self) -> Self::Output {
        for (saga, theirs) in other.steps {
            let Some(ours) = self.steps.get_mut(&saga) else {
                self.steps.insert(saga, theirs);
                continue;
            };
            if ours.instance != theirs.instance {
                return Err(SagaError::Clash { saga });
            }
            let ends = |step: &SagaStep| {
                if step.joined.is_empty() { BTreeSet::from([step.id]) } else { step.joined.clone() }
            };
            let joined = &ends(ours) | &ends(&theirs);
            ours.joined = if joined.len() > 1 { joined } else { BTreeSet::new() };
        }
        Ok(self)
    }
}

/// What is wrong with the steps of a saga.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SagaError {
    /// Two runs of one saga meet.
    #[error("two runs of the saga {saga:?} meet in one context; a step belongs to one of them")]
    Clash {
        /// The saga.
        saga: String,
    },
    /// The saga does not go on from here.
    #[error(
        "there is no step of the saga {saga:?} in the context to go on from; launch it, or use the context of its last step"
    )]
    Unknown {
        /// The saga.
        saga: String,
    },
    /// A name is empty.
    #[error("a saga and its steps have names")]
    NoName,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saga_within_another_has_steps_of_its_own() {
        let outer = SagaContext::launch("order", "place").unwrap();
        let inner = outer.step("order", "deliver").unwrap().launch_within("delivery", "pick").unwrap();
        let both = inner.step("delivery", "pack").unwrap();
        assert_eq!(both.get("order"), inner.get("order"));
        assert_eq!(
            both.get("delivery").unwrap().previous,
            BTreeSet::from([inner.get("delivery").unwrap().id])
        );
        assert_eq!(both.only("order").unwrap().iter().count(), 1);
    }

    #[test]
    fn a_clash_and_an_unknown_saga_are_errors() {
        let (one, other) = (SagaContext::launch("a", "s").unwrap(), SagaContext::launch("a", "s").unwrap());
        assert_eq!((one.clone() + other).unwrap_err(), SagaError::Clash { saga: "a".into() });
        assert_eq!(one.launch_within("a", "s").unwrap_err(), SagaError::Clash { saga: "a".into() });
        assert_eq!(one.step("b", "s").unwrap_err(), SagaError::Unknown { saga: "b".into() });
        assert_eq!(one.step("a", "").unwrap_err(), SagaError::NoName);
    }

    #[test]
    fn joining_is_the_same_in_any_order_and_twice() {
        let first = SagaContext::launch("a", "s").unwrap();
        let sides: Vec<_> = ["x", "y", "z"].iter().map(|step| first.step("a", step).unwrap()).collect();
        let joined = |order: [usize; 4]| {
            let all = order
                .iter()
                .skip(1)
                .try_fold(sides[order[0]].clone(), |all, index| all + sides[*index].clone());
            all.unwrap().step("a", "end").unwrap().get("a").unwrap().previous.clone()
        };
        assert_eq!(joined([0, 1, 2, 0]), joined([2, 1, 0, 1]));
        assert_eq!(joined([0, 1, 2, 2]).len(), 3);
    }
}
