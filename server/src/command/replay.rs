//! `annals replay`: how a stream came to be what it is: a snapshot, the events behind it, and what each of them brought.
//!
//! What an event does to a state is the application's to say. What is shown here is what can be seen without it: which fields of JSON
//! data are there for the first time, and which have another value than when they were there last.

use super::arguments::Replay as Options;
use super::export::require_stream;
use super::notes::Notes;
use super::read::print_event;
use super::tell;
use super::values::Place;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use crate::source::Replay;
use annals::{Bound, Load, ReadError, Record, Snapshot, Version};
use serde_json::{Map, Value, json};
use std::io::Write;

/// Prints a stream's snapshot, the events behind it, and what each of them brought.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let load = request(options);
    load.validate().map_err(ReadError::Input)?;
    let store = config.open_for_reading()?;
    require_stream(&store, &options.stream)?;
    let Replay { snapshot, passed_over, events } = store.load(&load)?;
    let notes = Notes::new(config.json);
    for passed in &passed_over {
        notes.passed_over(&options.stream, passed.version.map(Version::get), &passed.reason);
    }
    let mut output = Output::open();
    let mut fields = Map::new();
    let mut count = 0_u64;
    let printed = (|| {
        if let Some(snapshot) = &snapshot {
            print_snapshot(&mut output, snapshot, &mut fields, config.json)?;
        }
        for event in events {
            let event = event?;
            count += 1;
            print_step(&mut output, &event, &mut fields, config.json)?;
        }
        Ok(())
    })();
    output.finish(printed)?;
    if !config.json {
        let begin = snapshot.map_or("from the beginning".to_owned(), |snapshot| {
            format!("behind the snapshot at version {}", snapshot.version)
        });
        tell(&format!("{count} events {begin}"));
    }
    Ok(())
}

fn request(options: &Options) -> Load<'_> {
    let mut load = Load::stream(&*options.stream).name(&*options.name);
    load.until = options.until.map(|place| match place {
        Place::Time(time) => Bound::Time(time),
        Place::Number(version) => Bound::Version(Version::new(version)),
    });
    load.use_snapshots = !options.no_snapshots;
    load
}

fn print_snapshot(
    output: &mut Output,
    snapshot: &Snapshot,
    fields: &mut Map<String, Value>,
    json: bool,
) -> Result<(), Failure> {
    let state = serde_json::from_slice::<Value>(&snapshot.data).ok();
    if let Some(Value::Object(state)) = &state {
        fields.clone_from(state);
    }
    let Snapshot { version, schema, data, .. } = snapshot;
    if json {
        return output.json_line(&json!({
            "snapshot": {"version": version.get(), "schema": schema, "bytes": data.len(), "data": state}
        }));
    }
    output.write(|out| {
        write!(out, "snapshot at version {version}, schema {schema}, {} bytes", data.len())?;
        match state {
            Some(state) => writeln!(out, "  {state}"),
            None => writeln!(out),
        }
    })
}

/// What an event has that was not there before, or was of another value.
fn news(event: &Record, fields: &mut Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
    let (mut added, mut changed) = (Map::new(), Map::new());
    if let Ok(Value::Object(data)) = serde_json::from_slice::<Value>(event.data()) {
        for (name, value) in data {
            match fields.insert(name.clone(), value.clone()) {
                None => drop(added.insert(name, value)),
                Some(before) if before != value => {
                    drop(changed.insert(name, json!({"from": before, "to": value})))
                }
                Some(_) => {}
            }
        }
    }
    (added, changed)
}

fn print_step(
    output: &mut Output,
    event: &Record,
    fields: &mut Map<String, Value>,
    json: bool,
) -> Result<(), Failure> {
    let (added, changed) = news(event, fields);
    if json {
        return output.write(|out| {
            out.write_all(b"{\"event\":")?;
            json::write_event_object(out, event)?;
            if !added.is_empty() {
                write!(out, ",\"added\":{}", Value::Object(added))?;
            }
            if !changed.is_empty() {
                write!(out, ",\"changed\":{}", Value::Object(changed))?;
            }
            out.write_all(b"}\n")
        });
    }
    print_event(output, event, false)?;
    output.write(|out| {
        for (name, value) in added {
            writeln!(out, "          + {name}: {value}")?;
        }
        for (name, values) in changed {
            writeln!(out, "          ~ {name}: {} -> {}", values["from"], values["to"])?;
        }
        Ok(())
    })
}
