//! Measures Annals: `annals-bench append` and others. Run it built for release on an idle machine.

mod abuse;
mod append;
mod disk;
mod follow;
mod load;
mod opening;
mod query;
mod read;
mod report;
mod segments;
mod workload;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser, Debug)]
#[command(about = "Measures Annals", version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Durable appends: one writer, many, pipelined, in batches; and the disk itself.
    Append(append::Arguments),
    /// Following: how soon events come, and what followers cost that have stopped reading.
    Follow(follow::Arguments),
    /// Queries: reading what they select, and judging conditions on them.
    Query(query::Arguments),
    /// Loading streams: short ones out of a million events, and a long one from its snapshot.
    Read(read::Arguments),
    /// Opening a large store after a close and after a kill.
    Opening(opening::Arguments),
    /// Load on a server, or on a store in this process.
    Load(load::Arguments),
    /// What clients of a server feel of those who attack it.
    Abuse(abuse::Arguments),
    /// Look-ups in many sealed segments, against few.
    Segments(segments::Arguments),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().what {
        What::Append(arguments) => append::run(&arguments),
        What::Follow(arguments) => follow::run(&arguments),
        What::Query(arguments) => query::run(&arguments),
        What::Read(arguments) => read::run(&arguments),
        What::Opening(arguments) => opening::run(&arguments),
        What::Load(arguments) => load::run(&arguments),
        What::Abuse(arguments) => abuse::run(&arguments),
        What::Segments(arguments) => segments::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("annals-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
