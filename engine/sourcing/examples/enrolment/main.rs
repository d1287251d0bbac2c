//! Students who enrol for courses, all at once: a decision on what a query selects (DCB).
//!
//! `cargo run --example enrolment`; with `--server ADDR` or `--data DIR` on a store of yours.

#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod model;

use annals_types::EventStore;
use clap::Parser;
use model::{EnrolmentCommand, School};
use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Parser)]
#[command(about = "Students who enrol for courses, all at once")]
struct Arguments {
    #[command(flatten)]
    place: common::Place,

    /// How many seats the course has.
    #[arg(long, default_value_t = 3)]
    seats: usize,

    /// How many students want one.
    #[arg(long, default_value_t = 8)]
    students: u32,
}

fn main() -> ExitCode {
    common::end(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    with_store!(&arguments.place, store => enrol(store, &arguments))
}

async fn enrol<S: EventStore>(store: S, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let school = Arc::new(School::new(store)?);
    let course = "pottery".to_owned();
    let define = EnrolmentCommand::Define { course: course.clone(), seats: arguments.seats };
    if let Err(error) = school.ask(define).await {
        println!("{course}: {error}");
    }
    let students: Vec<_> = (1..=arguments.students)
        .map(|number| {
            let (school, course) = (Arc::clone(&school), course.clone());
            let student = format!("s{number}");
            tokio::spawn(async move {
                let asked = school.ask(EnrolmentCommand::Enrol { course, student: student.clone() }).await;
                (student, asked)
            })
        })
        .collect();
    let mut without = None;
    for student in students {
        match student.await? {
            (student, Ok(enrolled)) => println!("{student} has a seat, after {} attempts", enrolled.attempts),
            (student, Err(error)) => {
                println!("{student} has none: {error}");
                without = Some(student);
            }
        }
    }
    // One more seat for one who has none, who then thinks better of it.
    if let Some(student) = without {
        let seats = arguments.seats + 1;
        let commands = [
            EnrolmentCommand::ChangeCapacity { course: course.clone(), seats },
            EnrolmentCommand::Enrol { course: course.clone(), student: student.clone() },
            EnrolmentCommand::Leave { course, student: student.clone() },
        ];
        for command in commands {
            if let Err(error) = school.ask(command).await {
                println!("{student} has no seat more than before: {error}");
                return Ok(());
            }
        }
        println!("{student} had a seat of {seats}, and left");
    }
    Ok(())
}
