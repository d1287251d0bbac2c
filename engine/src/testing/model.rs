//! The model: a store that is a list of events in memory, with the promises of the real one.
//!
//! It is slow and obvious, and forgets everything; tests compare the real store with it.

use crate::{
    Advance, Append, AppendError, Appended, Bound, Condition, Cursor, Head, InputError, NewEvent, Position,
    Query, QueryItem, Read, Record, Timestamp, Version, limits,
};
use std::borrow::Cow;
use std::ops::Range;

/// An event of the [`Model`]: what was appended, and what was decided about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelEvent {
    /// What was appended, with its decided time. Without an id where the store drew one.
    pub event: NewEvent<'static>,
    /// Its place in its stream.
    pub version: Version,
}

impl ModelEvent {
    /// Whether a stored event is this one, which is at `position`; an id that the store drew may be any.
    #[must_use]
    pub fn is(&self, position: Position, record: &Record) -> bool {
        let stored = record.to_new_event();
        let expected = NewEvent { id: self.event.id.or(stored.id), ..self.event.clone() };
        (record.position(), record.version()) == (position, self.version) && stored == expected
    }
}

/// See the module.
#[derive(Clone, Default, Debug)]
pub struct Model {
    events: Vec<ModelEvent>,
    /// Number of events behind each batch.
    ends: Vec<usize>,
    /// Cursors as they were set, with the number of events behind the batch that did it.
    cursors: Vec<(usize, String, Option<Position>)>,
    /// Of how many of the newest events the ids are known; 0: of all.
    id_window: usize,
}

impl Model {
    /// A store without events.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Knows the ids of so many of the newest events alone.
    #[must_use]
    pub fn with_id_window(id_window: usize) -> Self {
        Self { id_window, ..Self::default() }
    }

    /// All events, in the order of their positions.
    #[must_use]
    pub fn events(&self) -> &[ModelEvent] {
        &self.events
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether a batch ends, or the first begins, right before the event with this index.
    #[must_use]
    pub fn is_boundary(&self, events: usize) -> bool {
        events == 0 || self.ends.binary_search(&events).is_ok()
    }

    /// The numbers of events that a store may show of which at least `from` are durable: batches are whole.
    pub fn boundaries(&self, from: usize) -> impl Iterator<Item = usize> {
        let none = (from == 0).then_some(0);
        none.into_iter().chain(self.ends.iter().copied().filter(move |&end| end >= from && end > 0))
    }

    /// Forgets all but the first `events`: what a crash may do to batches that were not acknowledged.
    ///
    /// # Panics
    /// When that would tear a batch.
    pub fn truncate(&mut self, events: usize) {
        assert!(self.is_boundary(events), "a batch is there whole or not at all");
        self.events.truncate(events);
        self.ends.retain(|&end| end <= events);
        self.cursors.retain(|(end, ..)| *end <= events);
    }

    /// The stream's last event.
    #[must_use]
    pub fn head(&self, stream: &str) -> Option<Head> {
        let position = self.events.iter().rposition(|stored| stored.event.stream == stream)?;
        Some(Head { version: self.events[position].version, position: at(position) })
    }

    /// Where a cursor is.
    #[must_use]
    pub fn cursor(&self, name: &str) -> Option<Cursor> {
        let mut places = self.cursors.iter().filter(|(_, cursor, _)| cursor == name);
        let revision = places.clone().count() as u64;
        places.next_back().map(|(.., position)| Cursor { position: *position, revision })
    }

    /// Appends a batch at this time of the clock. It must have events.
    ///
    /// # Errors
    /// As the real store, once the ticket has settled.
    pub fn append(&mut self, append: &Append<'_>, now: Timestamp) -> Result<Appended, AppendError> {
        append.validate()?;
        check_times(append)?;
        check_ids(append)?;
        self.judge(append)?.map_or_else(|| self.write(append, now), Ok)
    }

    /// Whether the conditions hold; the first result if the batch was appended before.
    fn judge(&self, append: &Append<'_>) -> Result<Option<Appended>, AppendError> {
        let from = if self.id_window == 0 { 0 } else { self.len().saturating_sub(self.id_window) };
        let is_known = |stored: &ModelEvent| {
            stored.event.id.is_some() && append.events.iter().any(|event| event.id == stored.event.id)
        };
        if let Some(position) = (from..self.len()).find(|&position| is_known(&self.events[position])) {
            let id = self.events[position].event.id.unwrap_or_default();
            let conflict = AppendError::IdConflict { id, position: Some(at(position)) };
            return self.repeated(append, position).map(Some).ok_or(conflict);
        }
        let mut failed = None;
        let mut places = Vec::new();
        for condition in &append.conditions {
            let Condition::Stream { stream, expected } = condition else { continue };
            let actual = self.head(stream);
            if expected.holds(actual.map(|head| head.version)) {
                continue;
            }
            let written = append.events.iter().any(|event| event.stream == *stream);
            if let Some(version) = expected.next_version().filter(|_| written) {
                places.extend(self.find(stream, version));
            }
            let error =
                || AppendError::WrongVersion { stream: stream.to_string(), expected: *expected, actual };
            failed = failed.or_else(|| Some(error()));
        }
        for position in places {
            if let Some(appended) = self.repeated(append, position) {
                return Ok(Some(appended));
            }
            let stored = self.events[position].event.id;
            if let Some(id) = stored.filter(|_| append.events.iter().any(|event| event.id == stored)) {
                return Err(AppendError::IdConflict { id, position: Some(at(position)) });
            }
        }
        failed.map_or(Ok(()), Err)?;
        for condition in &append.conditions {
            let Condition::NoMatch { query, after } = condition else { continue };
            let next = at(self.events.len());
            if let Some(after) = after.filter(|&after| after >= next) {
                return Err(AppendError::AfterTheEnd { after, next });
            }
            let behind = after.map_or(0, |after| after.get() + 1);
            let mut later =
                self.events.iter().enumerate().skip(usize::try_from(behind).unwrap_or(usize::MAX));
            if let Some((position, _)) = later.find(|(_, stored)| selects(query, &stored.event)) {
                return Err(AppendError::QueryMatched { after: *after, position: at(position) });
            }
        }
        self.judge_cursors(append)?;
        Ok(None)
    }

    fn judge_cursors(&self, append: &Append<'_>) -> Result<(), AppendError> {
        for condition in &append.conditions {
            let Condition::Cursor { cursor, expected } = condition else { continue };
            let actual = self.cursor(cursor);
            if actual.and_then(|actual| actual.position) != *expected {
                let cursor = cursor.to_string();
                return Err(AppendError::WrongCursor { cursor, expected: *expected, actual });
            }
        }
        let next = at(self.len());
        let beyond = |advance: &&Advance<'_>| advance.position.is_some_and(|position| position >= next);
        match append.advances.iter().find(beyond) {
            Some(Advance { cursor, position: Some(position) }) => {
                let cursor = cursor.to_string();
                Err(AppendError::CursorAfterTheEnd { cursor, position: *position, next })
            }
            _ => Ok(()),
        }
    }

    fn find(&self, stream: &str, version: Version) -> Option<usize> {
        self.events.iter().position(|stored| stored.event.stream == stream && stored.version == version)
    }

    /// The first result, if the batch that holds `position` has exactly these events.
    fn repeated(&self, append: &Append<'_>, position: usize) -> Option<Appended> {
        let range = self.batch_of(position);
        let stored = &self.events[range.clone()];
        let same = |(stored, given): (&ModelEvent, &NewEvent<'_>)| {
            let expected = NewEvent { time: stored.event.time, ..given.clone() };
            given.id.is_some() && stored.event == expected
        };
        let repeated = stored.len() == append.events.len() && stored.iter().zip(&append.events).all(same);
        repeated.then(|| Appended {
            positions: at(range.start)..at(range.end),
            last_version: self.events[range.end - 1].version,
            repeated: true,
        })
    }

    fn batch_of(&self, position: usize) -> Range<usize> {
        let batch = self.ends.partition_point(|&end| end <= position);
        let start = batch.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[batch]
    }

    fn write(&mut self, append: &Append<'_>, now: Timestamp) -> Result<Appended, AppendError> {
        let previous = self.events.last().and_then(|stored| stored.event.time).unwrap_or_default();
        let given = append.events.iter().filter_map(|event| event.time);
        let (first, last) = (given.clone().next(), given.max());
        if let Some(given) = first.filter(|&first| first < previous && !append.raise_times) {
            return Err(AppendError::TimeBackwards { given, previous });
        }
        let latest = now.max(previous).get().saturating_add(limits::TIME_AHEAD_NS_MAX);
        if let Some(given) = last.filter(|last| last.get() > latest) {
            return Err(AppendError::TimeAhead { given, now });
        }
        let start = self.events.len();
        let mut least = if first.is_some() { previous } else { previous.max(now) };
        for event in &append.events {
            least = least.max(event.time.unwrap_or_default());
            let version = self.head(&event.stream).map_or(Version::ZERO, |head| head.version.plus(1));
            let event = NewEvent { time: Some(least), ..owned(event) };
            self.events.push(ModelEvent { event, version });
        }
        let end = self.events.len();
        self.ends.push(end);
        let set = append.advances.iter().map(|advance| (end, advance.cursor.to_string(), advance.position));
        self.cursors.extend(set);
        let last_version = self.events[self.events.len() - 1].version;
        Ok(Appended { positions: at(start)..at(self.events.len()), last_version, repeated: false })
    }

    /// What a read gives of the first `visible` events.
    ///
    /// # Errors
    /// As the real store.
    pub fn read(&self, read: &Read<'_>, visible: usize) -> Result<Vec<(Position, &ModelEvent)>, InputError> {
        read.validate()?;
        let (lower, upper) = if read.backwards { (read.until, read.from) } else { (read.from, read.until) };
        let fits = |position: Position, stored: &ModelEvent| {
            let of = |bound: Option<Bound>, fits: fn(u64, u64) -> bool| match bound {
                None => true,
                Some(Bound::Position(bound)) => fits(position.get(), bound.get()),
                Some(Bound::Version(bound)) => fits(stored.version.get(), bound.get()),
                Some(Bound::Time(bound)) => fits(stored.event.time.unwrap_or_default().get(), bound.get()),
            };
            read.stream.as_ref().is_none_or(|stream| stored.event.stream == *stream)
                && selects(&read.query, &stored.event)
                && of(lower, |value, bound| value >= bound)
                && of(upper, |value, bound| value <= bound)
        };
        let events = self.events[..visible].iter().enumerate().map(|(index, stored)| (at(index), stored));
        let mut found: Vec<_> = events.filter(|&(position, stored)| fits(position, stored)).collect();
        if read.backwards {
            found.reverse();
        }
        found.truncate(read.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)));
        Ok(found)
    }
}

fn selects(query: &Query<'_>, event: &NewEvent<'_>) -> bool {
    let category = event.stream.split('-').next();
    let selected_by = |item: &QueryItem<'_>| {
        (item.types.is_empty() || item.types.contains(&event.event_type))
            && item.tags.iter().all(|tag| event.tags.contains(tag))
            && item.stream.as_ref().is_none_or(|stream| *stream == event.stream)
            && (item.category.is_none() || item.category.as_deref() == category)
            && (item.correlation.is_none() || item.correlation == event.correlation)
            && (item.causation.is_none() || item.causation == event.causation)
    };
    query.items.is_empty() || query.items.iter().any(selected_by)
}

fn at(index: usize) -> Position {
    Position::new(index as u64)
}

fn check_times(append: &Append<'_>) -> Result<(), AppendError> {
    let times: Vec<_> = append.events.iter().filter_map(|event| event.time).collect();
    match times.windows(2).find(|pair| pair[1] < pair[0] && !append.raise_times) {
        Some(pair) => Err(AppendError::TimeBackwards { given: pair[1], previous: pair[0] }),
        None => Ok(()),
    }
}

fn check_ids(append: &Append<'_>) -> Result<(), AppendError> {
    let ids: Vec<_> = append.events.iter().filter_map(|event| event.id).collect();
    match ids.iter().enumerate().find(|(index, id)| ids[..*index].contains(id)) {
        Some((_, &id)) => Err(AppendError::IdConflict { id, position: None }),
        None => Ok(()),
    }
}

/// The same event, borrowing nothing.
fn owned(event: &NewEvent<'_>) -> NewEvent<'static> {
    NewEvent {
        stream: Cow::Owned(event.stream.to_string()),
        event_type: Cow::Owned(event.event_type.to_string()),
        id: event.id,
        data: Cow::Owned(event.data.to_vec()),
        metadata: Cow::Owned(event.metadata.to_vec()),
        content: event.content,
        tags: event.tags.iter().map(|tag| Cow::Owned(tag.to_string())).collect(),
        correlation: event.correlation,
        causation: event.causation,
        time: event.time,
    }
}

/// Whether two outcomes of one append are the same, as far as the promises go.
#[must_use]
pub fn is_same_outcome(left: &Result<Appended, AppendError>, right: &Result<Appended, AppendError>) -> bool {
    match (left, right) {
        (Ok(left), Ok(right)) => left == right,
        (Err(AppendError::Input(left)), Err(AppendError::Input(right))) => left == right,
        (
            Err(AppendError::WrongVersion { stream, expected, actual }),
            Err(AppendError::WrongVersion { stream: other, expected: wanted, actual: head }),
        ) => (stream, expected, actual) == (other, wanted, head),
        (
            Err(AppendError::QueryMatched { after, position }),
            Err(AppendError::QueryMatched { after: other, position: there }),
        ) => (after, position) == (other, there),
        (
            Err(AppendError::WrongCursor { cursor, expected, actual }),
            Err(AppendError::WrongCursor { cursor: other, expected: wanted, actual: there }),
        ) => (cursor, expected, actual) == (other, wanted, there),
        (
            Err(AppendError::CursorAfterTheEnd { cursor, position, next }),
            Err(AppendError::CursorAfterTheEnd { cursor: other, position: given, next: end }),
        ) => (cursor, position, next) == (other, given, end),
        (
            Err(AppendError::AfterTheEnd { after, next }),
            Err(AppendError::AfterTheEnd { after: other, next: end }),
        ) => (after, next) == (other, end),
        (
            Err(AppendError::IdConflict { id, position }),
            Err(AppendError::IdConflict { id: other, position: there }),
        ) => (id, position) == (other, there),
        (
            Err(AppendError::TimeBackwards { given, previous }),
            Err(AppendError::TimeBackwards { given: other, previous: before }),
        ) => (given, previous) == (other, before),
        (
            Err(AppendError::TimeAhead { given, now }),
            Err(AppendError::TimeAhead { given: other, now: then }),
        ) => (given, now) == (other, then),
        _ => false,
    }
}

/// Whether the records are the first of the model's events: at least `least` of them, whole batches alone.
///
/// # Errors
/// How they are not.
pub fn check_prefix(model: &Model, records: &[Record], least: usize) -> Result<(), String> {
    check_same(records, model.events())?;
    if records.len() < least {
        return Err(format!("{} events are there, of {least} that were seen or acknowledged", records.len()));
    }
    if !model.is_boundary(records.len()) {
        return Err(format!("a batch is torn at position {}", records.len()));
    }
    Ok(())
}

/// Whether the records are the first of these events.
fn check_same(records: &[Record], events: &[ModelEvent]) -> Result<(), String> {
    if records.len() > events.len() {
        return Err(format!("{} events are there, of {} that were appended", records.len(), events.len()));
    }
    for (index, (record, event)) in records.iter().zip(events).enumerate() {
        if !event.is(at(index), record) {
            return Err(format!("position {index} is {record:?} instead of {:?}", summary(event)));
        }
    }
    Ok(())
}

fn summary(stored: &ModelEvent) -> String {
    let event = &stored.event;
    format!(
        "{} {} {:?} {} bytes, id {:?}",
        event.stream,
        stored.version,
        event.time,
        event.data.len(),
        event.id
    )
}
