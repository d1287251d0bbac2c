//! Whether what a store holds is what it has promised: everything is compared with the journal.
//!
//! The store's own order says when each append took place, so that a history is linearizable if that order keeps to what came
//! before what, and every answer is right at a place in it between question and answer.

use crate::beside;
use crate::journal::{Asked, Kept, Moment, Outcome};
use crate::plan::{Planned, Terms, data, tag_name};
use annals_client::{Client, ClientError, Options};
use annals_types::{Read, Record, Uuid};
use std::collections::HashMap;

/// Mistakes that are told of one kind.
const TOLD_MAX: usize = 20;

/// An event that the store holds.
#[derive(Debug)]
struct Held {
    id: Uuid,
    stream: String,
    version: u64,
    tag: Option<String>,
    /// Whether its bytes are those of its id, for that length.
    bytes: usize,
    is_right: bool,
}

/// All events that a store holds, in their order.
#[derive(Debug, Default)]
pub(crate) struct Log {
    events: Vec<Held>,
    by_id: HashMap<Uuid, u64>,
    /// Positions of each stream's events, and of each tag's.
    by_stream: HashMap<String, Vec<u64>>,
    by_tag: HashMap<String, Vec<u64>>,
    wrong: Vec<String>,
}

impl Log {
    /// Reads everything; has the server check it, too.
    pub(crate) async fn read(address: &str) -> Result<Self, ClientError> {
        let client = Client::connect(Options::new(address)).await?;
        let mut log = Self::default();
        let mut events = client.read(&Read::all()).await?;
        while let Some(record) = events.next().await {
            log.hold(&record?);
        }
        let states = beside::check_states(&client, &log).await?;
        log.wrong.extend(states);
        let verified = client.verify(|_, _| {}).await?;
        for damage in &verified.damage {
            log.wrong.push(format!("verification has found damage: {damage:?}"));
        }
        Ok(log)
    }

    fn hold(&mut self, record: &Record) {
        let (position, id) = (self.events.len() as u64, record.id());
        if record.position().get() != position {
            self.wrong.push(format!("position {} comes where {position} should", record.position()));
        }
        let versions = self.by_stream.entry(record.stream().to_owned()).or_default();
        if record.version().get() != versions.len() as u64 {
            self.wrong.push(format!("{} at {position} has version {}", record.stream(), record.version()));
        }
        versions.push(position);
        if let Some(before) = self.by_id.insert(id, position) {
            self.wrong.push(format!("{id} is there twice, at {before} and {position}"));
        }
        let tag = record.tags().next().map(str::to_owned);
        if let Some(tag) = &tag {
            self.by_tag.entry(tag.clone()).or_default().push(position);
        }
        let bytes = record.data().len();
        self.events.push(Held {
            id,
            stream: record.stream().to_owned(),
            version: record.version().get(),
            tag,
            bytes,
            is_right: record.data() == data(id, bytes),
        });
    }

    /// The streams that have events.
    pub(crate) fn streams(&self) -> impl Iterator<Item = &str> {
        self.by_stream.keys().map(String::as_str)
    }

    /// The event at a version of a stream.
    pub(crate) fn event_of(&self, stream: &str, version: u64) -> Option<Uuid> {
        let position = self.by_stream.get(stream)?.get(usize_of(version))?;
        Some(self.events[usize_of(*position)].id)
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Everything that is wrong, as sentences. What the log holds counts as seen from now on.
    pub(crate) fn check(&self, kept: &mut Kept) -> Vec<String> {
        let mut wrong = std::mem::take(&mut kept.wrong);
        wrong.extend(self.wrong.iter().cloned());
        for (number, asked) in kept.asked.iter().enumerate() {
            if let Err(error) = self.check_one(asked) {
                wrong.push(format!("append {number}, {:?}: {error}", asked.outcome));
            }
        }
        self.check_order(&kept.asked, &mut wrong);
        self.check_seen(kept, &mut wrong);
        if self.by_id.len() != kept.asked.iter().map(|asked| self.events_there(asked)).sum::<usize>() {
            wrong.push("there are events that nobody has appended".to_owned());
        }
        for (position, held) in self.events.iter().enumerate() {
            kept.seen.insert(position as u64, held.id);
        }
        let count = wrong.len();
        wrong.truncate(TOLD_MAX);
        if count > TOLD_MAX {
            wrong.push(format!("and {} more", count - TOLD_MAX));
        }
        wrong
    }

    fn events_there(&self, asked: &Asked) -> usize {
        asked.batch.events.iter().filter(|event| self.by_id.contains_key(&event.id)).count()
    }

    /// Where the batch is, if it is there: whole, in its order, and byte for byte.
    fn place_of(&self, asked: &Asked) -> Result<Option<u64>, String> {
        let events = &asked.batch.events;
        let there = self.events_there(asked);
        let Some(first) = self.by_id.get(&events[0].id).copied().filter(|_| there == events.len()) else {
            return if there == 0 { Ok(None) } else { Err(format!("{there} of {} are there", events.len())) };
        };
        for (planned, position) in events.iter().zip(first..) {
            let held = self.events.get(usize::try_from(position).unwrap_or(usize::MAX));
            if held.is_none_or(|held| !is_same(held, planned)) {
                return Err(format!("position {position} has {held:?} and not {planned:?}"));
            }
        }
        Ok(Some(first))
    }

    fn check_one(&self, asked: &Asked) -> Result<(), String> {
        let place = self.place_of(asked)?;
        match (&asked.outcome, place) {
            (Outcome::Unknown, None) => Ok(()),
            (Outcome::Unknown, Some(place)) => self.check_terms(asked, place),
            (Outcome::Appended { .. }, None) => Err("it is lost".to_owned()),
            (Outcome::Appended { first, last_version }, Some(place)) => {
                let last = &self.events[usize_of(place) + asked.batch.events.len() - 1];
                if (*first, *last_version) != (place, last.version) {
                    return Err(format!("it is at {place}, and its last version {}", last.version));
                }
                self.check_terms(asked, place)
            }
            (Outcome::Refused, None) => Ok(()),
            (Outcome::WrongVersion(actual), None) => self.check_wrong_version(asked, *actual),
            (Outcome::Matched(position), None) => self.check_matched(asked, *position),
            (_, Some(place)) => Err(format!("it is there, at {place}")),
        }
    }

    /// Whether what it was appended under held at its place.
    fn check_terms(&self, asked: &Asked, place: u64) -> Result<(), String> {
        let before = |stream: &str| self.events_before(self.by_stream.get(stream), place);
        match &asked.batch.terms {
            Terms::Any => Ok(()),
            Terms::NoStream(stream) => match before(stream) {
                0 => Ok(()),
                count => Err(format!("{stream} had {count} events")),
            },
            Terms::Exactly(stream, version) => match before(stream) {
                count if count == version + 1 => Ok(()),
                count => Err(format!("{stream} had {count} events, not version {version}")),
            },
            Terms::NoMatch(tag, after) => {
                let from = after.map_or(0, |after| after + 1);
                let tagged = self.by_tag.get(&tag_name(*tag));
                let matching =
                    self.events_before(tagged, place) - self.events_before(tagged, from.min(place));
                if matching == 0 { Ok(()) } else { Err(format!("{matching} events matched")) }
            }
        }
    }

    fn events_before(&self, positions: Option<&Vec<u64>>, place: u64) -> u64 {
        positions.map_or(0, |positions| positions.partition_point(|position| *position < place) as u64)
    }

    /// Whether the head that a refusal names was there, and is no reason to append.
    fn check_wrong_version(&self, asked: &Asked, actual: Option<(u64, u64)>) -> Result<(), String> {
        let (stream, holds) = match &asked.batch.terms {
            Terms::NoStream(stream) => (stream, actual.is_none()),
            Terms::Exactly(stream, version) => (stream, actual.is_some_and(|(head, _)| head == *version)),
            other => return Err(format!("it was under {other:?}")),
        };
        if holds {
            return Err("that is what was expected".to_owned());
        }
        match actual {
            Some((version, position)) => self.check_head(stream, version, position),
            None => Ok(()),
        }
    }

    fn check_head(&self, stream: &str, version: u64, position: u64) -> Result<(), String> {
        let there = self.by_stream.get(stream).and_then(|positions| positions.get(usize_of(version)));
        if there == Some(&position) {
            return Ok(());
        }
        Err(format!("version {version} of {stream} was told to be at {position}, and is at {there:?}"))
    }

    /// Whether the event that a refusal names is there, and matches.
    fn check_matched(&self, asked: &Asked, position: u64) -> Result<(), String> {
        let Terms::NoMatch(tag, after) = &asked.batch.terms else { return Err("under no query".to_owned()) };
        let held = self.events.get(usize_of(position));
        let matches = held.is_some_and(|held| held.tag.as_deref() == Some(&tag_name(*tag)));
        if matches && after.is_none_or(|after| position > after) {
            return Ok(());
        }
        Err(format!("position {position} has {held:?}"))
    }

    /// Whether what was answered before something else was asked came before it.
    fn check_order(&self, asked: &[Asked], wrong: &mut Vec<String>) {
        let mut ends: Vec<(Moment, u64)> = asked.iter().filter_map(|asked| self.judged_at(asked)).collect();
        ends.sort_unstable();
        // The greatest place of all that had ended by then.
        let mut reached = 0;
        for end in &mut ends {
            reached = reached.max(end.1);
            end.1 = reached;
        }
        for asked in asked {
            let before = ends.partition_point(|(ended, _)| *ended < asked.begun);
            let Some((_, reached)) = before.checked_sub(1).map(|at| ends[at]) else { continue };
            // The first place at which its answer would be wrong: it may not have been reached by then.
            let until = match &asked.outcome {
                Outcome::Appended { first, .. } => Some(*first),
                Outcome::WrongVersion(actual) => self.next_of(asked, *actual),
                _ => None,
            };
            if let Some(until) = until.filter(|until| *until <= reached) {
                wrong.push(format!(
                    "{:?} was right before {until} alone, and {reached} had been answered before it was asked",
                    asked.outcome
                ));
            }
        }
    }

    /// The event behind the head that a refusal names.
    fn next_of(&self, asked: &Asked, actual: Option<(u64, u64)>) -> Option<u64> {
        let (Terms::NoStream(stream) | Terms::Exactly(stream, _)) = &asked.batch.terms else { return None };
        let next = actual.map_or(0, |(version, _)| usize_of(version) + 1);
        self.by_stream.get(stream)?.get(next).copied()
    }

    /// When an answer was there, and a place in the order that it shows to be reached.
    fn judged_at(&self, asked: &Asked) -> Option<(Moment, u64)> {
        let place = match &asked.outcome {
            Outcome::Appended { first, .. } => *first,
            Outcome::WrongVersion(Some((_, position))) | Outcome::Matched(position) => *position,
            _ => return None,
        };
        Some((asked.ended?, place))
    }

    /// Whether all that anybody has seen is there.
    fn check_seen(&self, kept: &Kept, wrong: &mut Vec<String>) {
        for (position, id) in &kept.seen {
            let held = self.events.get(usize_of(*position)).map(|held| held.id);
            if held != Some(*id) {
                wrong.push(format!("{id} was seen at {position}, and now {held:?} is there"));
            }
        }
        for (stream, version, position) in &kept.heads {
            if let Err(error) = self.check_head(stream, *version, *position) {
                wrong.push(error);
            }
        }
    }
}

fn is_same(held: &Held, planned: &Planned) -> bool {
    held.id == planned.id
        && held.stream == planned.stream
        && held.bytes == planned.bytes
        && held.is_right
        && held.tag == planned.tag.map(tag_name)
}

fn usize_of(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}
