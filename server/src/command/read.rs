//! `annals read`: events, for a person or, with `--json`, for machines.

use super::arguments::Read as Options;
use super::export::require_stream;
use super::tell;
use super::values::Place;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use crate::source::Source;
use crate::time;
use annals::{Bound, Position, Read, ReadError, Record, Touched, Version};
use serde_json::json;
use std::io::{self, Write};

/// Prints the selected events within the bounds.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let request = request(options);
    request.validate().map_err(ReadError::Input)?;
    let store = config.open_for_reading()?;
    if let Some(stream) = &request.stream {
        require_stream(&store, stream)?;
    }
    if options.explain && matches!(store, Source::There(..)) {
        return Err(Failure::Usage("--explain is about the files of a store; give --data DIR".to_owned()));
    }
    let mut output = Output::open();
    let printed = print(&store, request, &mut output, config.json, options.explain);
    output.finish(printed)
}

fn print(
    store: &Source,
    request: Read<'_>,
    output: &mut Output,
    json: bool,
    explain: bool,
) -> Result<(), Failure> {
    let mut records = store.read(request)?;
    for record in &mut records {
        print_event(output, &record?, json)?;
    }
    if explain {
        // Where that is not known, nothing was asked for.
        let Touched { events, bytes, leaps } = records.touched().unwrap_or_default();
        tell(&if json {
            json!({"events_touched": events, "bytes_touched": bytes, "leaps": leaps}).to_string()
        } else {
            format!("looked at {events} events in {bytes} bytes of the log, after {leaps} leaps in the index")
        });
    }
    Ok(())
}

fn request(options: &Options) -> Read<'_> {
    let read = options.selection.read();
    let bound = |place| match (place, &read.stream) {
        (Place::Time(time), _) => Bound::Time(time),
        (Place::Number(number), None) => Bound::Position(Position::new(number)),
        (Place::Number(number), Some(_)) => Bound::Version(Version::new(number)),
    };
    Read {
        from: options.from.map(bound),
        until: options.until.map(bound),
        backwards: options.backwards,
        limit: options.limit,
        ..read
    }
}

/// Prints one event, for machines or for a person.
pub(super) fn print_event(output: &mut Output, record: &Record, json: bool) -> Result<(), Failure> {
    output.write(|out| if json { json::write_event(out, record) } else { write_readable(out, record) })
}

/// One compact line: position, stream and version, time, type, tags, data.
fn write_readable(out: &mut impl Write, record: &Record) -> io::Result<()> {
    write!(out, "{:>8}  {}@{}  ", record.position(), record.stream(), record.version())?;
    time::write_rfc3339(out, record.time())?;
    write!(out, "  {}", record.event_type())?;
    for tag in record.tags() {
        write!(out, "  #{tag}")?;
    }
    let data = record.data();
    if json::is_plain_json(data) {
        // Valid JSON has no raw control characters but tabs, so it cannot disturb a terminal.
        out.write_all(b"  ")?;
        out.write_all(data)?;
    } else if !data.is_empty() {
        write!(out, "  ({} bytes)", data.len())?;
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::arguments::{Directory, Selection};
    use annals::Timestamp;

    fn options(from: Option<Place>, until: Option<Place>) -> Options {
        Options {
            directory: Directory::default(),
            selection: Selection::default(),
            from,
            until,
            backwards: false,
            limit: Some(3),
            explain: false,
        }
    }

    #[test]
    fn a_number_is_a_version_only_where_there_is_a_stream() {
        let mut options = options(Some(Place::Number(7)), Some(Place::Time(Timestamp::new(9))));
        let all = request(&options);
        assert_eq!(all.from, Some(Bound::Position(Position::new(7))));
        assert_eq!((all.until, all.limit), (Some(Bound::Time(Timestamp::new(9))), Some(3)));
        assert!(all.validate().is_ok());
        options.selection.stream = Some("order-42".to_owned());
        let one = request(&options);
        assert_eq!(one.from, Some(Bound::Version(Version::new(7))));
        assert!(one.validate().is_ok());
    }
}
