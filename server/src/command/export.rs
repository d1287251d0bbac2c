//! `annals export`: events as JSON lines that `import` takes back.

use super::arguments::Export;
use super::selected_stream;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use annals::{Read, Store};

/// Prints the selected events in their order, with or without `--json`.
pub(super) fn run(config: &Config, options: &Export) -> Result<(), Failure> {
    let stream = selected_stream(&options.selection)?;
    let store = config.open_for_reading()?;
    let read = match stream {
        Some(stream) => {
            require_stream(&store, stream)?;
            Read::stream(stream)
        }
        None => Read::all(),
    };
    let mut output = Output::open();
    let printed = print(&store, read, &mut output);
    output.finish(printed)
}

/// A stream that never was is an error; a mistyped name would pass for an empty answer.
pub(super) fn require_stream(store: &Store, stream: &str) -> Result<(), Failure> {
    match store.head(stream)? {
        Some(_) => Ok(()),
        None => Err(Failure::NoStream { stream: stream.to_owned() }),
    }
}

fn print(store: &Store, read: Read<'_>, output: &mut Output) -> Result<(), Failure> {
    for record in store.read(read)? {
        let record = record?;
        output.write(|out| json::write_event(out, &record))?;
    }
    Ok(())
}
