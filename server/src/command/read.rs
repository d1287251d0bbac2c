//! `annals read`: events, for a person or, with `--json`, for machines.

use super::arguments::Read as Options;
use super::export::require_stream;
use super::selected_stream;
use super::values::Place;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use crate::time;
use annals::{Bound, Position, Query, Read, Record, Version};
use std::io::{self, Write};

/// Prints the selected events within the bounds.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let stream = selected_stream(&options.selection)?;
    let store = config.open_for_reading()?;
    if let Some(stream) = stream {
        require_stream(&store, stream)?;
    }
    let mut output = Output::open();
    let printed = store.read(request(stream, options)).map_err(Failure::from).and_then(|records| {
        for record in records {
            print_event(&mut output, &record?, config.json)?;
        }
        Ok(())
    });
    output.finish(printed)
}

fn request<'a>(stream: Option<&'a str>, options: &Options) -> Read<'a> {
    let bound = |place| match (place, stream) {
        (Place::Time(time), _) => Bound::Time(time),
        (Place::Number(number), None) => Bound::Position(Position::new(number)),
        (Place::Number(number), Some(_)) => Bound::Version(Version::new(number)),
    };
    Read {
        stream: stream.map(Into::into),
        query: Query::all(),
        from: options.from.map(bound),
        until: options.until.map(bound),
        backwards: options.backwards,
        limit: options.limit,
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
        }
    }

    #[test]
    fn a_number_is_a_version_only_where_there_is_a_stream() {
        let options = options(Some(Place::Number(7)), Some(Place::Time(Timestamp::new(9))));
        let all = request(None, &options);
        assert_eq!(all.from, Some(Bound::Position(Position::new(7))));
        assert_eq!((all.until, all.limit), (Some(Bound::Time(Timestamp::new(9))), Some(3)));
        let one = request(Some("order-42"), &options);
        assert_eq!(one.from, Some(Bound::Version(Version::new(7))));
        assert!(all.validate().is_ok() && one.validate().is_ok());
    }
}
