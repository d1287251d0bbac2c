//! `docs/format.md` is right: a store is taken apart by its tables alone, and what is found is what the library reads.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod index;
mod snapshot;
mod subscription;

use crate::format_tables::{DOCUMENT, Format, align_up, crc, hash, number};
use crate::support::{spans_in, wait_until};
use annals::{Append, ContentKind, NewEvent, Position, Read, Record, Settings, Store, Timestamp, Uuid};
use std::collections::BTreeMap;
use std::path::Path;

/// An event, as the document says that it is read, and as the library reads it.
#[derive(PartialEq, Eq, Debug)]
struct Found {
    position: u64,
    version: u64,
    stream: String,
    event_type: String,
    time: u64,
    id: Uuid,
    tags: Vec<String>,
    correlation: Option<Uuid>,
    causation: Option<Uuid>,
    is_json: bool,
    data: Vec<u8>,
    metadata: Vec<u8>,
}

impl From<Record> for Found {
    fn from(record: Record) -> Self {
        Self {
            position: record.position().get(),
            version: record.version().get(),
            stream: record.stream().to_owned(),
            event_type: record.event_type().to_owned(),
            time: record.time().get(),
            id: record.id(),
            tags: record.tags().map(str::to_owned).collect(),
            correlation: record.correlation(),
            causation: record.causation(),
            is_json: record.content() == ContentKind::Json,
            data: record.data().to_vec(),
            metadata: record.metadata().to_vec(),
        }
    }
}

/// A reader written after the document.
struct Reader<'f> {
    format: &'f Format,
    store: Vec<u8>,
    events: Vec<Found>,
    /// Of each frame of the segment that is read: first position and offset.
    frames: Vec<(u64, usize)>,
    /// Behind the last sealed segment, and the digests of the batches since.
    chain: Vec<u8>,
    digests: Vec<u8>,
    previous: u64,
    /// How many events each has handled, and its revision.
    cursors: BTreeMap<String, (u64, u64)>,
    next_batch: u64,
    compressed: usize,
}

impl Reader<'_> {
    /// Reads the frames of a segment and returns where they end.
    fn segment(&mut self, ordinal: u64, bytes: &[u8]) -> usize {
        let format = self.format;
        let header = format.header("segment", bytes);
        assert_eq!(format.number("segment header", "ordinal", header), ordinal);
        assert_eq!(format.number("segment header", "first batch", header), self.next_batch);
        assert_eq!(format.number("segment header", "first position", header), self.events.len() as u64);
        if ordinal > 1 {
            assert_eq!(format.number("segment header", "predecessor checksum", header), self.previous);
        }
        let seed = crc(0, format.bytes("segment header", "salt", header));
        self.previous = format.number("prelude", "checksum", bytes);
        self.frames.clear();
        let mut end = format.constant("frames start");
        loop {
            let candidates = [end, align_up(end, format.constant("block"))];
            match candidates.into_iter().find(|&at| self.is_next_frame(bytes, at, seed)) {
                Some(at) => end = self.frame(bytes, at),
                None => return end,
            }
        }
    }

    fn is_next_frame(&self, bytes: &[u8], at: usize, seed: u32) -> bool {
        let format = self.format;
        let Some(frame) = bytes.get(at..at + format.start("frame", "batch")) else { return false };
        format.bytes("frame", "magic", frame) == b"anfr"
            && format.number("frame", "checksum", frame)
                == u64::from(crc(seed, &frame[format.start("frame", "offset")..]))
            && format.size("frame", "offset", frame) == at
            && format.number("frame", "previous", frame) == self.previous
    }

    /// Reads the frame that is at `at` and returns where it ends.
    fn frame(&mut self, bytes: &[u8], at: usize) -> usize {
        let format = self.format;
        let frame = &bytes[at..];
        let start = format.start("frame", "batch");
        let body_start = start + format.size("frame", "header length", frame);
        let end = body_start + format.size("frame", "stored length", frame);
        let (batch, stored) = (&frame[start..body_start], &frame[body_start..end]);
        assert_eq!(
            format.number("batch", "checksum", batch),
            format.number("frame", "batch checksum", frame)
        );
        assert!(format.number("frame", "not durable", frame) <= format.number("batch", "number", batch));
        let length = format.size("batch", "body length", batch);
        let body = match format.number("frame", "codec", frame) {
            0 => stored.to_vec(),
            1 => {
                assert_eq!(format.number("frame", "stored checksum", frame), u64::from(crc(0, stored)));
                self.compressed += 1;
                zstd::bulk::decompress(stored, length).unwrap()
            }
            other => panic!("the document has no codec {other}"),
        };
        assert_eq!(body.len(), length);
        self.frames.push((format.number("batch", "first position", batch), at));
        self.previous = format.number("frame", "checksum", frame);
        self.batch(batch, &body);
        at + align_up(end, format.constant("frame alignment"))
    }

    fn batch(&mut self, batch: &[u8], body: &[u8]) {
        let format = self.format;
        let of = |field| format.number("batch", field, batch);
        let (own, versions) = (format.start("batch", "checksum"), format.start("batch", "first versions"));
        assert_eq!(of("checksum"), u64::from(crc(crc(0, &batch[..own]), &batch[versions..])));
        assert_eq!(of("body checksum"), u64::from(crc(0, body)));
        assert_eq!(format.bytes("batch", "store", batch), self.store);
        assert_eq!((of("number"), of("first position")), (self.next_batch, self.events.len() as u64));
        let (events, streams) =
            (format.size("batch", "events", batch), format.size("batch", "streams", batch));
        let events_start = format.size("batch", "directory length", batch);
        assert_eq!(of("directory checksum"), u64::from(crc(0, &body[..events_start])));
        let end_at = |index: usize| usize::try_from(number(&body[4 * index..4 * index + 4])).unwrap();
        let names_start = 4 * (events + streams);
        let part = |first: usize, index: usize| {
            let start = if index == first { 0 } else { end_at(index - 1) };
            start..end_at(index)
        };
        let names: Vec<&[u8]> =
            (events..events + streams).map(|index| &body[names_start..][part(events, index)]).collect();
        let sections_start = names_start + names.iter().map(|name| name.len()).sum::<usize>();
        let (times, set, section_digests) =
            self.sections(&body[sections_start..events_start], format.size("batch", "sections", batch));
        let (first_versions, revisions) = batch[versions..].split_at(8 * streams);
        let first_versions: Vec<u64> = first_versions.chunks(8).map(number).collect();
        assert_eq!((revisions.len(), format.size("batch", "cursors", batch)), (8 * set.len(), set.len()));
        for ((name, handled), revision) in set.into_iter().zip(revisions.chunks(8).map(number)) {
            let before = self.cursors.insert(name, (handled, revision));
            assert_eq!(before.map_or(0, |(_, before)| before) + 1, revision);
        }
        let mut next_versions = first_versions.clone();
        let mut event_digests = Vec::new();
        for ordinal in 0..events {
            let event = &body[events_start..][part(0, ordinal)];
            let time = times.get(ordinal).copied().unwrap_or(0).max(of("time"));
            event_digests.extend(self.event(batch, event, ordinal, &names, &mut next_versions, time));
        }
        let stream_parts: Vec<u8> = names
            .iter()
            .zip(&first_versions)
            .flat_map(|(name, first)| {
                [&first.to_le_bytes(), &u32::try_from(name.len()).unwrap().to_le_bytes()[..], name].concat()
            })
            .collect();
        let numbers: Vec<u8> = ["epoch", "number", "first position", "time"]
            .iter()
            .flat_map(|field| of(field).to_le_bytes())
            .collect();
        let counts =
            [u32::try_from(events).unwrap().to_le_bytes(), u32::try_from(streams).unwrap().to_le_bytes()]
                .concat();
        let digest = hash(&[
            &[2],
            &self.store,
            &numbers,
            &counts,
            &stream_parts,
            revisions,
            &event_digests,
            &section_digests,
        ]);
        self.digests.extend(digest);
        self.next_batch += 1;
    }

    /// The times that the sections give, the cursors that they set, and the digests of the sections.
    fn sections(&self, mut bytes: &[u8], count: usize) -> (Vec<u64>, Vec<(String, u64)>, Vec<u8>) {
        let format = self.format;
        let (mut times, mut set, mut digests) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let start = format.start("section", "content");
            let (section, rest) = bytes.split_at(start + format.size("section", "length", bytes));
            assert_eq!(format.number("section", "flags", section), 1);
            let content = &section[start..];
            match format.number("section", "kind", section) {
                1 => times = content.chunks(8).map(number).collect(),
                3 => {
                    let name = String::from_utf8(content[8..].to_vec()).unwrap();
                    set.push((name, number(&content[..8])));
                }
                other => panic!("the document has no section {other}"),
            }
            digests.extend(hash(&[&[4], format.bytes("section", "kind", section), &section[start..]]));
            bytes = rest;
        }
        assert_eq!(bytes.len(), 0);
        (times, set, digests)
    }

    /// Reads an event and returns its digest.
    fn event(
        &mut self,
        batch: &[u8],
        event: &[u8],
        ordinal: usize,
        names: &[&[u8]],
        next_versions: &mut [u64],
        time: u64,
    ) -> Vec<u8> {
        let format = self.format;
        let of = |field| format.size("event", field, event);
        let ordinal = u32::try_from(ordinal).unwrap();
        let salt = format.bytes("batch", "salt", batch);
        let seed = crc(0, salt).wrapping_add(ordinal);
        assert_eq!(format.number("event", "checksum", event), u64::from(crc(seed, &event[4..])));
        let mut at = format.start("event", "variable");
        let mut take = |count: usize| {
            at += count;
            &event[at - count..at]
        };
        let flags = of("flags");
        let mut id_if = |flag| (flags & flag != 0).then(|| Uuid::from_slice(take(16)).unwrap());
        let (correlation, causation) = (id_if(2), id_if(4));
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let event_type = text(take(of("type length")));
        let mut tag_bytes = take(of("tags length"));
        let mut tags = Vec::new();
        while let Some((length, rest)) = tag_bytes.split_first_chunk::<2>() {
            let (tag, rest) = rest.split_at(u16::from_le_bytes(*length).into());
            tags.push(text(tag));
            tag_bytes = rest;
        }
        assert_eq!(tags.len(), of("tags"));
        let (data, metadata) = (take(of("data length")).to_vec(), take(of("metadata length")).to_vec());
        assert_eq!(at, event.len());
        let stream = of("stream");
        next_versions[stream] += 1;
        self.events.push(Found {
            position: self.events.len() as u64,
            version: next_versions[stream] - 1,
            stream: text(names[stream]),
            event_type,
            time,
            id: Uuid::from_slice(format.bytes("event", "id", event)).unwrap(),
            tags,
            correlation,
            causation,
            is_json: flags & 1 == 0,
            data,
            metadata,
        });
        let derived = hash(&[&[5], salt, &ordinal.to_le_bytes()]);
        let salt = if format.size("batch", "events", batch) == 1 { salt } else { &derived[..16] };
        hash(&[&[1], salt, &event[4..]])
    }

    /// Checks the seal of the segment that was just read, and its fields in the manifest.
    fn seal(&mut self, bytes: &[u8], end: usize, in_manifest: &[u8]) {
        let format = self.format;
        let seal = format.header("seal", &bytes[align_up(end, format.constant("block"))..]);
        assert_eq!(&seal[format.start("seal", "ordinal")..], in_manifest);
        assert_eq!(format.size("seal", "end", seal), end);
        assert_eq!(format.number("seal", "next batch", seal), self.next_batch);
        assert_eq!(format.number("seal", "next position", seal), self.events.len() as u64);
        assert_eq!(format.number("seal", "last checksum", seal), self.previous);
        assert_eq!(format.bytes("seal", "chain before", seal), self.chain);
        self.chain = hash(&[&[3], &self.chain, &std::mem::take(&mut self.digests)]);
        assert_eq!(format.bytes("seal", "chain", seal), self.chain);
        let last = self.events.last().unwrap();
        assert_eq!(format.number("seal", "greatest time", seal), last.time);
    }

    /// The manifest has the cursors as the segments so far set them.
    fn check_cursors(&self, mut bytes: &[u8], count: u64) {
        let format = self.format;
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let of = |field| format.number("manifest cursor", field, bytes);
            let start = format.start("manifest cursor", "name");
            let end = start + format.size("manifest cursor", "name length", bytes);
            let name = String::from_utf8(bytes[start..end].to_vec()).unwrap();
            found.push((name, (of("handled"), of("revision"))));
            bytes = &bytes[end..];
        }
        assert_eq!((found.len() as u64, found), (count, self.cursors.clone().into_iter().collect()));
    }
}

/// A store with everything that the format has: several streams a batch, given times, sections, compression, ids,
/// tags, empty and binary data, segments that are sealed and one that is not.
fn write_store(dir: &Path) {
    let settings = Settings {
        segment_bytes_first: 16 << 10,
        segment_bytes_max: 16 << 10,
        compress_above_bytes: Some(500),
        ..Settings::default()
    };
    let store = Store::open_with(dir, settings).unwrap();
    for number in 0..250_u32 {
        let data = format!(r#"{{"number":{number},"text":"{}"}}"#, "x".repeat(number as usize % 97 * 10));
        let id = Uuid::from_u128(u128::from(number) + 1);
        let streams = [format!("order-{}", number % 31), format!("customer-{}", number % 7)];
        let mut events = vec![NewEvent::new(streams[0].clone(), "OrderPlaced").json(data)];
        if number % 3 == 0 {
            let noted = NewEvent::new(streams[1].clone(), "OrderNoted").tag("customer:é").tag("n");
            events.push(noted.correlation(id).causation(id));
            let scanned =
                NewEvent::new(streams[0].clone(), "Scanned").binary(vec![0xff; 40]).metadata(&b"m"[..]);
            events.push(scanned.causation(id));
        }
        // Later ones lie before the clock's times that others got by then, and are raised.
        if number < 100 || number % 5 == 0 {
            let first = u64::MAX / 64 + u64::from(number) * 1000;
            events = events
                .into_iter()
                .zip(first..)
                .map(|(event, time)| event.time(Timestamp::new(time)))
                .collect();
        }
        let mut append: Append<'_> = events.into_iter().collect();
        if number % 10 == 1 {
            append = append.advance("handler", Some(Position::new(number.into())));
            let alone = Append::new().advance(format!("reader {}", number % 20), None).advance("ü", None);
            store.append(alone).unwrap().wait().unwrap();
        }
        store.append(append.raise_times()).unwrap().wait().unwrap();
    }
    wait_until("a span", || !spans_in(dir).is_empty());
    store.close().unwrap();
}

#[test]
fn a_store_is_read_by_what_the_format_document_says() {
    let dir = tempfile::tempdir().unwrap();
    write_store(dir.path());
    snapshot::write_snapshots(dir.path());
    subscription::write_subscriptions(dir.path());
    let format = Format::parse(DOCUMENT);
    let file = |name: &str| std::fs::read(dir.path().join(name)).unwrap();

    let manifest = file("manifest");
    let manifest = format.header("manifest", &manifest);
    let of = |field| format.number("manifest", field, manifest);
    let (seals_at, seal_bytes) = format.place("manifest", "first seal");
    let (seals, cursors) =
        manifest[seals_at..].split_at(seal_bytes * format.size("manifest", "sealed", manifest));
    let seals: Vec<&[u8]> = seals.chunks(seal_bytes).collect();
    assert!(seals.len() > 2, "{} sealed segments", seals.len());

    let store = format.bytes("prelude", "store", manifest).to_vec();
    let chain = hash(&[&[0], &store]);
    let mut reader = Reader {
        format: &format,
        store,
        events: Vec::new(),
        frames: Vec::new(),
        chain,
        digests: Vec::new(),
        previous: 0,
        cursors: BTreeMap::new(),
        next_batch: 0,
        compressed: 0,
    };
    let (mut last_segment, mut hashes) = ((0, 0), Vec::new());
    for ordinal in 1..=of("last made") {
        let bytes = file(&format!("{ordinal:010}.log"));
        if bytes[..format.constant("block")].iter().all(|&byte| byte == 0) {
            break;
        }
        let first = reader.events.len();
        let end = reader.segment(ordinal, &bytes);
        last_segment = (ordinal, end);
        if let Some(in_manifest) = seals.get(usize::try_from(ordinal).unwrap() - 1) {
            reader.seal(&bytes, end, in_manifest);
            if ordinal == of("sealed") {
                reader.check_cursors(cursors, of("cursors"));
            }
            let salt = format.bytes("segment header", "salt", &bytes);
            hashes.push(reader.index(&file(&format!("{ordinal:010}.index")), salt, first));
        }
        if ordinal == 8 {
            let bytes = file("0000000001-0000000008.span");
            reader.span(&bytes, &reader.chain, &hashes);
        }
    }

    reader.check_snapshots(&dir.path().join("snapshots"));
    reader.check_subscriptions(&dir.path().join("subscriptions"));
    assert!(reader.compressed > 0 && reader.compressed < 250);
    check_mark(&format, &file("mark"), &reader, of("epoch"), last_segment);
    let expected = Store::open_read_only(dir.path()).unwrap().read(Read::all()).unwrap();
    let expected: Vec<Found> = expected.map(|record| record.unwrap().into()).collect();
    assert!(expected[0].time < expected[1].time && expected[100].time < expected[400].time);
    assert_eq!(reader.events, expected);
    let cursors = Store::open_read_only(dir.path()).unwrap().cursors().unwrap().into_iter();
    let of =
        |cursor: annals::Cursor| (cursor.position.map_or(0, |position| position.get() + 1), cursor.revision);
    let cursors: BTreeMap<String, (u64, u64)> = cursors.map(|(name, cursor)| (name, of(cursor))).collect();
    assert_eq!((reader.cursors.len(), reader.cursors), (4, cursors));
}

/// The newest slot says that the store was closed in order behind its last frame.
fn check_mark(format: &Format, mark: &[u8], reader: &Reader<'_>, epoch: u64, last_segment: (u64, usize)) {
    format.header("mark", mark);
    let slots = ["mark slot 0", "mark slot 1"].map(|slot| &mark[format.constant(slot)..]);
    let newest = usize::from(slots.map(|slot| format.number("mark slot", "sequence", slot)).is_sorted());
    let of = |field| format.number("mark slot", field, slots[newest]);
    let own = format.start("mark slot", "checksum");
    assert_eq!(of("checksum"), u64::from(crc(crc(0, &reader.store), &slots[newest][..own])));
    assert_eq!(usize::from(of("sequence") % 2 == 1), newest);
    assert_eq!((of("epoch"), of("watermark"), of("clean")), (epoch, reader.next_batch, 1));
    assert_eq!(of("position"), reader.events.len() as u64);
    assert_eq!((of("segment"), of("offset")), (last_segment.0, last_segment.1 as u64));
}
