//! One command a file, and how one is chosen and its failure told.

mod append;
pub(crate) mod arguments;
mod batch;
mod documents;
mod export;
mod follow;
mod import;
mod known;
mod notes;
mod parsed;
mod read;
mod replay;
mod sending;
mod serve;
mod snapshot;
mod stat;
mod store;
mod streams;
mod subscription;
mod timing;
mod tls;
mod token;
mod trace;
pub(crate) mod values;
mod verify;

use crate::config::{Config, Places, Strength};
use crate::failure::{EXIT_USAGE, Failure};
use arguments::{Arguments, Command, Directory};
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use serde_json::json;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

/// Runs the command line (the program's name first) and gives the exit code: 0 done, 1 failed,
/// 2 wrong usage, 3 a condition did not hold, 4 damage, 5 store in use.
///
/// Prints results on standard output and everything else on standard error.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // Parsing may fail before it has seen --json, and the message must be right even so.
    let json = arguments.iter().any(|argument| argument == "--json");
    let parsed = Arguments::command()
        .try_get_matches_from(arguments)
        .and_then(|matches| Ok((Arguments::from_arg_matches(&matches)?, matches)));
    let outcome = match parsed {
        Ok((arguments, matches)) => dispatch(&arguments, &matches),
        Err(error) => return answer_parse_error(&error, json),
    };
    match outcome {
        Ok(()) => 0,
        Err(failure) if failure.is_closed_pipe() => 0,
        Err(failure) => {
            tell(&if json { json_text(&failure) } else { format!("annals: {failure}") });
            failure.exit_code()
        }
    }
}

fn dispatch(arguments: &Arguments, matches: &ArgMatches) -> Result<(), Failure> {
    let config =
        |directory: Option<&Path>| Config::resolve(places(directory, arguments, matches), &arguments.common);
    let at_all = |directory: &Directory| {
        Config::resolve_all(places(directory.data.as_deref(), arguments, matches), &arguments.common)
    };
    let at = |directory: &Directory| config(directory.data.as_deref());
    match &arguments.command {
        Command::Import(options) => import::run(&at(&options.directory)?, options),
        Command::Export(options) => export::run(&at(&options.directory)?, options),
        Command::Append(options) => append::run(config, arguments.data.is_some(), options),
        Command::Read(options) => read::run(&at(&options.directory)?, options),
        Command::Follow(options) => follow::run(&at(&options.directory)?, options),
        Command::Streams(options) => streams::run(&at(&options.directory)?, options),
        Command::Stat(directory) => stat::run(&at(directory)?),
        Command::Verify(directory) => verify::run(&at(directory)?),
        Command::Serve(options) => serve::run(&at_all(&options.directory)?, options),
        Command::Snapshot(options) => snapshot::run(&at(&options.directory)?, options),
        Command::Subscription(options) => subscription::run(&at(&options.directory)?, options),
        Command::Store(options) => store::run(
            &Config::resolve_stores(
                places(options.directory.data.as_deref(), arguments, matches),
                &arguments.common,
            )?,
            options,
        ),
        Command::Token(options) => token::run(&at_all(&options.directory)?, options),
        Command::Tls(options) => tls::run(&at_all(&Directory::default())?, options),
        Command::Replay(options) => replay::run(&at(&options.directory)?, options),
        Command::Trace(options) => trace::run(&at(&options.directory)?, options),
        Command::Completions(options) => documents::completions(options),
        Command::Man(options) => documents::man(options),
    }
}

/// Where the store is, and how strongly that is said.
fn places<'a>(directory: Option<&'a Path>, arguments: &'a Arguments, matches: &ArgMatches) -> Places<'a> {
    let strength = |is_flag| if is_flag { Strength::Flag } else { Strength::Environment };
    // Deeper in the command line, --data of `append` is the event's.
    let is_data_flag = matches.value_source("data") == Some(ValueSource::CommandLine);
    let data = directory.map(|data| (data, Strength::Flag));
    let data = data.or(arguments.data.as_deref().map(|data| (data, strength(is_data_flag))));
    let server = arguments.common.server.as_deref();
    Places { data, server: server.map(|server| (server, strength(is_flag(matches, "server")))) }
}

/// Whether an option of every command is on the command line, before or behind the name of a command.
fn is_flag(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
        || matches.subcommand().is_some_and(|(_, matches)| is_flag(matches, id))
}

/// Help and version are answers; everything else that parsing says is wrong usage.
fn answer_parse_error(error: &clap::Error, json: bool) -> u8 {
    let is_answer = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if json && !is_answer {
        let text = error.render().to_string();
        // The first paragraph says what is wrong; usage and tips behind it are for people.
        let said = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
        let message = said.split_whitespace().collect::<Vec<_>>().join(" ");
        tell(&json!({"error": "usage", "message": message}).to_string());
    } else {
        // Whoever closed the pipe does not want the text.
        let _ = error.print();
    }
    if is_answer { 0 } else { EXIT_USAGE }
}

/// A failure as one line of JSON, its fields in their order.
fn json_text(failure: &Failure) -> String {
    serde_json::to_string(failure).unwrap_or_else(|_| json!({"error": "failed"}).to_string())
}

/// Writes a line to standard error. Where that is closed, there is nobody left to tell.
fn tell(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help_of_every_command_has_an_example() {
        for mut command in Arguments::command().get_subcommands().cloned() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example:\n  annals "), "{help}");
        }
    }
}
