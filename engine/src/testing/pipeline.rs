//! The bare pipeline: frames placed, copied, written durably and waited for, without index, conditions, sealing or
//! new segments. What a store could do at the very best; benchmarks compare the store with it.

use super::bodies::first_header;
use crate::clock::stopwatch;
use crate::disk::{self, Access, Disk, Pipelining};
use crate::format::batch;
use crate::format::frame::{self, FRAME_FIXED_BYTES};
use crate::format::segment::{FRAMES_START, SegmentHeader};
use crate::log::group::{Fills, Group};
use crate::log::tail::{Tail, WriterPhase};
use crate::log::unsealed::Unsealed;
use crate::log::watermark::Watermark;
use crate::log::writer::{self, Alarm, Feed};
use crate::store::gate::Gate;
use crate::{Append, IoFailure, OpenError, Settings, Uuid};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

/// Size of the one file, which is written over and over.
const CAPACITY: u64 = 512 << 20;
/// As in a store.
const NOT_DURABLE_BYTES_MAX: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub struct Pipeline {
    inner: Arc<Inner>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    state: Gate<State>,
    watermark: Watermark,
    fills: Fills,
    alarm: Alarm,
    closing: AtomicBool,
    durable_total: AtomicU64,
    header: SegmentHeader,
    log: Arc<Unsealed>,
    recent_bytes: u64,
}

#[derive(Debug)]
struct State {
    tail: Tail,
    next_batch: u64,
    next_position: u64,
}

/// Something to wait for.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    batch: u64,
    group: u64,
}

impl Pipeline {
    /// Makes the pipeline's file in `dir`.
    ///
    /// # Errors
    /// As opening a store.
    pub fn open(dir: &Path, settings: &Settings) -> Result<Self, OpenError> {
        let disk: Arc<dyn Disk> = disk::choose(settings.disk, dir, true)?;
        let path = dir.join("pipeline.log");
        let failed = |error| IoFailure::new("make", &path, error);
        disk.preallocate(&path, CAPACITY, &mut |_| true).map_err(failed)?;
        let file = disk.open(&path, Access::Log).map_err(failed)?;
        let header = first_header(CAPACITY);
        let log = Arc::new(Unsealed::new(header, path.clone(), file, FRAMES_START));
        let tail = Tail::new(Arc::clone(&log), FRAMES_START, 0);
        let inner = Arc::new(Inner {
            state: Gate::new(State { tail, next_batch: 0, next_position: 0 }),
            watermark: Watermark::new(0, 0),
            fills: Fills::default(),
            alarm: Alarm::default(),
            closing: AtomicBool::new(false),
            durable_total: AtomicU64::new(0),
            header,
            log,
            recent_bytes: settings.recent_bytes,
        });
        let of_writer = Arc::clone(&inner);
        let linger = settings.linger;
        let work = move || match disk.submitter(Arc::clone(&of_writer.alarm.in_flight)) {
            Ok(submitter) => {
                writer::run(
                    of_writer.as_ref(),
                    submitter,
                    &of_writer.fills,
                    &of_writer.watermark,
                    &of_writer.alarm,
                    linger,
                );
            }
            Err(error) => of_writer.watermark.poison_with(&error.to_string()),
        };
        let writer = std::thread::Builder::new().name("bare-writer".into()).spawn(work).map_err(failed)?;
        Ok(Self { inner, writer: Some(writer) })
    }

    /// Encodes and places a batch.
    #[must_use]
    pub fn append(&self, append: &Append<'_>) -> Placed {
        let ids = vec![Uuid::from_u128(7); append.events.len()];
        let room = FRAME_FIXED_BYTES;
        let mut encoded = batch::encode(append, Uuid::nil(), [7; 16], &ids, room, Vec::new());
        frame::wrap(&mut encoded.bytes, None);
        let bytes = encoded.bytes.len() as u64;
        let inner = &self.inner;
        let begun = stopwatch();
        let mut state = loop {
            let state = inner.state.lock();
            let waiting = state.tail.reserved_total - inner.durable_total.load(Ordering::Acquire);
            if waiting + bytes <= NOT_DURABLE_BYTES_MAX {
                break state;
            }
            drop(state);
            inner.watermark.wait_beyond(inner.watermark.position(), std::time::Duration::from_millis(1));
            assert!(begun.elapsed().as_secs() < 60, "the writer has stopped");
        };
        if !state.tail.fits(bytes) {
            // The same file once more, from its start.
            let (path, file) = (inner.log.path.clone(), Arc::clone(&inner.log.file));
            let log = Arc::new(Unsealed::new(inner.header, path, file, FRAMES_START));
            state.tail.roll(log, FRAMES_START, inner.header.encode(Uuid::nil()), 0);
        }
        let number = state.next_batch;
        let decided = batch::Decided { epoch: 1, number, first_position: state.next_position, time: 1 };
        let crc = batch::decide(&mut encoded.bytes[room..], decided);
        let place = state.tail.place(inner.watermark.batch());
        let frame_crc = frame::place(&mut encoded.bytes, place, crc);
        state.next_batch += 1;
        state.next_position += u64::from(encoded.events);
        let next_position = state.next_position;
        let reserved = state.tail.push(bytes, frame_crc, number + 1, next_position);
        let wake = state.tail.wants_wake();
        drop(state);
        let group = reserved.group;
        let _segment = reserved.fill(&encoded.bytes);
        inner.fills.add(group, 1);
        if wake {
            inner.alarm.ring();
        }
        Placed { batch: number + 1, group }
    }

    /// Blocks until the batch is durable.
    pub fn wait(&self, placed: Placed) {
        self.inner.watermark.wait(placed.batch, placed.group);
    }

    /// Whether the batch is durable.
    #[must_use]
    pub fn is_settled(&self, placed: Placed) -> bool {
        self.inner.watermark.is_settled(placed.batch)
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.alarm.ring();
        if let Some(writer) = self.writer.take() {
            // It has nothing to say that the watermark has not said.
            let _ = writer.join();
        }
    }
}

impl Feed for Inner {
    fn take(&self, in_flight: usize, pipelining: Pipelining) -> Option<Group> {
        let mut state = self.state.lock();
        let group = state.tail.take(in_flight, pipelining);
        state.tail.phase = match (&group, in_flight) {
            (Some(_), _) => WriterPhase::Running,
            (None, 0) => WriterPhase::Idle,
            (None, _) => WriterPhase::InFlight,
        };
        group
    }

    fn moment(&self) -> Instant {
        stopwatch()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire) && self.state.lock().tail.is_empty()
    }

    fn reached(&self, group: &Group) {
        self.durable_total.store(group.reserved_total, Ordering::Release);
    }

    fn begun(&self, _segment: &Arc<Unsealed>) {}

    fn durable(&self, group: &Group) {
        group.segment.image().trim(group.end.saturating_sub(self.recent_bytes));
    }

    fn poisoned(&self) {}
}
