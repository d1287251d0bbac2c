//! The binary `annals`: hands its arguments on, and nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(annals_server::run(std::env::args_os()))
}
