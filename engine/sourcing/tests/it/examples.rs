//! The examples' own rules, on both kinds of store.

#[path = "../../examples/enrolment/model.rs"]
mod enrolment;
#[path = "../../examples/transfer/model.rs"]
mod transfer;

use crate::{Fresh, run, with_address, with_server};
use annals_sourcing::HandleError;
use annals_sourcing::testing::given;
use annals_types::EventStore;
use enrolment::{Enrolment, EnrolmentCommand, EnrolmentError, EnrolmentEvent, School};
use std::process::Command;
use std::sync::Arc;
use transfer::{AccountCommand, AccountError, AccountEvent, Accounts, Bank};

/// Runs this on an embedded store and on a server.
macro_rules! on_both {
    ($work:ident) => {{
        let fresh = Fresh::new();
        run($work(fresh.store.clone()));
        with_server(|client| run(async { $work(client.await).await }));
    }};
}

async fn no_course_has_more_students_than_seats<S: EventStore>(store: S) {
    let school = Arc::new(School::new(store).unwrap());
    for course in ["a", "b"] {
        school.ask(EnrolmentCommand::Define { course: course.into(), seats: 7 }).await.unwrap();
    }
    let students: Vec<_> = (0..40)
        .map(|number| {
            let school = Arc::clone(&school);
            let course = if number % 2 == 0 { "a" } else { "b" }.to_owned();
            let student = format!("s{}", number / 2);
            tokio::spawn(async move { school.ask(EnrolmentCommand::Enrol { course, student }).await })
        })
        .collect();
    let mut enrolled = 0;
    for student in students {
        match student.await.unwrap() {
            Ok(_) => enrolled += 1,
            Err(HandleError::Refused(EnrolmentError::Full)) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(enrolled, 14);
}

#[test]
fn enrolment_never_gives_more_seats_than_there_are() {
    on_both!(no_course_has_more_students_than_seats);
}

#[test]
fn enrolment_is_decided_by_the_course_and_the_student_alone() {
    let defined = |course: &str| EnrolmentEvent::Defined { course: course.into(), seats: 1 };
    let enrolled = |course: &str, student: &str| EnrolmentEvent::Enrolled {
        course: course.into(),
        student: student.into(),
    };
    let enrol = |course: &str, student: &str| EnrolmentCommand::Enrol {
        course: course.into(),
        student: student.into(),
    };
    given(&Enrolment, [defined("a")]).when(&enrol("a", "s")).then([enrolled("a", "s")]);
    given(&Enrolment, [defined("a"), enrolled("a", "t")])
        .when(&enrol("a", "s"))
        .then_refused(EnrolmentError::Full);
    given(&Enrolment, []).when(&enrol("a", "s")).then_refused(EnrolmentError::ThereIsNoSuchCourse);
    let busy =
        (0..5).flat_map(|n| [defined(&n.to_string()), enrolled(&n.to_string(), "s")]).chain([defined("a")]);
    given(&Enrolment, busy).when(&enrol("a", "s")).then_refused(EnrolmentError::TooManyCourses);
    let change = |seats| EnrolmentCommand::ChangeCapacity { course: "a".into(), seats };
    given(&Enrolment, [defined("a"), enrolled("a", "t")])
        .when(&change(0))
        .then_refused(EnrolmentError::SeatsAreTaken);
    let leave = EnrolmentCommand::Leave { course: "a".into(), student: "s".into() };
    given(&Enrolment, [defined("a")]).when(&leave).then_refused(EnrolmentError::IsNotEnrolled);
    let left = EnrolmentEvent::Left { course: "a".into(), student: "t".into() };
    given(&Enrolment, [defined("a"), enrolled("a", "t"), left])
        .when(&enrol("a", "s"))
        .then([enrolled("a", "s")]);
}

async fn what_is_sent_is_received<S: EventStore>(store: S) {
    let bank = Bank::new(store).unwrap();
    for account in ["a", "b"] {
        bank.tell(AccountCommand::Open { account: account.into() }).await.unwrap();
        bank.tell(AccountCommand::Deposit { account: account.into(), cents: 1_000 }).await.unwrap();
    }
    let transfers: Vec<_> = (0..60_u64)
        .map(|number| {
            let bank = bank.clone();
            let (from, to) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
            let command =
                AccountCommand::Transfer { from: from.into(), to: to.into(), cents: number * 31 % 500 };
            tokio::spawn(async move { bank.tell(command).await })
        })
        .collect();
    let would = bank.would("a", "b", 1).await;
    assert!(would.is_ok_and(|would| would.appended.is_none() && would.events.len() == 2));
    for transfer in transfers {
        match transfer.await.unwrap() {
            Ok(_) | Err(HandleError::Refused(AccountError::NotEnough { .. })) => {}
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(bank.balance("a").await.unwrap() + bank.balance("b").await.unwrap(), 2_000);
}

#[test]
fn transfers_at_once_lose_nothing_and_make_nothing() {
    on_both!(what_is_sent_is_received);
}

#[test]
fn a_transfer_is_both_events_or_none() {
    let opened = |account: &str| AccountEvent::Opened { account: account.into() };
    let transfer = |cents| AccountCommand::Transfer { from: "a".into(), to: "b".into(), cents };
    let given_both =
        || [opened("a"), opened("b"), AccountEvent::Deposited { account: "a".into(), cents: 10 }];
    given(&Accounts, given_both()).when(&transfer(7)).then([
        AccountEvent::Sent { account: "a".into(), to: "b".into(), cents: 7 },
        AccountEvent::Received { account: "b".into(), from: "a".into(), cents: 7 },
    ]);
    given(&Accounts, given_both()).when(&transfer(11)).then_refused(AccountError::NotEnough { cents: 10 });
    given(&Accounts, [opened("a")]).when(&transfer(0)).then_refused(AccountError::IsNotOpen("b".into()));
}

/// Each example, as a process of its own: in a new store, and on a server.
#[test]
fn every_example_runs_on_a_directory_and_on_a_server() {
    let examples = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let run = |name: &str, arguments: &[&str]| {
        let done = Command::new(examples.join(name))
            .args(arguments)
            .output()
            .expect("cargo builds the examples with the tests");
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(!said.is_empty(), "{name} says nothing");
    };
    with_address(|address| {
        for name in ["enrolment", "transfer", "projects", "trip", "workflow", "shipments"] {
            run(name, &[]);
            run(name, &["--server", &address]);
        }
        run("transfer", &["--dry-run", "100"]);
        run("shipments", &["--workers", "2", "--shipments", "20", "--server", &address]);
    });
}
