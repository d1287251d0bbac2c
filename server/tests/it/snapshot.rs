//! `annals snapshot`: list, show, delete.

use crate::support::Place;
use annals::{Append, NewEvent, NewSnapshot, Store, Version};
use serde_json::json;

#[test]
fn snapshots_are_listed_shown_and_deleted() {
    let place = Place::new();
    place.run(&["--json", "snapshot", "list"]).expect_code(1);
    let store = Store::open(place.data()).unwrap();
    for (n, state) in [r#"{"total":0}"#, r#"{"total":12}"#].into_iter().enumerate() {
        let event = NewEvent::new("order-42", "Changed").json(state).time(annals::Timestamp::new(n as u64));
        let append = Append::from(event).snapshot(NewSnapshot::new("order-42", 2, state));
        store.append(append).unwrap().wait().unwrap();
    }
    store
        .append(NewEvent::new("order-7", "Changed").time(annals::Timestamp::new(9)))
        .unwrap()
        .wait()
        .unwrap();
    store.write_snapshot(&NewSnapshot::new("order-7", 1, &[0, 255]).name("raw"), Version::ZERO).unwrap();
    store.close().unwrap();

    let lines = place.run(&["--json", "snapshot", "list"]).expect_code(0).json_lines();
    let short: Vec<_> = lines
        .iter()
        .map(|line| {
            (line["stream"].clone(), line["version"].clone(), line["bytes"].clone(), line["name"].clone())
        })
        .collect();
    assert_eq!(
        short,
        [
            (json!("order-42"), json!(1), json!(12), json!(null)),
            (json!("order-42"), json!(0), json!(11), json!(null)),
            (json!("order-7"), json!(0), json!(2), json!("raw")),
        ]
    );
    assert_eq!(
        place.run(&["--json", "snapshot", "list", "--stream", "order-7"]).expect_code(0).json_lines().len(),
        1
    );
    assert_eq!(place.run(&["snapshot", "show", "order-42"]).expect_code(0).out, r#"{"total":12}"#);
    let shown =
        place.run(&["--json", "snapshot", "show", "order-42", "--version", "0"]).expect_code(0).json_lines();
    assert_eq!((&shown[0]["data"], &shown[0]["schema"]), (&json!({"total":0}), &json!(2)));
    let raw =
        place.run(&["--json", "snapshot", "show", "order-7", "--name", "raw"]).expect_code(0).json_lines();
    assert_eq!(raw[0]["data_base64"], json!("AP8="));
    place.run(&["snapshot", "delete", "order-42", "--version", "1"]).expect_code(0);
    let error =
        place.run(&["--json", "snapshot", "show", "order-42", "--version", "1"]).expect_code(1).error();
    assert_eq!((&error["error"], &error["version"]), (&json!("no_snapshot"), &json!(1)));
    place.run(&["snapshot", "delete", "order-42"]).expect_code(0);
    place.run(&["snapshot", "show", "order-42"]).expect_code(1);
    for nothing in
        [&["order-42"][..], &["nobody"], &["order-7"], &["order-7", "--name", "raw", "--version", "3"]]
    {
        let error = place.run(&[&["--json", "snapshot", "delete"], nothing].concat()).expect_code(1).error();
        assert_eq!(error["error"], json!("no_snapshot"), "{nothing:?}");
    }
    place.run(&["--json", "verify"]).expect_code(0);
}

#[test]
fn a_damaged_snapshot_is_found_by_verify_and_noted_by_the_list() {
    let place = Place::new();
    let store = Store::open(place.data()).unwrap();
    let append = Append::from(NewEvent::new("s", "Changed")).snapshot(NewSnapshot::new("s", 1, "the state"));
    store.append(append).unwrap().wait().unwrap();
    store.close().unwrap();
    let path = place.data().join("snapshots/0000000001.log");
    let mut log = std::fs::read(&path).unwrap();
    let at = log.windows(9).position(|bytes| bytes == b"the state").unwrap();
    log[at] ^= 1;
    std::fs::write(&path, log).unwrap();
    let found = place.run(&["--json", "verify"]).expect_code(4).json_lines();
    assert_eq!(found[0]["damage"][0]["file"], json!("snapshots/0000000001.log"));
    let listed = place.run(&["--json", "snapshot", "list", "--stream", "s"]).expect_code(0);
    assert!(listed.json_lines().is_empty() && listed.err.contains("snapshot"), "{}", listed.err);
    place.run(&["--json", "read", "--stream", "s"]).expect_code(0);
}
