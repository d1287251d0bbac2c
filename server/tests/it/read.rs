//! Reading, listing and describing.

use crate::support::{Place, Run, command, sample};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn imported(count: usize) -> Place {
    let place = Place::new();
    let file = place.file("sample.jsonl", sample(count));
    place.run(&["import", &file]).expect_code(0);
    place
}

fn numbers(run: &Run, field: &str) -> Vec<u64> {
    run.json_lines().iter().map(|event| event[field].as_u64().unwrap()).collect()
}

#[test]
fn bounds_are_inclusive_in_both_directions() {
    let place = imported(50);
    let read = |arguments: &[&str]| place.run(&[&["read", "--json"], arguments].concat()).expect_code(0);
    let positions = |arguments: &[&str]| numbers(&read(arguments), "position");
    assert_eq!(positions(&["--from", "3", "--until", "5"]), [3, 4, 5]);
    assert_eq!(positions(&["--backwards", "--from", "5", "--until", "3"]), [5, 4, 3]);
    assert_eq!(positions(&["--backwards", "--limit", "2"]), [49, 48]);
    assert_eq!(
        positions(&["--from", "2013-01-01T06:00:03Z", "--until", "2013-01-01T06:00:05.5Z"]),
        [3, 4, 5]
    );
    let versions = read(&["--stream", "order-1", "--from", "1", "--until", "2"]);
    assert_eq!(numbers(&versions, "version"), [1, 2]);
    assert_eq!(numbers(&versions, "position"), [8, 15]);
}

#[test]
fn an_empty_answer_is_no_failure_but_a_stream_that_never_was_is_one() {
    let place = imported(10);
    assert_eq!(place.run(&["read", "--from", "1000"]).expect_code(0).out, "");
    assert_eq!(place.run(&["read", "--stream", "order-1", "--from", "1000"]).expect_code(0).out, "");
    for command in ["read", "export"] {
        let error = place.run(&[command, "--stream", "order-99", "--json"]).expect_code(1).error();
        assert_eq!((&error["error"], &error["stream"]), (&json!("no_stream"), &json!("order-99")));
    }
}

#[test]
fn a_person_gets_one_line_an_event() {
    let place = imported(3);
    let out = place.run(&["read"]).expect_code(0).out;
    assert_eq!(out.lines().count(), 3);
    let last = out.lines().last().unwrap();
    for part in ["order-2@0", "2013-01-01T06:00:02.000000000Z", "Noted", "#n:2", r#"{ "n": 2, "x":1.50 }"#] {
        assert!(last.contains(part), "{last}");
    }
}

#[test]
fn streams_are_listed_with_their_heads() {
    let place = imported(50);
    let list = place.run(&["streams", "--json"]).expect_code(0).json_lines();
    let heads: BTreeMap<&str, u64> =
        list.iter().map(|line| (line["stream"].as_str().unwrap(), line["head"].as_u64().unwrap())).collect();
    assert_eq!((heads.len(), heads["order-0"], heads["order-1"]), (7, 7, 6));
    assert_eq!(place.run(&["streams", "--category", "order"]).expect_code(0).out.lines().count(), 7);
    assert_eq!(place.run(&["streams", "--prefix", "order-1"]).expect_code(0).out.lines().count(), 1);
    assert_eq!(place.run(&["streams", "--category", "ord"]).expect_code(0).out, "");
}

#[test]
fn stat_has_every_figure() {
    let place = imported(5);
    let stat = place.run(&["stat", "--json"]).expect_code(0).json();
    for figure in
        ["events", "streams", "next_position", "segments", "disk_bytes", "index_bytes", "epoch", "format"]
    {
        assert!(stat[figure].is_u64(), "{figure}: {stat}");
    }
    assert!(["ring", "direct", "buffered"].contains(&stat["disk"].as_str().unwrap()), "{stat}");
    assert_eq!(stat.as_object().unwrap().get("writer"), Some(&json!(null)));
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let place = imported(20_000);
    for arguments in [&["export"][..], &["read"], &["read", "--json"]] {
        let mut child =
            command(&place.data(), arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::with_capacity(100, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
}

#[test]
fn where_there_is_no_store_reading_fails_and_makes_none() {
    let place = Place::new();
    for command in ["read", "export", "stat", "streams", "verify", "follow"] {
        let error = place.run(&[command, "--json"]).expect_code(1).error();
        assert_eq!(error["error"], json!("no_store"));
        assert!(!place.data().exists());
    }
    std::fs::create_dir(place.data()).unwrap();
    assert_eq!(place.run(&["read", "--json"]).expect_code(1).error()["error"], json!("no_store"));
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), 0);
}
