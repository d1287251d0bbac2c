//! Courses and students: whether a seat may be taken depends on events of the course and of the student, in whatever streams they are.

use annals_sourcing::{
    Context, Decider, DomainEvent, HandleError, Handled, Place, Repository, SourcingError,
};
use annals_types::{EventStore, Query, QueryItem};
use std::collections::BTreeSet;
use std::fmt;

/// Courses that a student may take.
pub const COURSES_MAX: usize = 5;

#[derive(Clone, PartialEq, Debug, DomainEvent)]
pub enum EnrolmentEvent {
    #[event("CourseDefined")]
    Defined { course: String, seats: usize },
    #[event("CapacityChanged")]
    CapacityChanged { course: String, seats: usize },
    #[event("StudentEnrolled")]
    Enrolled { course: String, student: String },
    #[event("StudentLeft")]
    Left { course: String, student: String },
}

/// What is to be decided on: one course, and one student where it is about one.
#[derive(Clone, Debug)]
pub enum EnrolmentCommand {
    Define { course: String, seats: usize },
    ChangeCapacity { course: String, seats: usize },
    Enrol { course: String, student: String },
    Leave { course: String, student: String },
}

impl EnrolmentCommand {
    /// The events that the decision depends on, and no others: two students of two courses never meet.
    pub fn boundary(&self) -> Query<'static> {
        let of_course = |course: &str| QueryItem::new().tag(format!("course:{course}"));
        match self {
            Self::Define { course, .. } | Self::ChangeCapacity { course, .. } => of_course(course).into(),
            Self::Enrol { course, student } | Self::Leave { course, student } => {
                Query::from(of_course(course)).or(QueryItem::new().tag(format!("student:{student}")))
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EnrolmentError {
    ThereIsSuchACourse,
    ThereIsNoSuchCourse,
    /// Fewer seats than are taken.
    SeatsAreTaken,
    Full,
    IsEnrolled,
    IsNotEnrolled,
    TooManyCourses,
}

impl fmt::Display for EnrolmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ThereIsSuchACourse => "there is such a course",
            Self::ThereIsNoSuchCourse => "there is no such course",
            Self::SeatsAreTaken => "more seats are taken",
            Self::Full => "the course is full",
            Self::IsEnrolled => "the student is enrolled",
            Self::IsNotEnrolled => "the student is not enrolled",
            Self::TooManyCourses => "the student has as many courses as may be",
        })
    }
}

/// Who takes which course, as far as the boundary tells, and the seats of courses.
#[derive(Clone, Debug, Default)]
pub struct Enrolments {
    seats: std::collections::BTreeMap<String, usize>,
    taken: BTreeSet<(String, String)>,
}

#[derive(Clone)]
pub struct Enrolment;

impl Decider for Enrolment {
    type State = Enrolments;
    type Command = EnrolmentCommand;
    type Event = EnrolmentEvent;
    type Error = EnrolmentError;

    fn initial(&self) -> Enrolments {
        Enrolments::default()
    }

    fn evolve(&self, state: &mut Enrolments, event: &EnrolmentEvent) {
        match event {
            EnrolmentEvent::Defined { course, seats } | EnrolmentEvent::CapacityChanged { course, seats } => {
                state.seats.insert(course.clone(), *seats);
            }
            EnrolmentEvent::Enrolled { course, student } => {
                state.taken.insert((course.clone(), student.clone()));
            }
            EnrolmentEvent::Left { course, student } => {
                state.taken.remove(&(course.clone(), student.clone()));
            }
        }
    }

    fn decide(
        &self,
        state: &Enrolments,
        command: &EnrolmentCommand,
    ) -> Result<Vec<EnrolmentEvent>, EnrolmentError> {
        let taken = |wanted: &str| state.taken.iter().filter(|(course, _)| course == wanted).count();
        let event = match command.clone() {
            EnrolmentCommand::Define { course, .. } if state.seats.contains_key(&course) => {
                return Err(EnrolmentError::ThereIsSuchACourse);
            }
            EnrolmentCommand::Define { course, seats } => EnrolmentEvent::Defined { course, seats },
            EnrolmentCommand::ChangeCapacity { course, .. }
            | EnrolmentCommand::Enrol { course, .. }
            | EnrolmentCommand::Leave { course, .. }
                if !state.seats.contains_key(&course) =>
            {
                return Err(EnrolmentError::ThereIsNoSuchCourse);
            }
            EnrolmentCommand::ChangeCapacity { course, seats } if seats < taken(&course) => {
                return Err(EnrolmentError::SeatsAreTaken);
            }
            EnrolmentCommand::ChangeCapacity { course, seats } => {
                EnrolmentEvent::CapacityChanged { course, seats }
            }
            EnrolmentCommand::Enrol { course, student } => {
                if state.taken.contains(&(course.clone(), student.clone())) {
                    return Err(EnrolmentError::IsEnrolled);
                }
                if taken(&course) >= state.seats[&course] {
                    return Err(EnrolmentError::Full);
                }
                if state.taken.iter().filter(|(_, taker)| *taker == student).count() >= COURSES_MAX {
                    return Err(EnrolmentError::TooManyCourses);
                }
                EnrolmentEvent::Enrolled { course, student }
            }
            EnrolmentCommand::Leave { course, student } => {
                if !state.taken.contains(&(course.clone(), student.clone())) {
                    return Err(EnrolmentError::IsNotEnrolled);
                }
                EnrolmentEvent::Left { course, student }
            }
        };
        Ok(vec![event])
    }

    fn place(&self, event: &EnrolmentEvent) -> Place {
        match event {
            EnrolmentEvent::Defined { course, .. } | EnrolmentEvent::CapacityChanged { course, .. } => {
                Place::stream(format!("course-{course}")).tag(format!("course:{course}"))
            }
            EnrolmentEvent::Enrolled { course, student } | EnrolmentEvent::Left { course, student } => {
                Place::stream(format!("student-{student}"))
                    .tag(format!("course:{course}"))
                    .tag(format!("student:{student}"))
            }
        }
    }
}

pub struct School<S>(Repository<S, Enrolment>);

impl<S: EventStore> School<S> {
    pub fn new(store: S) -> Result<Self, SourcingError> {
        Ok(Self(Repository::new(store, Enrolment)?))
    }

    pub async fn ask(
        &self,
        command: EnrolmentCommand,
    ) -> Result<Handled<EnrolmentEvent, Enrolments>, HandleError<EnrolmentError>> {
        self.0.handle(command.boundary(), &command, &Context::new().source("school")).await
    }
}
