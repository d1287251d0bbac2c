//! The keepers: background threads that prepare the next segment, seal closed ones and sync the mark.

use super::core::Core;
use super::seal;
use crate::clock::stopwatch;
use crate::disk::{Access, File};
use crate::format::{BLOCK_BYTES, align_up};
use crate::log::segment_name;
use crate::threads::stand_back;
use annals_types::IoFailure;
use rand::Rng as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Zero-filling at full speed makes commits fifteen times slower; at these rates (bytes a second) it does not
/// show. Above the greater one, the segment is merely allocated: writing everything twice would cost more.
const ZEROING_RATE_MIN: f64 = 150e6;
const ZEROING_RATE_MAX: f64 = 300e6;
/// How much faster than appends fill the active segment the next one is prepared.
const ZEROING_LEAD: f64 = 1.3;
/// Segments up to this size are zero-filled without a pause: it takes a few milliseconds.
const UNPACED_BYTES_MAX: u64 = 8 << 20;
/// How often the mark is synced while appends go on.
const MARK_PERIOD: Duration = Duration::from_millis(100);
/// Looks without anything to seal after which memory for the next seal is given back: some ten seconds.
const IDLE_LOOKS_MAX: u32 = 100;
/// How long a failed seal waits before it is tried again.
const SEAL_RETRY: Duration = Duration::from_millis(500);

/// How far the sealing thread stands back behind those that append.
const SEAL_NICENESS: i32 = 5;

/// A segment file that is ready to be begun.
#[derive(Debug)]
pub(crate) struct ReadySpare {
    pub(crate) ordinal: u64,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    pub(crate) capacity: u64,
    pub(crate) salt: u64,
}

impl ReadySpare {
    /// Whether a frame of this length fits between the header's block and the seal's.
    pub(crate) fn holds(&self, frame_bytes: u64) -> bool {
        frame_bytes + 2 * BLOCK_BYTES as u64 <= self.capacity
    }
}

/// The next segment: wanted, or ready.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    ready: Option<ReadySpare>,
    /// The largest frame that waits for it; 0: none does, it is made in advance.
    wanted: Option<u64>,
    failures: u64,
    last_failure: Option<IoFailure>,
    /// Where in the active segment it is tried again after a failure.
    retry_at: u64,
}

impl Spare {
    /// A frame of this length waits for it.
    pub(crate) fn want(&mut self, frame_bytes: u64) {
        if !self.holds(frame_bytes) {
            self.wanted = Some(self.wanted.unwrap_or(0).max(frame_bytes));
        }
    }

    /// Whether it is ready and a frame of this length fits it.
    pub(crate) fn holds(&self, frame_bytes: u64) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.holds(frame_bytes))
    }

    /// Whether it is time to make it in advance: the active segment is a quarter full. It is then wanted.
    pub(crate) fn is_due(&mut self, offset: u64, capacity: u64) -> bool {
        let due =
            self.ready.is_none() && self.wanted.is_none() && offset >= (capacity / 4).max(self.retry_at);
        if due {
            self.wanted = Some(0);
        }
        due
    }

    /// How often making it has failed.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }

    /// The last failure, if there was one after the first `seen`.
    pub(crate) fn failure_after(&self, seen: u64) -> Option<&IoFailure> {
        self.last_failure.as_ref().filter(|_| self.failures > seen)
    }

    /// Why there is none, if the last attempt to make one failed.
    pub(crate) fn failure(&self) -> Option<&IoFailure> {
        self.last_failure.as_ref()
    }

    pub(crate) fn take(&mut self) -> Option<ReadySpare> {
        self.retry_at = 0;
        self.ready.take()
    }
}

/// Prepares spares until the store closes.
pub(crate) fn keep_spare(core: &Arc<Core>) {
    loop {
        let mut state = core.state.lock();
        while state.spare.wanted.is_none() && !core.is_closing() && core.watermark.poison().is_none() {
            state = core.work.wait(state);
        }
        let Some(wanted) = state.spare.wanted else { return };
        if core.is_closing() || core.watermark.poison().is_some() {
            return;
        }
        let active = &state.tail.as_ref().expect("only a store open for writing has keepers").segment.header;
        let (ordinal, capacity) = (active.ordinal + 1, next_capacity(core, active.capacity, wanted));
        // One that is too small is made again, larger.
        state.spare.ready = None;
        drop(state);
        let made = make_spare(core, ordinal, capacity, wanted > 0);
        let mut state = core.state.lock();
        state.spare.wanted = None;
        core.room_awaited.store(false, Ordering::Release);
        match made {
            Ok(spare) => {
                state.spare.ready = Some(spare);
                state.spare.last_failure = None;
            }
            Err(failure) => {
                let tail = state.tail.as_ref().expect("only a store open for writing has keepers");
                let retry_at = tail.offset + tail.segment.header.capacity / 8;
                state.spare.retry_at = retry_at;
                state.spare.failures += 1;
                state.spare.last_failure = Some(failure);
            }
        }
        core.room.ring();
    }
}

/// Each segment is twice as large as the one before, up to the configured size, and never smaller than its first
/// frame needs.
fn next_capacity(core: &Core, active: u64, frame_bytes: u64) -> u64 {
    let doubled = (2 * active).min(core.settings.segment_bytes_max);
    align_up(doubled.max(frame_bytes + 2 * BLOCK_BYTES as u64), BLOCK_BYTES)
}

/// Makes a segment file, durable but for a header. `urgent`: appends wait for it.
pub(crate) fn make_spare(
    core: &Core,
    ordinal: u64,
    capacity: u64,
    urgent: bool,
) -> Result<ReadySpare, IoFailure> {
    let path = core.dir.join(segment_name(ordinal));
    let failed = |action| {
        let path = path.clone();
        move |error| IoFailure::new(action, path, error)
    };
    if core.manifest.lock().last_made >= ordinal {
        // It is made once more: what comes of that must not be taken for the one that was made before.
        core.change_manifest(|manifest| manifest.last_made = ordinal - 1)?;
    }
    let mut pace = Pace::new(core, capacity, urgent);
    let made = core
        .disk
        .preallocate(&path, capacity, &mut |written| pace.goes_on(core, written))
        .and_then(|()| core.disk.sync_dir(&core.dir));
    if let Err(error) = made {
        // Whatever of it is there takes room that may be needed; the manifest does not know it.
        let _ = core.disk.remove(&path);
        return Err(failed("allocate")(error));
    }
    core.change_manifest(|manifest| manifest.last_made = manifest.last_made.max(ordinal))?;
    let file = core.disk.open(&path, Access::Log).map_err(failed("open"))?;
    Ok(ReadySpare { ordinal, path, file, capacity, salt: rand::rng().next_u64() })
}

/// How fast a spare is zero-filled.
struct Pace {
    paced: bool,
    begun: Instant,
    durable_before: u64,
    written: u64,
}

impl Pace {
    fn new(core: &Core, capacity: u64, urgent: bool) -> Self {
        let durable_before = core.durable_total.load(Ordering::Acquire);
        Self {
            paced: !urgent && capacity > UNPACED_BYTES_MAX,
            begun: stopwatch(),
            durable_before,
            written: 0,
        }
    }

    /// Takes its time after `written` more bytes; `false`: the rest need not be filled.
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    fn goes_on(&mut self, core: &Core, written: u64) -> bool {
        self.written += written;
        if !self.paced || core.is_closing() || core.room_awaited.load(Ordering::Acquire) {
            return true;
        }
        let elapsed = self.begun.elapsed().as_secs_f64().max(0.001);
        let appended = core.durable_total.load(Ordering::Acquire) - self.durable_before;
        let wished = appended as f64 / elapsed * ZEROING_LEAD;
        if wished > ZEROING_RATE_MAX {
            return false;
        }
        let due = self.written as f64 / wished.max(ZEROING_RATE_MIN);
        if due > elapsed {
            std::thread::sleep(Duration::from_secs_f64(due - elapsed));
        }
        true
    }
}

/// Lets other threads go first: sealing can wait, up to the bound on closed segments, and appends cannot.
fn yield_to_appends() {
    stand_back(SEAL_NICENESS);
}

/// Seals closed segments and syncs the mark until the store closes; what is closed by then is still sealed.
pub(crate) fn keep_sealed(core: &Arc<Core>) {
    yield_to_appends();
    let mut idle_looks = 0;
    loop {
        let closing = core.is_closing();
        if core.watermark.poison().is_some() {
            return;
        }
        let sealed = seal::seal_next(core);
        let mut state = core.state.lock();
        match sealed {
            Ok(true) => {
                state.seal_failure = None;
                core.room.ring();
                idle_looks = 0;
                continue;
            }
            Ok(false) if closing => return,
            // Closing is rung under the lock: looked at here, it is not slept through.
            Ok(false) if core.is_closing() => {}
            Ok(false) => {
                state = core.work.wait_for(state, MARK_PERIOD);
                idle_looks += 1;
                if idle_looks > IDLE_LOOKS_MAX
                    && let Some(index) = state.spare_index.take()
                {
                    // Giving it back takes time.
                    drop(state);
                    drop(index);
                    state = core.state.lock();
                }
            }
            Err(seal::SealError::Io(failure)) => {
                state.seal_failures += 1;
                state.seal_failure = Some(failure);
                core.room.ring();
                if closing {
                    return;
                }
                if core.is_closing() {
                    continue;
                }
                state = core.work.wait_for(state, SEAL_RETRY);
            }
            Err(seal::SealError::Damage(damage)) => {
                drop(state);
                core.poison(&format!("a closed segment is damaged: {damage}"));
                return;
            }
        }
        drop(state);
        if let Err(failure) = core.sync_mark() {
            core.poison(&failure.to_string());
            return;
        }
    }
}
