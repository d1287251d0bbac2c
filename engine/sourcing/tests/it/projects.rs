//! The projects and users of the example, with their read models.

#[path = "../../examples/projects/model.rs"]
mod model;

use crate::{Fresh, run, with_server};
use annals_sourcing::testing::{given, projected};
use annals_sourcing::{Context, InMemory, Projector, Repository};
use annals_types::EventStore;
use model::{Payment, ProjectCommand, ProjectEvent, Projects, Refusal, UserCommand, UserEvent, Users};

#[test]
fn a_command_is_one_event_several_none_or_an_error() {
    let created = || UserEvent::Created(model::UserCreated { user: "u".into(), name: "U".into() });
    let add = |method: &str| UserCommand::AddMethod { method: method.into() };
    let added = |method: &str| {
        UserEvent::MethodAdded(model::PaymentMethodAdded { user: "u".into(), method: method.into() })
    };
    let default = |method: &str| {
        UserEvent::DefaultMethodSet(model::DefaultPaymentMethodSet {
            user: "u".into(),
            method: method.into(),
        })
    };
    given(&Users, [created()]).when(&add("card")).then([added("card"), default("card")]);
    given(&Users, [created(), added("card")]).when(&add("cash")).then([added("cash")]);
    given(&Users, []).when(&add("card")).then_refused(Refusal("there is no such user"));
    let tag = || ProjectEvent::TagCreated { project: "p".into(), tag: "t".into() };
    let project = ProjectEvent::Created { project: "p".into(), title: "P".into() };
    given(&Projects, [project, tag()]).when(&ProjectCommand::AddTag { tag: "t".into() }).then_nothing();
}

#[test]
fn a_projection_is_tested_without_a_store() {
    let created = model::UserCreated { user: "u".into(), name: "U".into() };
    let set = model::DefaultPaymentMethodSet { user: "u".into(), method: "card".into() };
    let events = [UserEvent::Created(created), UserEvent::DefaultMethodSet(set)];
    let (payments, failures) = projected(&model::payments(), &events);
    assert!(failures.is_empty(), "{failures:?}");
    let expected = Payment { name: "U".into(), methods: vec![], default: Some("card".into()) };
    assert_eq!(payments, [("u".to_owned(), expected)].into());
}

async fn read_models_follow<S: EventStore>(store: S) {
    let (tags, payments) = (InMemory::default(), InMemory::default());
    let mut tagging = Projector::new(store.clone(), tags.clone(), model::tagged_tasks()).unwrap().spawn();
    let mut paying = Projector::new(store.clone(), payments.clone(), model::payments()).unwrap().spawn();
    let projects = Repository::new(store.clone(), Projects).unwrap();
    let users = Repository::new(store, Users).unwrap();
    let mut last = None;
    for command in [
        ProjectCommand::Create { project: "p".into(), title: "P".into() },
        ProjectCommand::AddTag { tag: "red".into() },
        ProjectCommand::AddTask { task: "t1".into(), title: "T".into() },
        ProjectCommand::AssignTag { task: "t1".into(), tag: "red".into() },
    ] {
        last = projects.handle("project-p", &command, &Context::new()).await.unwrap().appended;
    }
    assert!(tagging.reached(last.unwrap().first_position()).await);
    assert_eq!(
        tags.with(Clone::clone),
        [("red".to_owned(), [("p".to_owned(), "t1".to_owned())].into())].into()
    );
    let mut last = None;
    for command in [
        UserCommand::Create { user: "u".into(), name: "U".into() },
        UserCommand::AddAddress { address: "here".into() },
        UserCommand::AddMethod { method: "card".into() },
        UserCommand::AddMethod { method: "cash".into() },
        UserCommand::SetDefaultMethod { method: "cash".into() },
    ] {
        last = users.handle("user-u", &command, &Context::new()).await.unwrap().appended;
    }
    assert!(paying.reached(last.unwrap().first_position()).await);
    let expected = Payment {
        name: "U".into(),
        methods: vec!["card".into(), "cash".into()],
        default: Some("cash".into()),
    };
    assert_eq!(payments.with(|users| users["u"].clone()), expected);
}

#[test]
fn read_models_of_two_aggregates_follow() {
    let fresh = Fresh::new();
    run(read_models_follow(fresh.store.clone()));
    with_server(|client| run(async { read_models_follow(client.await).await }));
}
