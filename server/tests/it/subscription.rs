//! `annals subscription`, and following as a member of one.

use crate::follow::Following;
use crate::support::{Place, sample};
use annals::{Nack, NewSubscription, Store};
use serde_json::{Value, json};
use std::time::Duration;

/// A store with a hundred events.
fn filled() -> Place {
    let place = Place::new();
    let file = place.file("events.jsonl", sample(100));
    place.run(&["import", &file]).expect_code(0);
    place
}

fn show(place: &Place, name: &str) -> Value {
    place.run(&["--json", "subscription", "show", name]).expect_code(0).json()
}

#[test]
fn subscriptions_are_created_listed_shown_reset_and_deleted() {
    let place = filled();
    assert_eq!(place.run(&["--json", "subscription", "list"]).expect_code(0).out, "");
    let create = ["subscription", "create", "orders", "--tag", "n:1", "--shared", "--retries", "3"];
    assert_eq!(
        place.run(&[&["--json"], &create[..]].concat()).expect_code(0).json(),
        json!({"created": true})
    );
    assert_eq!(
        place.run(&[&["--json"], &create[..]].concat()).expect_code(0).json(),
        json!({"created": false})
    );
    let error = place.run(&["--json", "subscription", "create", "orders"]).expect_code(1).error();
    assert_eq!((&error["error"], &error["difference"]), (&json!("subscription_exists"), &json!("query")));
    place.run(&["subscription", "create", "later", "--from", "end", "--order", "total"]).expect_code(0);
    let listed = place.run(&["--json", "subscription", "list"]).expect_code(0).json_lines();
    let names: Vec<_> =
        listed.iter().map(|line| (&line["name"], &line["lag"], &line["next_position"])).collect();
    assert_eq!(
        names,
        [(&json!("later"), &json!(0), &json!(100)), (&json!("orders"), &json!(100), &json!(0))]
    );
    let shown = show(&place, "orders");
    assert_eq!(shown["query"], json!([{"tags": ["n:1"]}]));
    assert_eq!(
        (&shown["membership"], &shown["order"], &shown["retries"]),
        (&json!("shared"), &json!("stream"), &json!(3))
    );
    assert_eq!((&shown["oldest_position"], &shown["parked"]), (&json!(1), &json!(0)));
    assert!(shown["oldest_age_seconds"].as_f64().unwrap() > 1e6, "{shown}");
    assert!(
        place
            .run(&["subscription", "show", "orders"])
            .expect_code(0)
            .out
            .contains("oldest            position 1, ")
    );
    for (from, next) in [("40", 40), ("end", 100), ("2013-01-01T06:01:00Z", 60), ("start", 0)] {
        place.run(&["subscription", "reset", "orders", "--from", from]).expect_code(0);
        assert_eq!(show(&place, "orders")["next_position"], json!(next), "{from}");
    }
    let error =
        place.run(&["--json", "subscription", "reset", "orders", "--from", "101"]).expect_code(1).error();
    assert_eq!((&error["error"], &error["next_position"]), (&json!("after_the_end"), &json!(100)));
}

#[test]
fn subscriptions_are_stopped_resumed_and_deleted_and_wrong_words_refused() {
    let place = filled();
    for name in ["orders", "later"] {
        place.run(&["subscription", "create", name]).expect_code(0);
    }
    place.run(&["subscription", "stop", "orders", "--reason", "a pause"]).expect_code(0);
    assert_eq!(show(&place, "orders")["stopped"], json!("a pause"));
    let error = place.run(&["--json", "follow", "--subscription", "orders"]).expect_code(1).error();
    assert_eq!((&error["error"], &error["reason"]), (&json!("subscription_stopped"), &json!("a pause")));
    place.run(&["subscription", "resume", "orders"]).expect_code(0);
    place.run(&["subscription", "delete", "orders"]).expect_code(0);
    for arguments in [
        &["show", "orders"][..],
        &["reset", "orders", "--from", "start"],
        &["parked", "orders"],
        &["replay", "orders"],
        &["discard", "orders", "--all"],
        &["stop", "orders"],
        &["resume", "orders"],
        &["delete", "orders"],
    ] {
        let error = place.run(&[&["--json", "subscription"], arguments].concat()).expect_code(1).error();
        assert_eq!(
            (&error["error"], &error["subscription"]),
            (&json!("no_subscription"), &json!("orders")),
            "{arguments:?}"
        );
    }
    for wrong in [
        &["create", "x", "--in-flight-max", "0"][..],
        &["create", "x", "--handling-timeout", "-1"],
        &["create", "x", "--by-cursor", "--shared"],
        &["create", ""],
        &["reset", "later", "--from", "middle"],
        &["discard", "later"],
        &["list", "later"],
        &[],
    ] {
        place.run(&[&["--json", "subscription"], wrong].concat()).expect_code(2);
    }
    place.run(&["verify"]).expect_code(0);
}

#[test]
fn parked_events_are_listed_replayed_and_discarded() {
    let place = filled();
    let store = Store::open(place.data()).unwrap();
    store.create_subscription(&NewSubscription::new("orders")).unwrap();
    let mut member = store.join("orders").unwrap();
    for _ in 0..3 {
        let delivery = member.next_within(Duration::ZERO).unwrap().unwrap();
        member.nack(delivery.id, &Nack::park("no such\ncustomer")).unwrap();
    }
    drop(member);
    // Beside the process that writes it.
    let parked = place.run(&["--json", "subscription", "parked", "orders"]).expect_code(0).json_lines();
    assert_eq!(parked.len(), 3);
    assert_eq!((&parked[1]["position"], &parked[1]["failures"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&parked[1]["reason"], &parked[1]["event"]["data"]["n"]),
        (&json!("no such\ncustomer"), &json!(1))
    );
    let readable = place.run(&["subscription", "parked", "orders"]).expect_code(0).out;
    assert_eq!(readable.lines().count(), 3);
    place.run(&["subscription", "replay", "orders"]).expect_code(5);
    store.close().unwrap();

    let error =
        place.run(&["--json", "subscription", "replay", "orders", "--position", "7"]).expect_code(1).error();
    assert_eq!((&error["error"], &error["position"]), (&json!("not_parked"), &json!(7)));
    let replayed =
        place.run(&["--json", "subscription", "replay", "orders", "--position", "1"]).expect_code(0).json();
    assert_eq!(replayed, json!({"replayed": 1}));
    assert_eq!(show(&place, "orders")["oldest_position"], json!(1));
    let discarded =
        place.run(&["--json", "subscription", "discard", "orders", "--all"]).expect_code(0).json();
    assert_eq!(discarded, json!({"discarded": 2}));
    let mut following = Following::start(&place.data(), &["--subscription", "orders"]);
    assert_eq!(
        [following.next(), following.next()].map(|line| line["position"].clone()),
        [json!(1), json!(3)]
    );
    assert_eq!(following.interrupt(), Some(0));
}

#[test]
fn what_was_printed_to_a_subscription_is_not_printed_again() {
    let place = filled();
    let arguments = ["--subscription", "printer", "--from", "start", "--tag", "n:2"];
    let mut following = Following::start(&place.data(), &arguments);
    for number in 0..33 {
        assert_eq!(following.next()["position"], json!(3 * number + 2));
    }
    place.run(&["append", "a", "--type", "T"]).expect_code(5);
    place.run(&["--json", "follow", "--subscription", "printer"]).expect_code(5);
    assert_eq!(show(&place, "printer")["order"], json!("total"));
    assert_eq!(following.interrupt(), Some(0));
    for round in 0..2 {
        place.run(&["append", "a", "--type", "T", "--tag", "n:2"]).expect_code(0);
        let mut following = Following::start(&place.data(), &arguments);
        assert_eq!(following.next()["position"], json!(100 + round));
        assert_eq!(following.interrupt(), Some(0));
    }
    for other in [&["--tag", "n:1"][..], &["--from", "end"]] {
        let error = place
            .run(&[&["--json", "follow", "--subscription", "printer"], other].concat())
            .expect_code(1)
            .error();
        assert_eq!(error["error"], json!("subscription_exists"));
    }
    let mut following = Following::start(&place.data(), &["--subscription", "printer"]);
    place.run(&["--json", "subscription", "list"]).expect_code(0);
    assert!(following.is_running());
    assert_eq!(following.interrupt(), Some(0));
    place.run(&["--json", "follow", "--subscription", "a\tb"]).expect_code(2);
}

#[test]
fn following_as_a_subscription_creates_no_store() {
    let place = Place::new();
    place.run(&["follow", "--subscription", "printer"]).expect_code(1);
    place.run(&["subscription", "create", "printer"]).expect_code(1);
    assert!(!place.data().exists());
}
