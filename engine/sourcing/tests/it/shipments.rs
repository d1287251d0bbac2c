//! The shipments of the example, on an embedded store and on a server.

#[path = "../../examples/shipments/collection.rs"]
mod collection;
#[path = "../../examples/shipments/manifestation.rs"]
mod manifestation;
#[path = "../../examples/shipments/process.rs"]
mod process;
#[path = "../../examples/shipments/system.rs"]
mod system;

use crate::{Fresh, beside, run, until, with_server};
use annals_sourcing::testing::{given, projected};
use annals_sourcing::{Decider, HandleError, Order, Reactor, Repository, TimeoutElapsed, next};
use annals_types::{EventStore, NewEvent, Query, QueryItem, Read, Record};
use manifestation::{Manifestation, ManifestationCommand, ManifestationEvent};
use process::{Process, ProcessCommand, ProcessEvent, ProcessTrigger, Stage};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use system::System;

async fn all<S: EventStore>(store: &S, query: impl Into<Query<'_>>) -> Vec<Record> {
    let mut events = store.read(&Read::query(query)).await.unwrap();
    let mut found = Vec::new();
    while let Some(event) = next(&mut events).await {
        found.push(event.unwrap());
    }
    found
}

/// Starts these and waits until each is where it is to come to.
async fn arrange<S: EventStore>(store: S, expected: &[(&str, Stage)]) -> System<S> {
    let system = System::new(store).unwrap();
    let settle = async {
        for (shipment, _) in expected {
            system.start(shipment).await.unwrap();
        }
        for (shipment, stage) in expected {
            until(async || {
                system.processes.load(&system::process(shipment)).await.unwrap().state.stage == *stage
            })
            .await;
        }
    };
    beside(system.run(), settle).await;
    system
}

const ENDS: [(&str, Stage); 8] = [
    ("12EEQ9CS9K10", Stage::Completed),
    ("12EEQ9CS9K11", Stage::Failed),
    ("12EEQ9CS9K12", Stage::Failed),
    ("12EEQ9CS9K13", Stage::Completed),
    ("V74YCBYHC8A0", Stage::Completed),
    ("V74YCBYHC8A1", Stage::Failed),
    ("V74YCBYHC8A2", Stage::Failed),
    ("V74YCBYHC8A3", Stage::Completed),
];

async fn ends_as_it_should<S: EventStore>(store: S) {
    let system = arrange(store.clone(), &ENDS).await;
    let international = system.processes.load("V74YCBYHC8A0-Process").await.unwrap().state.outcome;
    assert_eq!(international.process_category, "international-1.0");
    assert_eq!((international.tracking_numbers.len(), international.documents.len()), (2, 7));
    assert!(international.documents.iter().any(|document| document.ends_with("customs-invoice")));
    assert!(international.collection_booking_reference.is_some());
    let domestic = system.processes.load("12EEQ9CS9K10-Process").await.unwrap().state.outcome;
    assert_eq!((domestic.process_category.as_str(), domestic.tracking_numbers.len()), ("domestic-1.0", 1));

    // It failed first, and was completed later.
    let types: Vec<_> = all(&store, QueryItem::new().stream("V74YCBYHC8A3-Process"))
        .await
        .iter()
        .map(|event| event.event_type().to_owned())
        .filter(|name| name == "ProcessFailed" || name == "ProcessCompleted")
        .collect();
    assert_eq!(types, ["ProcessFailed", "ProcessCompleted"]);

    // The leg that was to be had is cancelled, since the other one was not.
    let cancelled =
        all(&store, QueryItem::new().of_type("LegCancelled").stream("V74YCBYHC8A1-Shipment")).await;
    assert_eq!(cancelled.len(), 1);

    // All of a case in one ordered read: by category, and by correlation.
    let by_category = all(&store, QueryItem::new().category("V74YCBYHC8A0")).await;
    let streams: BTreeSet<_> = by_category.iter().map(|event| event.stream().to_owned()).collect();
    assert_eq!(streams.len(), 3, "{streams:?}");
    assert!(by_category.is_sorted_by_key(Record::position));
    let by_correlation =
        all(&store, QueryItem::new().correlation(by_category[0].correlation().unwrap())).await;
    assert_eq!(by_correlation.len(), by_category.len());
    assert!(by_correlation.iter().zip(&by_category).all(|(one, other)| one.id() == other.id()));
}

#[test]
fn shipments_end_as_they_should_on_an_embedded_store() {
    let fresh = Fresh::new();
    run(ends_as_it_should(fresh.store.clone()));
}

#[test]
fn shipments_end_as_they_should_on_a_server() {
    with_server(|client| run(async { ends_as_it_should(client.await).await }));
}

fn begun() -> Vec<ProcessEvent> {
    vec![
        ProcessEvent::Started { shipment: "V0".into(), category: "international-1.0".into() },
        ProcessEvent::ManifestationRequested { shipment: "V0".into(), legs: 2, documents: vec![] },
    ]
}

/// What a process does not wait for is refused, and changes nothing.
#[test]
fn a_trigger_that_is_out_of_place_is_refused() {
    let booked = ProcessTrigger::CollectionBooked { shipment: "V0".into(), reference: "r".into() };
    let decided =
        Process::default().decide(given(&Process::default(), begun()).state(), &ProcessCommand::Hear(booked));
    let refused = decided.unwrap_err().to_string();
    assert!(refused.contains("international-1.0") && refused.contains("Manifesting"), "{refused}");
}

/// A step that takes too long is over: what was done of it is undone.
#[test]
fn a_step_that_takes_too_long_is_undone() {
    let elapsed = |what: &str| {
        let elapsed = TimeoutElapsed { key: format!("{what} V0"), due: 1 };
        ProcessCommand::Hear(ProcessTrigger::Elapsed(elapsed))
    };
    let reason = "the carrier has not answered in time".to_owned();
    let failed = ProcessEvent::Failed { shipment: "V0".into(), reason };
    given(&Process::default(), begun())
        .when(&elapsed("manifestation"))
        .then([ProcessEvent::ManifestationCancelRequested { shipment: "V0".into() }, failed.clone()]);
    given(&Process::default(), begun().into_iter().chain([failed]))
        .when(&elapsed("manifestation"))
        .then_nothing();
    // The decision becomes a command, and that undoes the leg that was had; the answer that comes late, too.
    let leg = |leg| ManifestationEvent::LegRequested { shipment: "V0".into(), leg };
    let has =
        |leg| ManifestationEvent::LegManifested { shipment: "V0".into(), leg, tracking_number: "n".into() };
    let cancel = |leg| ManifestationEvent::LegCancelRequested { shipment: "V0".into(), leg };
    let started = ManifestationEvent::Started { shipment: "V0".into(), legs: 2, documents: vec![] };
    let over = ManifestationEvent::Failed { shipment: "V0".into(), reason: "cancelled".into() };
    let history = vec![started, leg(1), leg(2), has(1)];
    given(&Manifestation, history.clone())
        .when(&ManifestationCommand::Cancel)
        .then([cancel(1), over.clone()]);
    let late = ManifestationCommand::AnswerLeg { leg: 2, answer: Ok("n".into()) };
    given(&Manifestation, history.into_iter().chain([cancel(1), over])).when(&late).then([has(2), cancel(2)]);
}

/// The same with all parts running: a carrier who says nothing, and the time that passes.
#[test]
fn a_carrier_who_does_not_answer_in_time_ends_the_process() {
    let fresh = Fresh::new();
    run(async {
        let mut system = System::new(fresh.store.clone()).unwrap();
        (system.manifestation_max, system.is_answered) = (Duration::from_millis(50), false);
        system.start("V0").await.unwrap();
        let is_over = async || {
            let over = all(&fresh.store, QueryItem::new().of_type("ManifestationFailed")).await;
            !over.is_empty()
                && system.processes.load("V0-Process").await.unwrap().state.stage == Stage::Failed
        };
        beside(system.run(), until(is_over)).await;
        let elapsed = all(&fresh.store, QueryItem::new().of_type("TimeoutElapsed")).await;
        assert_eq!((elapsed.len(), elapsed[0].stream()), (1, "V0-Process"));
    });
}

/// Where all processes are can be read without loading one.
#[test]
fn where_processes_are_is_a_read_model() {
    let failed = ProcessEvent::Failed { shipment: "V0".into(), reason: "why".into() };
    let (overview, failures) = projected(&process::overview(), &begun());
    assert!(failures.is_empty());
    assert_eq!(overview["V0"], (Stage::Manifesting, 1, None));
    let events: Vec<_> = begun().into_iter().chain([failed]).collect();
    let (overview, _) = projected(&process::overview(), &events);
    assert_eq!(overview["V0"], (Stage::Failed, 2, Some("why".into())));
}

/// A running case goes on by another definition, by a decision of its own; what has no place in its stage is refused and changes nothing.
#[test]
fn a_running_case_moves_to_another_definition() {
    let fresh = Fresh::new();
    run(async {
        let system = System::new(fresh.store.clone()).unwrap();
        let stream = system::process("1MOVED0");
        system.start("1MOVED0").await.unwrap();
        let unknown = system.change_category("1MOVED0", "domestic-9.9").await;
        assert!(matches!(unknown, Err(HandleError::Refused(_))), "{unknown:?}");
        system.change_category("1MOVED0", "domestic-2.0").await.unwrap();
        drop(system);
        let system = arrange(fresh.store.clone(), &[("1STAYS0", Stage::Completed)]).await;
        let is_done = async || system.processes.load(&stream).await.unwrap().state.stage == Stage::Completed;
        beside(system.run(), until(is_done)).await;
        let moved = system.processes.load(&stream).await.unwrap().state.outcome;
        let stays = system.processes.load(&system::process("1STAYS0")).await.unwrap().state.outcome;
        assert_eq!(
            (moved.process_category.as_str(), moved.collection_booking_reference),
            ("domestic-2.0", None)
        );
        assert_eq!(stays.process_category, "domestic-1.0");
        assert!(stays.collection_booking_reference.is_some());
        let again = system.start("1MOVED0").await;
        assert!(
            matches!(&again, Err(HandleError::Refused(why)) if why.to_string().contains("Completed")),
            "{again:?}"
        );
    });
}

/// A definition was taken out that a case goes by: what the case hears is not lost, and the case goes on once the definition is back.
#[test]
fn what_a_case_hears_waits_until_its_definition_is_back() {
    let fresh = Fresh::new();
    run(async {
        let gone = NewEvent::new("1X0-Process", "ProcessStarted")
            .json(r#"{"shipment":"1X0","category":"domestic-0.9"}"#);
        let asked = NewEvent::new("1X0-Process", "ManifestationRequested")
            .json(r#"{"shipment":"1X0","legs":1,"documents":[]}"#);
        let heard = NewEvent::new("1X0-Shipment", "ManifestationFailed")
            .json(r#"{"shipment":"1X0","reason":"no way"}"#);
        for event in [gone, asked, heard] {
            fresh.store.append(event).unwrap().await.unwrap();
        }
        let hear = |trigger: &ProcessTrigger, _: &Record| {
            let shipment = trigger.shipment();
            Some(Order::new(system::process(shipment), ProcessCommand::Hear(trigger.clone())))
        };
        let reactor = |process| {
            let processes = Repository::new(fresh.store.clone(), process).unwrap();
            Reactor::new("shipment-process", processes, hear).unwrap()
        };
        let stands = reactor(Process::default()).catch_up().await.unwrap_err().to_string();
        assert!(stands.contains("domestic-0.9") && stands.contains("1X0-Process"), "{stands}");
        assert_eq!(fresh.store.read(Read::stream("refused-shipment-process")).unwrap().count(), 0);
        reactor(Process::with("domestic-0.9")).catch_up().await.unwrap();
        let processes = Repository::new(fresh.store.clone(), Process::default()).unwrap();
        assert_eq!(processes.load("1X0-Process").await.unwrap().state.stage, Stage::Failed);
    });
}

/// Runs the example as a process of its own that starts shipments on and on, and kills it.
fn kill_a_host(data: &Path, after: Duration) {
    let examples = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let mut host = Command::new(examples.join("shipments"))
        .args(["--workers", "2", "--shipments", "1000", "--delay-ms", "2", "--data"])
        .arg(data)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo builds the examples with the tests");
    let mut said = BufReader::new(host.stderr.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "running");
    std::thread::sleep(after);
    assert!(host.try_wait().unwrap().is_none(), "it was done before it was killed");
    host.kill().unwrap();
    host.wait().unwrap();
}

/// Shipments that have not come to their end; what ends with 3 fails before it is completed.
async fn open_shipments<S: EventStore>(store: &S) -> BTreeSet<String> {
    let ends = ["ProcessStarted", "ProcessCompleted", "ProcessFailed"];
    let mut open = BTreeSet::new();
    for event in all(store, of_types(&ends)).await {
        let shipment = event.stream().trim_end_matches("-Process").to_owned();
        let is_end = event.event_type() == "ProcessCompleted"
            || (event.event_type() == "ProcessFailed" && !shipment.ends_with('3'));
        match is_end {
            true => open.remove(&shipment),
            false => open.insert(shipment),
        };
    }
    open
}

fn of_types<'a>(types: &[&'a str]) -> QueryItem<'a> {
    types.iter().fold(QueryItem::new(), |item, name| item.of_type(*name))
}

/// The host is killed at random moments, fifty times: each command that goes out is in the store exactly once, and no case hangs.
#[test]
fn fifty_kills_of_the_host_double_no_command_and_leave_no_case_behind() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    for round in 0..50_u64 {
        kill_a_host(&data, Duration::from_millis(10 + round * 7_919 % 97));
    }
    let store = annals::Store::open(&data).unwrap();
    run(async {
        let started = all(&store, of_types(&["ProcessStarted"])).await.len();
        assert!(started > 50, "only {started} shipments were begun");
        let system = System::new(store.clone()).unwrap();
        beside(system.run(), until(async || open_shipments(&store).await.is_empty())).await;
        // Whatever was done twice would have been refused the second time, and told.
        for reactor in ["process", "manifestation", "carrier", "collection"] {
            let refused = all(&store, QueryItem::new().stream(format!("refused-shipment-{reactor}"))).await;
            assert!(refused.is_empty(), "{reactor}: {}", String::from_utf8_lossy(refused[0].data()));
        }
        let pairs: [(&[&str], &[&str]); 5] = [
            (&["ManifestationRequested"], &["ManifestationStarted"]),
            (&["CollectionRequested"], &["CollectionStarted"]),
            (&["LegManifestationRequested"], &["LegManifested", "LegManifestationFailed"]),
            (&["DocumentRequested"], &["DocumentMade"]),
            (&["CollectionBookingRequested"], &["CollectionBooked", "CollectionFailed"]),
        ];
        for (causes, effects) in pairs {
            let causes: BTreeSet<_> = all(&store, of_types(causes)).await.iter().map(Record::id).collect();
            let effects: Vec<_> =
                all(&store, of_types(effects)).await.iter().filter_map(Record::causation).collect();
            let once: BTreeSet<_> = effects.iter().copied().collect();
            assert_eq!(once.len(), effects.len(), "a command went out twice");
            assert_eq!(once, causes, "a command did not go out");
        }
    });
}
