//! UmaDB: its engine in this process, with the writer thread, the queue and the defaults that its server gives it.

use annals_rivals::{Event, Failure, Pending, Rival, Sink};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use umadb_core::db::UmaDb;
use umadb_core::mvcc::{Mvcc, StorageOptions};
use umadb_core::writer_thread_blocking::writer_thread_blocking;
use umadb_core::writer_thread_request::WriterThreadRequest;
use umadb_dcb::{DcbEvent, DcbEventStoreSync as _, DcbSequencedEvent};

/// As in its server: how many requests wait, and how many events are committed together.
const REQUESTS_MAX: usize = 1_024;
const BATCH_EVENTS_MAX: usize = 2_048;
/// Events that are read at a time.
const READ_EVENTS: u32 = 1_000;
/// Where an event's number is kept.
const NUMBER: &str = "number";
/// Each event has one tag out of so many, so that the tree of tags is written, too.
const TAGS: u64 = 8;

struct Rivalled {
    store: UmaDb,
    requests: mpsc::Sender<WriterThreadRequest>,
}

impl Rivalled {
    fn open(dir: &Path, options: &[String]) -> Result<(Self, String), Failure> {
        if !options.is_empty() {
            return Err("there are no options".into());
        }
        let options = StorageOptions::default().db_path(dir);
        let settings = format!(
            "UmaDB (umadb-core 0.7.8), page_size={}, pipelined_writer={}",
            options.page_size, options.pipelined_writer
        );
        let mvcc = Arc::new(Mvcc::new(false, options)?);
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (head, _) = watch::channel(None);
        let of_writer = Arc::clone(&mvcc);
        std::thread::spawn(move || writer_thread_blocking(of_writer, asked, head, BATCH_EVENTS_MAX));
        Ok((Self { store: UmaDb::from_arc(mvcc), requests }, settings))
    }
}

impl Rival for Rivalled {
    fn append(&mut self, event: Event) -> Result<Pending, Failure> {
        let Event { number, id, payload } = event;
        let event = DcbEvent::new()
            .event_type("Rival")
            .tags([format!("tag:{}", number % TAGS)])
            .data(payload)
            .uuid(id)
            .metadata([(NUMBER, number.to_string())]);
        let (response_tx, response) = oneshot::channel();
        let request = WriterThreadRequest::Append {
            events: vec![event],
            condition: None,
            tracking_info: None,
            response_tx,
            cancel: None,
        };
        self.requests.blocking_send(request).map_err(|_| "its writer has ended")?;
        Ok(Box::new(move || Ok(response.blocking_recv()?.map(drop)?)))
    }

    fn dump(&mut self, sink: Sink<'_>) -> Result<(), Failure> {
        let mut start = None;
        loop {
            let (events, _) = self.store.read_with_head(None, start, false, Some(READ_EVENTS))?;
            let Some(last) = events.last() else { return Ok(()) };
            start = Some(last.position + 1);
            for event in events {
                sink(&stored(event)?)?;
            }
        }
    }
}

fn stored(sequenced: DcbSequencedEvent) -> Result<Event, Failure> {
    let event = sequenced.event;
    let number = event.metadata.iter().find(|(name, _)| name == NUMBER).ok_or("an event has no number")?;
    let id = event.uuid.ok_or("an event has no id")?;
    Ok(Event { number: number.1.parse()?, id, payload: event.data })
}

fn main() -> ExitCode {
    annals_rivals::run(Rivalled::open)
}
