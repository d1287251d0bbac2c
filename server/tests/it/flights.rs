//! Real events: a year of flights from New York, of which the repository has a sample.
//!
//! Each behaviour is tested on the sample; and on the whole file where `ANNALS_FLIGHTS` names it.

use crate::support::{Place, Random, annals, command};
use annals::{Position, Query, QueryItem, Store};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../bench/data/flights-sample.jsonl.gz");
/// What an import may take of anonymous memory at the most, whatever the size of its file.
const ANONYMOUS_BYTES_MAX: u64 = 400 << 20;
const KILLS: u32 = 20;
/// Kills after which the import is completed and another store begun.
const KILLS_A_STORE: u32 = 2;
const READS: usize = 200;

macro_rules! on_sample_and_whole_file {
    ($($behaviour:ident),* $(,)?) => {
        mod sample {
            $(#[test]
            fn $behaviour() {
                super::$behaviour(&super::imported(super::SAMPLE.as_ref()));
            })*
        }

        mod whole_file {
            $(#[test]
            fn $behaviour() {
                match std::env::var_os("ANNALS_FLIGHTS") {
                    // Relative to the repository, where whoever set it most likely was.
                    Some(path) => super::$behaviour(&super::imported(&super::Path::new(super::ROOT).join(path))),
                    None => super::skip(concat!("flights::whole_file::", stringify!($behaviour))),
                }
            })*
        }
    };
}

on_sample_and_whole_file!(
    every_event_is_imported,
    an_import_takes_bounded_memory,
    nothing_is_imported_twice,
    a_killed_import_leaves_a_prefix_and_is_completed_by_the_next,
    an_export_is_imported_as_it_was,
    reads_equal_a_filter_of_the_file,
    queries_of_several_items_equal_a_filter_of_the_file,
);

/// Says which test is skipped and why, past what captures the output of tests.
fn skip(name: &str) {
    let line = format!("SKIPPED {name}: ANNALS_FLIGHTS does not name the file of all flights\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

/// A line of the file.
#[derive(Deserialize)]
struct Line<'a> {
    ts: u64,
    stream: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(borrow)]
    tags: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// An event as it is printed.
#[derive(Deserialize)]
struct Printed<'a> {
    position: u64,
    stream: &'a str,
    version: u64,
    #[serde(rename = "type")]
    event_type: &'a str,
    time: &'a str,
    #[serde(borrow)]
    tags: &'a RawValue,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// A line with where its event belongs.
struct Expected<'a> {
    line: Line<'a>,
    position: u64,
    version: u64,
}

impl Expected<'_> {
    fn assert_printed(&self, text: &str) {
        let printed: Printed<'_> = serde_json::from_str(text).unwrap();
        let line = &self.line;
        assert_eq!((printed.position, printed.version), (self.position, self.version), "{text}");
        assert_eq!((printed.stream, printed.event_type), (line.stream, line.event_type), "{text}");
        assert_eq!((printed.tags.get(), printed.data.get()), (line.tags.get(), line.data.get()), "{text}");
        assert_eq!(printed.time, rfc3339(line.ts).replace('Z', ".000000000Z"), "{text}");
    }
}

fn rfc3339(seconds: u64) -> String {
    jiff::Timestamp::from_second(seconds.try_into().unwrap()).unwrap().to_string()
}

/// What the lines of a file must become, in the order of the file.
fn expected(text: &str) -> Vec<Expected<'_>> {
    let mut next_versions: HashMap<&str, u64> = HashMap::new();
    let expect = |(position, line)| {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        let next = next_versions.entry(line.stream).or_default();
        *next += 1;
        Expected { version: *next - 1, line, position }
    };
    (0..).zip(text.lines()).map(expect).collect()
}

/// A file that was imported into a store, which nobody changes any more.
struct Imported {
    path: PathBuf,
    /// What the file holds, uncompressed.
    text: String,
    place: Place,
    summary: Value,
    took: Duration,
    anonymous_bytes: u64,
    export: Vec<u8>,
}

/// Imports the file, unless a test has done so that still runs.
fn imported(path: &Path) -> Arc<Imported> {
    static SHARED: Mutex<Vec<Weak<Imported>>> = Mutex::new(Vec::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    shared.retain(|imported| imported.strong_count() > 0);
    if let Some(found) = shared.iter().filter_map(Weak::upgrade).find(|imported| imported.path == path) {
        return found;
    }
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_string(&mut text).unwrap();
    let place = Place::new();
    let (summary, took, anonymous_bytes) = import_measured(&place, path);
    let export = export(&place.data());
    let imported = Imported { path: path.to_owned(), text, place, summary, took, anonymous_bytes, export };
    let imported = Arc::new(imported);
    shared.push(Arc::downgrade(&imported));
    imported
}

/// Imports a file; gives the summary, how long it took, and the most anonymous memory that was seen.
fn import_measured(place: &Place, path: &Path) -> (Value, Duration, u64) {
    let begun = Instant::now();
    let mut child = command(&place.data(), &["import", path.to_str().unwrap(), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let anonymous = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes = anonymous.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
        most = most.max(kibibytes.unwrap_or(0) << 10);
        std::thread::sleep(Duration::from_millis(2));
    }
    let took = begun.elapsed();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    (serde_json::from_slice(&output.stdout).unwrap(), took, most)
}

fn export(data: &Path) -> Vec<u8> {
    let output = command(data, &["export"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn counts(summary: &Value) -> [u64; 5] {
    ["lines", "events", "repeated", "skipped", "streams"].map(|name| summary[name].as_u64().unwrap())
}

fn assert_sound(data: &Path, events: u64) {
    let verified = annals(data, &["verify", "--json"]).expect_code(0).json();
    assert_eq!((verified["ok"].as_bool(), verified["events"].as_u64()), (Some(true), Some(events)));
}

fn every_event_is_imported(imported: &Imported) {
    let expected = expected(&imported.text);
    let events = expected.len() as u64;
    let streams: std::collections::HashSet<&str> = expected.iter().map(|event| event.line.stream).collect();
    assert_eq!(counts(&imported.summary), [events, events, 0, 0, streams.len() as u64]);
    assert_eq!(imported.summary["time_raised"], 0);
    let stat = imported.place.run(&["stat", "--json"]).expect_code(0).json();
    assert_eq!(
        (stat["events"].as_u64(), stat["streams"].as_u64()),
        (Some(events), Some(streams.len() as u64))
    );
    assert_sound(&imported.place.data(), events);
    let printed = std::str::from_utf8(&imported.export).unwrap();
    assert_eq!(printed.lines().count(), expected.len());
    expected.iter().zip(printed.lines()).for_each(|(event, text)| event.assert_printed(text));
    println!("{}", imported.summary);
}

fn an_import_takes_bounded_memory(imported: &Imported) {
    let bytes = imported.anonymous_bytes;
    println!("at most {} MB of anonymous memory", bytes / 1_000_000);
    assert!(bytes > 0 && bytes < ANONYMOUS_BYTES_MAX, "{bytes} bytes of anonymous memory");
}

fn nothing_is_imported_twice(imported: &Imported) {
    const NEW: usize = 1000;
    let place = Place::new();
    let path = imported.path.to_str().unwrap();
    let [lines, _, _, _, streams] = counts(&imported.summary);
    let import = |path: &str, batch: &str| {
        counts(&place.run(&["import", path, "--json", "--batch", batch]).expect_code(0).json())
    };
    assert_eq!(import(path, "333"), [lines, lines, 0, 0, streams]);
    assert_eq!(import(path, "333"), [lines, 0, lines, 0, streams]);
    assert_eq!(import(path, "7000"), [lines, 0, lines, 0, streams]);
    assert!(export(&place.data()) == imported.export, "another batch size gives another export");

    let grown = grown(&imported.text, NEW);
    let file = place.file("grown.jsonl", &grown);
    let all = lines + NEW as u64;
    assert_eq!(import(&file, "1000"), [all, NEW as u64, lines, 0, streams]);
    assert_eq!(import(&file, "10"), [all, 0, all, 0, streams]);
    let exported = export(&place.data());
    assert!(exported.starts_with(&imported.export), "what was there has changed");
    let added = std::str::from_utf8(&exported[imported.export.len()..]).unwrap();
    assert_eq!(added.lines().count(), NEW);
    let expected = expected(&grown);
    let added_lines = &expected[expected.len() - NEW..];
    added_lines.iter().zip(added.lines()).for_each(|(event, text)| event.assert_printed(text));
}

/// The file with `count` more lines: copies of some of its lines with other data, at the file's last time.
fn grown(text: &str, count: usize) -> String {
    let last: Line<'_> = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let mut grown = text.to_owned();
    for (number, line) in text.lines().step_by(7).take(count).enumerate() {
        let (_, rest) = line.split_once(',').unwrap();
        let (head, data) = rest.split_once("\"data\":{").unwrap();
        grown.push_str(&format!("{{\"ts\":{},{head}\"data\":{{\"copy\":{number},{data}\n", last.ts));
    }
    grown
}

fn a_killed_import_leaves_a_prefix_and_is_completed_by_the_next(imported: &Imported) {
    let path = imported.path.to_str().unwrap();
    let mut random = Random::new(20_131_231);
    let mut left = Vec::new();
    for _ in 0..KILLS / KILLS_A_STORE {
        let place = Place::new();
        for kill in 0..KILLS_A_STORE {
            // It takes longer to see that something is there than to add it.
            let took = imported.took * (1 + 3 * kill);
            let mut child = command(&place.data(), &["import", path])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(took.mul_f64(random.fraction()));
            // It may have ended, which is a prefix too.
            let _ = child.kill();
            child.wait().unwrap();
            left.push(assert_prefix(&place, &imported.export));
        }
        place.run(&["import", path]).expect_code(0);
        assert!(export(&place.data()) == imported.export, "the completed import is another one");
    }
    println!("events after each kill -9: {left:?}");
}

/// Asserts that the store is sound and holds a prefix of `whole`; gives the number of its events.
fn assert_prefix(place: &Place, whole: &[u8]) -> u64 {
    // From the lock on, it is a store whose creation was cut short, and empty.
    if !place.data().join("lock").exists() {
        assert_eq!(place.run(&["export", "--json"]).expect_code(1).error()["error"], "no_store");
        return 0;
    }
    let exported = export(&place.data());
    assert!(whole.starts_with(&exported), "not a prefix of the file");
    assert!(exported.last().is_none_or(|&last| last == b'\n'), "the last event is cut");
    let events = exported.iter().filter(|&&byte| byte == b'\n').count() as u64;
    assert_sound(&place.data(), events);
    events
}

fn an_export_is_imported_as_it_was(imported: &Imported) {
    let place = Place::new();
    let mut exporting = command(&imported.place.data(), &["export"]).stdout(Stdio::piped()).spawn().unwrap();
    let importing = command(&place.data(), &["import", "-", "--json"])
        .stdin(exporting.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(exporting.wait().unwrap().success() && importing.status.success());
    let [lines, ..] = counts(&imported.summary);
    let summary: Value = serde_json::from_slice(&importing.stdout).unwrap();
    assert_eq!(counts(&summary)[..4], [lines, lines, 0, 0]);
    assert_eq!(summary["time_raised"], 0);
    assert!(export(&place.data()) == imported.export, "the second export differs from the first");
}

/// One end of a read.
#[derive(Clone, Copy, Debug)]
enum End {
    Number(u64),
    Time(u64),
}

impl End {
    fn argument(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Time(seconds) => rfc3339(seconds),
        }
    }

    /// Where an event is, seen from this end.
    fn compare(self, event: &Expected<'_>, of_stream: bool) -> std::cmp::Ordering {
        match self {
            Self::Number(number) => if of_stream { event.version } else { event.position }.cmp(&number),
            Self::Time(seconds) => event.line.ts.cmp(&seconds),
        }
    }
}

/// A read, chosen by chance.
#[derive(Debug)]
struct Choice<'a> {
    stream: Option<&'a str>,
    category: Option<&'a str>,
    types: Vec<&'a str>,
    tags: Vec<&'a str>,
    low: Option<End>,
    high: Option<End>,
    backwards: bool,
    limit: Option<u64>,
}

impl<'a> Choice<'a> {
    fn random(random: &mut Random, events: &[Expected<'a>]) -> Self {
        let count = events.len() as u64;
        let any = |random: &mut Random| &events[usize::try_from(random.below(count)).unwrap()];
        let stream = (random.below(3) == 0).then(|| any(random).line.stream);
        let category = (random.below(6) == 0).then(|| category(any(random).line.stream));
        let mut types: Vec<_> = (0..random.below(5) / 2).map(|_| any(random).line.event_type).collect();
        types.dedup();
        // Of one event, which then matches, or of several.
        let tagged = any(random);
        let of_one = random.below(4) > 0;
        let tags = (0..random.below(4)).filter_map(|_| {
            let tags = tags_of(if of_one { tagged } else { any(random) });
            (!tags.is_empty()).then(|| tags[usize::try_from(random.below(tags.len() as u64)).unwrap()])
        });
        let tags = tags.collect();
        let end = |random: &mut Random| match (random.below(4), stream) {
            (0, _) => None,
            (1, _) => Some(End::Time(any(random).line.ts + random.below(3) - 1)),
            (_, Some(_)) => Some(End::Number(random.below(60))),
            (_, None) => Some(End::Number(random.below(count + 10))),
        };
        let (low, high) = (end(random), end(random));
        // Reading everything prints everything: not every time.
        let limit = (stream.is_none() || random.below(2) == 0).then(|| random.below(500));
        Self { stream, category, types, tags, low, high, backwards: random.below(2) == 0, limit }
    }

    fn arguments(&self) -> Vec<String> {
        let (from, until) = if self.backwards { (self.high, self.low) } else { (self.low, self.high) };
        let mut arguments = vec!["read".to_owned(), "--json".to_owned()];
        let mut option = |name: &str, value: Option<String>| {
            arguments.extend(value.map(|value| [name.to_owned(), value]).into_iter().flatten());
        };
        option("--stream", self.stream.map(str::to_owned));
        option("--category", self.category.map(str::to_owned));
        self.types.iter().for_each(|event_type| option("--type", Some((*event_type).to_owned())));
        self.tags.iter().for_each(|tag| option("--tag", Some((*tag).to_owned())));
        option("--from", from.map(End::argument));
        option("--until", until.map(End::argument));
        option("--limit", self.limit.map(|limit| limit.to_string()));
        arguments.extend(self.backwards.then(|| "--backwards".to_owned()));
        arguments
    }

    /// Whether an event is what is asked for, wherever it is.
    fn selects(&self, event: &Expected<'_>) -> bool {
        self.stream.is_none_or(|stream| event.line.stream == stream)
            && self.category.is_none_or(|wanted| category(event.line.stream) == wanted)
            && (self.types.is_empty() || self.types.contains(&event.line.event_type))
            && (self.tags.is_empty() || {
                let tags = tags_of(event);
                self.tags.iter().all(|tag| tags.contains(tag))
            })
    }

    /// The same as an item of a query.
    fn item(&self) -> QueryItem<'a> {
        let item = QueryItem {
            stream: self.stream.map(Into::into),
            category: self.category.map(Into::into),
            ..QueryItem::new()
        };
        let item = self.types.iter().fold(item, |item, &event_type| item.of_type(event_type));
        self.tags.iter().fold(item, |item, &tag| item.tag(tag))
    }

    /// The answer, by looking at every line of the file.
    fn filter<'e>(&self, events: &'e [Expected<'a>]) -> Vec<&'e Expected<'a>> {
        let of_stream = self.stream.is_some();
        let wanted = |event: &&Expected<'_>| {
            self.selects(event)
                && self.low.is_none_or(|low| low.compare(event, of_stream).is_ge())
                && self.high.is_none_or(|high| high.compare(event, of_stream).is_le())
        };
        let limit = usize::try_from(self.limit.unwrap_or(u64::MAX)).unwrap();
        if self.backwards {
            events.iter().rev().filter(wanted).take(limit).collect()
        } else {
            events.iter().filter(wanted).take(limit).collect()
        }
    }
}

fn category(stream: &str) -> &str {
    stream.split('-').next().unwrap()
}

fn tags_of<'a>(event: &Expected<'a>) -> Vec<&'a str> {
    serde_json::from_str(event.line.tags.get()).unwrap()
}

fn reads_equal_a_filter_of_the_file(imported: &Imported) {
    let expected = expected(&imported.text);
    let mut random = Random::new(20_130_101);
    let mut printed = 0;
    for _ in 0..READS {
        let choice = Choice::random(&mut random, &expected);
        let arguments = choice.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer = imported.place.run(&arguments).expect_code(0);
        let filtered = choice.filter(&expected);
        assert_eq!(answer.out.lines().count(), filtered.len(), "{choice:?}");
        filtered.iter().zip(answer.out.lines()).for_each(|(event, text)| event.assert_printed(text));
        printed += filtered.len();
    }
    println!("{READS} reads gave {printed} events");
    assert!(printed > READS, "reads that find nothing show nothing");
}

/// The command asks for one thing at a time; a program may ask for several at once.
fn queries_of_several_items_equal_a_filter_of_the_file(imported: &Imported) {
    let expected = expected(&imported.text);
    let store = Store::open_read_only(imported.place.data()).unwrap();
    let mut random = Random::new(20_130_601);
    let mut found = 0;
    for _ in 0..READS {
        let choices: Vec<Choice<'_>> =
            (0..2 + random.below(3)).map(|_| Choice::random(&mut random, &expected)).collect();
        let count = expected.len() as u64;
        let (low, high) = (random.below(count / 2), random.below(count) + count / 4);
        let (backwards, limit) = (random.below(2) == 0, random.below(500));
        let query = choices.iter().fold(Query::all(), |query, choice| query.or(choice.item()));
        let read = annals::Read::query(query).limit(limit);
        let (low_end, high_end) = (Position::new(low), Position::new(high));
        let read = if backwards {
            read.backwards().from(high_end).until(low_end)
        } else {
            read.from(low_end).until(high_end)
        };
        let answer = store.read(read).unwrap().map(|record| record.unwrap().position().get());
        let within = |event: &&Expected<'_>| {
            (low..=high).contains(&event.position) && choices.iter().any(|choice| choice.selects(event))
        };
        let limit = usize::try_from(limit).unwrap();
        let filtered: Vec<u64> = if backwards {
            expected.iter().rev().filter(within).take(limit).map(|event| event.position).collect()
        } else {
            expected.iter().filter(within).take(limit).map(|event| event.position).collect()
        };
        assert_eq!(answer.collect::<Vec<_>>(), filtered, "{choices:?}");
        found += filtered.len();
    }
    println!("{READS} queries gave {found} events");
    assert!(found > READS, "queries that find nothing show nothing");
}
