//! Older forms of events and snapshots: what is stored stays as it is, and becomes of today's form when it is read.

use crate::codec::CodecError;
use crate::event::EventType;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A form: a type of event and its schema. Snapshots have the empty name.
type Form = (&'static str, u32);
type Change = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, CodecError> + Send + Sync>;

/// How older forms become those of now, step by step: v1 becomes v2, v2 becomes v3.
///
/// ```
/// use annals_sourcing::{DomainEvent, Upcasts};
/// use serde_json::json;
///
/// #[derive(DomainEvent)]
/// #[events(upcasts = upcasts)]
/// enum AccountEvent {
///     #[event("MoneyDeposited", schema = 3)]
///     Deposited { cents: u64, currency: String },
/// }
///
/// fn upcasts() -> Upcasts {
///     Upcasts::none()
///         .json("MoneyDeposited", 1, |data| data["cents"] = json!(data["euros"].as_u64().unwrap_or(0) * 100))
///         .json("MoneyDeposited", 2, |data| data["currency"] = json!("EUR"))
/// }
/// assert!(upcasts().check(AccountEvent::TYPES).is_ok());
/// ```
#[derive(Clone, Default)]
pub struct Upcasts {
    steps: BTreeMap<Form, (Form, Change)>,
    twice: Option<Form>,
}

impl Upcasts {
    /// None.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Changes JSON data of this type and schema to the next schema, in place.
    #[must_use]
    pub fn json(
        self,
        event_type: &'static str,
        schema: u32,
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        self.bytes((event_type, schema), (event_type, schema.saturating_add(1)), of_json(change))
    }

    /// Changes JSON data of one form to another one, perhaps under another name: a type that was renamed.
    #[must_use]
    pub fn json_into(
        self,
        from: (&'static str, u32),
        into: (&'static str, u32),
        change: impl Fn(&mut Value) + Send + Sync + 'static,
    ) -> Self {
        self.bytes(from, into, of_json(change))
    }

    /// Changes data of one form to another, whatever their codec.
    #[must_use]
    pub fn bytes(
        mut self,
        from: (&'static str, u32),
        into: (&'static str, u32),
        change: impl Fn(&[u8]) -> Result<Vec<u8>, CodecError> + Send + Sync + 'static,
    ) -> Self {
        if self.steps.insert(from, (into, Arc::new(change))).is_some() {
            self.twice.get_or_insert(from);
        }
        self
    }

    /// Checks that each step leads to a form of these types, and that each older form of them has its steps.
    ///
    /// # Errors
    /// A form has two steps, steps lead in a circle, or one is missing.
    pub fn check(&self, types: &[EventType]) -> Result<(), UpcastError> {
        let named = |(event_type, schema): &Form| ((*event_type).to_owned(), *schema);
        if let Some(twice) = &self.twice {
            let (event_type, schema) = named(twice);
            return Err(UpcastError::Twice { event_type, schema });
        }
        let is_now =
            |(name, schema): &Form| types.iter().any(|known| known.name == *name && known.schema == *schema);
        if let Some(away) = self.steps.keys().find(|from| is_now(from)) {
            let (event_type, schema) = named(away);
            return Err(UpcastError::OfNow { event_type, schema });
        }
        for from in self.steps.keys() {
            let mut at = from;
            let mut steps = 0;
            while let Some((next, _)) = self.steps.get(at) {
                (at, steps) = (next, steps + 1);
                if steps > self.steps.len() {
                    let (event_type, schema) = named(from);
                    return Err(UpcastError::Circle { event_type, schema });
                }
            }
            if !is_now(at) {
                let (event_type, schema) = named(at);
                return Err(UpcastError::Gap { event_type, schema });
            }
        }
        for known in types {
            for schema in known.oldest..known.schema {
                if !self.steps.contains_key(&(known.name, schema)) {
                    return Err(UpcastError::Gap { event_type: known.name.to_owned(), schema });
                }
            }
        }
        Ok(())
    }

    /// The form that there is no step from, and the data in it; the data as they are where no step was needed.
    pub(crate) fn apply<'a>(
        &'a self,
        event_type: &'a str,
        schema: u32,
        data: &'a [u8],
    ) -> Result<(&'a str, u32, Cow<'a, [u8]>), CodecError> {
        let mut form = (event_type, schema);
        let mut data = Cow::Borrowed(data);
        // A circle was refused when this was checked; what nobody checked ends all the same.
        for _ in 0..=self.steps.len() {
            let Some((next, change)) = self.steps.get(&form) else { break };
            data = Cow::Owned(change(&data)?);
            form = *next;
        }
        Ok((form.0, form.1, data))
    }

    /// The types that steps begin with, in order, each perhaps several times.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.steps.keys().map(|(name, _)| *name)
    }

    /// Whether there is a step from this form.
    pub(crate) fn begins(&self, event_type: &str, schema: u32) -> bool {
        self.steps.contains_key(&(event_type, schema))
    }

    /// Whether there is a step from any form of this type.
    pub(crate) fn knows(&self, event_type: &str) -> bool {
        self.steps.keys().any(|(name, _)| *name == event_type)
    }
}

fn of_json(
    change: impl Fn(&mut Value) + Send + Sync + 'static,
) -> impl Fn(&[u8]) -> Result<Vec<u8>, CodecError> + Send + Sync + 'static {
    move |data| {
        let mut value = serde_json::from_slice(data).map_err(CodecError::new)?;
        change(&mut value);
        serde_json::to_vec(&value).map_err(CodecError::new)
    }
}

impl fmt::Debug for Upcasts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.steps.iter().map(|(from, (into, _))| (from, into))).finish()
    }
}

/// What is wrong with upcasts.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpcastError {
    /// Two steps begin with one form.
    #[error("two upcasts begin with {event_type:?}, schema {schema}; leave one out")]
    Twice {
        /// The type.
        event_type: String,
        /// Its schema.
        schema: u32,
    },
    /// Steps lead back to where they began.
    #[error(
        "the upcasts from {event_type:?}, schema {schema}, lead in a circle; let the last one lead to the form of now"
    )]
    Circle {
        /// The type.
        event_type: String,
        /// Its schema.
        schema: u32,
    },
    /// There is no step from a form that is no form of now.
    #[error(
        "no upcast begins with {event_type:?}, schema {schema}, and it is no form of now; add one, or say what the oldest schema is that was ever stored (`oldest = ...`)"
    )]
    Gap {
        /// The type.
        event_type: String,
        /// Its schema.
        schema: u32,
    },
    /// A step leads away from a form of now.
    #[error(
        "an upcast begins with {event_type:?}, schema {schema}, which is its form now; raise the schema of the type, or leave the upcast out"
    )]
    OfNow {
        /// The type.
        event_type: String,
        /// Its schema.
        schema: u32,
    },
}
