//! Batches that have their places: copied there, told to the writer, and answered.

use super::core::Core;
use super::gate::Wake;
use super::prepare::Prepared;
use super::ticket::{Decided, Ticket};
use crate::format::batch::View;
use crate::format::digest::BatchDigests;
use crate::format::frame;
use crate::log::tail::Reserved;
use crate::log::unsealed::Unsealed;
use crate::striped::{Share, Shared};
use annals_types::AppendError;
use smallvec::SmallVec;
use std::cell::RefCell;

/// Frames up to this size are copied in less time than it takes to wake a thread.
const QUICKLY_COPIED_BYTES_MAX: usize = 32 << 10;

/// What was decided of a batch: that it is written, and where, or that it is not.
pub(super) struct Step {
    /// Settled with all batches below this one, of which `group` holds the last.
    pub(super) batch: u64,
    pub(super) group: u64,
    pub(super) decided: Decided,
    /// Its place in memory, until it is filled.
    pub(super) reserved: Option<Reserved>,
    /// Whether the writer sleeps, and has to know.
    pub(super) wake: bool,
}

pub(super) type Steps = SmallVec<[Step; 1]>;

/// Steps whose places are still to be filled. Dropped before, by a panic, they count as filled, or the writer would wait
/// for them for ever; and the store is poisoned before anything of them is written.
pub(super) struct Unfilled<'a> {
    pub(super) core: &'a Core,
    pub(super) steps: Steps,
}

impl Drop for Unfilled<'_> {
    fn drop(&mut self) {
        for step in self.steps.iter().filter(|step| step.reserved.is_some()) {
            self.core.watermark.poison_with("an append panicked before it was copied");
            self.core.fills.add(step.group, 1);
        }
    }
}

/// Copies the frames into their places, and has them written. The lock's next holder is woken once the places are
/// filled: the writer waits for all places of a group, and whoever wakes another may lose its core to it.
pub(super) fn finish(
    core: &Shared<Core>,
    prepared: &[Prepared<'_>],
    mut unfilled: Unfilled<'_>,
    next: Wake<'_>,
    answer: &mut dyn FnMut(Result<Ticket, AppendError>),
) {
    let mut next = Some(next);
    if prepared.iter().map(|prepared| prepared.frame.len()).sum::<usize>() > QUICKLY_COPIED_BYTES_MAX {
        drop(next.take());
    }
    let mut filled: SmallVec<[Option<Share<Unsealed>>; 1]> = SmallVec::with_capacity(unfilled.steps.len());
    let mut frames = prepared.iter();
    for steps in unfilled.steps.chunk_by_mut(|one, next| one.group == next.group) {
        let mut guard = FillGuard { core, group: steps[0].group, places: 0, filled: false };
        for (step, prepared) in steps.iter_mut().zip(frames.by_ref()) {
            let reserved = step.reserved.take();
            guard.places += u32::from(reserved.is_some());
            filled.push(reserved.map(|reserved| reserved.fill(&prepared.frame)));
        }
        guard.done();
    }
    let steps = std::mem::take(&mut unfilled.steps);
    drop(next);
    if steps.iter().any(|step| step.wake) {
        core.alarm.ring();
    }
    leave_digests(prepared, &steps, &filled);
    for step in steps {
        answer(Ok(Ticket::new(core.share(), step.batch, step.group, step.decided)));
    }
}

/// Memory that a thread keeps for its next digests.
const REUSED_BYTES_MAX: usize = 1 << 20;

thread_local! {
    static DIGESTS: RefCell<BatchDigests> = RefCell::default();
}

/// While the device writes: what sealing will need of these batches, whose bytes are at hand here.
fn leave_digests(prepared: &[Prepared<'_>], steps: &[Step], filled: &[Option<Share<Unsealed>>]) {
    let mut views: SmallVec<[View<'_>; 1]> = SmallVec::new();
    let mut places: SmallVec<[(&Unsealed, u64); 1]> = SmallVec::new();
    for ((prepared, step), segment) in prepared.iter().zip(steps).zip(filled) {
        if let Some(segment) = segment
            && let Ok(view) = frame::own_view(&prepared.frame, prepared.plain_body.as_deref())
        {
            views.push(view);
            places.push((segment, step.batch - 1 - segment.header.first_batch));
        }
    }
    let note = |place: usize, digest| places[place].0.digests.set(places[place].1, &digest);
    // Where they are missing, sealing reads the segment.
    let _ = DIGESTS.try_with(|digests| {
        let mut digests = digests.borrow_mut();
        let _ = digests.each(&views, note);
        if digests.bytes() > REUSED_BYTES_MAX {
            *digests = BatchDigests::default();
        }
    });
}

/// Sees to it that reserved places are counted as filled whatever happens, or the writer would wait for them for
/// ever; a place that was not really filled poisons the store before anything of it is written.
struct FillGuard<'a> {
    core: &'a Core,
    group: u64,
    places: u32,
    filled: bool,
}

impl FillGuard<'_> {
    fn done(mut self) {
        self.filled = true;
    }
}

impl Drop for FillGuard<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.core.watermark.poison_with("an append panicked while it was being copied");
        }
        self.core.fills.add(self.group, self.places);
        if !self.filled {
            self.core.poison("an append panicked while it was being copied");
        }
    }
}
