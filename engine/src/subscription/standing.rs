//! How a subscription stands, as far as that lasts: folded from its notes.

use crate::format::subscription::{Note, OpenNote, ParkedNote, Progress};
use annals_types::{NewSubscription, Start, Timestamp};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) outline: Outline,
    /// What was looked at and is not done: hash of the stream and number of failures.
    pub(crate) open: BTreeMap<u64, (u64, u32)>,
}

/// How it stands, but for what is open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Outline {
    pub(crate) settings: NewSubscription<'static>,
    /// Where it began, or was reset to.
    pub(crate) start: Start,
    /// All before this position was looked at.
    pub(crate) next: u64,
    pub(crate) parked: BTreeMap<u64, ParkedEntry>,
    /// Why it is stopped, if it is.
    pub(crate) stopped: Option<String>,
}

/// An event that is set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ParkedEntry {
    /// Hash of its stream.
    pub(crate) hash: u64,
    pub(crate) failures: u32,
    pub(crate) time: Timestamp,
    pub(crate) reason: String,
}

impl Standing {
    /// A subscription that begins, with what is at `next` or behind.
    pub(crate) fn new(settings: NewSubscription<'static>, next: u64) -> Self {
        let outline =
            Outline { start: settings.start, settings, next, parked: BTreeMap::new(), stopped: None };
        Self { outline, open: BTreeMap::new() }
    }

    /// What the next note makes of it. `None`: there is no subscription.
    pub(crate) fn fold(standing: Option<Self>, note: Note) -> Option<Self> {
        match note {
            Note::Created(settings) => return Some(Self::new(*settings, 0)),
            Note::Deleted => return None,
            _ => {}
        }
        let mut standing = standing?;
        let outline = &mut standing.outline;
        match note {
            Note::Progress(progress) => {
                let Progress { start, next, open, stopped } = progress;
                (outline.start, outline.next, outline.stopped) = (start, next, stopped);
                standing.open =
                    open.into_iter().map(|open| (open.position, (open.lane, open.failures))).collect();
            }
            Note::Parked(ParkedNote { open, time, reason }) => {
                let OpenNote { position, lane: hash, failures } = open;
                outline.parked.insert(position, ParkedEntry { hash, failures, time, reason });
            }
            Note::Unparked(positions) => positions.iter().for_each(|position| {
                outline.parked.remove(position);
            }),
            Note::Created(_) | Note::Deleted => unreachable!("they were looked at"),
        }
        Some(standing)
    }

    /// The notes that lead to it from nothing.
    pub(crate) fn notes(&self) -> impl Iterator<Item = Note> {
        let open = self.open.iter().map(|(&position, &(hash, failures))| (position, hash, failures));
        let created = Note::Created(Box::new(self.outline.settings.clone()));
        let parked = self.outline.parked.iter().map(|(&position, entry)| entry.note(position));
        [created, self.outline.progress(open)].into_iter().chain(parked)
    }
}

impl Outline {
    /// The note of how far it has come; `open`: of what is open, position, hash of the stream and number of failures.
    pub(super) fn progress(&self, open: impl Iterator<Item = (u64, u64, u32)>) -> Note {
        Note::Progress(Progress {
            start: self.start,
            next: self.next,
            open: open.map(|(position, lane, failures)| OpenNote { position, lane, failures }).collect(),
            stopped: self.stopped.clone(),
        })
    }
}

impl ParkedEntry {
    pub(super) fn note(&self, position: u64) -> Note {
        let open = OpenNote { position, lane: self.hash, failures: self.failures };
        Note::Parked(ParkedNote { open, time: self.time, reason: self.reason.clone() })
    }
}
