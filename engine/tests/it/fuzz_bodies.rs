//! The bodies of the fuzz targets: on the inputs that fuzzing has found, on good ones and on what becomes of those; `fuzz/` runs
//! them on many more.

use crate::support::{Random, cases, within};
use annals::testing::bodies::{self, scan_bytes};
use annals::{Append, NewEvent, Position, Settings, Store, Timestamp, Uuid};
use proptest::prelude::*;
use std::path::{Path, PathBuf};

const SECONDS_MAX: u64 = 120;

/// What a target does with bytes.
type Body = fn(&[u8]) -> usize;

/// The targets whose bodies are here.
const BODIES: [(&str, Body); 9] = [
    ("batch", bodies::batch),
    ("decompression", bodies::decompression),
    ("frame", bodies::frame),
    ("index", bodies::index),
    ("manifest", bodies::manifest),
    ("notes", bodies::notes),
    ("opening", bodies::opening),
    ("operations", bodies::operations),
    ("segment", bodies::segment),
];

fn body(target: &str) -> Body {
    BODIES.iter().find(|(name, _)| *name == target).unwrap().1
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The committed inputs of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let found = std::fs::read_dir(fuzz().join("corpus").join(target)).unwrap();
    found.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

/// What the targets are good for, made here.
fn good(target: &str) -> Vec<Vec<u8>> {
    let appends = appends();
    let each = |make: &dyn Fn(&Append<'_>) -> Vec<u8>| appends.iter().map(make).collect::<Vec<_>>();
    match target {
        "batch" => each(&bodies::batch_of),
        "decompression" => each(&|append| {
            let batch = bodies::batch_of(append);
            let claimed = u32::try_from(batch.len()).unwrap().to_le_bytes();
            [&claimed[..], &zstd::bulk::compress(&batch, 1).unwrap()].concat()
        }),
        "frame" => [None, Some(0)]
            .into_iter()
            .flat_map(|above| each(&|append| bodies::frame_of(append, above)))
            .collect(),
        "index" => golden(&["0000000001.index", "0000000001-0000000008.span"])
            .iter()
            .map(|file| bodies::folded(file))
            .collect(),
        "manifest" => golden(&["manifest", "mark"]),
        "notes" => vec![bodies::some_notes()],
        "opening" => edits(),
        "operations" => (0..4).map(choices).collect(),
        "segment" => {
            let written = golden(&["0000000001.log", "0000000012.log"]);
            // Each batch has a stream of its own, for all begin with version 0.
            written
                .into_iter()
                .chain([bodies::segment_of(&appends[..1]), bodies::segment_of(&appends)])
                .collect()
        }
        other => panic!("{other} has no body here"),
    }
}

/// Batches of one and of several streams, with all that an event can have, and with cursors.
fn appends() -> Vec<Append<'static>> {
    let id = |number: u128| Some(Uuid::from_u128(number));
    let full = NewEvent::new("order-1", "OrderPlaced")
        .json(r#"{"total":12}"#)
        .metadata(&b"{}"[..])
        .tag("a")
        .tag("ü");
    let full = NewEvent { id: id(1), correlation: id(2), causation: id(3), ..full };
    let large = NewEvent { id: id(4), ..NewEvent::new("raw", "Raw").binary(vec![7; 700]) };
    let timed = (0..5).map(|number| {
        let event = NewEvent::new(format!("line-{}", number % 2), "Added").tag(format!("n:{number}"));
        NewEvent { id: id(10 + u128::from(number)), ..event.time(Timestamp::new(number)) }
    });
    let cursors = Append::from(NewEvent::new("order-2", "OrderPaid").json("{}"))
        .advance("handler", None)
        .advance("reader", Some(Position::new(3)));
    vec![Append::from(full), Append::from(large), timed.collect(), cursors]
}

fn golden(names: &[&str]) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    names.iter().map(|name| std::fs::read(dir.join(name)).unwrap()).collect()
}

/// Edits of some bytes of each of the first files.
fn edits() -> Vec<Vec<u8>> {
    let mut random = Random::new(1);
    let edit = |file: u8, random: &mut Random| {
        let at = u32::try_from(random.below(9_000)).unwrap().to_le_bytes();
        vec![file, at[0], at[1], at[2], 3, choice(random), choice(random), choice(random), choice(random)]
    };
    (0..8)
        .map(|file| [edit(file, &mut random), edit(3 * file, &mut random)].concat())
        .chain([Vec::new()])
        .collect()
}

fn choices(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..600).map(|_| choice(&mut random)).collect()
}

fn choice(random: &mut Random) -> u8 {
    u8::try_from(random.below(256)).unwrap()
}

/// `ANNALS_MAKE_CORPUS=DIR cargo test -p annals --test it fuzz_bodies` writes what is good to `DIR/TARGET`, for fuzzing to begin with.
#[test]
fn each_body_understands_what_is_good() {
    within(SECONDS_MAX, "what is good", || {
        for (target, body) in BODIES {
            for (number, input) in good(target).iter().enumerate() {
                // A store of which some bytes are other than they were may be refused.
                let may_be_refused = target == "opening" && !input.is_empty();
                let understood = body(input) > 0 || may_be_refused;
                assert!(understood, "{target} understands nothing of its good input {number}");
                if let Ok(dir) = std::env::var("ANNALS_MAKE_CORPUS") {
                    let dir = Path::new(&dir).join(target);
                    std::fs::create_dir_all(&dir).unwrap();
                    std::fs::write(dir.join(format!("good-{number}")), input).unwrap();
                }
            }
        }
    });
}

#[test]
fn each_body_holds_on_what_fuzzing_has_found() {
    within(SECONDS_MAX, "the corpus", || {
        for (target, body) in BODIES {
            let inputs = corpus(target);
            assert!(!inputs.is_empty(), "{target} has a corpus");
            for input in inputs {
                let _ = body(&input);
            }
        }
    });
}

#[test]
fn each_target_has_a_body_here_a_corpus_and_a_line_in_the_table() {
    let targets = std::fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let mut targets: Vec<String> = targets
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    targets.sort();
    let mut here: Vec<String> = BODIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    // What peers send is the protocol's.
    here.push("wire".to_owned());
    assert_eq!(targets, here);
    let (table, manifest) = (
        std::fs::read_to_string(fuzz().join("README.md")).unwrap(),
        std::fs::read_to_string(fuzz().join("Cargo.toml")).unwrap(),
    );
    let mut bytes = 0;
    for target in targets {
        assert!(table.contains(&format!("| `{target}` |")), "{target} has no line in the table");
        assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not built");
        let inputs = corpus(&target);
        assert!((1..=30).contains(&inputs.len()), "{target} has {} inputs", inputs.len());
        bytes += inputs.iter().map(Vec::len).sum::<usize>();
    }
    assert!(bytes <= 256 << 10, "the corpora have {bytes} bytes");
}

/// What becomes of an input: bytes are changed, others put in, or a part is left out.
#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, u8),
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Remove(prop::sample::Index, usize),
    Number(prop::sample::Index, u32),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<prop::sample::Index>;
    let numbers = prop_oneof![Just(u32::MAX), Just(1 << 31), Just(0), 0..100_u32];
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), prop::collection::vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), 1..100_usize).prop_map(|(at, count)| Change::Remove(at, count)),
        (at(), numbers).prop_map(|(at, number)| Change::Number(at, number)),
    ]
}

fn changed(mut input: Vec<u8>, changes: &[Change]) -> Vec<u8> {
    for change in changes.iter().cloned() {
        let length = input.len();
        match change {
            _ if length == 0 => {}
            Change::Set(at, byte) => input[at.index(length)] = byte,
            Change::Flip(at, bit) => input[at.index(length)] ^= 1 << bit,
            Change::Insert(at, bytes) => drop(input.splice(at.index(length)..at.index(length), bytes)),
            Change::Remove(at, count) => {
                let start = at.index(length);
                drop(input.drain(start..(start + count).min(length)));
            }
            Change::Number(at, number) => {
                let start = at.index(length);
                let end = (start + 4).min(length);
                input[start..end].copy_from_slice(&number.to_le_bytes()[..end - start]);
            }
        }
    }
    input
}

/// Changes good inputs in so many ways, and runs the body on what comes of it.
fn holds_whatever_becomes_of_what_is_good(target: &str, count: u64) {
    let inputs = good(target);
    let config = ProptestConfig::with_cases(u32::try_from(cases(count)).unwrap());
    let changes = (any::<prop::sample::Index>(), prop::collection::vec(change(), 1..6));
    proptest!(config, |(change in changes)| {
        let (which, changes) = change;
        let _ = body(target)(&changed(which.get(&inputs).clone(), &changes));
    });
}

#[test]
fn a_batch_is_refused_or_understood_whatever_becomes_of_it() {
    holds_whatever_becomes_of_what_is_good("batch", 500);
}

#[test]
fn a_compressed_body_is_refused_or_bounded_whatever_becomes_of_it() {
    holds_whatever_becomes_of_what_is_good("decompression", 300);
}

#[test]
fn a_frame_is_refused_or_understood_whatever_becomes_of_it() {
    holds_whatever_becomes_of_what_is_good("frame", 500);
}

#[test]
fn an_index_or_span_answers_or_is_refused_whatever_becomes_of_it() {
    holds_whatever_becomes_of_what_is_good("index", 200);
}

#[test]
fn a_manifest_or_mark_is_refused_or_understood_whatever_becomes_of_it() {
    holds_whatever_becomes_of_what_is_good("manifest", 500);
}

#[test]
fn notes_are_refused_or_understood_whatever_becomes_of_them() {
    holds_whatever_becomes_of_what_is_good("notes", 500);
}

#[test]
fn a_store_is_refused_or_can_be_used_whatever_becomes_of_its_files() {
    holds_whatever_becomes_of_what_is_good("opening", 30);
}

#[test]
fn a_store_does_as_its_model_whatever_is_chosen() {
    holds_whatever_becomes_of_what_is_good("operations", 15);
}

#[test]
fn a_segment_is_scanned_to_its_end_whatever_becomes_of_it() {
    holds_whatever_becomes_of_what_is_good("segment", 200);
}

/// A segment with this many batches.
fn segment(batches: u32) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let settings =
        Settings { segment_bytes_first: 16 << 10, compress_above_bytes: Some(300), ..Settings::default() };
    let store = Store::open_with(dir.path(), settings).unwrap();
    for number in 0..batches {
        let data = format!("\"{}\"", "x".repeat(number as usize * 20));
        store.append(NewEvent::new("order-42", "Noted").json(data).tag("n")).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    std::fs::read(dir.path().join("0000000001.log")).unwrap()
}

#[test]
fn scanning_a_segment_finds_its_frames_and_survives_whatever_becomes_of_it() {
    within(SECONDS_MAX, "scanning", || {
        let good = segment(20);
        assert_eq!(scan_bytes(&good), 20);
        for length in (0..good.len()).step_by(61) {
            assert!(scan_bytes(&good[..length]) <= 20, "cut to {length} bytes");
        }
        // The header, the frames and the first bytes behind them.
        for at in (0..9000).step_by(7) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(scan_bytes(&bad) <= 20, "a bit of byte {at} was flipped");
        }
    });
}

#[test]
fn scanning_what_is_no_segment_finds_nothing() {
    for bytes in
        [Vec::new(), vec![0; 10_000], vec![0xff; 10_000], b"anfr".repeat(3000), b"annalssg".repeat(2000)]
    {
        assert_eq!((scan_bytes(&bytes), bodies::segment(&bytes)), (0, 0));
    }
}
