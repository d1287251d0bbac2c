//! Cuts the power, kills and fills up a server of Annals while it works, and checks what is left against a journal of all that was
//! asked and answered. It knows the server by its protocol alone.

mod apart;
mod beside;
mod check;
mod cycle;
mod drivers;
mod journal;
mod place;
mod plan;
mod planted;
mod scorecard;
mod server;
mod workload;

use cycle::Failure;
use std::process::ExitCode;

/// See `--help`.
#[derive(clap::Parser, Debug)]
#[command(name = "annals-torture", about = "Tries to make a server of Annals lose something", version)]
enum Command {
    /// Runs all that can be run here, and prints what was survived of what was tried
    Scorecard(scorecard::Arguments),
}

fn main() -> ExitCode {
    let Command::Scorecard(arguments) = clap::Parser::parse();
    let done: Result<ExitCode, Failure> = match apart::place() {
        None => scorecard::check(&arguments).and_then(|_| apart::start(&arguments.dir)),
        Some(place) => scorecard::run(&arguments, &place)
            .map(|is_well| if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("annals-torture: {error}");
            ExitCode::FAILURE
        }
    }
}
