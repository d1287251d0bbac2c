//! Load, decide, append, again; states as they were; snapshots.

use crate::{Fresh, run};
use annals::{Load, NewEvent, QueryItem, Read, Settings, Timestamp, Version};
use annals_sourcing::{
    Context, Decider, DomainEvent, HandleError, Place, Repository, SnapshotPolicy, Snapshots, SourcingError,
    UnknownType,
};
use annals_types::ExpectedVersion;
use std::num::NonZeroUsize;

#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub(crate) enum TaskEvent {
    #[event("TaskCreated")]
    Created { title: String },
    #[event("TaskNoted")]
    Noted { by: u32, number: u32 },
    #[event("TaskDone")]
    Done,
}

#[derive(Clone, PartialEq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct TaskState {
    pub(crate) title: Option<String>,
    pub(crate) notes: Vec<(u32, u32)>,
    is_done: bool,
}

pub(crate) enum TaskCommand {
    Create(&'static str),
    /// That many notes at once.
    Note(u32, u32),
    Finish,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum TaskError {
    ThereIsOne,
    ThereIsNone,
}

impl std::fmt::Display for TaskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

#[derive(Clone)]
pub(crate) struct Task;

impl Decider for Task {
    type State = TaskState;
    type Command = TaskCommand;
    type Event = TaskEvent;
    type Error = TaskError;

    fn initial(&self) -> TaskState {
        TaskState::default()
    }

    fn evolve(&self, state: &mut TaskState, event: &TaskEvent) {
        match event {
            TaskEvent::Created { title } => state.title = Some(title.clone()),
            TaskEvent::Noted { by, number } => state.notes.push((*by, *number)),
            TaskEvent::Done => state.is_done = true,
        }
    }

    fn decide(&self, state: &TaskState, command: &TaskCommand) -> Result<Vec<TaskEvent>, TaskError> {
        match command {
            TaskCommand::Create(title) if state.title.is_none() => {
                Ok(vec![TaskEvent::Created { title: (*title).to_owned() }])
            }
            TaskCommand::Create(_) => Err(TaskError::ThereIsOne),
            _ if state.title.is_none() => Err(TaskError::ThereIsNone),
            TaskCommand::Note(by, count) => {
                Ok((0..*count).map(|number| TaskEvent::Noted { by: *by, number }).collect())
            }
            TaskCommand::Finish if state.is_done => Ok(vec![]),
            TaskCommand::Finish => Ok(vec![TaskEvent::Done]),
        }
    }
}

/// Ten tasks with ten updates of five events each on one aggregate: 500 versions behind the creating event, in exact order.
#[test]
fn ten_times_ten_updates_of_five_events_are_all_there_in_order() {
    for cached in [false, true] {
        let fresh = Fresh::new();
        let mut tasks = Repository::new(fresh.store.clone(), Task).unwrap();
        if cached {
            tasks = tasks.cache(NonZeroUsize::new(10).unwrap());
        }
        run(async {
            tasks.handle("task-1", &TaskCommand::Create("all"), &Context::new()).await.unwrap();
            let writers: Vec<_> = (0..10)
                .map(|by| {
                    let tasks = tasks.clone();
                    tokio::spawn(async move {
                        for _ in 0..10 {
                            tasks.handle("task-1", &TaskCommand::Note(by, 5), &Context::new()).await.unwrap();
                        }
                    })
                })
                .collect();
            for writer in writers {
                writer.await.unwrap();
            }
            let there = tasks.load("task-1").await.unwrap();
            assert_eq!(there.version, Some(Version::new(500)));
            for (index, five) in there.state.notes.chunks(5).enumerate() {
                let by = five[0].0;
                assert_eq!(five, (0..5).map(|number| (by, number)).collect::<Vec<_>>(), "at {index}");
            }
        });
        let versions: Vec<_> = fresh
            .store
            .read(Read::stream("task-1"))
            .unwrap()
            .map(|event| event.unwrap().version().get())
            .collect();
        assert_eq!(versions, (0..=500).collect::<Vec<_>>());
    }
}

/// A hundred racers on an empty stream: one wins, whatever is remembered.
#[test]
fn of_a_hundred_racers_on_an_empty_stream_one_wins() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        let racers: Vec<_> = (0..100)
            .map(|_| {
                let tasks = tasks.clone();
                tokio::spawn(async move {
                    tasks.handle("task-1", &TaskCommand::Create("mine"), &Context::new()).await
                })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) => won += 1,
                Err(HandleError::Refused(TaskError::ThereIsOne)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(won, 1);
    });
    assert_eq!(fresh.store.read(Read::all()).unwrap().count(), 1);
}

#[test]
fn who_is_beaten_each_time_is_told_so() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task).unwrap().attempts_max(3);
    let meanwhile = fresh.store.clone();
    run(async {
        let beaten = tasks
            .transact("task-1", &Context::new(), |_| {
                meanwhile.append(NewEvent::new("task-1", "TaskDone").json("{}")).unwrap().wait().unwrap();
                Ok(vec![TaskEvent::Done])
            })
            .await;
        let Err(HandleError::Conflicts { attempts: 3, last }) = beaten else { panic!("{beaten:?}") };
        assert!(last.is_conflict(), "{last}");
    });
    assert_eq!(fresh.store.read(Read::all()).unwrap().count(), 3, "those of the others alone");
}

/// What is remembered is out of date: nothing is refused because of that, and nothing appended twice.
#[test]
fn a_remembered_state_never_refuses_what_is_allowed_now() {
    let fresh = Fresh::new();
    let here = Repository::new(fresh.store.clone(), Task).unwrap().cache(NonZeroUsize::new(1).unwrap());
    let there = Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        let refused = here.handle("task-1", &TaskCommand::Finish, &Context::new()).await;
        assert!(matches!(refused, Err(HandleError::Refused(TaskError::ThereIsNone))));
        assert_eq!(here.load("task-1").await.unwrap().version, None);
        there.handle("task-1", &TaskCommand::Create("now"), &Context::new()).await.unwrap();
        let done = here.handle("task-1", &TaskCommand::Finish, &Context::new()).await.unwrap();
        assert_eq!((done.events, done.attempts, done.report.events), (vec![TaskEvent::Done], 1, 1));
        there.handle("task-1", &TaskCommand::Note(7, 1), &Context::new()).await.unwrap();
        let noted = here.handle("task-1", &TaskCommand::Note(8, 1), &Context::new()).await.unwrap();
        assert_eq!((noted.attempts, noted.state.notes), (2, vec![(7, 0), (8, 0)]));
        let nothing = here.handle("task-1", &TaskCommand::Finish, &Context::new()).await.unwrap();
        assert!(nothing.appended.is_none() && nothing.events.is_empty() && nothing.report.from_cache);
    });
}

/// The state at any version and any time is that of then, with snapshots before and behind it, and without.
#[test]
fn the_state_of_any_moment_is_right_with_snapshots_before_and_behind_it() {
    let fresh = Fresh::with(Settings { snapshots_kept: 10, ..Settings::default() });
    let tasks = Repository::new(fresh.store.clone(), Task)
        .unwrap()
        .snapshots(Snapshots::new(SnapshotPolicy::Every(10), 1));
    run(async {
        tasks.handle("task-1", &TaskCommand::Create("long"), &Context::new()).await.unwrap();
        for by in 0..60 {
            tasks.handle("task-1", &TaskCommand::Note(by, 1), &Context::new()).await.unwrap();
        }
        let times: Vec<_> =
            fresh.store.read(Read::stream("task-1")).unwrap().map(|event| event.unwrap().time()).collect();
        for version in 0..=60_u64 {
            let expected: Vec<_> = (0..u32::try_from(version).unwrap()).map(|by| (by, 0)).collect();
            let load = Load::stream("task-1").until(Version::new(version));
            let then = tasks.replay(&load).await.unwrap();
            assert_eq!((then.state.notes, then.version), (expected.clone(), Some(Version::new(version))));
            let snapshot = ((version + 1) / 10 * 10).checked_sub(1).map(Version::new);
            assert_eq!(
                (then.report.snapshot, then.report.events),
                (snapshot, (version + 1) % 10),
                "at {version}"
            );
            let whole = tasks.replay(&load.without_snapshots()).await.unwrap();
            assert_eq!(
                (whole.state.notes, whole.report.snapshot, whole.report.events),
                (expected, None, version + 1)
            );
            let time = times[usize::try_from(version).unwrap()];
            let at_time = tasks.replay(&Load::stream("task-1").until(time)).await.unwrap();
            let last_of_then = times.iter().rposition(|other| *other <= time).unwrap();
            assert_eq!(at_time.state.notes.len(), last_of_then);
        }
        let before = tasks.replay(&Load::stream("task-1").until(Timestamp::new(1))).await.unwrap();
        assert_eq!((before.state, before.version), (TaskState::default(), None));
    });
}

/// A snapshot behind which nothing has come is the state.
#[test]
fn a_snapshot_without_a_later_event_is_the_state() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task)
        .unwrap()
        .snapshots(Snapshots::new(SnapshotPolicy::Never, 1));
    run(async {
        assert_eq!(tasks.snapshot("task-1").await.unwrap(), None);
        tasks.handle("task-1", &TaskCommand::Create("short"), &Context::new()).await.unwrap();
        assert_eq!(tasks.snapshot("task-1").await.unwrap(), Some(Version::ZERO));
        let there = tasks.load("task-1").await.unwrap();
        assert_eq!((there.report.snapshot, there.report.events), (Some(Version::ZERO), 0));
        assert_eq!(there.state.title.as_deref(), Some("short"));
    });
    let fresh = fresh.again();
    assert_eq!(fresh.store.snapshots("task-1").unwrap().0.len(), 1, "it is really stored");
}

#[test]
fn what_was_long_to_replay_is_kept_when_it_is_loaded() {
    let fresh = Fresh::new();
    let plain = Repository::new(fresh.store.clone(), Task).unwrap();
    let tasks = Repository::new(fresh.store.clone(), Task)
        .unwrap()
        .snapshots(Snapshots::new(SnapshotPolicy::AfterReplayed(20), 1));
    run(async {
        plain.handle("task-1", &TaskCommand::Create("long"), &Context::new()).await.unwrap();
        plain.handle("task-1", &TaskCommand::Note(1, 30), &Context::new()).await.unwrap();
        assert_eq!(tasks.load("task-1").await.unwrap().report.events, 31);
        assert_eq!(tasks.load("task-1").await.unwrap().report.snapshot, Some(Version::new(30)));
    });
}

/// Two kinds of things that have one id are two streams, so their snapshots don't meet.
#[test]
fn snapshots_of_two_kinds_with_one_id_do_not_meet() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task)
        .unwrap()
        .snapshots(Snapshots::new(SnapshotPolicy::Every(1), 1));
    run(async {
        for stream in ["task-1", "chore-1"] {
            tasks.handle(stream, &TaskCommand::Create(stream), &Context::new()).await.unwrap();
        }
        for stream in ["task-1", "chore-1"] {
            let there = tasks.find(stream).await.unwrap();
            assert_eq!(
                (there.state.title.as_deref(), there.report.snapshot),
                (Some(stream), Some(Version::ZERO))
            );
        }
        assert!(matches!(tasks.find("task-2").await, Err(SourcingError::NotFound { .. })));
    });
}

#[test]
fn an_event_of_an_unknown_type_is_what_was_asked_for() {
    let fresh = Fresh::new();
    let odd = NewEvent::new("task-1", "TaskPainted").json(r#"{"colour":"red"}"#);
    fresh.store.append(odd).unwrap().wait().unwrap();
    let tasks = || Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        let refused = tasks().load("task-1").await.unwrap_err();
        assert!(
            matches!(&refused, SourcingError::UnknownType { event_type, .. } if event_type == "TaskPainted"),
            "{refused}"
        );
        let left_out = tasks().unknown(UnknownType::Skip).load("task-1").await.unwrap();
        assert_eq!((left_out.report.unknown, left_out.version), (1, Some(Version::ZERO)));
        // It counts as an event of the stream all the same.
        let tasks = tasks().unknown(UnknownType::Skip);
        let created = tasks.handle("task-1", &TaskCommand::Create("red"), &Context::new()).await.unwrap();
        assert_eq!(created.appended.unwrap().last_version, Version::new(1));
    });
}

#[test]
fn a_dry_run_says_what_would_happen_and_nothing_does() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        let would = tasks.dry_run("task-1", &TaskCommand::Create("try")).await.unwrap();
        assert_eq!((would.events.len(), would.state.title.as_deref()), (1, Some("try")));
        assert!(matches!(tasks.dry_run("task-1", &TaskCommand::Finish).await, Err(HandleError::Refused(_))));
    });
    assert_eq!(fresh.store.read(Read::all()).unwrap().count(), 0);
}

#[test]
fn who_asked_and_what_it_followed_from_is_with_each_event() {
    let fresh = Fresh::new();
    let tasks = Repository::new(fresh.store.clone(), Task).unwrap();
    run(async {
        let context = Context::new().user("ada").source("desk").request("r-1");
        tasks.handle("task-1", &TaskCommand::Create("first"), &context).await.unwrap();
        let first = fresh.store.read(Read::all()).unwrap().next().unwrap().unwrap();
        let metadata = annals_sourcing::Metadata::of(&first);
        assert_eq!((metadata.user.as_deref(), metadata.source.as_deref()), (Some("ada"), Some("desk")));
        let follows = Context::caused_by(&first);
        assert_eq!((follows.user.as_deref(), follows.request.as_deref()), (Some("ada"), Some("r-1")));
        tasks.handle("task-2", &TaskCommand::Create("second"), &follows).await.unwrap();
        let caused: Vec<_> = fresh
            .store
            .read(Read::query(QueryItem::new().causation(first.id())))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        assert_eq!(caused.iter().map(|event| event.stream().to_owned()).collect::<Vec<_>>(), ["task-2"]);
        let conversation = QueryItem::new().correlation(context.correlation.unwrap());
        assert_eq!(fresh.store.read(Read::query(conversation)).unwrap().count(), 2);
    });
}

/// A course and its students: whether a seat is free depends on events of several streams, and on nothing else.
pub(crate) struct Enrolment;

#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub(crate) enum EnrolmentEvent {
    #[event("SeatsOffered")]
    Offered { course: String, seats: usize },
    #[event("StudentEnrolled")]
    Enrolled { course: String, student: u32 },
}

#[derive(Clone, Default, Debug)]
pub(crate) struct Seats {
    offered: usize,
    taken: Vec<u32>,
}

impl Decider for Enrolment {
    type State = Seats;
    type Command = (String, u32);
    type Event = EnrolmentEvent;
    type Error = &'static str;

    fn initial(&self) -> Seats {
        Seats::default()
    }

    fn evolve(&self, state: &mut Seats, event: &EnrolmentEvent) {
        match event {
            EnrolmentEvent::Offered { seats, .. } => state.offered = *seats,
            EnrolmentEvent::Enrolled { student, .. } => state.taken.push(*student),
        }
    }

    fn decide(
        &self,
        state: &Seats,
        (course, student): &(String, u32),
    ) -> Result<Vec<EnrolmentEvent>, &'static str> {
        if state.taken.len() >= state.offered {
            return Err("full");
        }
        Ok(vec![EnrolmentEvent::Enrolled { course: course.clone(), student: *student }])
    }

    fn place(&self, event: &EnrolmentEvent) -> Place {
        match event {
            EnrolmentEvent::Offered { course, .. } => {
                Place::stream(format!("course-{course}")).tag(format!("course:{course}"))
            }
            EnrolmentEvent::Enrolled { course, student } => {
                Place::stream(format!("student-{student}")).tag(format!("course:{course}"))
            }
        }
    }
}

#[test]
fn what_a_query_selects_is_a_boundary() {
    let fresh = Fresh::new();
    let enrolment = Repository::new(fresh.store.clone(), Enrolment).unwrap();
    run(async {
        let course = || QueryItem::new().tag("course:c1");
        let offer = |_: &Seats| Ok(vec![EnrolmentEvent::Offered { course: "c1".into(), seats: 5 }]);
        enrolment.transact(course(), &Context::new(), offer).await.unwrap();
        let students: Vec<_> = (0..20)
            .map(|student| {
                let enrolment = enrolment.clone();
                tokio::spawn(async move {
                    enrolment.handle(course(), &("c1".to_owned(), student), &Context::new()).await.is_ok()
                })
            })
            .collect();
        let mut enrolled = 0;
        for student in students {
            enrolled += usize::from(student.await.unwrap());
        }
        assert_eq!(enrolled, 5);
        assert_eq!(enrolment.load(course()).await.unwrap().state.taken.len(), 5);
    });
}

#[test]
fn several_streams_are_a_boundary() {
    let fresh = Fresh::new();
    let enrolment = Repository::new(fresh.store.clone(), Enrolment).unwrap();
    let meanwhile = fresh.store.clone();
    run(async {
        let offer = |_: &Seats| Ok(vec![EnrolmentEvent::Offered { course: "c1".into(), seats: 1 }]);
        enrolment.transact(["course-c1"], &Context::new(), offer).await.unwrap();
        let both = ["course-c1", "student-1"];
        enrolment.handle(both, &("c1".to_owned(), 1), &Context::new()).await.unwrap();
        let again = enrolment.handle(both, &("c1".to_owned(), 1), &Context::new()).await;
        assert!(matches!(again, Err(HandleError::Refused("full"))), "{again:?}");
        // An event in a stream that is only read is noticed, too.
        let tries = std::sync::atomic::AtomicU32::new(0);
        let twice = enrolment
            .transact(["course-c1", "student-2"], &Context::new(), |_| {
                if tries.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 {
                    let more =
                        NewEvent::new("course-c1", "SeatsOffered").json(r#"{"course":"c1","seats":9}"#);
                    meanwhile
                        .append(annals::Append::from(more).expect("course-c1", ExpectedVersion::Exists))
                        .unwrap()
                        .wait()
                        .unwrap();
                }
                Ok(vec![EnrolmentEvent::Enrolled { course: "c1".into(), student: 2 }])
            })
            .await
            .unwrap();
        assert_eq!((twice.attempts, twice.state.offered), (2, 9));
        // Where there is no one stream, an event must say where it goes.
        let tasks = Repository::new(fresh.store.clone(), Task).unwrap();
        let nowhere =
            tasks.handle(["task-1", "task-2"], &TaskCommand::Create("where"), &Context::new()).await;
        assert!(matches!(
            nowhere,
            Err(HandleError::Sourcing(SourcingError::NoPlace { event_type: "TaskCreated" }))
        ));
    });
}
