//! `annals stat`: one store in figures.

use crate::config::Config;
use crate::failure::Failure;
use crate::output::Output;
use annals::Stat;
use serde::Serialize;
use std::io::Write;

/// The figures, in the order in which they are printed.
#[derive(Serialize)]
struct Figures {
    events: u64,
    streams: u64,
    next_position: u64,
    segments: u64,
    disk_bytes: u64,
    index_bytes: u64,
    epoch: u64,
    disk: String,
    format: u32,
    writer: Option<u32>,
}

impl From<Stat> for Figures {
    fn from(stat: Stat) -> Self {
        Self {
            events: stat.events,
            streams: stat.streams,
            next_position: stat.next_position.get(),
            segments: stat.segments,
            disk_bytes: stat.disk_bytes,
            index_bytes: stat.index_bytes,
            epoch: stat.epoch,
            disk: stat.disk,
            format: stat.format,
            writer: stat.writer,
        }
    }
}

/// Prints the figures of the whole store.
pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let figures = Figures::from(config.open_for_reading()?.stat()?);
    let mut output = Output::open();
    let printed = if config.json {
        output.json_line(&figures)
    } else {
        output.write(|out| write_readable(out, &figures))
    };
    output.finish(printed)
}

fn write_readable(out: &mut impl Write, figures: &Figures) -> std::io::Result<()> {
    writeln!(out, "events         {}", figures.events)?;
    writeln!(out, "streams        {}", figures.streams)?;
    writeln!(out, "next position  {}", figures.next_position)?;
    writeln!(out, "segments       {}", figures.segments)?;
    writeln!(out, "disk bytes     {}", figures.disk_bytes)?;
    writeln!(out, "index bytes    {}", figures.index_bytes)?;
    writeln!(out, "epoch          {}", figures.epoch)?;
    writeln!(out, "disk           {}", figures.disk)?;
    writeln!(out, "format         {}", figures.format)?;
    match figures.writer {
        Some(pid) => writeln!(out, "writer         process {pid}"),
        None => writeln!(out, "writer         none"),
    }
}
