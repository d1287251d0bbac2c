//! `annals snapshot`: which snapshots there are, what one holds, and deleting them.

use super::arguments::{Snapshot as Options, SnapshotAction, SnapshotChoice};
use super::notes::Notes;
use crate::config::Config;
use crate::failure::Failure;
use crate::json::is_plain_json;
use crate::output::Output;
use crate::source::Source;
use crate::time;
use annals::{PassedOver, Snapshot, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;
use std::io::Write;

/// A snapshot without its state, as it is printed.
#[derive(Serialize)]
struct Line<'a> {
    stream: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    version: u64,
    position: u64,
    time: String,
    schema: u32,
    bytes: usize,
}

/// A snapshot with its state.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    line: Line<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// Does what is asked for.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    match &options.action {
        SnapshotAction::List { stream } => list(config, stream.as_deref()),
        SnapshotAction::Show(choice) => show(config, choice),
        SnapshotAction::Delete(choice) => {
            let store = config.open_existing_for_writing()?;
            let (snapshots, passed_over) = store.snapshots(&choice.stream)?;
            // What cannot be used can be deleted, too.
            if passed_over.is_empty() && !snapshots.iter().any(|snapshot| is_chosen(snapshot, choice)) {
                return Err(no_snapshot(choice));
            }
            let version = choice.version.map(Version::new);
            let deleted = store.delete_snapshots(&choice.stream, &choice.name, version);
            deleted.and_then(|()| store.close())
        }
    }
}

/// Prints the snapshots of a stream, or of all.
fn list(config: &Config, stream: Option<&str>) -> Result<(), Failure> {
    let store = config.open_for_reading()?;
    let mut output = Output::open();
    let streams = match stream {
        Some(stream) => vec![stream.to_owned()],
        None => store.snapshot_streams()?,
    };
    let printed = streams.iter().try_for_each(|stream| {
        for snapshot in usable(config, &store, stream)? {
            let line = line(&snapshot)?;
            if config.json {
                output.json_line(&line)?;
            } else {
                output.write(|out| write_readable(out, &line))?;
            }
        }
        Ok(())
    });
    output.finish(printed)
}

/// Prints a snapshot with its state: the state alone for people, or whoever it is piped to.
fn show(config: &Config, choice: &SnapshotChoice) -> Result<(), Failure> {
    let store = config.open_for_reading()?;
    let found =
        usable(config, &store, &choice.stream)?.into_iter().find(|snapshot| is_chosen(snapshot, choice));
    let Some(snapshot) = found else { return Err(no_snapshot(choice)) };
    let mut output = Output::open();
    let printed = if config.json {
        let text = std::str::from_utf8(&snapshot.data).ok().filter(|text| is_plain_json(text.as_bytes()));
        let data = text.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        let data_base64 = data.is_none().then(|| STANDARD.encode(&snapshot.data));
        output.json_line(&Shown { line: line(&snapshot)?, data, data_base64 })
    } else {
        output.write(|out| out.write_all(&snapshot.data))
    };
    output.finish(printed)
}

fn is_chosen(snapshot: &Snapshot, choice: &SnapshotChoice) -> bool {
    snapshot.name == choice.name
        && choice.version.is_none_or(|version| snapshot.version == Version::new(version))
}

fn no_snapshot(choice: &SnapshotChoice) -> Failure {
    Failure::NoSnapshot { stream: choice.stream.clone(), version: choice.version }
}

/// Those that can be used; the others are noted.
fn usable(config: &Config, store: &Source, stream: &str) -> Result<Vec<Snapshot>, Failure> {
    let (snapshots, passed_over) = store.snapshots(stream)?;
    let notes = Notes::new(config.json);
    passed_over.iter().for_each(|PassedOver { version, reason }| {
        notes.passed_over(stream, version.map(Version::get), reason);
    });
    Ok(snapshots)
}

fn line(snapshot: &Snapshot) -> Result<Line<'_>, Failure> {
    let mut rfc3339 = Vec::new();
    time::write_rfc3339(&mut rfc3339, snapshot.time).map_err(Failure::Output)?;
    Ok(Line {
        stream: &snapshot.stream,
        name: &snapshot.name,
        version: snapshot.version.get(),
        position: snapshot.position.get(),
        time: String::from_utf8_lossy(&rfc3339).into_owned(),
        schema: snapshot.schema,
        bytes: snapshot.data.len(),
    })
}

fn write_readable(out: &mut impl Write, line: &Line<'_>) -> std::io::Result<()> {
    let Line { stream, name, version, time, schema, bytes, .. } = line;
    write!(out, "{version:>8}  {time}  schema {schema}  {bytes:>8} bytes  {stream}")?;
    if name.is_empty() { writeln!(out) } else { writeln!(out, "  {name}") }
}
