//! Commands that are for one version or done once, and conditions beside those of the decision.

use crate::exchanged::Exchanged;
use crate::repository::{Enrolment, EnrolmentEvent, Task, TaskCommand, TaskEvent, TaskState};
use crate::{Fresh, run};
use annals::{NewEvent, Position, QueryItem, Read, Version};
use annals_sourcing::{Context, HandleError, Repository, SourcingError};
use annals_types::ExpectedVersion;
use std::num::NonZeroUsize;

/// As a form that somebody filled in on what they saw: whatever came since, also where it would be allowed, is told and not decided on.
#[test]
fn a_command_for_one_version_is_not_decided_on_another() {
    for cached in [false, true] {
        let fresh = Fresh::new();
        let mut tasks = Repository::new(fresh.store.clone(), Task).unwrap();
        if cached {
            tasks = tasks.cache(NonZeroUsize::new(10).unwrap());
        }
        let context = Context::new();
        run(async {
            let create = TaskCommand::Create("one");
            tasks.handle_at("task-1", None, &create, &context).await.unwrap();
            let seen = tasks.load("task-1").await.unwrap().version;
            // Somebody else, past what is remembered here.
            let other = Repository::new(fresh.store.clone(), Task).unwrap();
            other.handle_at("task-1", seen, &TaskCommand::Note(1, 2), &context).await.unwrap();
            for (stream, version, command) in [
                ("task-1", seen, TaskCommand::Finish),
                ("task-1", None, TaskCommand::Finish),
                ("task-2", seen, create),
            ] {
                let told = tasks.handle_at(stream, version, &command, &context).await.unwrap_err();
                let actual = (stream == "task-1").then(|| Version::new(2));
                let HandleError::OutOfDate { expected, actual: there, .. } = &told else {
                    panic!("{told:?}")
                };
                assert_eq!((*expected, *there), (version, actual));
            }
            let last = tasks.load("task-1").await.unwrap().version;
            tasks.handle_at("task-1", last, &TaskCommand::Finish, &context).await.unwrap();
            // Of many who saw the same, one is in time.
            let last = tasks.load("task-1").await.unwrap().version;
            let racers = (0..10).map(|by| {
                let tasks = tasks.clone();
                let note = TaskCommand::Note(by, 1);
                tokio::spawn(
                    async move { tasks.handle_at("task-1", last, &note, &Context::new()).await.is_ok() },
                )
            });
            let mut in_time = 0;
            for racer in racers.collect::<Vec<_>>() {
                in_time += u32::from(racer.await.unwrap());
            }
            assert_eq!(in_time, 1);
        });
    }
}

/// As a request that was perhaps answered and is sent again, by whoever and how often.
#[test]
fn a_command_with_a_key_is_done_once() {
    for cached in [false, true] {
        let fresh = Fresh::new();
        let mut tasks = Repository::new(fresh.store.clone(), Task).unwrap();
        if cached {
            tasks = tasks.cache(NonZeroUsize::new(10).unwrap());
        }
        let once = |key: &str| Context::new().once(key);
        run(async {
            let create = TaskCommand::Create("one");
            let created = tasks.handle("task-1", &create, &once("r-1")).await.unwrap();
            let position = created.appended.unwrap().first_position();
            // It would be refused now, and was allowed then.
            let again = tasks.handle("task-1", &create, &once("r-1")).await.unwrap();
            assert_eq!((again.repeated, again.events.len(), again.appended), (Some(position), 0, None));
            assert_eq!(again.state.title.as_deref(), Some("one"));
            assert!(tasks.handle("task-1", &create, &once("r-2")).await.is_err());
            let at = tasks.handle_at("task-1", None, &create, &once("r-1")).await.unwrap();
            assert_eq!(at.repeated, Some(position));
            // It would be allowed again; many ask at once.
            let racers = (0..10).map(|_| {
                let tasks = tasks.clone();
                tokio::spawn(async move {
                    tasks
                        .handle("task-1", &TaskCommand::Note(7, 3), &Context::new().once("r-3"))
                        .await
                        .unwrap()
                })
            });
            let mut done = Vec::new();
            for racer in racers.collect::<Vec<_>>() {
                done.push(racer.await.unwrap());
            }
            assert_eq!(done.iter().filter(|handled| handled.repeated.is_none()).count(), 1);
            assert!(done.iter().all(|handled| handled.state.notes.len() == 3));
            // The key of a command that was refused is free.
            tasks.handle("task-1", &TaskCommand::Note(8, 1), &once("r-2")).await.unwrap();
            assert_eq!(tasks.load("task-1").await.unwrap().state.notes.len(), 4);
        });
        let tagged = fresh.store.read(Read::query(QueryItem::new().tag("once:r-3"))).unwrap().count();
        assert_eq!(tagged, 1, "the first of three events");
    }
}

/// Another decision would not mend a condition that the caller has added: it is told at once.
#[test]
fn a_condition_of_the_callers_that_does_not_hold_is_not_tried_again() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        tasks.handle("task-1", &TaskCommand::Create("one"), &Context::new()).await.unwrap();
        let decided = std::sync::atomic::AtomicU32::new(0);
        let decide = |_: &TaskState| {
            decided.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(vec![TaskEvent::Done])
        };
        let told = tasks
            .transact_with("task-2", &Context::new(), decide, |append| {
                append.expect("task-1", ExpectedVersion::NoStream)
            })
            .await
            .unwrap_err();
        let own = tasks
            .transact_with("task-1", &Context::new(), decide, |append| {
                append.expect("task-1", ExpectedVersion::Exactly(Version::new(7)))
            })
            .await
            .unwrap_err();
        let query = || QueryItem::new().stream("task-1");
        let queried = tasks
            .transact_with("task-2", &Context::new(), decide, |append| append.fail_if_matches(query(), None))
            .await
            .unwrap_err();
        for error in [told, own, queried] {
            assert!(
                matches!(&error, HandleError::Sourcing(SourcingError::Store(store)) if store.is_conflict()),
                "{error:?}"
            );
        }
        assert_eq!(decided.into_inner(), 3);
    });
}

/// A query that selects nothing yet has the same condition as the caller's: what matched tells them apart.
#[test]
fn a_condition_of_the_callers_is_told_from_that_of_an_empty_query() {
    let fresh = Fresh::new();
    let seats = Repository::new(fresh.store.clone(), Enrolment).unwrap();
    fresh.store.append(NewEvent::new("other-1", "Other").tag("other")).unwrap().wait().unwrap();
    run(async {
        let decided = std::sync::atomic::AtomicU32::new(0);
        let error = seats
            .transact_with(
                QueryItem::new().tag("course:none"),
                &Context::new(),
                |_| {
                    decided.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok(vec![EnrolmentEvent::Enrolled { course: "none".into(), student: 1 }])
                },
                |append| append.fail_if_matches(QueryItem::new().tag("other"), None),
            )
            .await
            .unwrap_err();
        assert!(
            matches!(&error, HandleError::Sourcing(SourcingError::Store(store)) if store.is_conflict()),
            "{error:?}"
        );
        assert_eq!(decided.into_inner(), 1);
    });
}

/// What the caller adds is there whether the decision leads to events or not.
#[test]
fn what_is_added_to_a_decision_without_events_is_appended() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        tasks.handle("task-1", &TaskCommand::Create("one"), &Context::new()).await.unwrap();
        let nothing = |_: &TaskState| Ok(vec![]);
        let handled = tasks
            .transact_with("task-1", &Context::new(), nothing, |append| {
                append.advance("inbox", Some(Position::ZERO))
            })
            .await
            .unwrap();
        assert!(handled.events.is_empty() && handled.last_position().is_none());
        assert_eq!(fresh.store.cursor("inbox").unwrap().unwrap().position, Some(Position::ZERO));
        let plain = tasks.transact("task-1", &Context::new(), nothing).await.unwrap();
        assert_eq!(plain.appended, None);
    });
}

/// As where a backup was put back below a program that remembers.
#[test]
fn what_is_remembered_of_another_store_is_not_believed() {
    let (fresh, other) = (Fresh::new(), Fresh::new());
    run(async {
        let tasks = Repository::new(Exchanged::new(&fresh.store), Task)
            .unwrap()
            .cache(NonZeroUsize::new(10).unwrap());
        let create = TaskCommand::Create("one");
        tasks.handle("task-1", &create, &Context::new()).await.unwrap();
        tasks.handle("task-1", &TaskCommand::Note(1, 5), &Context::new()).await.unwrap();
        *tasks.store().now.lock() = other.store.clone();
        let there = tasks.load("task-1").await.unwrap();
        assert_eq!((there.version, there.state), (None, TaskState::default()));
        *tasks.store().now.lock() = fresh.store.clone();
        tasks.load("task-1").await.unwrap();
        *tasks.store().now.lock() = other.store.clone();
        tasks.handle_at("task-1", None, &create, &Context::new()).await.unwrap();
        tasks.handle("task-1", &TaskCommand::Finish, &Context::new()).await.unwrap();
    });
}

#[test]
fn one_attempt_is_enough_to_see_that_a_command_is_out_of_date() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task)
        .unwrap()
        .cache(NonZeroUsize::new(10).unwrap())
        .attempts_max(1);
    run(async {
        tasks.handle("task-1", &TaskCommand::Create("one"), &Context::new()).await.unwrap();
        let other = Repository::new(fresh.store.clone(), Task).unwrap();
        other.handle("task-1", &TaskCommand::Note(1, 1), &Context::new()).await.unwrap();
        let told =
            tasks.handle_at("task-1", Some(Version::ZERO), &TaskCommand::Finish, &Context::new()).await;
        assert!(
            matches!(&told, Err(HandleError::OutOfDate { actual: Some(actual), .. }) if actual.get() == 1),
            "{told:?}"
        );
    });
}
