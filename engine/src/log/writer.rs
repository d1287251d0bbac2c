//! The writer: a thread that takes groups from the tail, writes them durably, several in flight where that
//! helps, and moves the watermark over the unbroken prefix of those that completed.

use super::group::{Fills, Group};
use super::unsealed::Unsealed;
use super::watermark::Watermark;
use crate::disk::{Piece, Pipelining, Submitter, Write};
use crate::format::{BLOCK_BYTES, align_down};
use crate::sync::{Ordering, Word};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::thread::yield_now;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// After a group of at least this many frames, other threads go first: whoever waited for it is about to append more, and
/// few large groups take less of the processors than many small ones.
const CROWD_FRAMES_MIN: u32 = 16;
/// So many times, or until the next group is as large as the last one was: where nobody else wants to run, that takes microseconds.
const CROWD_TURNS_MAX: usize = 16;

/// Wakes the writer thread: from its sleep, or from waiting for writes in flight.
#[derive(Debug, Default)]
pub(crate) struct Alarm {
    rung: Word,
    pub(crate) in_flight: Arc<Notify>,
}

impl Alarm {
    pub(crate) fn ring(&self) {
        self.rung.store(1, Ordering::Release);
        self.rung.wake_one();
        self.in_flight.notify_one();
    }

    pub(crate) fn sleep(&self) {
        while self.rung.swap(0, Ordering::Acquire) == 0 {
            // Interrupted, or rung meanwhile: look again.
            self.rung.sleep(0, None);
        }
    }
}

/// What the writer takes groups from and tells of what it did.
pub(crate) trait Feed {
    /// The next group to write now. `None`: the tail knows that the writer sleeps.
    fn take(&self, in_flight: usize, pipelining: Pipelining) -> Option<Group>;
    /// A time to measure from.
    fn moment(&self) -> Instant;
    /// Whether the writer ends once everything is written.
    fn is_closing(&self) -> bool;
    /// The group, and all before it, is durable; nobody was told yet.
    fn reached(&self, group: &Group);
    /// The segment's header is durable: what is before it, too.
    fn begun(&self, segment: &Arc<Unsealed>);
    /// The group, and all before it, is durable, and the watermark says so.
    fn durable(&self, group: &Group);
    /// Nothing more is written.
    fn poisoned(&self);
}

struct InFlight {
    group: Group,
    /// Since when.
    since: Instant,
    done: bool,
}

/// Writes until the feed closes or a write fails. `linger`: see `Settings`.
pub(crate) fn run(
    feed: &impl Feed,
    mut submitter: Box<dyn Submitter>,
    fills: &Fills,
    watermark: &Watermark,
    alarm: &Alarm,
    linger: Duration,
) {
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    let mut failed: Option<io::Error> = None;
    let mut last_group = (0, 0);
    loop {
        for (token, result) in submitter.completed() {
            match result {
                Ok(()) => mark_done(&mut in_flight, token),
                Err(error) => {
                    failed.get_or_insert(error);
                    in_flight.retain(|write| write.group.number != token);
                }
            }
        }
        if let Some(error) = &failed {
            // What is still in flight is let finish: its memory must stay, and nobody hears of it.
            if watermark.poison().is_none() {
                watermark.poison_with(&format!("a write to the log failed: {error}"));
                feed.poisoned();
            }
            if in_flight.iter().all(|write| write.done) {
                return;
            }
            submitter.wait();
            continue;
        }
        if publish(&mut in_flight, feed, watermark) {
            let linger = if in_flight.is_empty() { linger } else { Duration::ZERO };
            look_for_more(feed, fills, last_group, linger);
        }
        if let Some(group) = feed.take(in_flight.len(), submitter.pipelining()) {
            last_group = (group.number, group.frames);
            let since = feed.moment();
            match submit(group, submitter.as_mut(), fills, watermark, in_flight.is_empty(), feed) {
                Ok(group) => in_flight.push_back(InFlight { group, since, done: false }),
                Err(error) => failed = Some(error),
            }
        } else if !in_flight.is_empty() {
            submitter.wait();
        } else if feed.is_closing() {
            return;
        } else {
            alarm.sleep();
        }
    }
}

/// After a group, of which this is the number and how many frames it had: lets others append where many waited for it; where few did,
/// looks out for the next append, so that it need wake nobody. Yields all the while.
fn look_for_more(feed: &impl Feed, fills: &Fills, (number, frames): (u64, u32), linger: Duration) {
    let next = || fills.filled(number + 1);
    if frames >= CROWD_FRAMES_MIN {
        (0..CROWD_TURNS_MAX).take_while(|_| next() < frames).for_each(|_| yield_now());
    } else if !linger.is_zero() {
        let begun = feed.moment();
        while next() == 0 && feed.moment().saturating_duration_since(begun) < linger {
            yield_now();
        }
    }
}

fn mark_done(in_flight: &mut VecDeque<InFlight>, token: u64) {
    if let Some(write) = in_flight.iter_mut().find(|write| write.group.number == token) {
        write.done = true;
    }
}

/// Moves the watermark over the groups at the front that are done, if there are any.
fn publish(in_flight: &mut VecDeque<InFlight>, feed: &impl Feed, watermark: &Watermark) -> bool {
    let count = in_flight.iter().take_while(|write| write.done).count();
    if count == 0 {
        return false;
    }
    let last = &in_flight[count - 1].group;
    let groups = in_flight[0].group.number..last.number + 1;
    let now = feed.moment();
    for write in in_flight.range(..count) {
        let group = &write.group;
        group.segment.set_durable_end(group.end);
        watermark.tally.add(
            group.frames,
            group.end - group.start,
            now.saturating_duration_since(write.since),
        );
    }
    feed.reached(last);
    watermark.advance(last.next_batch, last.next_position, groups);
    feed.durable(last);
    in_flight.drain(..count);
    true
}

fn submit(
    group: Group,
    submitter: &mut dyn Submitter,
    fills: &Fills,
    watermark: &Watermark,
    first: bool,
    feed: &impl Feed,
) -> io::Result<Group> {
    fills.wait_for(group.number, group.frames);
    if let Some(reason) = watermark.poison() {
        // Somebody else found a reason to write nothing more: a place of this very group may not be filled.
        return Err(io::Error::other(Arc::clone(reason).to_string()));
    }
    if let Some(header) = &group.header {
        assert!(first, "a segment begins when all before it is durable");
        let block = Piece::copied(header);
        group.segment.file.write_durable(0, &[IoSlice::new(block.as_ref())])?;
        feed.begun(&group.segment);
    }
    let pieces = fill_pieces(&group);
    let alone = first && group.end - group.start < submitter.pipelining().bytes_min;
    let write = Write {
        token: group.number,
        file: Arc::clone(&group.segment.file),
        offset: align_down(group.start, BLOCK_BYTES),
        pieces,
    };
    submitter.submit(write, alone);
    Ok(group)
}

#[allow(unsafe_code)]
fn fill_pieces(group: &Group) -> Vec<Piece> {
    // SAFETY: `wait_for` saw all of the group's places filled, and what lies before them in their first block was
    // filled by an earlier group, or loaded at open.
    unsafe { group.segment.image().write_pieces(group.start, group.end) }
}
