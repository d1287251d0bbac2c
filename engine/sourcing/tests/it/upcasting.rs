//! Older forms are read as those of now; what is stored stays as it is.

use crate::{Fresh, run};
use annals::{Load, NewEvent, NewSnapshot, Read, Version};
use annals_sourcing::testing::assert_stored_as;
use annals_sourcing::{
    Context, Decider, DomainEvent, Repository, SnapshotPolicy, Snapshots, UpcastError, Upcasts,
};
use serde_json::json;

#[derive(Clone, PartialEq, Debug, DomainEvent)]
#[events(upcasts = upcasts)]
enum PriceEvent {
    #[event("PriceSet", schema = 3)]
    Set { cents: u64, currency: String },
}

fn upcasts() -> Upcasts {
    Upcasts::none()
        .json("PriceSet", 1, |data| data["cents"] = json!(data["euros"].as_u64().unwrap_or(0) * 100))
        .json("PriceSet", 2, |data| data["currency"] = json!("EUR"))
        .json_into(("CostSet", 1), ("PriceSet", 1), |_| {})
}

struct Price;

impl Decider for Price {
    type State = Vec<(u64, String)>;
    type Command = (u64, String);
    type Event = PriceEvent;
    type Error = ();

    fn initial(&self) -> Self::State {
        Vec::new()
    }

    fn evolve(&self, state: &mut Self::State, PriceEvent::Set { cents, currency }: &PriceEvent) {
        state.push((*cents, currency.clone()));
    }

    fn decide(&self, _: &Self::State, (cents, currency): &(u64, String)) -> Result<Vec<PriceEvent>, ()> {
        Ok(vec![PriceEvent::Set { cents: *cents, currency: currency.clone() }])
    }
}

#[test]
fn each_older_form_is_read_as_that_of_now_and_stays_as_it_is() {
    let fresh = Fresh::new();
    let stored = [
        ("CostSet", r#"{"euros":3}"#, ""),
        ("PriceSet", r#"{"euros":4}"#, ""),
        ("PriceSet", r#"{"cents":500}"#, r#"{"schema":2}"#),
        ("PriceSet", r#"{"cents":600,"currency":"USD"}"#, r#"{"schema":3,"whatever":[1]}"#),
    ];
    for (event_type, data, metadata) in stored {
        let event = NewEvent::new("price-1", event_type).json(data).metadata(metadata.as_bytes());
        fresh.store.append(event).unwrap().wait().unwrap();
    }
    let prices = Repository::new(fresh.store.clone(), Price).unwrap();
    run(async {
        prices.handle("price-1", &(700, "CHF".into()), &Context::default()).await.unwrap();
        let there = prices.load("price-1").await.unwrap();
        let expected = [(300, "EUR"), (400, "EUR"), (500, "EUR"), (600, "USD"), (700, "CHF")];
        assert_eq!(there.state, expected.map(|(cents, currency)| (cents, currency.to_owned())));
        assert_eq!((there.report.events, there.report.upcast), (5, 3));
    });
    let data: Vec<_> =
        fresh.store.read(Read::all()).unwrap().map(|event| event.unwrap().data().to_vec()).collect();
    assert!(stored.iter().zip(&data).all(|((_, stored, _), found)| stored.as_bytes() == found));
}

#[test]
fn a_newer_form_than_is_known_is_an_error_that_names_it() {
    let fresh = Fresh::new();
    let newer = NewEvent::new("price-1", "PriceSet").json("{}").metadata(br#"{"schema":4}"#.as_slice());
    fresh.store.append(newer).unwrap().wait().unwrap();
    let error =
        run(Repository::new(fresh.store.clone(), Price).unwrap().load("price-1")).unwrap_err().to_string();
    assert!(
        error.contains("schema 4") && error.contains("known is 3") && error.contains("position 0"),
        "{error}"
    );
}

#[test]
fn a_gap_a_circle_and_a_second_step_are_errors_before_anything_is_read() {
    let step = |upcasts: Upcasts, from, into| upcasts.json_into(from, into, |_| {});
    let check = |upcasts: Upcasts| upcasts.check(PriceEvent::TYPES);
    let named = |schema| ("PriceSet".to_owned(), schema);
    let (event_type, schema) = named(2);
    assert_eq!(
        check(step(Upcasts::none(), ("PriceSet", 1), ("PriceSet", 2))),
        Err(UpcastError::Gap { event_type, schema })
    );
    let (event_type, schema) = named(1);
    assert_eq!(check(Upcasts::none()), Err(UpcastError::Gap { event_type, schema }));
    let twice = step(upcasts(), ("PriceSet", 2), ("PriceSet", 3));
    let (event_type, schema) = named(2);
    assert_eq!(check(twice), Err(UpcastError::Twice { event_type, schema }));
    let circle = step(step(upcasts(), ("A", 1), ("B", 1)), ("B", 1), ("A", 1));
    assert!(matches!(check(circle), Err(UpcastError::Circle { .. })));
    let away = step(upcasts(), ("PriceSet", 3), ("PriceSet", 4));
    assert!(matches!(check(away), Err(UpcastError::OfNow { schema: 3, .. })));
    let nowhere = step(upcasts(), ("PriceGone", 1), ("PriceGone", 2));
    assert!(matches!(check(nowhere), Err(UpcastError::Gap { schema: 2, .. })));
    assert_eq!(check(upcasts()), Ok(()));
}

/// A snapshot of an older form is used where steps lead to that of now, and everything is replayed where none do.
#[test]
fn a_snapshot_of_an_older_form_is_used_if_it_can_be() {
    let fresh = Fresh::new();
    let prices =
        |snapshots: Snapshots<_>| Repository::new(fresh.store.clone(), Price).unwrap().snapshots(snapshots);
    let now = || Snapshots::new(SnapshotPolicy::Never, 3);
    run(async {
        let plain = prices(now());
        for cents in [1, 2, 3] {
            plain.handle("price-1", &(cents, "EUR".into()), &Context::default()).await.unwrap();
        }
        for (version, schema, data) in [(0, 1, "[[1,\"too old\"]]"), (1, 2, "[1,2]")] {
            let snapshot = NewSnapshot::new("price-1", schema, data);
            fresh.store.write_snapshot(&snapshot, Version::new(version)).unwrap();
        }
        let of_two = Upcasts::none().json("", 2, |data| {
            let all: Vec<_> =
                data.as_array().unwrap().iter().map(|cents| json!([cents, "from v2"])).collect();
            *data = json!(all);
        });
        let upcast = prices(now().upcasts(of_two.clone()).unwrap());
        let there = upcast.load("price-1").await.unwrap();
        assert_eq!(there.report.snapshot, Some(Version::new(1)));
        let expected = [(1, "from v2"), (2, "from v2"), (3, "EUR")];
        assert_eq!(there.state, expected.map(|(cents, text)| (cents, text.to_owned())));

        // Without steps from them both are too old: everything is replayed.
        let there = plain.load("price-1").await.unwrap();
        assert_eq!((there.report.snapshot, there.report.events), (None, 3));
        let early = upcast.replay(&Load::stream("price-1").until(Version::ZERO)).await.unwrap();
        assert_eq!((early.report.snapshot, early.report.events, early.state[0].1.as_str()), (None, 1, "EUR"));

        // One that is not what it says it is, is passed over, too, and said.
        let broken = NewSnapshot::new("price-1", 3, "no JSON");
        fresh.store.write_snapshot(&broken, Version::new(2)).unwrap();
        let there = plain.load("price-1").await.unwrap();
        assert_eq!((there.state.len(), there.report.events), (3, 3));
        assert_eq!(there.report.passed_over[0].version, Some(Version::new(2)));
    });
}

/// What serde is told of variants and fields holds for what is stored, whatever the fields are called.
#[test]
fn attributes_and_names_of_fields_hold_for_the_stored_form() {
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct AnyRef(u32);

    #[derive(Clone, Debug, PartialEq, DomainEvent)]
    enum Odd {
        #[event("Any")]
        #[serde(rename_all = "camelCase")]
        Any {
            data: u32,
            codec: u32,
            inner_value: AnyRef,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            r#type: Option<String>,
        },
        #[event("Wrapped")]
        Wrapped(AnyRef),
        #[event("Empty")]
        Empty,
    }
    let any = Odd::Any { data: 1, codec: 2, inner_value: AnyRef(3), r#type: None };
    assert_stored_as(&any, r#"{"data":1,"codec":2,"innerValue":3}"#);
    assert_stored_as(&Odd::Wrapped(AnyRef(7)), "7");
    assert_stored_as(&Odd::Empty, "{}");
}
