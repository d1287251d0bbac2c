//! What the tests of several subjects need.

use annals::testing::{Clock, SimulatedDisk, open_simulated};
pub(crate) use annals::testing::{check_prefix, read_all};
use annals::{
    Append, AppendError, Appended, DiskChoice, ExpectedVersion, NewEvent, Settings, Store, Ticket, Version,
};
use futures_core::Stream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

/// The time of clocks that are set by hand.
pub(crate) const NOW: u64 = 1_700_000_000_000_000_000;

/// Prints what was survived of what was tried, for a row of the scorecard.
pub(crate) fn scored(row: &str, survived: usize, tried: usize) {
    println!("scored {row} {survived} {tried}");
}

/// How many cases to try: `default`, times what the environment variable `ANNALS_CASES` says: `3`, or `1/20`.
pub(crate) fn cases(default: u64) -> u64 {
    let (times, divisor) = scale();
    (default * times / divisor).max(1)
}

/// Every how manieth case to try where there are many: `default`, divided by `ANNALS_CASES`.
pub(crate) fn stride(default: usize) -> usize {
    let (times, divisor) = scale();
    usize::try_from(default as u64 * divisor / times).unwrap_or(usize::MAX).max(1)
}

fn scale() -> (u64, u64) {
    let Ok(text) = std::env::var("ANNALS_CASES") else { return (1, 1) };
    let (times, divisor) = text.split_once('/').unwrap_or((&text, "1"));
    let number = |text: &str| text.parse().ok().filter(|&number| number > 0);
    number(times).zip(number(divisor)).expect("ANNALS_CASES is a number, or one divided by another")
}

/// Settings with segments so small that a few events fill one.
pub(crate) fn small(disk: DiskChoice) -> Settings {
    Settings { disk, segment_bytes_first: 16 << 10, segment_bytes_max: 64 << 10, ..Settings::default() }
}

/// Settings with all segments of the least size: an event of 4,000 bytes and more has one for itself.
pub(crate) fn tiny(disk: DiskChoice) -> Settings {
    Settings { segment_bytes_max: 16 << 10, ..small(disk) }
}

/// A time to measure from.
#[expect(clippy::disallowed_methods, reason = "tests measure how long something takes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits until it is so: something that is done in the background.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    const PAUSE: Duration = Duration::from_millis(5);
    // A minute and more: what it takes to look comes on top.
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    panic!("{what}: not within a minute");
}

/// The spans in a store's directory, by name.
pub(crate) fn spans_in(dir: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut spans: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "span")).collect();
    spans.sort();
    spans
}

/// Runs `work` on a thread of its own; panics where it panics, or takes too long.
pub(crate) fn within<T: Send + 'static>(
    seconds: u64,
    label: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, result) = mpsc::channel();
    let thread = std::thread::spawn(move || drop(done.send(work())));
    match result.recv_timeout(Duration::from_secs(seconds)) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{label}: hangs for {seconds} s"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the result was sent"),
        },
    }
}

/// Copies a store's files as they are to read now, to where nothing is: what the end of its process would leave. The
/// manifest goes first, for the files that it speaks of are there before it does.
pub(crate) fn copy_store(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let mut names: Vec<_> =
        std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort_by_key(|name| name != "manifest");
    for name in names.into_iter().filter(|name| name != "manifest.tmp") {
        match std::fs::copy(from.join(&name), to.join(&name)) {
            // A spare that is being made anew, larger, has no name for a moment.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && name != "manifest" => {}
            copied => assert!(copied.is_ok(), "{name:?}: {copied:?}"),
        }
    }
}

pub(crate) fn open(dir: &Path) -> Store {
    Store::open_with(dir, small(DiskChoice::Auto)).unwrap()
}

pub(crate) fn event(stream: &str) -> NewEvent<'_> {
    NewEvent::new(stream, "Happened")
}

pub(crate) fn exactly(version: u64) -> ExpectedVersion {
    ExpectedVersion::Exactly(Version::new(version))
}

pub(crate) fn wait(ticket: Result<Ticket, AppendError>) -> Result<Appended, AppendError> {
    ticket.and_then(Ticket::wait)
}

pub(crate) fn append(store: &Store, append: Append<'_>) -> Result<Appended, AppendError> {
    wait(store.append(append))
}

pub(crate) fn on_disk(disk: &SimulatedDisk) -> Store {
    let clock = Clock::Manual(Arc::new(AtomicU64::new(NOW)));
    open_simulated(disk, Path::new("/store"), small(DiskChoice::Auto), clock).unwrap()
}

/// A byte that tells events apart.
pub(crate) fn filling(number: u64) -> u8 {
    u8::try_from(number % 251).unwrap()
}

/// Wakes a thread.
struct Unpark(std::thread::Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::SeqCst);
        self.0.unpark();
    }
}

/// The stream's next item, polled only when it says so.
pub(crate) fn block_on<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    let unpark = Arc::new(Unpark(std::thread::current(), AtomicUsize::new(0)));
    let waker = Arc::clone(&unpark).into();
    let mut context = Context::from_waker(&waker);
    loop {
        let before = unpark.1.load(Ordering::SeqCst);
        match Pin::new(&mut *stream).poll_next(&mut context) {
            Poll::Ready(item) => return item,
            Poll::Pending => {
                let begun = now();
                // The thread may be woken for what it no longer waits for, too.
                while unpark.1.load(Ordering::SeqCst) == before {
                    assert!(begun.elapsed() < Duration::from_secs(20), "it was never woken");
                    std::thread::park_timeout(Duration::from_secs(20));
                }
            }
        }
    }
}

/// Numbers that look random and are the same in every run (SplitMix64).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number smaller than `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }
}
