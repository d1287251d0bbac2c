//! What a decision is about: the events that its state is made of, and that must not have become more when its own are appended.

use annals_types::{
    Append, ExpectedVersion, NewEvent, Position, Query, QueryItem, Read, Record, Version, category,
};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What a decision is about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Boundary<'a> {
    /// One stream.
    Stream(Cow<'a, str>),
    /// Several streams, their events in the order of the store.
    Streams(Vec<Cow<'a, str>>),
    /// What a query selects: a dynamic consistency boundary (DCB).
    Query(Query<'a>),
}

impl<'a> From<&'a str> for Boundary<'a> {
    fn from(stream: &'a str) -> Self {
        Self::Stream(stream.into())
    }
}

impl<'a> From<&'a String> for Boundary<'a> {
    fn from(stream: &'a String) -> Self {
        Self::Stream(stream.into())
    }
}

impl From<String> for Boundary<'_> {
    fn from(stream: String) -> Self {
        Self::Stream(stream.into())
    }
}

impl<'a> From<Query<'a>> for Boundary<'a> {
    fn from(query: Query<'a>) -> Self {
        Self::Query(query)
    }
}

impl<'a> From<QueryItem<'a>> for Boundary<'a> {
    fn from(item: QueryItem<'a>) -> Self {
        Self::Query(item.into())
    }
}

impl<'a, const N: usize> From<[&'a str; N]> for Boundary<'a> {
    fn from(streams: [&'a str; N]) -> Self {
        Self::Streams(streams.into_iter().map(Cow::from).collect())
    }
}

/// How far the events of a boundary were read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    /// The last version of each stream.
    heads: BTreeMap<String, Version>,
    /// The last event's position.
    last: Option<Position>,
}

impl Seen {
    pub(crate) fn up_to(stream: &str, version: Version, position: Position) -> Self {
        Self { heads: BTreeMap::from([(stream.to_owned(), version)]), last: Some(position) }
    }

    pub(crate) fn note(&mut self, record: &Record) {
        match self.heads.get_mut(record.stream()) {
            Some(head) => *head = record.version(),
            None => drop(self.heads.insert(record.stream().to_owned(), record.version())),
        }
        self.last = Some(record.position());
    }

    pub(crate) fn head(&self, stream: &str) -> Option<Version> {
        self.heads.get(stream).copied()
    }

    pub(crate) fn last(&self) -> Option<Position> {
        self.last
    }
}

impl Boundary<'_> {
    /// The read of its events, those behind what was seen.
    pub(crate) fn read(&self, seen: &Seen) -> Read<'_> {
        let read = match self {
            Self::Stream(stream) => {
                let read = Read::stream(&**stream);
                return match seen.head(stream) {
                    Some(head) => read.from(head.plus(1)),
                    None => read,
                };
            }
            Self::Streams(streams) => {
                if streams.is_empty() {
                    return Read::all().limit(0);
                }
                let all = streams
                    .iter()
                    .fold(Query::all(), |all, stream| all.or(QueryItem::new().stream(&**stream)));
                Read::query(all)
            }
            Self::Query(query) => Read::query(query.clone()),
        };
        match seen.last() {
            Some(last) => read.from(last.plus(1)),
            None => read,
        }
    }

    /// The append, on the condition that nothing came since.
    pub(crate) fn guard<'a>(&'a self, mut append: Append<'a>, seen: &Seen) -> Append<'a> {
        match self {
            Self::Stream(_) | Self::Streams(_) => {
                for stream in self.streams() {
                    let expected = self.expected(stream, seen).expect("it is about this stream");
                    append = append.expect(&**stream, expected);
                }
                append
            }
            Self::Query(query) => append.fail_if_matches(query.clone(), seen.last()),
        }
    }

    /// Whether an event to be stored is one of those that the decision is about.
    pub(crate) fn has(&self, event: &NewEvent<'_>) -> bool {
        match self {
            Self::Stream(stream) => *stream == event.stream,
            Self::Streams(streams) => streams.contains(&event.stream),
            Self::Query(query) => {
                query.items.is_empty() || query.items.iter().any(|item| selects(item, event))
            }
        }
    }

    /// What is expected of a stream that it is about by its name.
    pub(crate) fn expected(&self, stream: &str, seen: &Seen) -> Option<ExpectedVersion> {
        let is_named = match self {
            Self::Stream(own) => own == stream,
            Self::Streams(streams) => streams.iter().any(|own| own == stream),
            Self::Query(_) => false,
        };
        is_named.then(|| seen.head(stream).map_or(ExpectedVersion::NoStream, ExpectedVersion::Exactly))
    }

    /// The streams that it is about by their names.
    fn streams(&self) -> &[Cow<'_, str>] {
        match self {
            Self::Stream(stream) => std::slice::from_ref(stream),
            Self::Streams(streams) => streams,
            Self::Query(_) => &[],
        }
    }

    /// The one stream, where it is one.
    pub(crate) fn stream(&self) -> Option<&str> {
        match self {
            Self::Stream(stream) => Some(stream),
            Self::Streams(_) | Self::Query(_) => None,
        }
    }
}

fn selects(item: &QueryItem<'_>, event: &NewEvent<'_>) -> bool {
    (item.types.is_empty() || item.types.contains(&event.event_type))
        && item.tags.iter().all(|tag| event.tags.contains(tag))
        && item.stream.as_ref().is_none_or(|stream| *stream == event.stream)
        && item.category.as_ref().is_none_or(|wanted| wanted == category(&event.stream))
        && (item.correlation.is_none() || item.correlation == event.correlation)
        && (item.causation.is_none() || item.causation == event.causation)
}
