//! How a stream came to be, and what followed from what.

use crate::support::Place;
use annals::{Append, NewEvent, NewSnapshot, Store, Uuid};
use serde_json::json;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

/// An order, its payment and its two parcels, in one conversation; and something else.
fn filled() -> Place {
    let place = Place::new();
    let store = Store::open(place.data()).unwrap();
    let event = |stream: &'static str,
                 event_type: &'static str,
                 number: u128,
                 cause: Option<u128>,
                 data: &'static str| {
        let event = NewEvent::new(stream, event_type).id(id(number)).correlation(id(100)).json(data);
        match cause {
            Some(cause) => event.causation(id(cause)),
            None => event,
        }
    };
    let append = |append: Append<'_>| store.append(append).unwrap().wait().unwrap();
    append(event("order-42", "OrderPlaced", 1, Some(99), r#"{"total":12,"state":"placed"}"#).into());
    append(event("payment-1", "PaymentTaken", 2, Some(1), "{}").into());
    append(event("parcel-1", "ParcelSent", 3, Some(2), "{}").into());
    append(event("parcel-2", "ParcelSent", 4, Some(2), "{}").into());
    let changed = event("order-42", "OrderChanged", 5, Some(1), r#"{"total":15,"state":"placed"}"#);
    append(Append::from(changed).snapshot(NewSnapshot::new(
        "order-42",
        2,
        r#"{"total":15,"state":"placed"}"#,
    )));
    append(event("order-42", "OrderClosed", 6, Some(4), r#"{"state":"closed","by":"ada"}"#).into());
    append(NewEvent::new("order-43", "OrderPlaced").id(id(7)).json("{}").into());
    store.close().unwrap();
    place
}

#[test]
fn a_stream_is_replayed_from_its_snapshot_and_each_event_says_what_it_brought() {
    let place = filled();
    let lines = place.run(&["--json", "replay", "order-42"]).expect_code(0).json_lines();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        lines[0],
        json!({"snapshot":{"version":1,"schema":2,"bytes":29,"data":{"total":15,"state":"placed"}}})
    );
    assert_eq!(lines[1]["event"]["type"], json!("OrderClosed"));
    assert_eq!(lines[1]["added"], json!({"by":"ada"}));
    assert_eq!(lines[1]["changed"], json!({"state":{"from":"placed","to":"closed"}}));

    let whole = place.run(&["--json", "replay", "order-42", "--no-snapshots"]).expect_code(0).json_lines();
    assert_eq!(whole.iter().map(|line| line["event"]["version"].clone()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(whole[1]["changed"], json!({"total":{"from":12,"to":15}}));
    let early = place.run(&["--json", "replay", "order-42", "--until", "0"]).expect_code(0).json_lines();
    assert_eq!((early.len(), &early[0]["added"]), (1, &json!({"total":12,"state":"placed"})));
    let readable = place.run(&["replay", "order-42"]).expect_code(0);
    assert!(
        readable.out.contains("snapshot at version 1")
            && readable.out.contains("~ state: \"placed\" -> \"closed\"")
    );
    assert!(readable.err.contains("1 events behind the snapshot at version 1"), "{}", readable.err);
    let error = place.run(&["--json", "replay", "order-44"]).expect_code(1).error();
    assert_eq!(error["error"], json!("no_stream"));
}

#[test]
fn a_trace_is_the_tree_of_a_conversation_or_of_what_an_id_caused() {
    let place = filled();
    let tree = |id: Uuid| {
        let lines = place.run(&["--json", "trace", &id.to_string()]).expect_code(0).json_lines();
        lines
            .iter()
            .map(|line| (line["depth"].as_u64().unwrap(), line["event"]["position"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    let all = [(1, 0), (2, 1), (3, 2), (3, 3), (4, 5), (2, 4)];
    assert_eq!(tree(id(100)), all, "by its correlation");
    assert_eq!(tree(id(99)), all, "by the command that it began with");
    assert_eq!(tree(id(2)), [(1, 2), (1, 3), (2, 5)], "by an event");
    let readable = place.run(&["trace", &id(2).to_string()]).expect_code(0).out;
    let indents: Vec<_> =
        readable.lines().skip(1).map(|line| line.len() - line.trim_start().len() - 7).collect();
    assert_eq!(indents, [2, 2, 4], "{readable}");
    let cut = place.run(&["--json", "trace", &id(100).to_string(), "--limit", "3"]).expect_code(0);
    assert_eq!(cut.json_lines().len(), 3);
    assert!(cut.err.contains("\"cut\""), "{}", cut.err);
    // Who says that two events caused each other gets them both.
    let store = Store::open(place.data()).unwrap();
    for (number, cause) in [(20, 21), (21, 20)] {
        let event = NewEvent::new("odd-1", "Odd").id(id(number)).causation(id(cause)).correlation(id(200));
        store.append(event).unwrap().wait().unwrap();
    }
    store.close().unwrap();
    assert_eq!(tree(id(200)), [(1, 7), (2, 8)]);
    let error = place.run(&["--json", "trace", &id(12345).to_string()]).expect_code(1).error();
    assert_eq!(error["error"], json!("nothing_caused"));
    place.run(&["trace", "no-id"]).expect_code(2);
}
