//! Steps of sagas, and what can be seen of them.

use crate::{Fresh, run};
use annals::{NewEvent, QueryItem, Read};
use annals_sourcing::testing::in_memory;
use annals_sourcing::{
    Context, Decider, DomainEvent, InMemory, Projector, Repository, SagaContext, SagaView,
};
use annals_types::Timestamp;

#[derive(Clone, PartialEq, Debug, DomainEvent)]
enum Step {
    #[event("StepTaken")]
    Taken { what: String },
}

/// Takes whatever step it is told to.
struct Taking;

impl Decider for Taking {
    type State = ();
    type Command = String;
    type Event = Step;
    type Error = String;

    fn initial(&self) {}

    fn evolve(&self, (): &mut (), _: &Step) {}

    fn decide(&self, (): &(), what: &String) -> Result<Vec<Step>, String> {
        Ok(vec![Step::Taken { what: what.clone() }])
    }
}

#[test]
fn a_saga_with_steps_side_by_side_and_one_within_is_seen_step_by_step() {
    let store = in_memory();
    run(async {
        let taking = Repository::new(store.clone(), Taking).unwrap();
        let take = async |stream: &str, sagas: &SagaContext| {
            let context = Context::new().sagas(sagas.clone());
            taking.handle(stream, &stream.to_owned(), &context).await.unwrap();
        };
        let book = SagaContext::launch("trip", "book").unwrap();
        book.initiate(&store, &Context::new()).await.unwrap();
        take("trip-1", &book).await;
        let pay = book.step("trip", "pay").unwrap();
        // The flight is a saga of its own within.
        let seat = book.step("trip", "fly").unwrap().launch_within("flight", "seat").unwrap();
        for step in [&pay, &seat] {
            step.initiate(&store, &Context::new()).await.unwrap();
        }
        take("flight-1", &seat).await;
        take("payment-1", &pay).await;
        let meal = seat.step("flight", "meal").unwrap().failed("flight", "sold out").unwrap();
        take("flight-1", &meal.only("flight").unwrap()).await;
        let confirm = (pay.clone() + seat.only("trip").unwrap()).unwrap().step("trip", "confirm").unwrap();
        confirm.initiate(&store, &Context::new()).await.unwrap();

        let mut projector =
            Projector::new(store.clone(), InMemory::<SagaView>::default(), SagaView::handlers()).unwrap();
        projector.catch_up().await.unwrap();
        projector.model().with(|view| {
            let trip = view.run(book.get("trip").unwrap().instance).unwrap();
            let steps: Vec<_> = trip.steps().iter().map(|step| step.name.as_str()).collect();
            assert_eq!((steps[0], steps[3], steps.len()), ("book", "confirm", 4), "{steps:?}");
            assert!(!trip.is_done());
            let hanging: Vec<_> =
                view.hanging(Timestamp::new(u64::MAX)).map(|(run, step)| (&*run.saga, &*step.name)).collect();
            assert_eq!(hanging, [("trip", "confirm")]);
            assert_eq!(view.hanging(Timestamp::new(1)).count(), 0);
            let failed: Vec<_> =
                view.failed().map(|(run, step)| (&*run.saga, &*step.name, step.failure.as_deref())).collect();
            assert_eq!(failed, [("flight", "meal", Some("sold out"))]);
            let paid = trip.steps().into_iter().find(|step| step.name == "pay").unwrap();
            assert!(paid.duration().is_some() && paid.event.as_ref().unwrap().1 == "payment-1");
        });
        take("trip-1", &confirm).await;
        projector.catch_up().await.unwrap();
        let instance = confirm.get("trip").unwrap().instance;
        projector.model().with(|view| assert!(view.run(instance).unwrap().is_done()));
        // All of a run is one indexed read.
        let tagged = QueryItem::new().tag(format!("saga:{instance}"));
        assert_eq!(store.read(Read::query(tagged)).unwrap().count(), 4 + 4);
    });
}

/// Without names: correlation, causation and the event's own id say what followed from what.
#[test]
fn the_simple_form_is_by_correlation_and_causation() {
    let fresh = Fresh::new();
    run(async {
        let taking = Repository::new(fresh.store.clone(), Taking).unwrap();
        let mut context = Context::new();
        let correlation = context.correlation.unwrap();
        let mut before = None;
        for stream in ["trip-1", "payment-1", "flight-1"] {
            taking.handle(stream, &stream.to_owned(), &context).await.unwrap();
            let event = fresh.store.read(Read::stream(stream)).unwrap().next().unwrap().unwrap();
            assert_eq!((event.correlation(), event.causation()), (Some(correlation), before));
            (context, before) = (Context::caused_by(&event), Some(event.id()));
        }
        assert_eq!(
            fresh.store.read(Read::query(QueryItem::new().correlation(correlation))).unwrap().count(),
            3
        );
        // An event that has none is the beginning of a conversation of its own.
        fresh.store.append(NewEvent::new("alone-1", "Alone")).unwrap().wait().unwrap();
        let alone = fresh.store.read(Read::stream("alone-1")).unwrap().next().unwrap().unwrap();
        assert_eq!(Context::caused_by(&alone).correlation, Some(alone.id()));
    });
}
