//! Importing and exporting.

use crate::support::{Place, annals, annals_fed, sample};
use serde_json::{Value, json};

fn counts(summary: &Value) -> (u64, u64, u64, u64) {
    let count = |name: &str| summary[name].as_u64().unwrap();
    (count("lines"), count("events"), count("repeated"), count("skipped"))
}

#[test]
fn an_import_counts_what_it_did() {
    let place = Place::new();
    let file = place.file("sample.jsonl", sample(5000));
    let summary = place.run(&["import", &file, "--json"]).expect_code(0).json();
    assert_eq!(counts(&summary), (5000, 5000, 0, 0));
    assert_eq!((&summary["streams"], &summary["time_raised"]), (&json!(7), &json!(0)));
    assert!(summary["seconds"].is_number() && summary["events_per_second"].is_u64());
    let stat = place.run(&["stat", "--json"]).expect_code(0).json();
    assert_eq!((&stat["events"], &stat["next_position"]), (&json!(5000), &json!(5000)));
    let verified = place.run(&["verify", "--json"]).expect_code(0).json();
    assert_eq!((&verified["ok"], &verified["events"]), (&json!(true), &json!(5000)));
}

#[test]
fn importing_again_adds_nothing_whatever_the_batch() {
    let place = Place::new();
    let file = place.file("sample.jsonl", sample(3000));
    place.run(&["import", &file]).expect_code(0);
    for batch in ["1", "7", "1000", "10000"] {
        let summary = place.run(&["import", &file, "--json", "--batch", batch]).expect_code(0).json();
        assert_eq!(counts(&summary), (3000, 0, 3000, 0), "batch {batch}");
    }
}

#[test]
fn a_grown_file_adds_what_is_new() {
    let place = Place::new();
    let file = place.file("sample.jsonl", sample(1500));
    place.run(&["import", &file, "--batch", "100"]).expect_code(0);
    let grown = place.file("sample.jsonl", sample(2200));
    let summary = place.run(&["import", &grown, "--json"]).expect_code(0).json();
    assert_eq!(counts(&summary), (2200, 700, 1500, 0));
}

#[test]
fn events_from_elsewhere_in_between_do_not_confuse_it() {
    let place = Place::new();
    let file = place.file("sample.jsonl", sample(100));
    place.run(&["import", &file]).expect_code(0);
    place.run(&["append", "order-3", "--type", "Other"]).expect_code(0);
    let grown = place.file("sample.jsonl", sample(200));
    for expected in [(200, 100, 100, 0), (200, 0, 200, 0)] {
        let summary = place.run(&["import", &grown, "--json"]).expect_code(0).json();
        assert_eq!(counts(&summary), expected);
    }
}

#[test]
fn compressed_files_and_standard_input_are_read() {
    let text = sample(50);
    for bytes in [gzip(&text), zstd::encode_all(text.as_bytes(), 1).unwrap(), text.clone().into_bytes()] {
        let place = Place::new();
        let summary = annals_fed(&place.data(), &["import", "-", "--json"], &bytes).expect_code(0).json();
        assert_eq!(counts(&summary), (50, 50, 0, 0));
    }
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn an_export_imported_elsewhere_is_the_same() {
    let place = Place::new();
    let mut text = sample(300);
    text.push_str(
        "{\"ts\":1357030000,\"stream\":\"odd\",\"type\":\"B\",\"data_base64\":\"/wA=\",\"content\":\"binary\"}\n",
    );
    text.push_str(
        "{\"ts\":1357030000.5,\"stream\":\"odd\",\"type\":\"J\",\"data\":null,\"metadata\":{\"m\": 1}}",
    );
    let file = place.file("sample.jsonl", text);
    place.run(&["import", &file]).expect_code(0);
    let exported = place.run(&["export"]).expect_code(0).out;
    assert_eq!(exported.lines().count(), 302);
    assert!(exported.contains(r#""data":{ "n": 299, "x":1.50 }"#));
    let other = place.path("other");
    annals_fed(&other, &["import", "-"], exported.as_bytes()).expect_code(0);
    assert_eq!(annals(&other, &["export", "--json"]).expect_code(0).out, exported);
    // The same again, twice in one file: all of it is there.
    let doubled = exported.repeat(2);
    let summary = annals_fed(&other, &["import", "-", "--json"], doubled.as_bytes()).expect_code(0).json();
    assert_eq!(counts(&summary), (604, 0, 604, 0));
    // And twice into an empty store: once each.
    let summary = annals_fed(&place.path("third"), &["import", "-", "--json"], doubled.as_bytes());
    assert_eq!(counts(&summary.expect_code(0).json()), (604, 302, 302, 0));
}

#[test]
fn a_bad_line_stops_after_what_was_before_it() {
    let place = Place::new();
    let file = place.file("bad.jsonl", format!("{}\n{{\"stream\":\n{}", sample(10), sample(5)));
    let run = place.run(&["import", &file, "--json"]).expect_code(1);
    assert_eq!(counts(&run.json()), (10, 10, 0, 0));
    let error = run.error();
    assert_eq!((&error["error"], &error["line"]), (&json!("bad_line"), &json!(12)));
    assert_eq!(place.run(&["export"]).expect_code(0).out.lines().count(), 10);
    assert!(place.run(&["import", &file]).expect_code(1).err.contains("line 12"));
}

#[test]
fn bad_lines_are_skipped_and_counted_on_demand() {
    let place = Place::new();
    let long = "x".repeat(513);
    let bad = [
        "7".to_owned(),
        r#"{"stream":"a"}"#.to_owned(),
        r#"{"stream":"a\u0007","type":"T"}"#.to_owned(),
        format!(r#"{{"stream":"{long}","type":"T"}}"#),
        r#"{"stream":"a","type":"T","ts":-5}"#.to_owned(),
        r#"{"stream":"a","type":"T","ts":13570200000000}"#.to_owned(),
        r#"{"stream":"a","type":"T","time":"2500-01-01T00:00:00Z"}"#.to_owned(),
        r#"{"stream":"a","type":"T","type":"T"}"#.to_owned(),
    ];
    let file = place.file("bad.jsonl", format!("{}{}\n{}", sample(10), bad.join("\n"), sample(20)));
    let run = place.run(&["import", &file, "--json", "--skip-bad"]).expect_code(0);
    assert_eq!(counts(&run.json()), (38, 30, 0, 8));
    assert_eq!(run.json()["time_raised"], json!(9));
    let again = place.run(&["import", &file, "--json", "--skip-bad"]).expect_code(0).json();
    assert_eq!(counts(&again), (38, 0, 30, 8));
}

#[test]
fn times_are_raised_or_come_from_the_clock() {
    let place = Place::new();
    let text = concat!(
        "{\"stream\":\"a\",\"type\":\"T\",\"ts\":1000}\n",
        "{\"stream\":\"a\",\"type\":\"T\",\"ts\":\"1970-01-01T00:00:01Z\"}\n",
        "{\"stream\":\"a\",\"type\":\"T\"}\n",
        "{\"stream\":\"a\",\"type\":\"T\",\"time\":\"1970-01-01T00:00:02.5Z\"}\n",
    );
    let file = place.file("times.jsonl", text);
    let summary = place.run(&["import", &file, "--json"]).expect_code(0).json();
    assert_eq!((counts(&summary), &summary["time_raised"]), ((4, 4, 0, 0), &json!(2)));
    let times: Vec<Value> =
        place.run(&["export"]).json_lines().iter().map(|event| event["time"].clone()).collect();
    assert_eq!(times[0], json!("1970-01-01T00:16:40.000000000Z"));
    assert_eq!(times[0], times[1]);
    assert!(times[2].as_str() > Some("2024"));
    assert_eq!(times[2], times[3]);
}

#[test]
fn unknown_fields_are_noted_once_each() {
    let place = Place::new();
    let line = "{\"stream\":\"a\",\"type\":\"T\",\"colour\":1,\"position\":7,\"version\":9}\n";
    let run = annals_fed(&place.data(), &["import", "-"], line.repeat(5).as_bytes()).expect_code(0);
    assert_eq!(run.err.matches("colour").count(), 1, "{}", run.err);
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
}

#[test]
fn an_id_with_other_data_is_a_bad_line() {
    let place = Place::new();
    let line = |data: &str| {
        format!(
            "{{\"stream\":\"a\",\"type\":\"T\",\"id\":\"01908a5c-3f1e-7cc0-8000-000000000001\",\"data\":{data}}}\n"
        )
    };
    annals_fed(&place.data(), &["import", "-"], line("1").as_bytes()).expect_code(0);
    let same = annals_fed(&place.data(), &["import", "-", "--json"], line("1").as_bytes()).expect_code(0);
    assert_eq!(counts(&same.json()), (1, 0, 1, 0));
    let run = annals_fed(&place.data(), &["import", "-", "--json"], line("2").as_bytes()).expect_code(1);
    assert_eq!((&run.error()["error"], &run.error()["line"]), (&json!("bad_line"), &json!(1)));
    let both = [line("1"), line("2")].concat();
    let run = annals_fed(&place.path("other"), &["import", "-", "--json"], both.as_bytes()).expect_code(1);
    assert_eq!((counts(&run.json()), &run.error()["line"]), ((1, 1, 0, 0), &json!(2)));
}

#[test]
fn a_missing_file_leaves_no_store_behind() {
    let place = Place::new();
    place.run(&["import", "nowhere.jsonl"]).expect_code(1);
    place.run(&["import", "/"]).expect_code(1);
    assert!(!place.data().exists());
}

#[test]
fn an_empty_file_makes_an_empty_store() {
    let place = Place::new();
    let file = place.file("empty.jsonl", "");
    assert_eq!(counts(&place.run(&["import", &file, "--json"]).expect_code(0).json()), (0, 0, 0, 0));
    assert_eq!(place.run(&["export"]).expect_code(0).out, "");
    assert_eq!(place.run(&["stat", "--json"]).expect_code(0).json()["events"], json!(0));
}

#[test]
fn batches_outside_the_limits_are_wrong_usage() {
    let place = Place::new();
    let file = place.file("sample.jsonl", sample(1));
    for batch in ["0", "10001", "many"] {
        place.run(&["import", &file, "--batch", batch]).expect_code(2);
    }
    assert!(!place.data().exists());
}
