//! Reading: a stream or everything, up to the watermark, in either direction.

use super::core::Core;
use super::locate::{Locator, Order};
use super::lookup::{self, Run, StreamLookup};
use super::query::{Selection, Step, Touched};
use super::read_only;
use crate::log::{damage_at, index_name};
use annals_types::{Bound, Damage, DamageKind, Read, ReadError, Record, Version};
use std::fmt;
use std::sync::Arc;

/// The events of a read, in its order. Ends at what was durable when the read began.
///
/// After a damage error the reader goes on with the first event behind the damage. After any other error it ends.
pub struct Reader {
    core: Arc<Core>,
    course: Course,
    left: u64,
    /// Events that were given out.
    given: u64,
    backwards: bool,
}

enum Course {
    /// Positions `next..end`.
    All {
        locator: Locator,
        next: u64,
        end: u64,
    },
    /// Versions `next..end` of a stream.
    Stream {
        locator: Locator,
        lookup: StreamLookup,
        next: u64,
        end: u64,
        run: Run,
        hidden: Option<Damage>,
    },
    /// What a query selects.
    Selected(Box<Selection>),
    Ended,
}

impl Reader {
    pub(crate) fn new(core: &Arc<Core>, read: &Read<'_>) -> Result<Self, ReadError> {
        read.validate()?;
        read_only::refresh(core)?;
        let durable = core.watermark.position();
        let course = match &read.stream {
            _ if !read.query.is_all() => selected(core, read, durable)?,
            None => all(core, read, durable)?,
            Some(stream) => of_stream(core, read, stream, durable)?,
        };
        Ok(Self {
            core: Arc::clone(core),
            course,
            left: read.limit.unwrap_or(u64::MAX),
            given: 0,
            backwards: read.backwards,
        })
    }

    /// A read upwards of everything that matches, by position, that can be gone on with: [`Self::extend`].
    pub(crate) fn endless(core: &Arc<Core>, read: &Read<'_>, durable: u64) -> Result<Self, ReadError> {
        read.validate()?;
        let mut course = match &read.stream {
            None if read.query.is_all() => all(core, read, durable)?,
            _ => selected(core, read, durable)?,
        };
        match &mut course {
            Course::All { locator, .. } | Course::Stream { locator, .. } => locator.keep_apart(),
            Course::Selected(selection) => selection.locator().keep_apart(),
            Course::Ended => {}
        }
        Ok(Self { core: Arc::clone(core), course, left: u64::MAX, given: 0, backwards: false })
    }

    /// Goes on to `durable`, which is not before the end so far.
    pub(crate) fn extend(&mut self, durable: u64) {
        match &mut self.course {
            Course::All { next, end, .. } => *end = durable.max(*next),
            Course::Selected(selection) => selection.extend(durable),
            Course::Stream { .. } | Course::Ended => unreachable!("only endless reads go on"),
        }
    }

    /// Everything before this position was given.
    pub(crate) fn passed(&self) -> u64 {
        match &self.course {
            Course::All { next, .. } | Course::Stream { next, .. } => *next,
            Course::Selected(selection) => selection.passed(),
            Course::Ended => 0,
        }
    }

    /// What was looked at so far: for a read that selects by more than a stream, little more than what matched.
    #[must_use]
    pub fn touched(&self) -> Touched {
        match &self.course {
            Course::Selected(selection) => selection.touched(),
            Course::All { locator, .. } | Course::Stream { locator, .. } => {
                Touched { events: self.given, bytes: locator.bytes, leaps: 0 }
            }
            Course::Ended => Touched::default(),
        }
    }

    /// The next event, or a step on the way to it. `None`: there is nothing more.
    pub(crate) fn step(&mut self) -> Option<Result<Step, ReadError>> {
        if let Course::Selected(selection) = &mut self.course {
            return selection.step(&self.core);
        }
        self.step_to_event().map(|event| event.map(Step::Record))
    }

    fn step_to_event(&mut self) -> Option<Result<Record, ReadError>> {
        let backwards = self.backwards;
        match &mut self.course {
            Course::Ended | Course::Selected(_) => None,
            Course::All { locator, next, end } => {
                let position = take(next, end, backwards)?;
                let record = record_at(&self.core, locator, position, None);
                if let Err(ReadError::Damage(damage)) = &record {
                    skip(damage, next, end, backwards);
                }
                Some(record)
            }
            Course::Stream { locator, lookup, next, end, run, hidden } => {
                if backwards && let Some(damage) = hidden.take() {
                    return Some(Err(damage.into()));
                }
                let Some(version) = take(next, end, backwards) else {
                    return hidden.take().map(|damage| Err(damage.into()));
                };
                let within = |run: &Run| {
                    version
                        .checked_sub(run.first_version)
                        .and_then(|rank| run.positions.get(rank_of(rank)).copied())
                };
                let position = match within(run) {
                    Some(position) => position,
                    None => match lookup.run(&self.core, version, backwards) {
                        Ok(found) => {
                            *run = found;
                            match within(run) {
                                Some(position) => position,
                                None => return Some(Err(missing_version(&self.core, lookup))),
                            }
                        }
                        Err(error) => return Some(Err(error)),
                    },
                };
                let record = record_at(&self.core, locator, position, Some(version));
                match record {
                    // The index led to another stream's event: not what was written.
                    Ok(record) if record.stream() != &*lookup.name => {
                        Some(Err(missing_version(&self.core, lookup)))
                    }
                    record => Some(record),
                }
            }
        }
    }
}

/// A version below the stream's head that no index has, or that it has wrong.
fn missing_version(core: &Core, lookup: &StreamLookup) -> ReadError {
    let path = core.dir.join(index_name(lookup.last_ordinal()));
    damage_at(&path, 0, DamageKind::Missing, None).into()
}

fn rank_of(rank: u64) -> usize {
    crate::format::to_usize(rank)
}

fn record_at(
    core: &Core,
    locator: &mut Locator,
    position: u64,
    version: Option<u64>,
) -> Result<Record, ReadError> {
    Ok(locator.frame(core, position)?.record(position, version)?)
}

/// The next of `next..end`, from its start or its end.
fn take(next: &mut u64, end: &mut u64, backwards: bool) -> Option<u64> {
    if *next >= *end {
        return None;
    }
    if backwards {
        *end -= 1;
        return Some(*end);
    }
    *next += 1;
    Some(*next - 1)
}

/// Goes on behind the positions that cannot be read.
fn skip(damage: &Damage, next: &mut u64, end: &mut u64, backwards: bool) {
    match (backwards, damage.first_position, damage.last_position) {
        (true, Some(first), _) => *end = (*end).min(first.get()),
        (false, _, Some(last)) => *next = (*next).max(last.get().saturating_add(1)),
        _ => {}
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let step = loop {
            match self.step() {
                Some(Ok(Step::OnTheWay)) => {}
                Some(Ok(Step::Record(record))) => break Some(Ok(record)),
                Some(Err(error)) => break Some(Err(error)),
                None => break None,
            }
        };
        match &step {
            Some(Ok(_)) => (self.left, self.given) = (self.left - 1, self.given + 1),
            Some(Err(ReadError::Damage(_))) => {}
            Some(Err(_)) => self.course = Course::Ended,
            None => self.left = 0,
        }
        step
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("left", &self.left).finish_non_exhaustive()
    }
}

/// The lower and the upper bound of a read, both inclusive, whichever way it goes.
fn bounds(read: &Read<'_>) -> (Option<Bound>, Option<Bound>) {
    if read.backwards { (read.until, read.from) } else { (read.from, read.until) }
}

fn all(core: &Core, read: &Read<'_>, durable: u64) -> Result<Course, ReadError> {
    let (next, end) = positions(core, read, durable)?;
    let order = if read.backwards { Order::Downwards } else { Order::Upwards };
    Ok(Course::All { locator: Locator::new(order), next, end })
}

fn selected(core: &Core, read: &Read<'_>, durable: u64) -> Result<Course, ReadError> {
    let (next, end) = positions(core, read, durable)?;
    let stream = read.stream.as_deref();
    let selection = Selection::new(core, &read.query, stream, next..end.max(next), read.backwards);
    Ok(Course::Selected(Box::new(selection)))
}

/// The positions between the bounds of a read, as a start and an end, which may be before it.
fn positions(core: &Core, read: &Read<'_>, durable: u64) -> Result<(u64, u64), ReadError> {
    let (lower, upper) = bounds(read);
    let mut lookup = read.stream.as_ref().map(|stream| StreamLookup::new(core, stream));
    let mut position_of = |version: Version| {
        let lookup = lookup.as_mut().expect("a version bound needs a stream, as was checked");
        Ok::<_, ReadError>(lookup.position(core, version.get())?.unwrap_or(durable))
    };
    let mut times = Locator::default();
    let mut first_at = |time: u64| {
        first_where(0, durable, |position| Ok(times.frame(core, position)?.time(position) >= time))
    };
    let next = match lower {
        Some(Bound::Position(position)) => position.get(),
        Some(Bound::Time(time)) => first_at(time.get())?,
        Some(Bound::Version(version)) => position_of(version)?,
        None => 0,
    };
    let end = match upper {
        Some(Bound::Position(position)) => position.get().saturating_add(1).min(durable),
        Some(Bound::Time(time)) => first_at(time.get().saturating_add(1))?,
        Some(Bound::Version(version)) => position_of(version)?.saturating_add(1).min(durable),
        None => durable,
    };
    Ok((next, end))
}

fn of_stream(core: &Core, read: &Read<'_>, stream: &str, durable: u64) -> Result<Course, ReadError> {
    let mut lookup = StreamLookup::new(core, stream);
    let (head, mut hidden) = lookup::known_head(core, lookup.key())?;
    let count = head.map_or(0, |head| head.version.get() + 1);
    let mut locator = Locator::default();
    let mut first_version = |count: u64, reached: &mut dyn FnMut(u64) -> Result<bool, ReadError>| {
        first_where(0, count, |version| match lookup.position(core, version)? {
            Some(position) => reached(position),
            None => Ok(true),
        })
    };
    let mut time_reached =
        |position: u64, time: u64| Ok(locator.frame(core, position)?.time(position) >= time);
    // The head may be on its way to the device still.
    let visible = if head.is_none_or(|head| head.position.get() < durable) {
        count
    } else {
        first_version(count, &mut |position| Ok(position >= durable))?
    };
    let (lower, upper) = bounds(read);
    let next = match lower {
        None => 0,
        Some(Bound::Version(version)) => version.get(),
        Some(Bound::Position(from)) => first_version(visible, &mut |position| Ok(position >= from.get()))?,
        Some(Bound::Time(time)) => {
            first_version(visible, &mut |position| time_reached(position, time.get()))?
        }
    };
    let end = match upper {
        None => visible,
        Some(Bound::Version(version)) => version.get().saturating_add(1),
        Some(Bound::Position(until)) => first_version(visible, &mut |position| Ok(position > until.get()))?,
        Some(Bound::Time(time)) => {
            first_version(visible, &mut |position| time_reached(position, time.get().saturating_add(1)))?
        }
    };
    // Events that damage may hide are behind the last one that is known.
    if end < visible {
        hidden = None;
    }
    let run = Run { first_version: 0, positions: Vec::new() };
    Ok(Course::Stream { locator: Locator::default(), lookup, next, end: end.min(visible), run, hidden })
}

/// The first of `low..high` for which `reached` holds, given that it holds for all behind it; `high`: none.
fn first_where(
    mut low: u64,
    mut high: u64,
    mut reached: impl FnMut(u64) -> Result<bool, ReadError>,
) -> Result<u64, ReadError> {
    while low < high {
        let middle = low + (high - low) / 2;
        if reached(middle)? { high = middle } else { low = middle + 1 }
    }
    Ok(low)
}
