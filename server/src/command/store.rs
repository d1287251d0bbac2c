//! `annals store`: the stores of a directory, or of a server.

use super::arguments::{Store as Options, StoreAction as Action};
use crate::config::Config;
use crate::failure::Failure;
use crate::locate;
use crate::output::Output;
use annals::Store;
use serde_json::json;
use std::io::{IsTerminal, Write};

/// Does what is asked for.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    match &options.action {
        Action::List => list(config),
        Action::Create { name } => {
            match config.server()? {
                Some(client) => client.create_store(name)?,
                None => create(config, name)?,
            }
            tell(config, "created", name)
        }
        Action::Drop { name, yes } => {
            if !yes && !is_confirmed(name)? {
                return Err(Failure::Usage(format!(
                    "the store \"{}\" is still there; to drop it with all its events, say --yes",
                    name.escape_debug()
                )));
            }
            match config.server()? {
                Some(client) => client.drop_store(name)?,
                None => drop_here(config, name)?,
            }
            tell(config, "dropped", name)
        }
    }
}

fn list(config: &Config) -> Result<(), Failure> {
    let names = match config.server()? {
        Some(client) => client.stores()?,
        None => locate::names(&config.data),
    };
    let mut output = Output::open();
    let printed = names.iter().try_for_each(|name| {
        if config.json {
            return output.json_line(&json!({ "store": name }));
        }
        output.write(|out| writeln!(out, "{name}"))
    });
    output.finish(printed)
}

fn create(config: &Config, name: &str) -> Result<(), Failure> {
    let directory = locate::new_store(&config.data, name)?;
    if locate::is_store(&directory) {
        return Err(Failure::Usage(format!("there is a store \"{}\" already", name.escape_debug())));
    }
    Ok(Store::open(directory)?.close()?)
}

/// Nobody may have it open meanwhile: it is opened for writing first.
fn drop_here(config: &Config, name: &str) -> Result<(), Failure> {
    let directory = locate::new_store(&config.data, name)?;
    if !locate::is_store(&directory) {
        return Err(Failure::Usage(format!(
            "there is no store \"{}\"; see annals store list",
            name.escape_debug()
        )));
    }
    let store = Store::open(&directory)?;
    locate::remove(&directory, || Ok(store.close()?))
}

/// Whether a person says yes; where there is none to ask, nobody does.
fn is_confirmed(name: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("Drop the store \"{}\" with all its events, for good? Type its name: ", name.escape_debug());
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Failure::io("read", "standard input", error))?;
    Ok(line.trim() == name)
}

fn tell(config: &Config, what: &str, name: &str) -> Result<(), Failure> {
    let mut output = Output::open();
    let told = if config.json {
        output.json_line(&json!({ what: name }))
    } else {
        output.write(|out| writeln!(out, "{what} {name}"))
    };
    output.finish(told)
}
