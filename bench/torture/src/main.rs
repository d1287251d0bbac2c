//! Cuts the power, kills and fills up a server of Annals while it works, and checks what is left against a journal of all that was
//! asked and answered. It knows the server by its protocol alone. The same cuts on other stores: `rivals`.

mod adapter;
mod apart;
mod beside;
mod check;
mod cycle;
mod drivers;
mod guest;
mod history;
mod journal;
mod kernel;
mod place;
mod plan;
mod planted;
mod program;
mod rivals;
mod scorecard;
mod server;
mod workload;

use cycle::Failure;
use std::path::Path;
use std::process::ExitCode;

/// See `--help`.
#[derive(clap::Parser, Debug)]
#[command(name = "annals-torture", about = "Tries to make a server of Annals lose something", version)]
enum Command {
    /// Runs all that can be run here, and prints what was survived of what was tried
    Scorecard(scorecard::Arguments),
    /// Cuts off any store that has an adapter, and prints what it has acknowledged and lost
    Rivals(rivals::Arguments),
    /// What a kernel of its own begins with
    #[command(hide = true)]
    Guest(guest::Arguments),
}

impl Command {
    /// Starts the second process, where this can be run at all.
    fn start(&self) -> Result<ExitCode, Failure> {
        let below = match self {
            Self::Scorecard(arguments) => scorecard::check(arguments).map(|_| &arguments.dir),
            Self::Rivals(arguments) => rivals::check(arguments).map(|()| &arguments.dir),
            Self::Guest(arguments) => return guest::run_inside(arguments).map(|()| ExitCode::SUCCESS),
        };
        apart::start(below?)
    }

    /// Whether nothing was wrong.
    fn run(&self, below: &Path) -> Result<bool, Failure> {
        match self {
            Self::Scorecard(arguments) => scorecard::run(arguments, below),
            Self::Rivals(arguments) => rivals::run(arguments, below),
            Self::Guest(arguments) => guest::run_inside(arguments).map(|()| true),
        }
    }
}

fn main() -> ExitCode {
    let command: Command = clap::Parser::parse();
    let done = match apart::place() {
        None => command.start(),
        Some(place) => {
            command.run(&place).map(|is_well| if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("annals-torture: {error}");
            ExitCode::FAILURE
        }
    }
}
