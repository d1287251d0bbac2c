//! The same code on an embedded store and on a server, by the trait that both have.

use crate::serve::with_client;
use crate::support::Place;
use annals::{
    Append, AppendError, EventStore, ExpectedVersion, Follow, Followed, Load, Nack, NewEvent, NewSnapshot,
    NewSubscription, Position, Read, StoreError, SubscriptionMember, Uuid, Version,
};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

async fn all<S: Stream<Item = Result<annals::Record, StoreError>> + Unpin>(mut stream: S) -> Vec<u64> {
    let mut positions = Vec::new();
    while let Some(event) = next(&mut stream).await {
        positions.push(event.unwrap().position().get());
    }
    positions
}

/// What any store does.
async fn works<S: EventStore>(store: S) {
    let deposited = |n: u64| NewEvent::new("account-1", "Deposited").json(n.to_string());
    let opened =
        Append::from(deposited(0)).expect("account-1", ExpectedVersion::NoStream).advance("worker", None);
    store.append(opened.clone()).await.unwrap();
    let refused = store.append(opened).await.unwrap_err();
    assert!(refused.is_conflict() && !refused.is_unknown(), "{refused}");
    for n in 1..20 {
        store.append(deposited(n).into()).await.unwrap();
    }
    assert_eq!(store.head("account-1").await.unwrap().unwrap().version, Version::new(19));
    assert!(store.head("nobody").await.unwrap().is_none());
    assert!(
        store.cursor("worker").await.unwrap().is_some() && store.cursor("nobody").await.unwrap().is_none()
    );
    assert_eq!(all(store.read(&Read::all().backwards().limit(3)).await.unwrap()).await, [19, 18, 17]);
    let bad = store.append(NewEvent::new("", "T").into()).await.unwrap_err();
    assert!(matches!(bad, StoreError::Append(_)) && !bad.is_conflict(), "{bad}");
    // Its state, from a snapshot.
    store.write_snapshot(&NewSnapshot::new("account-1", 1, b"state"), Version::new(14)).await.unwrap();
    let loaded = store.load(&Load::stream("account-1")).await.unwrap();
    assert_eq!(loaded.snapshot.unwrap().version, Version::new(14));
    assert_eq!(all(loaded.events).await, [15, 16, 17, 18, 19]);
    // What is there, and what comes.
    let mut following = store.follow(&Follow::stream("account-1")).await.unwrap();
    let appending = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.append(deposited(20).into()).await.unwrap();
    };
    let taking = async {
        let mut positions = Vec::new();
        while positions.len() < 21 {
            if let Followed::Event(event) = next(&mut following).await.unwrap().unwrap() {
                positions.push(event.position().get());
            }
        }
        assert!(positions.into_iter().eq(0..21));
    };
    tokio::join!(appending, taking);
    // Handed out until it is done with.
    assert!(
        store.create_subscription(&NewSubscription::new("work").start(annals::Start::First)).await.unwrap()
    );
    assert!(
        !store.create_subscription(&NewSubscription::new("work").start(annals::Start::First)).await.unwrap()
    );
    let mut member = store.join("work").await.unwrap();
    let mut ids = Vec::new();
    for position in 0..20 {
        let delivery = member.next_delivery().await.unwrap().unwrap();
        if position == 0 {
            member.nack(delivery.id, &Nack::skip("not wanted")).await.unwrap();
        } else {
            ids.push(delivery.id);
            member.ack(&[delivery.id]).await.unwrap();
        }
        assert_eq!(delivery.position().get(), position);
    }
    member.renew().await.unwrap();
    assert!(member.ack(&ids).await.is_err(), "they are acknowledged already");
    let unknown = store.join("nobody").await.err().unwrap();
    assert!(matches!(unknown, StoreError::Subscription(_)), "{unknown}");
    // What may be there already is known again, or not appended where nobody can know.
    let again = Append::from(deposited(20).id(Uuid::from_u128(20))).again(Position::new(21));
    for repeated in [false, true] {
        assert_eq!(store.append(again.clone()).await.unwrap().repeated, repeated);
    }
    let too_late = store.append(again.clone().again(Position::new(99))).await;
    assert!(too_late.is_ok_and(|appended| appended.repeated), "it is known whatever is said of it");
    let nobody_knows = Append::from(deposited(21).id(Uuid::from_u128(21))).again(Position::new(99));
    let error = store.append(nobody_knows).await.unwrap_err();
    assert!(matches!(error, StoreError::Append(AppendError::TooLateToRepeat { .. })), "{error}");
}

#[test]
fn code_on_the_trait_runs_on_an_embedded_store() {
    let place = Place::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(works(annals::Store::open(place.data()).unwrap()));
}

#[test]
fn code_on_the_trait_runs_on_a_server() {
    with_client(works);
}
