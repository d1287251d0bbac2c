//! From a position to the frame that holds it, and from a frame to its records.

use super::core::{Closed, Core};
use super::rebuild;
use super::sealed::SealedSegment;
use crate::disk::maps::Advice;
use crate::format::batch::{Header, Shape, View};
use crate::format::frame::{self, Envelope, FRAME_FIXED_BYTES};
use crate::format::index::FrameEntry;
use crate::format::len_u32;
use crate::format::segment::FRAMES_START;
use crate::log::unsealed::Unsealed;
use crate::log::{damage_at, segment_name};
use annals_types::{
    Cursor, Damage, DamageKind, Position, ReadError, Record, RecordParts, Timestamp, Version,
};
use bytes::Bytes;
use std::cell::OnceCell;
use std::path::Path;
use std::sync::{Arc, Weak};

/// Frames looked up at a time when they are read in order.
const WINDOW_FRAMES: usize = 256;

/// In which order frames are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Order {
    Upwards,
    Downwards,
    /// Here and there: looking up those around one is of no use.
    #[default]
    Scattered,
}

/// A verified frame: its batch's header and directory are intact, its events are verified one by one.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) header: Header,
    shape: Shape,
    frame: Bytes,
    body: Bytes,
    /// Of a batch of several streams, the version of each event, up to the first that is not intact.
    versions: OnceCell<Vec<u64>>,
    path: Arc<Path>,
    offset: u64,
}

impl Frame {
    /// Verifies what `envelope` wraps.
    pub(crate) fn new(envelope: &Envelope, frame: Bytes, path: &Arc<Path>) -> Result<Self, Damage> {
        Self::try_new(envelope, frame, path).map_err(|kind| damage_at(path, envelope.offset, kind, None))
    }

    fn try_new(envelope: &Envelope, frame: Bytes, path: &Arc<Path>) -> Result<Self, DamageKind> {
        let header = envelope.header(&frame)?;
        let body = if envelope.is_plain() {
            frame.slice(envelope.body_range())
        } else {
            Bytes::from(envelope.body(&header, &frame)?.into_owned())
        };
        let view = frame::view(header, &frame, &body)?;
        let shape = view.shape;
        Ok(Self {
            header,
            shape,
            frame,
            body,
            versions: OnceCell::new(),
            path: Arc::clone(path),
            offset: envelope.offset,
        })
    }

    pub(crate) fn view(&self) -> View<'_> {
        let start = FRAME_FIXED_BYTES + crate::format::batch::BATCH_FIXED_BYTES;
        let versions = &self.frame[start..FRAME_FIXED_BYTES + self.header.header_bytes()];
        View::resume(self.header, self.shape, versions, &self.body)
    }

    pub(crate) fn holds(&self, position: u64) -> bool {
        (self.header.first_position..self.header.next_position()).contains(&position)
    }

    /// The time of the event at a position that this frame holds.
    pub(crate) fn time(&self, position: u64) -> u64 {
        self.view().time(self.ordinal(position))
    }

    fn ordinal(&self, position: u64) -> u32 {
        len_u32(crate::format::to_usize(position - self.header.first_position))
    }

    /// The record at a position that this frame holds. `version`: its version, where the caller knows it.
    pub(crate) fn record(&self, position: u64, version: Option<u64>) -> Result<Record, Damage> {
        self.try_record(position, version)
            .map_err(|kind| damage_at(&self.path, self.offset, kind, Some((position, position))))
    }

    /// The cursors that its batch sets.
    pub(crate) fn cursors(&self) -> Result<Vec<(&str, Cursor)>, Damage> {
        let cursors = self.view().cursors().collect::<Result<_, _>>();
        cursors.map_err(|kind| damage_at(&self.path, self.offset, kind, None))
    }

    /// The stream of the event at a position that this frame holds.
    pub(crate) fn stream(&self, position: u64) -> Result<&str, Damage> {
        let view = self.view();
        view.event(self.ordinal(position))
            .and_then(|(event, _)| view.name_range(event.stream))
            .and_then(|range| std::str::from_utf8(&self.body[range]).map_err(|_| DamageKind::Malformed))
            .map_err(|kind| damage_at(&self.path, self.offset, kind, Some((position, position))))
    }

    /// An event's version counts those before it in the batch: all of them must be intact.
    fn version(&self, ordinal: u32, stream: u16) -> Result<u64, DamageKind> {
        let view = self.view();
        if self.header.streams == 1 {
            return Ok(view.first_version(stream) + u64::from(ordinal));
        }
        let versions = self.versions.get_or_init(|| view.versions());
        versions.get(ordinal as usize).copied().ok_or(DamageKind::Checksum)
    }

    fn try_record(&self, position: u64, version: Option<u64>) -> Result<Record, DamageKind> {
        let view = self.view();
        let ordinal = self.ordinal(position);
        let (event, at) = view.event(ordinal)?;
        let range =
            |range: &std::ops::Range<usize>| len_u32(at.start + range.start)..len_u32(at.start + range.end);
        let name = view.name_range(event.stream)?;
        let version = match version {
            Some(version) => version,
            None => self.version(ordinal, event.stream)?,
        };
        let parts = RecordParts {
            position: Position::new(position),
            version: Version::new(version),
            time: Timestamp::new(view.time(ordinal)),
            id: event.id,
            correlation: event.correlation,
            causation: event.causation,
            content: event.content,
            stream: len_u32(name.start)..len_u32(name.end),
            event_type: range(&event.event_type),
            tags: range(&event.tags),
            data: range(&event.data),
            metadata: range(&event.metadata),
        };
        Ok(Record::new(self.body.clone(), parts))
    }
}

/// The segment that a window of frames is in.
#[derive(Clone, Debug)]
enum Home {
    Sealed(Arc<SealedSegment>),
    Closed(Arc<Closed>),
    Active(Arc<Unsealed>),
    /// One that is not sealed, whose memory it does not hold on to.
    Apart(Weak<Unsealed>),
}

impl Home {
    /// For who may stop reading at any time.
    fn apart(self) -> Self {
        match self {
            Self::Closed(closed) => Self::Apart(Arc::downgrade(&closed.log)),
            Self::Active(log) => Self::Apart(Arc::downgrade(&log)),
            home => home,
        }
    }
}

/// Finds frames by position; remembers the last one and those around it.
#[derive(Debug, Default)]
pub(crate) struct Locator {
    order: Order,
    /// Holds on to no memory of the log: for who may stop reading at any time, and keep what there is.
    apart: bool,
    frame: Option<Frame>,
    window: Option<Window>,
    /// Bytes of the frames that were looked at.
    pub(crate) bytes: u64,
}

#[derive(Debug)]
struct Window {
    home: Home,
    path: Arc<Path>,
    /// What the entries' positions count from.
    first_position: u64,
    entries: Vec<FrameEntry>,
    /// Whether the segment has no more frames behind the entries, as far as was known.
    complete: bool,
    /// First position behind the entries' frames, where `complete`.
    end_position: u64,
}

impl Window {
    /// The entry that holds this position, if it is one of these for sure.
    fn find(&self, position: u64) -> Option<usize> {
        let relative = u32::try_from(position.checked_sub(self.first_position)?).ok()?;
        let index = self.entries.partition_point(|entry| entry.position <= relative).checked_sub(1)?;
        let known = index + 1 < self.entries.len() || (self.complete && position < self.end_position);
        known.then_some(index)
    }

    /// The positions that an entry's frame should hold.
    fn positions(&self, index: usize) -> Option<(u64, u64)> {
        let first = self.first_position + u64::from(self.entries.get(index)?.position);
        let next = match self.entries.get(index + 1) {
            Some(next) => self.first_position + u64::from(next.position),
            None => self.end_position,
        };
        (first < next).then(|| (first, next - 1))
    }
}

impl Locator {
    pub(crate) fn new(order: Order) -> Self {
        Self { order, ..Self::default() }
    }

    /// Holds on to no memory of the log from now on.
    pub(crate) fn keep_apart(&mut self) {
        self.apart = true;
    }

    /// The frame that holds a position below the next one to be assigned.
    pub(crate) fn frame(&mut self, core: &Core, position: u64) -> Result<&Frame, ReadError> {
        if self.frame.as_ref().is_none_or(|frame| !frame.holds(position)) {
            let frame = self.load(core, position)?;
            self.bytes += frame.frame.len() as u64;
            self.frame = Some(frame);
        }
        Ok(self.frame.as_ref().expect("it was just loaded"))
    }

    fn load(&mut self, core: &Core, position: u64) -> Result<Frame, ReadError> {
        let mut held = None;
        if let Some(Window { home: Home::Apart(log), .. }) = &self.window {
            match log.upgrade() {
                Some(log) => held = Some(Home::Active(log)),
                // Sealed meanwhile: it is found elsewhere.
                None => self.window = None,
            }
        }
        let index = match self.window.as_ref().and_then(|window| window.find(position)) {
            Some(index) => index,
            None => {
                let mut window = window_at(core, position, self.order)?;
                if self.apart {
                    // Held until the frame is read.
                    held = Some(window.home.clone());
                    window.home = window.home.apart();
                }
                let index = window.find(position);
                self.window = Some(window);
                index.unwrap_or(0)
            }
        };
        let window = self.window.as_ref().expect("it was just found or made");
        let with_positions = |mut damage: Damage| {
            let positions = window.positions(index).unwrap_or((position, position));
            damage.first_position = Some(Position::new(positions.0));
            damage.last_position = Some(Position::new(positions.1));
            damage
        };
        let Some(offset) = window.entries.get(index).map(|entry| entry.offset) else {
            // No frame of the segment is intact.
            let positions = (position, window.end_position.max(position + 1) - 1);
            return Err(damage_at(&window.path, FRAMES_START, DamageKind::Missing, Some(positions)).into());
        };
        let (envelope, bytes) = self
            .read_frame(core, held.as_ref().unwrap_or(&window.home), offset)
            .map_err(|error| match error {
                ReadError::Damage(damage) => ReadError::Damage(with_positions(damage)),
                other => other,
            })?;
        let frame = Frame::new(&envelope, bytes, &window.path).map_err(with_positions)?;
        if frame.holds(position) {
            return Ok(frame);
        }
        // The frames around it are intact, and it is in none: what held it is damaged, and was left out of the index.
        let last = window.positions(index).map_or(position, |(_, last)| last);
        let gap = (frame.header.next_position().min(position), last.max(position));
        let end = envelope.offset + envelope.frame_bytes();
        Err(damage_at(&window.path, end, DamageKind::Checksum, Some(gap)).into())
    }

    fn read_frame(&self, core: &Core, home: &Home, offset: u64) -> Result<(Envelope, Bytes), ReadError> {
        let unsealed = match home {
            Home::Sealed(segment) => {
                let advice = if self.order == Order::Scattered { Advice::Points } else { Advice::Scan };
                let bytes = segment.log.bytes(core.disk.as_ref(), advice)?;
                return Ok(segment.log.frame(&bytes, offset)?);
            }
            Home::Closed(closed) => &closed.log,
            Home::Active(log) => log,
            Home::Apart(_) => unreachable!("it is held while it is read"),
        };
        if self.apart { unsealed.frame_apart(offset) } else { unsealed.frame(offset) }
    }
}

/// Frames around a position.
fn window_at(core: &Core, position: u64, order: Order) -> Result<Window, ReadError> {
    let state = core.state.lock();
    let slice = |frames: &[FrameEntry], at: usize| {
        let range = around(at, frames.len(), order);
        (frames[range.clone()].to_vec(), range.end == frames.len())
    };
    if let Some(active) = &state.segments.active
        && position >= active.index.first_position()
    {
        let (entries, complete) = slice(active.index.frames(), active.index.frame_of(position));
        return Ok(Window {
            home: Home::Active(Arc::clone(&active.log)),
            path: active.log.path.as_path().into(),
            first_position: active.index.first_position(),
            entries,
            complete,
            end_position: state.next_position,
        });
    }
    if let Some(closed) =
        state.segments.closed.iter().rev().find(|closed| position >= closed.index.first_position())
    {
        let (entries, complete) = slice(closed.index.frames(), closed.index.frame_of(position));
        return Ok(Window {
            home: Home::Closed(Arc::clone(closed)),
            path: closed.log.path.as_path().into(),
            first_position: closed.index.first_position(),
            entries,
            complete,
            end_position: closed.next_position,
        });
    }
    let sealed = Arc::clone(&state.segments.sealed);
    let closed = state.segments.closed.front().map(|closed| closed.index.first_position());
    let active = state.segments.active.as_ref().map(|active| active.index.first_position());
    let behind = closed.or(active).unwrap_or(state.next_position);
    drop(state);
    let number = sealed.partition_point(|segment| segment.log.seal.first_position <= position);
    let segment = number.checked_sub(1).map(|number| &sealed[number]);
    match segment.filter(|segment| position < segment.log.seal.next_position) {
        Some(segment) => sealed_window(core, segment, position, order),
        // What is not sealed begins later than it should.
        None => {
            let path = core.dir.join(segment_name(sealed.len() as u64 + 1));
            let positions = (position, behind.max(position + 1) - 1);
            Err(damage_at(&path, 0, DamageKind::Misplaced, Some(positions)).into())
        }
    }
}

fn sealed_window(
    core: &Core,
    segment: &Arc<SealedSegment>,
    position: u64,
    order: Order,
) -> Result<Window, ReadError> {
    let seal = &segment.log.seal;
    let relative = len_u32(crate::format::to_usize(position - seal.first_position));
    let (entries, complete) = rebuild::with_index(core, segment, |index| {
        let at = index.layout.frame_of(&index.bytes, relative)?;
        let range = around(at, index.layout.frames(), order);
        let complete = range.end == index.layout.frames();
        Ok((index.layout.frames_in(&index.bytes, range)?, complete))
    })?;
    Ok(Window {
        home: Home::Sealed(Arc::clone(segment)),
        path: segment.log.path.as_path().into(),
        first_position: seal.first_position,
        entries,
        complete,
        end_position: seal.next_position,
    })
}

/// Which of `count` frames to look at, when the one `at` is wanted: never less than the one after it, too,
/// which tells where it ends.
fn around(at: usize, count: usize, order: Order) -> std::ops::Range<usize> {
    match order {
        Order::Upwards => at.min(count)..(at + WINDOW_FRAMES).min(count),
        Order::Downwards => (at + 2).saturating_sub(WINDOW_FRAMES)..(at + 2).min(count),
        Order::Scattered => at.min(count)..(at + 2).min(count),
    }
}

#[cfg(test)]
mod tests {
    use crate::clock::Clock;
    use crate::disk::Disk as _;
    use crate::disk::simulated::SimulatedDisk;
    use crate::format::manifest::Manifest;
    use crate::format::segment::SegmentHeader;
    use crate::store::Store;
    use crate::store::ticket::Ticket;
    use annals_types::{DamageKind, NewEvent, Position, Read, ReadError, Settings};
    use std::path::Path;
    use std::sync::Arc;

    const DIR: &str = "/store";
    const SEGMENT: &str = "/store/0000000001.log";
    const MANIFEST: &str = "/store/manifest";

    /// A store of three events, closed.
    fn store() -> SimulatedDisk {
        let disk = SimulatedDisk::new(0);
        let settings = Settings { segment_bytes_first: 16 << 10, ..Settings::default() };
        let store = Store::open_on(Path::new(DIR), settings, Arc::new(disk.clone()), Clock::System)
            .expect("an empty disk takes a store");
        for _ in 0..3 {
            store.append(NewEvent::new("a", "T")).and_then(Ticket::wait).expect("nothing fails");
        }
        store.close().expect("nothing fails");
        disk
    }

    fn manifest(disk: &SimulatedDisk) -> Manifest {
        Manifest::decode(&disk.read(Path::new(MANIFEST)).expect("there it is")).expect("it is intact")
    }

    fn read(disk: &SimulatedDisk) -> Vec<Result<Position, ReadError>> {
        let store =
            Store::open_read_only_on(Path::new(DIR), Arc::new(disk.clone())).expect("it can be looked at");
        let read = store.read(Read::all()).expect("the read is a sound one");
        read.map(|record| record.map(|record| record.position())).collect()
    }

    #[test]
    fn events_before_a_first_segment_that_says_it_begins_later_are_one_damage() {
        let disk = store();
        let bytes = disk.read(Path::new(SEGMENT)).expect("there it is");
        let id = manifest(&disk).store;
        let header = SegmentHeader::decode(&bytes, 1, id).expect("it is intact");
        // Further than positions within a segment are counted.
        let first_position = 1 << 40;
        let block = SegmentHeader { first_position, ..header }.encode(id);
        disk.put_raw(Path::new(SEGMENT), &[&block, &bytes[block.len()..]].concat());
        let read = read(&disk);
        let [Err(ReadError::Damage(damage)), ..] = &read[..] else { panic!("{read:?}") };
        assert_eq!(damage.kind, DamageKind::Misplaced);
        assert_eq!(damage.last_position, Some(Position::new(first_position - 1)));
        assert!(read.len() < 5, "{read:?}");
    }

    #[test]
    fn a_manifest_that_speaks_of_more_segments_than_can_be_there_is_no_more_work() {
        let disk = store();
        let manifest = Manifest { last_made: u64::MAX - 1, ..manifest(&disk) };
        disk.put_raw(Path::new(MANIFEST), &manifest.encode());
        let read = read(&disk);
        assert_eq!(read.iter().flatten().count(), 3, "{read:?}");
    }
}
