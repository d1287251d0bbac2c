//! Which events: by types, tags, stream, category, correlation and causation.

use crate::error::InputError;
use crate::event::{Record, check_name, check_size};
use crate::limits;
use crate::stream::category;
use std::borrow::Cow;
use uuid::Uuid;

/// Events that match any of its items; one without items matches everything.
///
/// ```
/// use annals_types::{Query, QueryItem};
/// let about_the_course = Query::from(QueryItem::new().of_type("CourseDefined").of_type("CapacityChanged").tag("course:c1"))
///     .or(QueryItem::new().of_type("StudentSubscribed").tag("student:s1"));
/// assert!(about_the_course.validate().is_ok());
/// assert!(Query::all().is_all());
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Query<'a> {
    /// Up to 128 items.
    pub items: Vec<QueryItem<'a>>,
}

/// Events that have all of these; an item that asks for nothing matches everything.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueryItem<'a> {
    /// One of these types, of which there may be up to 64; none: any type.
    pub types: Vec<Cow<'a, str>>,
    /// Each of these tags, up to 64.
    pub tags: Vec<Cow<'a, str>>,
    /// This stream.
    pub stream: Option<Cow<'a, str>>,
    /// A stream of this category.
    pub category: Option<Cow<'a, str>>,
    /// This correlation id.
    pub correlation: Option<Uuid>,
    /// This causation id.
    pub causation: Option<Uuid>,
}

impl<'a> Query<'a> {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Adds an item: what matches it matches, too.
    #[must_use]
    pub fn or(mut self, item: QueryItem<'a>) -> Self {
        self.items.push(item);
        self
    }

    /// The same, borrowing nothing.
    #[must_use]
    pub fn into_owned(self) -> Query<'static> {
        Query { items: self.items.into_iter().map(QueryItem::into_owned).collect() }
    }

    /// Whether everything matches.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.items.is_empty() || self.items.iter().any(QueryItem::is_all)
    }

    /// Whether an event matches.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        self.items.is_empty() || self.items.iter().any(|item| item.matches(record))
    }

    /// Checks that it keeps to the limits and has no malformed name.
    ///
    /// # Errors
    /// The first thing that is over a limit or malformed.
    pub fn validate(&self) -> Result<(), InputError> {
        check_size("items of a query", self.items.len(), limits::QUERY_ITEMS_MAX)?;
        self.items.iter().try_for_each(QueryItem::validate)
    }
}

impl<'a> From<QueryItem<'a>> for Query<'a> {
    fn from(item: QueryItem<'a>) -> Self {
        Self { items: vec![item] }
    }
}

impl<'a> QueryItem<'a> {
    /// An item that asks for nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for this type, or another that was asked for.
    #[must_use]
    pub fn of_type(mut self, event_type: impl Into<Cow<'a, str>>) -> Self {
        self.types.push(event_type.into());
        self
    }

    /// Asks for this tag, too.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Cow<'a, str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Asks for this stream.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<Cow<'a, str>>) -> Self {
        self.stream = Some(stream.into());
        self
    }

    /// Asks for streams of this category.
    #[must_use]
    pub fn category(mut self, category: impl Into<Cow<'a, str>>) -> Self {
        self.category = Some(category.into());
        self
    }

    /// Asks for this correlation id.
    #[must_use]
    pub fn correlation(mut self, id: Uuid) -> Self {
        self.correlation = Some(id);
        self
    }

    /// Asks for this causation id.
    #[must_use]
    pub fn causation(mut self, id: Uuid) -> Self {
        self.causation = Some(id);
        self
    }

    fn into_owned(self) -> QueryItem<'static> {
        let owned = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        QueryItem {
            types: self.types.into_iter().map(owned).collect(),
            tags: self.tags.into_iter().map(owned).collect(),
            stream: self.stream.map(owned),
            category: self.category.map(owned),
            correlation: self.correlation,
            causation: self.causation,
        }
    }

    /// Whether everything matches.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.types.is_empty()
            && self.tags.is_empty()
            && self.stream.is_none()
            && self.category.is_none()
            && self.correlation.is_none()
            && self.causation.is_none()
    }

    /// Whether an event matches.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        (self.types.is_empty() || self.types.iter().any(|wanted| wanted == record.event_type()))
            && self.tags.iter().all(|wanted| record.tags().any(|tag| tag == wanted))
            && self.stream.as_ref().is_none_or(|wanted| wanted == record.stream())
            && self.category.as_ref().is_none_or(|wanted| wanted == category(record.stream()))
            && self.correlation.is_none_or(|wanted| record.correlation() == Some(wanted))
            && self.causation.is_none_or(|wanted| record.causation() == Some(wanted))
    }

    fn validate(&self) -> Result<(), InputError> {
        check_size("types of a query's item", self.types.len(), limits::QUERY_TYPES_MAX)?;
        check_size("tags of a query's item", self.tags.len(), limits::TAGS_MAX)?;
        for event_type in &self.types {
            check_name("event type", event_type, limits::EVENT_TYPE_BYTES_MAX)?;
        }
        for tag in &self.tags {
            check_name("tag", tag, limits::TAG_BYTES_MAX)?;
        }
        if let Some(stream) = &self.stream {
            check_name("stream name", stream, limits::STREAM_NAME_BYTES_MAX)?;
        }
        match &self.category {
            Some(category) => check_name("category", category, limits::STREAM_NAME_BYTES_MAX),
            None => Ok(()),
        }
    }
}
