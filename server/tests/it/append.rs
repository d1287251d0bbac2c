//! Appending one event or one batch.

use crate::support::{Place, annals, annals_fed};
use serde_json::json;

#[test]
fn an_append_says_where_the_event_is() {
    let place = Place::new();
    let append = |data: &str| place.run(&["append", "a", "--type", "T", "--data", data, "--json"]);
    assert_eq!(append("{}").expect_code(0).out, "{\"position\":0,\"version\":0,\"repeated\":false}\n");
    assert_eq!(
        append("{ \"a\" :1.0 }").expect_code(0).out,
        "{\"position\":1,\"version\":1,\"repeated\":false}\n"
    );
    let read = place.run(&["read", "--stream", "a", "--json"]).expect_code(0);
    assert!(read.out.contains(r#""data":{ "a" :1.0 }"#), "{}", read.out);
}

#[test]
fn data_comes_from_the_line_a_file_or_standard_input() {
    let place = Place::new();
    let file = place.file("data.json", "{\"from\": \"file\"}\n");
    place.run(&["append", "a", "--type", "T", "--data", &format!("@{file}")]).expect_code(0);
    annals_fed(&place.data(), &["append", "a", "--type", "T", "--data", "-"], b"[1, 2]\n").expect_code(0);
    place
        .run(&["append", "a", "--type", "T", "--tag", "x", "--tag", "y", "--metadata", "{\"m\":1}"])
        .expect_code(0);
    let events = place.run(&["read", "--json"]).expect_code(0).json_lines();
    assert_eq!(events[0]["data"], json!({"from": "file"}));
    assert_eq!(events[1]["data"], json!([1, 2]));
    assert_eq!((events[2].get("data"), &events[2]["tags"]), (None, &json!(["x", "y"])));
    assert_eq!(events[2]["metadata"], json!({"m": 1}));
}

#[test]
fn the_directory_can_stand_behind_the_command_too() {
    let place = Place::new();
    let data = place.data();
    let data = data.to_str().unwrap();
    let elsewhere = place.path("elsewhere");
    annals(&elsewhere, &["append", "a", "--type", "T", "--data", "{\"n\":1}", "--data", data]).expect_code(0);
    assert!(!elsewhere.exists());
    assert_eq!(place.run(&["read", "--json"]).expect_code(0).json()["data"], json!({"n": 1}));
}

#[test]
fn a_wrong_expectation_says_what_is_there() {
    let place = Place::new();
    let append = |expect: &str| place.run(&["append", "a", "--type", "T", "--expect", expect, "--json"]);
    append("exists").expect_code(3);
    append("none").expect_code(0);
    append("0").expect_code(0);
    append("exists").expect_code(0);
    let error = append("0").expect_code(3).error();
    assert_eq!(error["error"], json!("wrong_version"));
    assert_eq!((&error["stream"], &error["expected"]), (&json!("a"), &json!(0)));
    assert_eq!((&error["actual"], &error["position"]), (&json!(2), &json!(2)));
    assert!(error["message"].is_string());
    let run = place.run(&["append", "new", "--type", "T", "--expect", "5", "--json"]).expect_code(3);
    assert_eq!((&run.error()["actual"], &run.error()["position"]), (&json!(null), &json!(null)));
    append("sometimes").expect_code(2);
}

#[test]
fn the_same_id_again_is_repeated() {
    let place = Place::new();
    let id = "01908a5c-3f1e-7cc0-8000-000000000001";
    let append = |data: &str| {
        place.run(&["append", "a", "--type", "T", "--id", id, "--data", data, "--expect", "none", "--json"])
    };
    assert_eq!(append("1").expect_code(0).json()["repeated"], json!(false));
    assert_eq!(append("1").expect_code(0).json(), json!({"position": 0, "version": 0, "repeated": true}));
    assert_eq!(append("2").expect_code(1).error()["error"], json!("id_conflict"));
}

#[test]
fn what_cannot_be_an_event_is_wrong_usage_and_makes_no_store() {
    let place = Place::new();
    let long = "x".repeat(513);
    for arguments in [
        &["append", "a", "--type", "T", "--data", "{bad"][..],
        &["append", "a", "--type", "T", "--metadata", "nul"],
        &["append", "a\u{7}", "--type", "T"],
        &["append", "a", "--type", "T\n"],
        &["append", "", "--type", "T"],
        &["append", &long, "--type", "T"],
        &["append", "a", "--type", "T", "--tag", ""],
        &["append", "a", "--type", "T", "--id", "7"],
        &["append", "a"],
        &["append", "--batch", "x", "--type", "T"],
    ] {
        place.run(arguments).expect_code(2);
    }
    assert!(!place.data().exists());
}

#[test]
fn a_batch_is_appended_whole_or_not_at_all() {
    let place = Place::new();
    let text = r#"{"events":[{"stream":"a","type":"T","data":{"n" : 1}},{"stream":"b","type":"U"}],
        "conditions":[{"stream":"a","expected":"none"},{"stream":"c","expected":"none"}]}"#;
    let file = place.file("batch.json", text);
    let appended = place.run(&["append", "--batch", &file, "--json"]).expect_code(0).json();
    assert_eq!(appended, json!({"position": 1, "version": 0, "repeated": false}));
    place.run(&["append", "--batch", &file, "--json"]).expect_code(3);
    assert_eq!(place.run(&["export"]).expect_code(0).out.lines().count(), 2);
}

#[test]
fn malformed_batches_are_wrong_usage() {
    let place = Place::new();
    for text in ["", "{}", r#"{"events":[]}"#, r#"{"events":[{"stream":"a","type":"T","nope":1}]}"#] {
        annals_fed(&place.data(), &["append", "--batch", "-"], text.as_bytes()).expect_code(2);
    }
    let query = r#"{"events":[{"stream":"a","type":"T"}],"conditions":[{"query":{"item":[]},"after":0}]}"#;
    let run =
        annals_fed(&place.data(), &["append", "--batch", "-", "--json"], query.as_bytes()).expect_code(2);
    assert_eq!(run.error()["error"], json!("usage"));
    assert!(!place.data().exists());
}

#[test]
fn data_that_is_no_json_never_becomes_another_store() {
    let place = Place::new();
    for data in ["./event.json", "/event.json", "event.json", "."] {
        let run = place.run(&["append", "a", "--type", "T", "--data", data, "--json"]).expect_code(2);
        assert_eq!(run.error()["error"], json!("usage"));
    }
    assert!(!place.data().exists());
}

#[test]
fn a_batch_is_refused_where_an_event_matches_a_query_that_none_may_match() {
    let place = Place::new();
    place.run(&["append", "course-1", "--type", "Defined", "--tag", "course:1"]).expect_code(0);
    place.run(&["append", "course-1", "--type", "Renamed", "--tag", "course:1"]).expect_code(0);
    let append = |query: &str, after: &str| {
        let batch = format!(
            r#"{{"events":[{{"stream":"course-1","type":"Full","tags":["course:1"]}}],
                "conditions":[{{"query":{{"items":[{query}]}}{after}}}]}}"#
        );
        annals_fed(&place.data(), &["append", "--batch", "-", "--json"], batch.as_bytes())
    };
    let tagged = r#"{"tags":["course:1"]}"#;
    let refused = append(tagged, r#","after":0"#).expect_code(3).error();
    assert_eq!(
        (&refused["error"], &refused["after"], &refused["position"]),
        (&json!("query_matched"), &json!(0), &json!(1))
    );
    let refused = append(tagged, "").expect_code(3).error();
    assert_eq!((&refused["after"], &refused["position"]), (&json!(null), &json!(0)));
    let refused = append(tagged, r#","after":2"#).expect_code(1).error();
    assert_eq!((&refused["error"], &refused["next_position"]), (&json!("after_the_end"), &json!(2)));
    let refused = append(r#"{"tags":[""]}"#, "").expect_code(2).error();
    assert_eq!(refused["error"], json!("input"));
    append(r#"{"types":["Full"],"tags":["course:1"]}"#, "").expect_code(0);
    append(tagged, r#","after":2"#).expect_code(0);
    assert_eq!(place.run(&["read", "--json"]).expect_code(0).out.lines().count(), 4);
}
