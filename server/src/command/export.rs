//! `annals export`: events as JSON lines that `import` takes back.

use super::arguments::Export;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use crate::source::Source;
use annals::{Read, ReadError};

/// Prints the selected events in their order, with or without `--json`.
pub(super) fn run(config: &Config, options: &Export) -> Result<(), Failure> {
    let read = options.selection.read();
    read.validate().map_err(ReadError::Input)?;
    let store = config.open_for_reading()?;
    if let Some(stream) = &read.stream {
        require_stream(&store, stream)?;
    }
    let mut output = Output::open();
    let printed = print(&store, read, &mut output);
    output.finish(printed)
}

/// A stream that never was is an error; a mistyped name would pass for an empty answer.
pub(super) fn require_stream(store: &Source, stream: &str) -> Result<(), Failure> {
    match store.head(stream)? {
        Some(_) => Ok(()),
        None => Err(Failure::NoStream { stream: stream.to_owned() }),
    }
}

fn print(store: &Source, read: Read<'_>, output: &mut Output) -> Result<(), Failure> {
    for record in store.read(read)? {
        let record = record?;
        output.write(|out| json::write_event(out, &record))?;
    }
    Ok(())
}
