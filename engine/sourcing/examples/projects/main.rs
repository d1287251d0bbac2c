//! Projects with tasks and tags, users with ways to pay, and a read model of each that follows.
//!
//! `cargo run --example projects`; with `--server ADDR` or `--data DIR` on a store of yours.

#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod model;

use annals_sourcing::{Context, InMemory, Projector, Repository, SnapshotPolicy, Snapshots};
use annals_types::{EventStore, Position};
use clap::Parser;
use model::{ProjectCommand, Projects, UserCommand, Users};
use std::error::Error;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Projects with tasks and tags, and users with ways to pay")]
struct Arguments {
    #[command(flatten)]
    place: common::Place,
}

fn main() -> ExitCode {
    common::end(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    with_store!(&arguments.place, store => show(store))
}

async fn show<S: EventStore>(store: S) -> Result<(), Box<dyn Error>> {
    let (tags, payments) = (InMemory::default(), InMemory::default());
    let mut tagging = Projector::new(store.clone(), tags.clone(), model::tagged_tasks())?.spawn();
    let mut paying = Projector::new(store.clone(), payments.clone(), model::payments())?.spawn();

    let snapshots = Snapshots::new(SnapshotPolicy::Every(50), 1);
    let projects = Repository::new(store.clone(), Projects)?.snapshots(snapshots);
    let commands = [
        ProjectCommand::Create { project: "house".into(), title: "Build a house".into() },
        ProjectCommand::AddTag { tag: "urgent".into() },
        ProjectCommand::AddTask { task: "roof".into(), title: "Put on a roof".into() },
        ProjectCommand::AddTask { task: "garden".into(), title: "Plant a tree".into() },
        ProjectCommand::AssignTag { task: "roof".into(), tag: "urgent".into() },
        ProjectCommand::AssignTag { task: "cellar".into(), tag: "urgent".into() },
    ];
    let mut last = Position::ZERO;
    for command in commands {
        match projects.handle("project-house", &command, &Context::new().user("ada")).await {
            Ok(handled) => last = handled.last_position().unwrap_or(last),
            Err(error) => println!("{command:?}: {error}"),
        }
    }
    let users = Repository::new(store, Users)?;
    let commands = [
        UserCommand::Create { user: "ada".into(), name: "Ada".into() },
        UserCommand::AddAddress { address: "1, Main Street".into() },
        UserCommand::AddMethod { method: "card".into() },
        UserCommand::AddMethod { method: "invoice".into() },
        UserCommand::SetDefaultMethod { method: "invoice".into() },
        UserCommand::SetDefaultMethod { method: "cash".into() },
    ];
    for command in commands {
        match users.handle("user-ada", &command, &Context::new().user("ada")).await {
            Ok(handled) => last = handled.last_position().unwrap_or(last),
            Err(error) => println!("{command:?}: {error}"),
        }
    }
    // A read model follows: whoever wants to read what they wrote waits for it.
    if !tagging.reached(last).await || !paying.reached(last).await {
        return Err("a projection does not go on".into());
    }
    println!("tasks by tag: {:?}", tags.with(Clone::clone));
    println!("payments by user: {:?}", payments.with(Clone::clone));
    Ok(())
}
