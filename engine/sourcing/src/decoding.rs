//! From records of the store to events of the application.

use crate::codec::{Codec, Json};
use crate::context::schema_of;
use crate::error::SourcingError;
use crate::event::DomainEvent;
use crate::upcast::{UpcastError, Upcasts};
use annals_types::{ContentKind, Record};
use std::borrow::Cow;
use std::marker::PhantomData;

/// What becomes of an event of a type that the application doesn't have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UnknownType {
    /// It is an error: for what must see everything.
    #[default]
    Error,
    /// It is left out.
    Skip,
    /// It is given as it is stored: to [`Decider::evolve_raw`](crate::Decider::evolve_raw), say.
    Raw,
}

/// Reads events of the application from records: those that are said to be JSON as JSON, others by a codec.
#[derive(Clone, Debug)]
pub struct Decoding<E, C> {
    pub(crate) codec: C,
    pub(crate) unknown: UnknownType,
    upcasts: Upcasts,
    events: PhantomData<fn() -> E>,
}

/// What a record was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded<E> {
    /// An event of the application.
    Event {
        /// The event.
        event: E,
        /// Whether its stored form was an older one.
        was_upcast: bool,
    },
    /// An event of a type that the application doesn't have.
    Unknown,
}

impl<E: DomainEvent, C: Codec> Decoding<E, C> {
    /// Of these events, with their upcasts.
    ///
    /// # Errors
    /// The upcasts are not complete: see [`Upcasts::check`].
    pub fn new(codec: C) -> Result<Self, UpcastError> {
        let upcasts = E::upcasts();
        upcasts.check(E::TYPES)?;
        Ok(Self { codec, unknown: UnknownType::default(), upcasts, events: PhantomData })
    }

    /// Sets what becomes of events of other types.
    #[must_use]
    pub fn unknown(mut self, unknown: UnknownType) -> Self {
        self.unknown = unknown;
        self
    }

    /// Reads a record. One of a type that there isn't, is an error only where [`UnknownType::Error`] was asked for.
    ///
    /// # Errors
    /// It is of an unknown type, of a form that cannot be read, or its data are not of that form.
    pub fn decode(&self, record: &Record) -> Result<Decoded<E>, SourcingError> {
        let event_type = record.event_type();
        let known = E::TYPES.iter().find(|known| known.name == event_type);
        if known.is_none() && !self.upcasts.knows(event_type) {
            return match self.unknown {
                UnknownType::Error => Err(SourcingError::UnknownType {
                    position: record.position(),
                    stream: record.stream().to_owned(),
                    event_type: event_type.to_owned(),
                }),
                UnknownType::Skip | UnknownType::Raw => Ok(Decoded::Unknown),
            };
        }
        let unreadable = |reason: String| SourcingError::Unreadable {
            position: record.position(),
            stream: record.stream().to_owned(),
            event_type: event_type.to_owned(),
            reason,
        };
        let schema = schema_of(record);
        let (name, schema, data) = match known {
            Some(known) if known.schema == schema => (event_type, schema, Cow::Borrowed(record.data())),
            _ => self
                .upcasts
                .apply(event_type, schema, record.data())
                .map_err(|error| unreadable(error.to_string()))?,
        };
        let was_upcast = matches!(data, Cow::Owned(_));
        let Some(now) =
            E::TYPES.iter().find(|known| known.name == name).filter(|known| known.schema == schema)
        else {
            let known = known.map_or(0, |known| known.schema);
            return Err(unreadable(format!("its data have the form of schema {schema}; known is {known}")));
        };
        debug_assert_eq!(now.schema, schema);
        // What is said to be JSON is, whatever the application writes: events of this layer, and those of others.
        let decoded = match record.content() {
            ContentKind::Json => E::decode(name, &data, &Json),
            ContentKind::Binary => E::decode(name, &data, &self.codec),
        };
        let decoded = decoded
            .unwrap_or_else(|| unreachable!("{name} is one of the types of these events"))
            .map_err(|error| unreadable(error.to_string()))?;
        Ok(Decoded::Event { event: decoded, was_upcast })
    }
}
