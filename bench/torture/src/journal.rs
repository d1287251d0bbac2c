//! What was asked of the store, what it answered, and what was seen of it: kept outside of it, noted before anything is sent and behind
//! each answer.

use crate::plan::Batch;
use annals_types::{Head, Record, Uuid};
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// An acknowledgement is durable so long after its answer, at the latest.
const LASTS_AFTER: Duration = Duration::from_secs(2);

/// A moment: of two, the one that came first is smaller.
pub(crate) type Moment = u64;

/// What an append became.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Nobody knows.
    Unknown,
    /// It is there from this position on; its last event has this version.
    Appended { first: u64, last_version: u64 },
    /// The stream that it was about has this head instead.
    WrongVersion(Option<(u64, u64)>),
    /// The event at this position matches.
    Matched(u64),
    /// Refused for another reason, without being written.
    Refused,
}

/// An append, from its first attempt on.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) batch: Batch,
    pub(crate) begun: Moment,
    pub(crate) outcome: Outcome,
    /// When its answer was there.
    pub(crate) ended: Option<Moment>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Journal {
    kept: Mutex<Kept>,
}

/// An event that members of the subscription were handed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Taken {
    /// The life of the server in which one was last.
    life: u64,
    /// When its acknowledgement was answered, since then.
    acknowledged: Option<Instant>,
    /// That acknowledgement is durable: it comes never again.
    lasts: bool,
}

#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) asked: Vec<Asked>,
    /// Events that readers and followers were given, by position.
    pub(crate) seen: HashMap<u64, Uuid>,
    /// Heads of streams that were told.
    pub(crate) heads: Vec<(String, u64, u64)>,
    /// Events that members of the subscription were handed, by position.
    taken: HashMap<u64, Taken>,
    /// No position before this one was not taken.
    taken_until: u64,
    /// Which life of the server this is: each end of it begins another.
    life: u64,
    /// What is wrong, as far as that was noticed at once.
    pub(crate) wrong: Vec<String>,
    moment: Moment,
    file: BufWriter<File>,
}

impl Kept {
    fn next_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    fn note(&mut self, line: &serde_json::Value) {
        // What cannot be noted is known all the same: the file is for whoever looks for the cause.
        let _ = writeln!(self.file, "{line}");
    }

    fn see(&mut self, position: u64, id: Uuid) {
        if let Some(before) = self.seen.insert(position, id).filter(|before| *before != id) {
            self.wrong.push(format!("position {position} had event {before} and now has {id}"));
        }
    }
}

impl Journal {
    pub(crate) fn new(path: &Path) -> std::io::Result<Self> {
        let kept = Kept {
            asked: Vec::new(),
            seen: HashMap::new(),
            heads: Vec::new(),
            taken: HashMap::new(),
            taken_until: 0,
            life: 0,
            wrong: Vec::new(),
            moment: 0,
            file: BufWriter::new(File::create(path)?),
        };
        Ok(Self { kept: Mutex::new(kept) })
    }

    pub(crate) fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An append that is about to be sent first; its number.
    pub(crate) fn begin(&self, batch: &Batch) -> usize {
        let mut kept = self.kept();
        let (number, begun) = (kept.asked.len(), kept.next_moment());
        let ids: Vec<_> = batch.events.iter().map(|event| event.id.to_string()).collect();
        kept.note(&json!({"asked": number, "at": begun, "ids": ids, "terms": format!("{:?}", batch.terms)}));
        kept.asked.push(Asked { batch: batch.clone(), begun, outcome: Outcome::Unknown, ended: None });
        number
    }

    /// The answer to one, first or repeated. Returns what is wrong with it.
    pub(crate) fn end(&self, number: usize, outcome: Outcome) {
        let mut kept = self.kept();
        let ended = kept.next_moment();
        kept.note(&json!({"answered": number, "at": ended, "outcome": format!("{outcome:?}")}));
        let asked = &mut kept.asked[number];
        match (&asked.outcome, &outcome) {
            (_, Outcome::Unknown) => {}
            (Outcome::Unknown, _) => (asked.outcome, asked.ended) = (outcome, Some(ended)),
            // It was judged once more, and what is there may be known by then.
            (before, _) if *before == outcome => {}
            (before, _) => {
                let wrong =
                    format!("append {number} was answered with {before:?}, and then with {outcome:?}");
                kept.wrong.push(wrong);
            }
        }
    }

    /// How many appends have such an outcome.
    pub(crate) fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.kept().asked.iter().filter(|asked| of(&asked.outcome)).count()
    }

    /// An event that somebody was given.
    pub(crate) fn see(&self, record: &Record) {
        self.kept().see(record.position().get(), record.id());
    }

    /// The server is killed now. What was acknowledged just before may be lost with it.
    pub(crate) fn kill(&self) {
        let now = now();
        self.end_life(|acknowledged| acknowledged + LASTS_AFTER < now);
    }

    /// The server ends by itself now: what was acknowledged was noted.
    pub(crate) fn close(&self) {
        self.end_life(|_| true);
    }

    fn end_life(&self, lasts: impl Fn(Instant) -> bool) {
        let mut kept = self.kept();
        kept.life += 1;
        for taken in kept.taken.values_mut() {
            taken.lasts |= taken.acknowledged.is_some_and(&lasts);
        }
    }

    /// Members were handed all that was open: what of the acknowledged was not among it has outlasted the last end.
    pub(crate) fn settle(&self) {
        let mut kept = self.kept();
        let life = kept.life;
        for taken in kept.taken.values_mut() {
            taken.lasts |= taken.life < life && taken.acknowledged.is_some();
        }
    }

    /// An event that a member was handed: not one whose acknowledgement lasts.
    pub(crate) fn take(&self, record: &Record) {
        self.see(record);
        let mut kept = self.kept();
        let (position, life) = (record.position().get(), kept.life);
        // Where an acknowledgement was lost with a crash, the next one counts from when it is answered.
        let before = kept.taken.insert(position, Taken { life, ..Taken::default() });
        if before.is_some_and(|before| before.lasts) {
            kept.wrong.push(format!("position {position} was acknowledged for good, and handed out again"));
        }
    }

    /// Events whose acknowledgement was answered.
    pub(crate) fn acknowledge(&self, positions: impl Iterator<Item = u64>) {
        let (mut kept, now) = (self.kept(), now());
        for position in positions {
            kept.taken.entry(position).or_default().acknowledged.get_or_insert(now);
        }
    }

    /// The first position before `end` that no member was ever handed.
    pub(crate) fn not_taken(&self, end: u64) -> Option<u64> {
        let mut kept = self.kept();
        while kept.taken.contains_key(&kept.taken_until) {
            kept.taken_until += 1;
        }
        Some(kept.taken_until).filter(|first| *first < end)
    }

    /// A head that somebody was told.
    pub(crate) fn see_head(&self, stream: &str, head: Head) {
        let mut kept = self.kept();
        if kept.heads.len() < 1_000_000 {
            kept.heads.push((stream.to_owned(), head.version.get(), head.position.get()));
        }
    }
}

/// A time to measure from.
#[expect(clippy::disallowed_methods, reason = "what is measured is how long something took")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal in which an event was handed out and acknowledged, and what it is to hand it out again.
    fn acknowledged() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::new(&dir.path().join("journal")).unwrap();
        journal.kept().taken.insert(7, Taken::default());
        journal.acknowledge([7].into_iter());
        (dir, journal)
    }

    fn lasts(journal: &Journal) -> bool {
        journal.kept().taken[&7].lasts
    }

    #[test]
    fn an_acknowledgement_lasts_once_it_has_outlasted_a_kill() {
        let (_dir, journal) = acknowledged();
        journal.settle();
        assert!(!lasts(&journal), "nothing has happened to it");
        journal.kill();
        assert!(!lasts(&journal), "it was too young");
        journal.settle();
        assert!(lasts(&journal));
    }

    #[test]
    fn an_acknowledgement_lasts_where_the_server_has_ended_in_order() {
        let (_dir, journal) = acknowledged();
        journal.close();
        assert!(lasts(&journal));
    }

    #[test]
    fn what_was_not_acknowledged_does_not_last() {
        let (_dir, journal) = acknowledged();
        journal.kept().taken.insert(7, Taken::default());
        journal.kill();
        journal.settle();
        journal.close();
        assert!(!lasts(&journal));
    }
}
