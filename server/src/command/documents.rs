//! `annals completions` and `annals man`: documents made from the command line's own description.

use super::arguments::{Arguments, Completions, Man};
use crate::failure::Failure;
use crate::output::Output;
use clap::CommandFactory;
use std::io::Write;

/// Prints a completion script.
pub(super) fn completions(options: &Completions) -> Result<(), Failure> {
    // Into memory first: the generator panics where its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut Arguments::command(), "annals", &mut script);
    print(&script)
}

/// Prints a manual page.
pub(super) fn man(options: &Man) -> Result<(), Failure> {
    let mut root = Arguments::command();
    root.build();
    let command = match &options.command {
        None => root,
        Some(name) => {
            let found = root.find_subcommand(name).cloned();
            found.ok_or_else(|| Failure::Usage(format!("there is no command \"{}\"", name.escape_debug())))?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page).map_err(Failure::Output)?;
    print(&page)
}

fn print(document: &[u8]) -> Result<(), Failure> {
    let mut output = Output::open();
    let written = output.write(|out| out.write_all(document));
    output.finish(written)
}
