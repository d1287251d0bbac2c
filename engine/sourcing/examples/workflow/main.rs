//! Executions of a workflow that are moved at once or by workers later, with their audit trail. Each tenant has a store of its own: `--data` is its
//! directory.
//!
//! `cargo run --example workflow`

#![allow(missing_docs, unreachable_pub)]

#[path = "../common/mod.rs"]
mod common;
mod model;

use annals_sourcing::QueueSettings;
use annals_types::{EventStore, Load};
use clap::Parser;
use model::{Move, Workflows};
use std::error::Error;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Executions of a workflow, moved at once or by workers later")]
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
    let workflows = Workflows::open(store, 20, QueueSettings::default()).await?;
    let execution = format!("{:08x}", rand::random::<u32>());
    workflows.submit(&execution, &Move::new("submit").with("title", "A new roof"), "ada").await?;
    if let Err(error) = workflows.submit(&execution, &Move::new("close"), "ada").await {
        println!("{error}");
    }
    // Later, by whoever is free; twice the same key is once.
    for key in ["k1", "k1", "k2"] {
        let comment = Move::new("comment").with(key, "well");
        let enqueued = workflows.enqueue(&execution, &format!("{execution}-{key}"), &comment, "bob").await?;
        println!(
            "enqueued at position {}{}",
            enqueued.position,
            if enqueued.repeated { ", before" } else { "" }
        );
    }
    let mut worker = workflows.queue.worker().await?;
    for _ in 0..2 {
        worker.work_once(&|job| workflows.work(job)).await?;
    }
    workflows.submit(&execution, &Move::new("approve"), "eve").await?;
    let (lines, total) = workflows.audit(&execution, 0, 10).await?;
    for line in &lines {
        let user = line.user.as_deref().unwrap_or("nobody");
        println!("{} {}: {} -> {} by {user}", line.version, line.name, line.from_state, line.to_state);
    }
    println!("{} of {total} events", lines.len());
    if let Some(first) = lines.first() {
        let stream = model::stream(&execution);
        let then = workflows.executions.replay(&Load::stream(&*stream).until(first.time)).await?;
        let event = workflows.event(&execution, first.id).await?.ok_or("it is there")?;
        println!("its data: {}", String::from_utf8_lossy(event.data()));
        println!("at first it was {:?}: {:?}", then.state.state, then.report);
    }
    Ok(())
}
