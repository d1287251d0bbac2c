//! In which context events came to be: who, from where, in which conversation, because of what.

use crate::saga::SagaContext;
use annals_types::{NewEvent, Record};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use uuid::Uuid;

/// The context of a command; each event that it leads to carries it.
///
/// Correlation and causation are fields of each event, and indexed: all that belongs to a conversation, and all that was caused by one
/// event, are single reads. The rest is JSON in the event's metadata; an event that is a step of a saga has the tag `saga:INSTANCE`, too.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Context {
    /// The conversation: the same for all that follows from one request.
    pub correlation: Option<Uuid>,
    /// The event or command that this follows from.
    pub causation: Option<Uuid>,
    /// Who asked for it.
    pub user: Option<String>,
    /// The part of the system that did it.
    pub source: Option<String>,
    /// The request of the outside that it belongs to.
    pub request: Option<String>,
    /// The steps of sagas that it is.
    pub sagas: SagaContext,
    /// The key of a command that is to be done once. Not carried on to what follows.
    pub once: Option<String>,
}

impl Context {
    /// The beginning of a conversation.
    #[must_use]
    pub fn new() -> Self {
        Self { correlation: Some(Uuid::now_v7()), ..Self::default() }
    }

    /// Of what follows from an event: in its conversation, caused by it, for the same user and request. Steps of sagas are not carried on:
    /// whoever takes the next step says so.
    ///
    /// An event without a correlation begins a conversation that has the event's own id.
    #[must_use]
    pub fn caused_by(event: &Record) -> Self {
        let metadata = Metadata::of(event);
        Self {
            correlation: Some(event.correlation().unwrap_or_else(|| event.id())),
            causation: Some(event.id()),
            user: metadata.user.map(Cow::into_owned),
            request: metadata.request.map(Cow::into_owned),
            ..Self::default()
        }
    }

    /// Sets who asked for it.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets which part of the system does it.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Sets the request of the outside that it belongs to.
    #[must_use]
    pub fn request(mut self, request: impl Into<String>) -> Self {
        self.request = Some(request.into());
        self
    }

    /// Has the command done once: where one with this key was done in this store, by whatever repository, it is not done again, and
    /// [`Handled::repeated`](crate::Handled::repeated) says where it was. So a request that was perhaps answered, and perhaps not, can be
    /// sent again. A command that led to nothing, or was refused, was not done.
    ///
    /// The key is all that tells it: another command with the same key is taken for the same one, whoever gives it, so let it have the user or kind of
    /// request in it where those come from outside. It has at most 251 bytes and no control characters; the first of its events has the
    /// tag `once:KEY`. Jobs of a [`Queue`](crate::Queue) have keys of their own.
    #[must_use]
    pub fn once(mut self, key: impl Into<String>) -> Self {
        self.once = Some(key.into());
        self
    }

    /// The tag by which a command that is to be done once is known.
    pub(crate) fn once_tag(&self) -> Option<String> {
        self.once.as_ref().map(|key| format!("once:{key}"))
    }

    /// Sets the conversation.
    #[must_use]
    pub fn correlation(mut self, id: Uuid) -> Self {
        self.correlation = Some(id);
        self
    }

    /// Sets the steps of sagas that it is.
    #[must_use]
    pub fn sagas(mut self, sagas: SagaContext) -> Self {
        self.sagas = sagas;
        self
    }

    /// The event, in this context and with data of this schema.
    pub(crate) fn put<'a>(&self, mut event: NewEvent<'a>, schema: u32) -> NewEvent<'a> {
        event.tags.extend(self.sagas.iter().map(|(_, step)| Cow::Owned(format!("saga:{}", step.instance))));
        event.correlation = self.correlation;
        event.causation = self.causation;
        let metadata = Metadata {
            schema,
            user: self.user.as_deref().map(Cow::Borrowed),
            source: self.source.as_deref().map(Cow::Borrowed),
            request: self.request.as_deref().map(Cow::Borrowed),
            sagas: Cow::Borrowed(&self.sagas),
        };
        if metadata != Metadata::default() {
            let metadata = serde_json::to_vec(&metadata).expect("texts and numbers can be written");
            event = event.metadata(metadata);
        }
        event
    }
}

/// The metadata of an event as this layer writes it. Fields that it doesn't know are left alone; metadata that are no JSON object, as other writers
/// may have, say nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Metadata<'a> {
    /// The form of the data; 1 where it isn't said.
    #[serde(default = "first_schema", skip_serializing_if = "is_first_schema")]
    pub schema: u32,
    /// Who asked for it.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub user: Option<Cow<'a, str>>,
    /// The part of the system that did it.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub source: Option<Cow<'a, str>>,
    /// The request of the outside that it belongs to.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub request: Option<Cow<'a, str>>,
    /// The steps of sagas that it is.
    #[serde(default, skip_serializing_if = "is_no_saga")]
    pub sagas: Cow<'a, SagaContext>,
}

impl Default for Metadata<'_> {
    fn default() -> Self {
        Self { schema: 1, user: None, source: None, request: None, sagas: Cow::Owned(SagaContext::default()) }
    }
}

impl<'a> Metadata<'a> {
    /// Those of an event.
    #[must_use]
    pub fn of(event: &'a Record) -> Self {
        if event.metadata().is_empty() {
            return Self::default();
        }
        serde_json::from_slice(event.metadata()).unwrap_or_else(|_| Self::field_by_field(event))
    }

    /// What can be made of metadata that others have written: a field that is of another form says nothing about the rest.
    fn field_by_field(event: &Record) -> Self {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(event.metadata()) else {
            return Self::default();
        };
        let mut text = |name: &str| match fields.remove(name) {
            Some(Value::String(text)) => Some(Cow::Owned(text)),
            _ => None,
        };
        let (user, source, request) = (text("user"), text("source"), text("request"));
        // A schema that is no number is none that anybody knows.
        let schema = fields
            .remove("schema")
            .map_or(1, |schema| schema.as_u64().map_or(0, |n| u32::try_from(n).unwrap_or(0)));
        let sagas =
            fields.remove("sagas").and_then(|sagas| serde_json::from_value(sagas).ok()).unwrap_or_default();
        Self { schema, user, source, request, sagas: Cow::Owned(sagas) }
    }
}

/// The schema of an event's data, without looking at the rest of its metadata: each event that is replayed is asked for it.
pub(crate) fn schema_of(event: &Record) -> u32 {
    #[derive(Deserialize)]
    struct Alone {
        #[serde(default = "first_schema")]
        schema: u32,
    }
    match event.metadata() {
        [] => 1,
        metadata => serde_json::from_slice::<Alone>(metadata)
            .map_or_else(|_| Metadata::field_by_field(event).schema, |alone| alone.schema),
    }
}

fn first_schema() -> u32 {
    1
}

// Serde asks with references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_first_schema(schema: &u32) -> bool {
    *schema == 1
}

fn is_no_saga(sagas: &SagaContext) -> bool {
    sagas.is_empty()
}
