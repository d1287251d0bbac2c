//! The saga of the trip example: side by side, joined, one within the other, and back.

#[path = "../../examples/trip/model.rs"]
mod model;

use crate::{Fresh, beside, run, until, with_server};
use annals_sourcing::testing::given;
use annals_sourcing::{InMemory, Projector, SagaContext, SagaRun, SagaView};
use annals_types::{EventStore, QueryItem, Read};
use futures_core::Stream;
use model::{Agency, Part, Refusal, TripCommand, TripEvent, Trips};
use std::future::poll_fn;
use std::pin::Pin;

async fn arrange<S: EventStore>(store: S) {
    let agency = Agency::new(store.clone(), 2).unwrap();
    let requests = [("t1", 100), ("t2", 900_000), ("t3", 100), ("t4", 100)];
    let asking = async {
        for (trip, cents) in requests {
            agency.request(trip, "LH400", cents).await.unwrap();
            until(async || {
                let there = agency.trips.load(format!("trip-{trip}")).await.unwrap().state;
                assert!(there.cancelled.is_none() || trip == "t2" || trip == "t4", "{there:?}");
                there.is_confirmed || there.cancelled.is_some()
            })
            .await;
            // What is to be undone is undone before the next one asks.
            let undone = match trip {
                "t2" => "SeatReleased",
                "t4" => "PaymentRefunded",
                _ => continue,
            };
            until(async || {
                let mut found = store.read(&Read::query(QueryItem::new().of_type(undone))).await.unwrap();
                poll_fn(|context| Pin::new(&mut found).poll_next(context)).await.is_some()
            })
            .await;
        }
    };
    beside(agency.run(), asking).await;
    let sagas = InMemory::<SagaView>::default();
    Projector::new(store, sagas.clone(), SagaView::handlers()).unwrap().catch_up().await.unwrap();
    sagas.with(|sagas| {
        let runs: Vec<_> = sagas.runs().filter(|run| run.saga == "trip").collect();
        let steps = |index: usize| steps_of(runs[index]);
        assert_eq!(
            steps(0),
            [
                "request TripRequested 0",
                "pay PaymentTaken 1",
                "seat SeatReserved 1",
                "confirm TripConfirmed 2"
            ]
        );
        assert_eq!(
            steps(1),
            [
                "request TripRequested 0",
                "pay PaymentDeclined 1",
                "seat SeatReserved 1",
                "cancel TripCancelled 2",
                "release SeatReleased 1"
            ]
        );
        assert_eq!(
            steps(3),
            [
                "request TripRequested 0",
                "pay PaymentTaken 1",
                "seat SeatRefused 1",
                "cancel TripCancelled 2",
                "refund PaymentRefunded 1"
            ]
        );
        let failed: Vec<_> = sagas.failed().map(|(_, step)| step.failure.as_deref().unwrap()).collect();
        assert_eq!(failed, ["the card is declined", "the flight is full"]);
        // The seat of each trip is a saga of its own within.
        assert_eq!(sagas.runs().filter(|run| run.saga == "flight").count(), 4);
    });
}

/// Name, event and how many it follows; the two that are side by side in the order of their names.
fn steps_of(run: &SagaRun) -> Vec<String> {
    let mut steps: Vec<_> = run
        .steps()
        .iter()
        .map(|step| {
            let event = step.event.as_ref().map_or("", |(_, _, event_type)| event_type.as_str());
            format!("{} {event} {}", step.name, step.previous.len())
        })
        .collect();
    steps[1..3].sort();
    steps
}

#[test]
fn a_trip_is_confirmed_or_undone() {
    let fresh = Fresh::new();
    run(arrange(fresh.store.clone()));
    with_server(|client| run(async { arrange(client.await).await }));
}

#[test]
fn the_end_of_a_trip_waits_for_both_parts() {
    let requested = SagaContext::launch("trip", "request").unwrap();
    let (pay, seat) = (requested.step("trip", "pay").unwrap(), requested.step("trip", "seat").unwrap());
    let begun = || TripEvent::Requested { trip: "t".into(), flight: "f".into(), cents: 1 };
    let paid = || TripEvent::Noted { part: Part::Payment, failure: None, step: pay.clone() };
    let seated = |failure: Option<&str>| TripCommand::Note {
        part: Part::Seat,
        failure: failure.map(str::to_owned),
        step: seat.clone(),
    };
    let payment = TripCommand::Note { part: Part::Payment, failure: None, step: pay.clone() };
    given(&Trips, [begun()]).when(&payment).then([paid()]);
    given(&Trips, [begun(), paid()]).when(&payment).then_refused(Refusal("it is noted"));
    let confirmed = given(&Trips, [begun(), paid()]).when(&seated(None));
    // The ids of steps follow from what they follow, so that who decides twice decides the same.
    let step = (pay.clone() + seat.clone()).unwrap().step("trip", "confirm").unwrap();
    let noted = TripEvent::Noted { part: Part::Seat, failure: None, step: seat.clone() };
    assert!(confirmed.then([noted, TripEvent::Confirmed { trip: "t".into(), step }]).is_confirmed);
}
