//! Annals: the engine in this process, with the small segments that the scorecard has, too, so that many are begun, sealed and left behind.

use annals::{NewEvent, Read, Settings, Store};
use annals_rivals::{Event, Failure, Pending, Rival, Sink};
use std::path::Path;
use std::process::ExitCode;

const SEGMENT_BYTES_FIRST: u64 = 64 << 10;
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
/// Streams that events are put into in turn.
const STREAMS: u64 = 8;

#[derive(Debug)]
struct Annals {
    store: Store,
}

impl Annals {
    fn open(dir: &Path, options: &[String]) -> Result<(Self, String), Failure> {
        if !options.is_empty() {
            return Err("there are no options".into());
        }
        let settings = Settings {
            segment_bytes_first: SEGMENT_BYTES_FIRST,
            segment_bytes_max: SEGMENT_BYTES_MAX,
            ..Settings::default()
        };
        let told = format!(
            "Annals, disk={:?}, segments of {SEGMENT_BYTES_FIRST} to {SEGMENT_BYTES_MAX} bytes",
            settings.disk
        );
        Ok((Self { store: Store::open_with(dir, settings)? }, told))
    }
}

impl Rival for Annals {
    fn append(&mut self, event: Event) -> Result<Pending, Failure> {
        let stream = format!("stream-{}", event.number % STREAMS);
        let new = NewEvent::new(stream, "Rival").id(event.id).binary(event.payload);
        let ticket = self.store.append(new.metadata(event.number.to_string().into_bytes()))?;
        Ok(Box::new(move || Ok(ticket.wait().map(drop)?)))
    }

    fn dump(&mut self, sink: Sink<'_>) -> Result<(), Failure> {
        let verified = self.store.verify(&mut |_, _| {})?;
        if let Some(damage) = verified.damage.first() {
            return Err(format!("verification has found damage: {damage:?}").into());
        }
        for record in self.store.read(Read::all())? {
            let record = record?;
            let number = std::str::from_utf8(record.metadata())?.parse()?;
            sink(&Event { number, id: record.id(), payload: record.data().to_vec() })?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    annals_rivals::run(Annals::open)
}
