//! Snapshots: the folded state of a stream's events up to a version, kept beside the log.
//!
//! They are events of a side store, in a stream of the same name. None is believed: it says of which event it is the
//! state, and by that event's batch of which history, and is used where the log has just that. Of a history that a crash
//! cut it is not, and one that is lost or damaged costs a longer replay.

use super::Store;
use super::commit::{self, failed_read};
use super::core::Core;
use super::locate::Locator;
use super::lookup::{self, StreamLookup};
use super::prepare::Prepared;
use super::promise::Promise;
use super::read::Reader;
use super::side::{self, SideKind};
use super::ticket::{SnapshotOnItsWay, Ticket};
use crate::format::batch::Decided;
use crate::format::snapshot::{
    self, DELETED_TYPE, PART_BYTES, PART_TYPE, SNAPSHOT_TYPE, SnapshotNote, SnapshotOf,
};
use crate::striped::Shared;
use annals_types::{
    Append, AppendError, Bound, Load, NewEvent, NewSnapshot, PassedOver, Position, Read, ReadError, Record,
    Snapshot, Timestamp, Uuid, Version,
};
use bytes::Bytes;
use std::sync::Arc;

/// Their side store: what is lost costs a longer replay.
pub(crate) const SNAPSHOTS: SideKind = SideKind { name: "snapshots", size_min: 1_000, is_dispensable: true };

/// A stream's state: a snapshot, if there is one that can be used, and the events behind it.
pub type Loaded = annals_types::Loaded<Reader>;

/// Appends a batch with the state that it leads to. Room for the snapshot is made sure of first, so that a full disk is
/// met before anything is decided; then both are written at the same time, and the ticket waits for both.
pub(crate) fn append(core: &Shared<Core>, append: &Append<'_>) -> Result<Ticket, AppendError> {
    append.validate()?;
    let snapshot = append.snapshot.as_ref().expect("the caller looked");
    let side = core.snapshots.writable(core)?;
    // Only its numbers are not known yet: they take the same room whatever they are.
    let unknown = SnapshotOf {
        version: Version::ZERO,
        position: Position::ZERO,
        time: Timestamp::ZERO,
        epoch: 0,
        batch: 0,
        event: Uuid::nil(),
    };
    let bytes = appends_of(snapshot, unknown).iter().map(Promise::bytes_for).sum();
    let promise = Promise::new(&side, bytes)?;
    let (ticket, of) = commit::append_promised(core, append, 0)?;
    let Some(of) = of.filter(|_| ticket.is_written()) else { return Ok(ticket) };
    let on_its_way = match write(snapshot, of, promise) {
        Ok(ticket) => SnapshotOnItsWay::Ticket(ticket),
        Err(error) => SnapshotOnItsWay::Failed(error),
    };
    core.snapshots.has_grown(core, 1, renew);
    Ok(ticket.with_snapshot(on_its_way))
}

/// Writes a snapshot of events that are durable, by itself; durable when this returns.
pub(crate) fn write_alone(
    core: &Shared<Core>,
    snapshot: &NewSnapshot<'_>,
    version: Version,
) -> Result<(), AppendError> {
    snapshot.validate()?;
    commit::refuse_if_closed(core)?;
    let of = of_version(core, &snapshot.stream, version).map_err(failed_read)?;
    let Some(of) = of else {
        let head = super::streams::durable_head(core, &snapshot.stream).map_err(failed_read)?;
        return Err(AppendError::NoSuchVersion { stream: snapshot.stream.to_string(), version, head });
    };
    let ticket = {
        let side = core.snapshots.writable(core)?;
        let bytes = appends_of(snapshot, of).iter().map(Promise::bytes_for).sum();
        core.snapshots.has_grown(core, 1, renew);
        write(snapshot, of, Promise::new(&side, bytes)?)?
    };
    ticket.wait().map(drop)
}

/// Makes a stream's snapshots of this name no longer count: those of a version, or all.
pub(crate) fn delete(
    core: &Arc<Core>,
    stream: &str,
    name: &str,
    version: Option<Version>,
) -> Result<(), AppendError> {
    NewSnapshot::new(stream, 0, b"").name(name).validate()?;
    commit::refuse_if_closed(core)?;
    let ticket = {
        let side = core.snapshots.writable(core)?;
        let note = snapshot::encode_deleted(name, version);
        side.append(NewEvent::new(stream, DELETED_TYPE).metadata(note))?
    };
    ticket.wait().map(drop)
}

/// What a snapshot becomes: an append for each part of its state.
fn appends_of<'a>(snapshot: &'a NewSnapshot<'_>, of: SnapshotOf) -> Vec<Append<'a>> {
    let mut parts: Vec<&[u8]> = snapshot.data.chunks(PART_BYTES).collect();
    let last = parts.pop().unwrap_or_default();
    let id = uuid::Builder::from_custom_bytes(rand::random()).into_uuid();
    let note = SnapshotNote {
        schema: snapshot.schema,
        parts: crate::format::len_u32(parts.len()),
        of,
        name: &snapshot.name,
    };
    let event = |event_type, data| NewEvent::new(&*snapshot.stream, event_type).binary(data);
    let parts = parts.into_iter().map(|part| event(PART_TYPE, part).correlation(id).into());
    parts.chain([event(SNAPSHOT_TYPE, last).id(id).metadata(note.encode()).into()]).collect()
}

/// Appends it to the side store, into the room that was promised.
fn write(snapshot: &NewSnapshot<'_>, of: SnapshotOf, mut promise: Promise) -> Result<Ticket, AppendError> {
    let appends = appends_of(snapshot, of);
    let mut tickets = appends.iter().map(|append| promise.append(append));
    // Those of one thread settle in their order.
    let last = tickets.try_fold(None, |_, ticket| ticket.map(Some))?;
    Ok(last.expect("there is a last part"))
}

/// What the snapshot of a batch's stream is of: its last event there.
pub(super) fn of_batch(
    append: &Append<'_>,
    prepared: &Prepared<'_>,
    stream: &str,
    decided: Decided,
    last_version: impl Fn(usize) -> u64,
) -> SnapshotOf {
    let written = &prepared.streams[..prepared.written];
    let ordinal = written.iter().position(|key| key.name == stream).expect("the batch writes it");
    let last = append.events.iter().rposition(|event| event.stream == stream).expect("the batch writes it");
    let given = append.events[..=last].iter().filter_map(|event| event.time).max();
    SnapshotOf {
        version: Version::new(last_version(ordinal)),
        position: Position::new(decided.first_position + last as u64),
        time: Timestamp::new(given.map_or(0, Timestamp::get).max(decided.time)),
        epoch: decided.epoch,
        batch: decided.number,
        event: prepared.ids[last],
    }
}

/// What the snapshot of a stream at a version is of. `None`: it has no such version, durably.
fn of_version(core: &Arc<Core>, stream: &str, version: Version) -> Result<Option<SnapshotOf>, ReadError> {
    let mut lookup = StreamLookup::new(core, stream);
    let head = lookup::known_head(core, lookup.key())?.0;
    if head.is_none_or(|head| head.version < version) {
        return Ok(None);
    }
    match lookup.position(core, version.get())? {
        Some(position) if core.watermark.is_beyond(position) => of_position(core, position).map(Some),
        _ => Ok(None),
    }
}

fn of_position(core: &Core, position: u64) -> Result<SnapshotOf, ReadError> {
    let mut locator = Locator::default();
    let frame = locator.frame(core, position)?;
    let record = frame.record(position, None)?;
    Ok(SnapshotOf {
        version: record.version(),
        position: record.position(),
        time: record.time(),
        epoch: frame.header.epoch,
        batch: frame.header.number,
        event: record.id(),
    })
}

/// What the log says of a snapshot.
enum Confirmed {
    Yes,
    /// Its events may be on their way still.
    NotYet,
    No,
}

/// Whether the log has what a snapshot says it is of.
fn confirm(core: &Core, stream: &str, of: &SnapshotOf) -> Result<Confirmed, ReadError> {
    let position = of.position.get();
    if !core.watermark.is_beyond(position) {
        return Ok(if of.epoch == core.epoch { Confirmed::NotYet } else { Confirmed::No });
    }
    let mut locator = Locator::default();
    let frame = locator.frame(core, position)?;
    if (frame.header.epoch, frame.header.number) != (of.epoch, of.batch) {
        return Ok(Confirmed::No);
    }
    let record = frame.record(position, None)?;
    let is_it = record.stream() == stream
        && (record.version(), record.id(), record.time()) == (of.version, of.event, of.time);
    Ok(if is_it { Confirmed::Yes } else { Confirmed::No })
}

/// A stream's state, as a snapshot and the events behind it.
pub(crate) fn load(core: &Arc<Core>, load: &Load<'_>) -> Result<Loaded, ReadError> {
    load.validate()?;
    let mut passed_over = Vec::new();
    let mut found = None;
    if load.use_snapshots {
        super::read_only::refresh(core)?;
        for snapshot in Snapshots::new(core, &load.stream, &mut passed_over) {
            if snapshot.name == load.name
                && is_within(&snapshot, load.until)
                && load.schemas.contains(&snapshot.schema)
            {
                found = Some(snapshot);
                break;
            }
        }
    }
    let mut read = Read::stream(&*load.stream);
    read.until = load.until;
    read.from = found.as_ref().map(|snapshot| Bound::Version(snapshot.version.plus(1)));
    Ok(Loaded { snapshot: found, events: Reader::new(core, &read)?, passed_over })
}

fn is_within(snapshot: &Snapshot, until: Option<Bound>) -> bool {
    match until {
        None => true,
        Some(Bound::Version(version)) => snapshot.version <= version,
        Some(Bound::Position(position)) => snapshot.position <= position,
        Some(Bound::Time(time)) => snapshot.time <= time,
    }
}

/// A stream's snapshots that count and that the log confirms, the one written last first.
pub(crate) fn list(core: &Arc<Core>, stream: &str) -> Result<(Vec<Snapshot>, Vec<PassedOver>), ReadError> {
    Load::stream(stream).validate()?;
    super::read_only::refresh(core)?;
    let mut passed_over = Vec::new();
    let snapshots = Snapshots::new(core, stream, &mut passed_over).collect();
    Ok((snapshots, passed_over))
}

/// Names of the streams that have snapshots, or had.
pub(crate) fn streams(core: &Arc<Core>) -> Result<Vec<String>, ReadError> {
    let Some(side) = core.snapshots.readable(core)? else { return Ok(Vec::new()) };
    let mut names: Vec<String> =
        side.streams()?.map(|stream| stream.map(|(name, _)| name.to_string())).collect::<Result<_, _>>()?;
    names.sort();
    Ok(names)
}

/// Leaves behind the snapshots that no longer count, if they are more than those that do.
fn renew(core: &Arc<Core>) {
    if is_worth_while(core).unwrap_or(false) {
        // What fails is tried again once there are more; until then all that there is stays.
        let _ = core.snapshots.renew(core, |from, end, to| copy_counting(core, from, end, to));
    }
}

fn is_worth_while(core: &Arc<Core>) -> Result<bool, ReadError> {
    let Some(side) = core.snapshots.readable(core)? else { return Ok(false) };
    let most_that_count = side.streams()?.count() as u64 * u64::from(core.settings.snapshots_kept);
    Ok(side.next_position().get() > 2 * most_that_count)
}

/// Copies what counts of what is before `end`, stream by stream, each in its order.
fn copy_counting(core: &Arc<Core>, from: &Store, end: Position, to: &Store) -> Result<u64, AppendError> {
    let Some(last) = end.get().checked_sub(1).map(Position::new) else { return Ok(0) };
    let mut on_its_way = None;
    for stream in from.streams().map_err(failed_read)? {
        commit::refuse_if_closed(core)?;
        // What is damaged does not count.
        let Ok((stream, _)) = stream else { continue };
        let (mut counting, mut copied, mut parts) = (Counting::new(core), Vec::new(), Vec::new());
        for record in from.read(Read::stream(&*stream).backwards().from(last)).map_err(failed_read)? {
            let Ok(record) = record else { continue };
            let is_part = record.event_type() == PART_TYPE
                && record.correlation().is_some_and(|whole| parts.contains(&whole));
            if let Met::Snapshot(note) = counting.meet(&record) {
                match confirm(core, &stream, &note.of) {
                    Ok(Confirmed::No) => continue,
                    Ok(Confirmed::Yes) => counting.count(note.name),
                    // They may turn out to count.
                    Ok(Confirmed::NotYet) | Err(_) => {}
                }
                parts.extend((note.parts > 0).then(|| record.id()));
            } else if !is_part {
                continue;
            }
            copied.push(record);
        }
        for record in copied.iter().rev() {
            on_its_way = Some(side::copy_one(record, to)?);
        }
    }
    // Those of one thread settle in their order.
    on_its_way.map_or(Ok(()), |ticket| ticket.wait().map(drop))?;
    Ok(to.next_position().get())
}

/// Which of a stream's snapshots count: of each name those written last that the log confirms, but for deleted ones. Met
/// backwards.
struct Counting {
    kept: u32,
    /// How many of each name count.
    met: Vec<(String, u32)>,
    deleted: Vec<(String, Option<Version>)>,
}

/// What an event of the side store is.
enum Met<'a> {
    /// One that counts if the log confirms it.
    Snapshot(SnapshotNote<'a>),
    Malformed,
    /// A part, a deletion, or what no longer counts.
    Other,
}

impl Counting {
    fn new(core: &Core) -> Self {
        Self { kept: core.settings.snapshots_kept, met: Vec::new(), deleted: Vec::new() }
    }

    fn meet<'a>(&mut self, record: &'a Record) -> Met<'a> {
        if record.event_type() == DELETED_TYPE
            && let Some((name, version)) = snapshot::decode_deleted(record.metadata())
        {
            self.deleted.push((name.to_owned(), version));
        }
        if record.event_type() != SNAPSHOT_TYPE {
            return Met::Other;
        }
        match SnapshotNote::decode(record.metadata()) {
            None => Met::Malformed,
            Some(note) if self.may_count(&note) => Met::Snapshot(note),
            Some(_) => Met::Other,
        }
    }

    fn may_count(&self, note: &SnapshotNote<'_>) -> bool {
        let is_deleted = |(name, version): &(String, Option<Version>)| {
            name == note.name && version.is_none_or(|version| version == note.of.version)
        };
        let counted = self.met.iter().find(|(name, _)| name == note.name).map_or(0, |&(_, count)| count);
        counted < self.kept && !self.deleted.iter().any(is_deleted)
    }

    fn count(&mut self, name: &str) {
        match self.met.iter_mut().find(|(met, _)| met == name) {
            Some((_, count)) => *count += 1,
            None => self.met.push((name.to_owned(), 1)),
        }
    }
}

/// Walks a stream's snapshots backwards.
struct Snapshots<'a> {
    core: &'a Arc<Core>,
    stream: &'a str,
    records: Option<Reader>,
    counting: Counting,
    passed_over: &'a mut Vec<PassedOver>,
}

impl<'a> Snapshots<'a> {
    /// Where they cannot be read, there are none: that costs a longer replay.
    fn new(core: &'a Arc<Core>, stream: &'a str, passed_over: &'a mut Vec<PassedOver>) -> Self {
        let side = core.snapshots.readable(core);
        let records = side.and_then(|side| side.map(|side| backwards(&side, stream)).transpose());
        let records = records.unwrap_or_else(|error| {
            passed_over.push(PassedOver { version: None, reason: error.to_string() });
            None
        });
        Self { core, stream, records, counting: Counting::new(core), passed_over }
    }

    fn pass_over(&mut self, version: Option<Version>, reason: impl ToString) {
        self.passed_over.push(PassedOver { version, reason: reason.to_string() });
    }

    /// The snapshot that a record is, if it counts and the log confirms it.
    fn examine(&mut self, record: &Record) -> Option<Snapshot> {
        let note = match self.counting.meet(record) {
            Met::Snapshot(note) => note,
            Met::Other => return None,
            Met::Malformed => {
                self.pass_over(None, "it is malformed");
                return None;
            }
        };
        let version = Some(note.of.version);
        match confirm(self.core, self.stream, &note.of) {
            Ok(Confirmed::Yes) => self.counting.count(note.name),
            Ok(Confirmed::NotYet) => return None,
            Ok(Confirmed::No) => {
                self.pass_over(version, "its event is not in the log");
                return None;
            }
            Err(error) => {
                self.pass_over(version, error);
                return None;
            }
        }
        let Some(data) = self.data_of(record, &note) else {
            self.pass_over(version, "a part of it is missing");
            return None;
        };
        let SnapshotNote { schema, of, name, .. } = note;
        let SnapshotOf { version, position, time, .. } = of;
        Some(Snapshot {
            stream: self.stream.to_owned(),
            name: name.to_owned(),
            version,
            position,
            time,
            schema,
            data,
        })
    }

    /// The state of a snapshot, put together where it has parts.
    fn data_of(&self, record: &Record, note: &SnapshotNote<'_>) -> Option<Bytes> {
        if note.parts == 0 {
            return Some(record.data_bytes());
        }
        let side = self.core.snapshots.readable(self.core).ok().flatten()?;
        let upper = Version::new(record.version().get().checked_sub(1)?);
        let read = Read::stream(self.stream).backwards().from(upper);
        let is_part =
            |part: &Record| part.event_type() == PART_TYPE && part.correlation() == Some(record.id());
        let parts: Vec<Record> =
            side.read(read).ok()?.filter_map(Result::ok).filter(is_part).take(note.parts as usize).collect();
        if parts.len() < note.parts as usize {
            return None;
        }
        let whole = parts.iter().rev().flat_map(|part| part.data()).chain(record.data()).copied();
        Some(whole.collect::<Vec<u8>>().into())
    }
}

fn backwards(side: &Store, stream: &str) -> Result<Reader, ReadError> {
    side.read(Read::stream(stream).backwards())
}

impl Iterator for Snapshots<'_> {
    type Item = Snapshot;

    fn next(&mut self) -> Option<Snapshot> {
        loop {
            match self.records.as_mut()?.next()? {
                Ok(record) => {
                    if let Some(snapshot) = self.examine(&record) {
                        return Some(snapshot);
                    }
                }
                Err(error) => self.pass_over(None, error),
            }
        }
    }
}
