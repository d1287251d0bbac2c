//! What an adapter and `annals-torture rivals` say to each other: a line each, on standard input and output.
//!
//! | asked | answered |
//! |---|---|
//! | the adapter is started with a directory, and options of its own | `ready SETTINGS`, once the store in it is open |
//! | `append NUMBER ID BYTES` | `ok NUMBER`, once the store says that the event is durable |
//! | `dump` | `event NUMBER ID BYTES CRC` for each event that is stored, in the store's order, and `dumped COUNT` |
//! | the end of the input | the store is closed, and the adapter ends with success |
//!
//! Several appends may be asked before one is answered. Other lines are passed over: a store may print what it likes. An adapter
//! that cannot go on says why on standard error, and ends.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use uuid::Uuid;

/// Why an adapter cannot go on.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Waits until what was appended is durable.
pub type Pending = Box<dyn FnOnce() -> Result<(), Failure> + Send>;

/// Whoever is given events.
pub type Sink<'a> = &'a mut dyn FnMut(&Event) -> Result<(), Failure>;

/// An event that is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// Of the append; each has another.
    pub number: u64,
    /// What the payload follows from.
    pub id: Uuid,
    /// What must be there again, byte for byte.
    pub payload: Vec<u8>,
}

/// A store that is open.
pub trait Rival {
    /// Begins to append an event.
    ///
    /// # Errors
    /// Whatever the store says.
    fn append(&mut self, event: Event) -> Result<Pending, Failure>;

    /// Gives all events, in their order; has the store check itself, where it can.
    ///
    /// # Errors
    /// Whatever the store says, or the sink.
    fn dump(&mut self, sink: Sink<'_>) -> Result<(), Failure>;
}

/// Opens the store in the directory that was named, and does what is asked until nothing more is.
/// `open`: with the options behind the directory; the store, and how it is set.
pub fn run<R: Rival>(open: impl FnOnce(&Path, &[String]) -> Result<(R, String), Failure>) -> ExitCode {
    match serve(open) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &Failure) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}

fn serve<R: Rival>(
    open: impl FnOnce(&Path, &[String]) -> Result<(R, String), Failure>,
) -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (dir, options) = arguments.split_first().ok_or("the first argument is the directory of the store")?;
    let dir = PathBuf::from(dir);
    create_durably(&dir)?;
    let (mut rival, settings) = open(&dir, options)?;
    say(&format!("ready {settings}"))?;
    let (under_way, pending) = channel();
    let answering = std::thread::spawn(move || answer(&pending));
    for line in io::stdin().lines() {
        let line = line?;
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["append", number, id, bytes] => {
                let (number, id) = (number.parse()?, id.parse()?);
                let event = Event { number, id, payload: payload(id, bytes.parse()?) };
                let sent = under_way.send((number, rival.append(event)?));
                sent.map_err(|_| "the thread that answers has ended")?;
            }
            ["dump"] => dump(&mut rival)?,
            _ => return Err(format!("nobody knows what {line} is").into()),
        }
    }
    drop(under_way);
    answering.join().map_err(|_| "the thread that answers has panicked".into())
}

/// Not every store syncs the directory that it is given, or the one above it. That is no matter of theirs.
fn create_durably(dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(dir)?;
    let above = dir.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(above)?.sync_all()
}

/// Answers appends in the order in which they were asked, each as soon as it and those before it are durable.
fn answer(pending: &Receiver<(u64, Pending)>) {
    for (number, wait) in pending {
        if let Err(error) = wait().and_then(|()| Ok(say(&format!("ok {number}"))?)) {
            fail(&error);
            // Whoever asks waits for an answer that does not come otherwise.
            std::process::exit(1);
        }
    }
}

/// Says a line, at once.
fn say(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

fn dump(rival: &mut impl Rival) -> Result<(), Failure> {
    let mut output = BufWriter::new(io::stdout().lock());
    let mut count = 0_u64;
    rival.dump(&mut |event| {
        count += 1;
        let Event { number, id, payload } = event;
        let crc = crc32fast::hash(payload);
        Ok(writeln!(output, "event {number} {id} {} {crc:08x}", payload.len())?)
    })?;
    writeln!(output, "dumped {count}")?;
    Ok(output.flush()?)
}

/// The payload of an id: the words of a SplitMix64 that begins with it.
#[must_use]
pub fn payload(id: Uuid, bytes: usize) -> Vec<u8> {
    let (upper, lower) = id.as_u64_pair();
    let mut state = upper ^ lower;
    let mut payload = Vec::with_capacity(bytes.next_multiple_of(8));
    while payload.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        payload.extend((word ^ (word >> 31)).to_le_bytes());
    }
    payload.truncate(bytes);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `annals-torture` has the same figure: they agree, or everything would be called corrupt.
    #[test]
    fn a_payload_follows_from_its_id_alone() {
        let payload = payload(Uuid::from_u128(7), 21);
        assert_eq!((payload.len(), crc32fast::hash(&payload)), (21, 0x0fa0_6c9c));
    }
}
