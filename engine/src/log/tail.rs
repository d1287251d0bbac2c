//! The tail: where the next frame goes. Changed only under the commit's lock.
#![allow(unsafe_code)]

use super::group::Group;
use super::image::Window;
use super::unsealed::Unsealed;
use crate::disk::Pipelining;
use crate::format::frame::{FrameSeed, Place};
use crate::format::{BLOCK_BYTES, align_up};
use crate::striped::{Share, Shared};
use std::collections::VecDeque;
use std::sync::Arc;

/// What the writer thread is doing, so that appenders wake it when that helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriterPhase {
    /// It will look at the tail again by itself.
    Running,
    /// It sleeps until there is anything to write.
    Idle,
    /// Writes are in flight; it sleeps until one completes or a further group is worth putting beside them.
    InFlight,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) segment: Shared<Unsealed>,
    /// Where the next frame goes.
    pub(crate) offset: u64,
    /// Behind the last frame; `offset` may be the next block's start instead.
    pub(crate) frames_end: u64,
    pub(crate) last_crc: u32,
    pub(crate) phase: WriterPhase,
    /// All bytes ever reserved since opening; the durable part of it is subtracted by whoever limits it.
    pub(crate) reserved_total: u64,
    /// The chunk of the segment's image that the next frame begins in, once one did.
    window: Window,
    open: OpenGroup,
    closed: VecDeque<Group>,
    /// Which groups the writer puts in flight together. Such a group ends at a block's end, so that the next one shares no
    /// block with it.
    pipelining: Pipelining,
    /// Writes in flight, when the writer last came.
    in_flight: usize,
    /// The group of the last frame.
    pub(crate) last_group: u64,
}

/// A place in the log that is its holder's alone, to be filled once.
#[derive(Debug)]
pub(crate) struct Reserved {
    log: Share<Unsealed>,
    window: Window,
    offset: u64,
    bytes: u64,
    /// The group that waits for it to be filled.
    pub(crate) group: u64,
}

impl Reserved {
    /// Copies the frame into its place; returns the segment that it is in.
    pub(crate) fn fill(self, frame: &[u8]) -> Share<Unsealed> {
        assert_eq!(frame.len() as u64, self.bytes, "the place was reserved for this frame");
        // SAFETY: `Tail::push` gave this range to this value alone, and filling takes it by value. The image keeps all
        // that is not durable, which this is not before it is filled.
        if !unsafe { self.window.fill(self.offset, frame) } {
            // SAFETY: as above.
            unsafe { self.log.image().fill(self.offset, frame) };
        }
        self.log
    }
}

#[derive(Debug, Default)]
struct OpenGroup {
    number: u64,
    start: u64,
    frames: u32,
    next_batch: u64,
    next_position: u64,
    header: Option<Vec<u8>>,
}

impl Tail {
    /// A tail behind the last frame, whose checksum is `last_crc`, at `offset` of `segment`.
    pub(crate) fn new(segment: Arc<Unsealed>, offset: u64, last_crc: u32) -> Self {
        Self {
            segment: Shared::new(&segment),
            offset,
            frames_end: offset,
            last_crc,
            phase: WriterPhase::Running,
            reserved_total: 0,
            window: Window::default(),
            open: OpenGroup { start: offset, ..OpenGroup::default() },
            closed: VecDeque::new(),
            pipelining: Pipelining { depth: 1, bytes_min: u64::MAX },
            in_flight: 0,
            last_group: 0,
        }
    }

    /// Whether a frame of this length fits the segment.
    pub(crate) fn fits(&self, frame_bytes: u64) -> bool {
        self.offset + frame_bytes <= self.segment.frames_limit()
    }

    /// Where the next frame goes.
    pub(crate) fn place(&self, not_durable: u64) -> Place {
        let seed: FrameSeed = self.segment.seed;
        Place { offset: self.offset, previous: self.last_crc, not_durable, seed }
    }

    /// Takes the place for a frame with this checksum; what follows it is `next_batch` at `next_position`.
    pub(crate) fn push(
        &mut self,
        frame_bytes: u64,
        crc: u32,
        next_batch: u64,
        next_position: u64,
    ) -> Reserved {
        assert!(self.fits(frame_bytes), "the caller made room");
        if !self.window.holds(self.offset, self.offset + frame_bytes) {
            self.window = self.segment.image().reserve(self.offset, self.offset + frame_bytes);
        }
        let reserved = Reserved {
            log: self.segment.share(),
            window: self.window,
            offset: self.offset,
            bytes: frame_bytes,
            group: self.open.number,
        };
        self.offset += frame_bytes;
        self.frames_end = self.offset;
        self.reserved_total += frame_bytes;
        self.last_crc = crc;
        self.last_group = self.open.number;
        self.open.frames += 1;
        self.open.next_batch = next_batch;
        self.open.next_position = next_position;
        reserved
    }

    /// Goes on in a new segment, which `header` begins.
    pub(crate) fn roll(&mut self, segment: Arc<Unsealed>, offset: u64, header: Vec<u8>, header_crc: u32) {
        if self.open.frames > 0 {
            // No padding: the next one begins in another file.
            let group = self.close_open();
            self.closed.push_back(group);
        }
        self.segment = Shared::new(&segment);
        self.offset = offset;
        self.frames_end = offset;
        self.last_crc = header_crc;
        self.window = Window::default();
        self.open.start = offset;
        self.open.header = Some(header);
    }

    fn close_open(&mut self) -> Group {
        let end = self.offset;
        let next = OpenGroup { number: self.open.number + 1, start: self.offset, ..OpenGroup::default() };
        let open = std::mem::replace(&mut self.open, next);
        Group {
            number: open.number,
            segment: Arc::clone(&self.segment),
            start: open.start,
            end,
            frames: open.frames,
            next_batch: open.next_batch,
            next_position: open.next_position,
            header: open.header,
            reserved_total: self.reserved_total,
        }
    }

    /// The next group to write, if it may be written now. `in_flight`: writes not completed.
    pub(crate) fn take(&mut self, in_flight: usize, pipelining: Pipelining) -> Option<Group> {
        (self.pipelining, self.in_flight) = (pipelining, in_flight);
        if in_flight >= pipelining.depth {
            return None;
        }
        if let Some(group) = self.closed.front() {
            return if in_flight == 0 || self.may_join(group.start, group.end, group.header.is_some()) {
                self.closed.pop_front()
            } else {
                None
            };
        }
        if self.open.frames == 0 || (in_flight > 0 && !self.open_may_join()) {
            return None;
        }
        let group = self.close_open();
        if pipelining.depth > 1 && self.is_large(group.start, group.end) {
            self.offset = align_up(self.offset, BLOCK_BYTES);
            self.open.start = self.offset;
        }
        Some(group)
    }

    fn is_large(&self, start: u64, end: u64) -> bool {
        end - start >= self.pipelining.bytes_min
    }

    /// Whether a group may be in flight beside others: it shares no block with them, is worth it, and does
    /// not begin a segment (whose header says that all before it is durable).
    fn may_join(&self, start: u64, end: u64, begins_segment: bool) -> bool {
        start.is_multiple_of(BLOCK_BYTES as u64) && self.is_large(start, end) && !begins_segment
    }

    fn open_may_join(&self) -> bool {
        self.may_join(self.open.start, self.offset, self.open.header.is_some())
    }

    /// Whether the writer is to be woken for what was just pushed; it then counts as running.
    pub(crate) fn wants_wake(&mut self) -> bool {
        let wants = match self.phase {
            WriterPhase::Running => false,
            WriterPhase::Idle => true,
            WriterPhase::InFlight => self.in_flight < self.pipelining.depth && self.open_may_join(),
        };
        if wants {
            self.phase = WriterPhase::Running;
        }
        wants
    }

    /// Whether anything waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.frames == 0 && self.closed.is_empty()
    }
}
