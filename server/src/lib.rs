//! The command `annals`: the door to an Annals event store from a shell.
//!
//! [`run`] takes the arguments of a command line and gives the exit code. Below it, each command
//! has a file of its own in `command/`; what several of them need lies beside that folder:
//! `json` (an event as JSON and back), `time` (times as text and back), `lines` (the lines of a
//! file, decompressed on a thread of their own), `locate` (which directory is the store), `config`
//! (settings from flags, environment and file), `source` (a store here, or one of a server), `failure` (every way to fail,
//! and its exit code).
//!
//! This crate knows nothing of how a store keeps its events: it uses the crates `annals` and `annals-client` only.

mod clock;
mod command;
mod config;
mod failure;
mod json;
mod lines;
mod locate;
mod output;
mod progress;
pub mod serve;
mod signals;
mod source;
mod time;
mod tokens;

pub use command::run;

/// The example of the page that newcomers read first compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadMe;

/// The example of the page on dynamic consistency boundaries compiles.
#[cfg(doctest)]
#[doc = include_str!("../../docs/dcb.md")]
struct Boundaries;
