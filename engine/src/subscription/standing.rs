//! How a subscription stands, as far as that lasts: folded from its notes.

use crate::format::subscription::{Note, OpenNote, ParkedNote, Progress};
use annals_types::{NewSubscription, Start, Timestamp};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) settings: NewSubscription<'static>,
    /// Where it began, or was reset to.
    pub(crate) start: Start,
    /// All before this position was looked at.
    pub(crate) next: u64,
    /// What of that is not done: lane and number of failures.
    pub(crate) open: BTreeMap<u64, (u64, u32)>,
    pub(crate) parked: BTreeMap<u64, ParkedEntry>,
    /// Why it is stopped, if it is.
    pub(crate) stopped: Option<String>,
}

/// An event that is set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ParkedEntry {
    pub(crate) lane: u64,
    pub(crate) failures: u32,
    pub(crate) time: Timestamp,
    pub(crate) reason: String,
}

impl Standing {
    pub(crate) fn new(settings: NewSubscription<'static>) -> Self {
        Self {
            start: settings.start,
            settings,
            next: 0,
            open: BTreeMap::new(),
            parked: BTreeMap::new(),
            stopped: None,
        }
    }

    /// What the next note makes of it. `None`: there is no subscription.
    pub(crate) fn fold(standing: Option<Self>, note: Note) -> Option<Self> {
        match note {
            Note::Created(settings) => return Some(Self::new(*settings)),
            Note::Deleted => return None,
            _ => {}
        }
        let mut standing = standing?;
        match note {
            Note::Progress(progress) => {
                let Progress { start, next, open, stopped } = progress;
                (standing.start, standing.next, standing.stopped) = (start, next, stopped);
                standing.open =
                    open.into_iter().map(|open| (open.position, (open.lane, open.failures))).collect();
            }
            Note::Parked(ParkedNote { open, time, reason }) => {
                let OpenNote { position, lane, failures } = open;
                standing.parked.insert(position, ParkedEntry { lane, failures, time, reason });
            }
            Note::Unparked(positions) => positions.iter().for_each(|position| {
                standing.parked.remove(position);
            }),
            Note::Created(_) | Note::Deleted => unreachable!("they were looked at"),
        }
        Some(standing)
    }

    /// The notes that lead to it from nothing.
    pub(crate) fn notes(&self) -> Vec<Note> {
        let open = self.open.iter();
        let progress = Progress {
            start: self.start,
            next: self.next,
            open: open.map(|(&position, &(lane, failures))| OpenNote { position, lane, failures }).collect(),
            stopped: self.stopped.clone(),
        };
        let parked = self.parked.iter().map(|(&position, entry)| {
            let open = OpenNote { position, lane: entry.lane, failures: entry.failures };
            Note::Parked(ParkedNote { open, time: entry.time, reason: entry.reason.clone() })
        });
        let created = Note::Created(Box::new(self.settings.clone()));
        [created, Note::Progress(progress)].into_iter().chain(parked).collect()
    }
}
