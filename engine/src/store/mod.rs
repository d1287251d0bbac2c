//! The promises: opening, appending, reading. `commit.rs` is the one write path.

pub(crate) mod boundary;
pub(crate) mod commit;
pub(crate) mod core;
mod cursors;
pub(crate) mod event_store;
mod examine;
mod filling;
pub(crate) mod follow;
pub(crate) mod gate;
mod hub;
mod ids;
mod keeper;
mod locate;
mod lookup;
pub(crate) mod member;
mod open;
mod outside;
mod prepare;
mod promise;
mod pulse;
pub(crate) mod query;
pub(crate) mod read;
mod read_only;
pub(crate) mod rebuild;
mod recent;
mod repeat;
mod roll;
mod seal;
pub(crate) mod sealed;
mod side;
pub(crate) mod snapshots;
mod spans;
mod stat;
pub(crate) mod streams;
mod subscribing;
mod subscriptions;
pub(crate) mod ticket;
mod verify;
mod view;

use self::commit::{TriedAppends, TryAppendError};
use self::core::{Core, PoisonOnPanic};
use self::follow::Following;
use self::pulse::FOLLOW_PERIOD;
use self::read::Reader;
use self::snapshots::Loaded;
use self::streams::Streams;
use self::ticket::Ticket;
use crate::clock::{Clock, stopwatch};
use crate::disk::{self, Disk};
use crate::log::writer;
use crate::striped::Shared;
use crate::threads::go_first;
use annals_types::{
    Append, AppendError, Follow, Head, IoFailure, Load, NewSnapshot, OpenError, PassedOver, Position, Read,
    ReadError, Settings, Snapshot, Stat, Verified, Version, Writes,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

/// An event store in a directory.
///
/// One process at a time has it open for writing; any number may read it meanwhile. Cheap to clone; the store
/// is closed when the last clone is dropped or [`Store::close`] is called.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals::{ExpectedVersion, Append, NewEvent, Read, Store};
///
/// let store = Store::open(dir.path())?;
/// let placed = NewEvent::new("order-42", "OrderPlaced").json(r#"{"total":12}"#).tag("customer:7");
/// let first = store.append(Append::from(placed).expect("order-42", ExpectedVersion::NoStream))?.wait()?;
/// assert_eq!(first.last_version.get(), 0);
///
/// for event in store.read(Read::stream("order-42"))? {
///     let event = event?;
///     println!("{} {} {}", event.position(), event.event_type(), String::from_utf8_lossy(event.data()));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Store {
    handle: Arc<Handle>,
}

/// The open store and its threads; closing happens when it is dropped.
#[derive(Debug)]
struct Handle {
    core: Shared<Core>,
    threads: parking_lot::Mutex<Vec<JoinHandle<()>>>,
    /// Which these are, once they run.
    own: std::sync::OnceLock<Vec<ThreadId>>,
    /// Held by who closes: whoever closes next finds it closed.
    closing: parking_lot::Mutex<()>,
}

impl Store {
    /// Opens the store in `dir` for writing, with the default settings; creates it, durably, where there is
    /// none. After a crash it is repaired: what was acknowledged is there, a torn tail is set aside.
    ///
    /// # Errors
    /// [`OpenError::InUse`] if it is open for writing already, [`OpenError::NotAStore`] if the directory holds other
    /// things, [`OpenError::Damage`] if acknowledged bytes are damaged, and others: see there.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(dir, Settings::default())
    }

    /// Opens the store in `dir` for writing, with these settings.
    ///
    /// # Errors
    /// As [`Store::open`]; [`OpenError::Input`] for a setting that is out of range.
    pub fn open_with(dir: impl AsRef<Path>, settings: Settings) -> Result<Self, OpenError> {
        settings.validate()?;
        let dir = dir.as_ref();
        let plain = disk::choose(settings.disk, dir, false)?;
        open::refuse_other_directory(plain.as_ref(), dir)?;
        plain.create_dirs(dir).map_err(|error| IoFailure::new("create", dir, error))?;
        let disk = disk::choose(settings.disk, dir, true)?;
        Self::open_on(dir, settings, disk, Clock::System)
    }

    /// Opens a store on this disk, with this clock.
    pub(crate) fn open_on(
        dir: &Path,
        settings: Settings,
        disk: Arc<dyn Disk>,
        clock: Clock,
    ) -> Result<Self, OpenError> {
        settings.validate()?;
        let core = open::open(dir, disk, settings, clock)?;
        let handle = Handle::new(&core);
        handle.spawn_threads().map_err(|error| IoFailure::new("start the threads of", dir, error))?;
        Ok(Self { handle: Arc::new(handle) })
    }

    /// Opens the store in `dir` for reading alone. Changes nothing; works beside a writer in another process, and
    /// then follows it; also on a damaged store, of which it reads what is intact.
    ///
    /// # Errors
    /// [`OpenError::NoStore`] if there is none, and others: see there.
    pub fn open_read_only(dir: impl AsRef<Path>) -> Result<Self, OpenError> {
        let disk = disk::choose(annals_types::DiskChoice::Auto, dir.as_ref(), false)?;
        Self::open_read_only_on(dir.as_ref(), disk)
    }

    /// Opens a store for reading alone on this disk.
    pub(crate) fn open_read_only_on(dir: &Path, disk: Arc<dyn Disk>) -> Result<Self, OpenError> {
        let (core, follower) = read_only::open(dir, &disk, &Settings::default(), &Clock::System)?;
        core.follower.set(follower).expect("it was just made");
        Ok(Self { handle: Arc::new(Handle::new(&core)) })
    }

    /// Appends a batch: all of it or nothing. Decides at once and returns a ticket; the outcome can be read from
    /// it once everything that it rests on is durable.
    ///
    /// Waits while 64 MiB are on their way to the disk, or anything is while the logs of all stores of the process take
    /// [`limits::LOG_MEMORY_BYTES_MAX`](annals_types::limits::LOG_MEMORY_BYTES_MAX) of memory; while the next segment
    /// is being prepared; and for the disk where a condition, or an id that was given, is about something that is not in
    /// memory, or about an event that seems to match and is on its way to the disk still.
    ///
    /// # Errors
    /// What can be said without waiting for the disk: [`AppendError::Input`], [`AppendError::IdConflict`] within the
    /// batch, [`AppendError::DiskFull`], [`AppendError::Poisoned`], [`AppendError::ReadOnly`]. Nothing was written then.
    pub fn append<'a>(&self, append: impl Into<Append<'a>>) -> Result<Ticket, AppendError> {
        self.refuse_read_only()?;
        self.append_one(&append.into())
    }

    fn append_one(&self, append: &Append<'_>) -> Result<Ticket, AppendError> {
        match append.snapshot {
            None => commit::append(&self.handle.core, append),
            Some(_) => snapshots::append(&self.handle.core, append),
        }
    }

    /// Appends each of these batches, in their order, as [`Store::append`] does one: each is judged by itself, also
    /// against those before it, and has its own ticket or error. Batches of others may come between. Where many are
    /// at hand, say from one read of a connection, this takes some four fifths of the time.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use annals::{Append, ExpectedVersion, NewEvent, Store};
    /// let store = Store::open(dir.path())?;
    /// let opened = |name| Append::from(NewEvent::new(name, "Opened")).expect(name, ExpectedVersion::NoStream);
    /// let tickets = store.append_each(&[opened("account-1"), opened("account-2"), opened("account-1")]);
    /// let outcomes: Vec<_> = tickets.into_iter().map(|ticket| ticket?.wait()).collect();
    /// assert!(outcomes[0].is_ok() && outcomes[1].is_ok() && outcomes[2].is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// Each answer is what [`Store::append`] would have returned: see there for the errors.
    pub fn append_each(&self, appends: &[Append<'_>]) -> Vec<Result<Ticket, AppendError>> {
        let mut answers = Vec::with_capacity(appends.len());
        match self.refuse_read_only() {
            Ok(()) if appends.iter().any(|append| append.snapshot.is_some()) => {
                answers.extend(appends.iter().map(|append| self.append_one(append)));
            }
            Ok(()) => commit::append_each(&self.handle.core, appends, &mut |answer| answers.push(answer)),
            Err(error) => answers.resize_with(appends.len(), || Err(error.clone())),
        }
        answers
    }

    /// Appends like [`Store::append`], but only if that needs no waiting and no disk: for threads that must not
    /// block. An append with a snapshot always may.
    ///
    /// # Errors
    /// [`TryAppendError::Busy`] and [`TryAppendError::Cold`] where it would have to wait; nothing was written then.
    pub fn try_append(&self, append: &Append<'_>) -> Result<Ticket, TryAppendError> {
        let TriedAppends { mut answers, stopped } = self.try_append_each(std::slice::from_ref(append));
        match (answers.pop(), stopped) {
            (Some(answer), _) => Ok(answer?),
            (None, Some(error)) => Err(error),
            (None, None) => unreachable!("it is answered, or something stood in its way"),
        }
    }

    /// Appends each of these batches, in their order, as [`Store::append_each`] does, up to the first that would have to wait
    /// or needs the disk: for threads that must not block. That one, and those behind it, are not written.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use annals::{Append, NewEvent, Store};
    /// let store = Store::open(dir.path())?;
    /// let appends = [Append::from(NewEvent::new("a", "Happened")), Append::from(NewEvent::new("b", "Happened"))];
    /// let tried = store.try_append_each(&appends);
    /// // On a thread that may block, what is left:
    /// let left = store.append_each(&appends[tried.answers.len()..]);
    /// for ticket in tried.answers.into_iter().chain(left) {
    ///     ticket?.wait()?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn try_append_each(&self, appends: &[Append<'_>]) -> TriedAppends {
        let mut answers = Vec::with_capacity(appends.len());
        if let Err(error) = self.refuse_read_only() {
            return TriedAppends { answers, stopped: Some(error.into()) };
        }
        let without_snapshot = appends.iter().take_while(|append| append.snapshot.is_none()).count();
        let tried = commit::try_append_each(&self.handle.core, &appends[..without_snapshot], &mut |answer| {
            answers.push(answer);
        });
        let stopped = tried.err().or((without_snapshot < appends.len()).then_some(TryAppendError::Cold));
        TriedAppends { answers, stopped }
    }

    /// Waits until all that was appended by now is durable, or will never be.
    pub(crate) fn settle(&self) {
        let core = &self.handle.core;
        let (batch, group) = commit::last_assigned(&core.state.lock());
        core.watermark.wait(batch, group);
    }

    /// Whether this is one of the store's own threads, which wait for nothing.
    pub(crate) fn is_on_own_thread(&self) -> bool {
        self.handle.is_on_own_thread()
    }

    fn refuse_read_only(&self) -> Result<(), AppendError> {
        if self.handle.core.follower.get().is_some() { Err(AppendError::ReadOnly) } else { Ok(()) }
    }

    /// Reads a stream, or everything, up to what is durable now.
    ///
    /// # Errors
    /// [`ReadError::Input`] for bounds that do not fit; damage or failure of what must be looked at to begin.
    pub fn read(&self, read: Read<'_>) -> Result<Reader, ReadError> {
        Reader::new(&self.handle.core, &read)
    }

    /// Follows a stream, or what a query selects, or everything: what is there from a place on, then what becomes durable,
    /// without a seam. Each event comes once, in position order.
    ///
    /// # Errors
    /// [`ReadError::Input`] for a place that does not fit; damage or failure of what must be looked at to begin.
    pub fn follow(&self, follow: &Follow<'_>) -> Result<Following, ReadError> {
        Following::new(&self.handle.core, follow)
    }

    /// The stream's last durable event; `None`: it has none.
    ///
    /// # Errors
    /// Damage or failure of what must be looked at.
    pub fn head(&self, stream: &str) -> Result<Option<Head>, ReadError> {
        streams::durable_head(&self.handle.core, stream)
    }

    /// Every stream with its head, in no particular order.
    ///
    /// # Errors
    /// Damage or failure of what must be looked at.
    pub fn streams(&self) -> Result<Streams, ReadError> {
        Streams::new(&self.handle.core)
    }

    /// A stream's state, now or as it was: the newest snapshot that can be used, and the events behind it.
    ///
    /// It is right whatever snapshots there are: one that is missing, damaged or not of the events that are there costs a
    /// longer replay. A stream that never was has neither snapshot nor events.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use annals::{Append, Load, NewEvent, NewSnapshot, Store};
    /// let store = Store::open(dir.path())?;
    /// let opened = NewEvent::new("account-7", "Opened");
    /// store.append(Append::from(opened).snapshot(NewSnapshot::new("account-7", 1, "0")))?.wait()?;
    /// store.append(NewEvent::new("account-7", "Deposited").json("20"))?.wait()?;
    ///
    /// let loaded = store.load(&Load::stream("account-7"))?;
    /// let number = |json: &[u8]| String::from_utf8_lossy(json).parse::<u64>();
    /// let mut balance = loaded.snapshot.map_or(Ok(0), |snapshot| number(&snapshot.data))?;
    /// for event in loaded.events {
    ///     balance += number(event?.data())?;
    /// }
    /// assert_eq!(balance, 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Those of reading the events. Those of reading snapshots are no errors: see [`Loaded::passed_over`].
    pub fn load(&self, load: &Load<'_>) -> Result<Loaded, ReadError> {
        snapshots::load(&self.handle.core, load)
    }

    /// Writes the state that a stream has at a version, by itself; [`Append::snapshot`] writes it with the events that lead
    /// to it. It is durable when this returns.
    ///
    /// # Errors
    /// [`AppendError::NoSuchVersion`]; [`AppendError::Input`] for a snapshot over its limits; and those of any append.
    pub fn write_snapshot(&self, snapshot: &NewSnapshot<'_>, version: Version) -> Result<(), AppendError> {
        self.refuse_read_only()?;
        snapshots::write_alone(&self.handle.core, snapshot, version)
    }

    /// A stream's snapshots that can be used, of all names, the one written last first; and those that cannot.
    ///
    /// # Errors
    /// A malformed name; failure of catching up with a writer in another process.
    pub fn snapshots(&self, stream: &str) -> Result<(Vec<Snapshot>, Vec<PassedOver>), ReadError> {
        snapshots::list(&self.handle.core, stream)
    }

    /// Names of the streams that have snapshots, or had some, in their order.
    ///
    /// # Errors
    /// Damage or failure of what must be looked at.
    pub fn snapshot_streams(&self) -> Result<Vec<String>, ReadError> {
        snapshots::streams(&self.handle.core)
    }

    /// Deletes a stream's snapshots of this name: that of a version, or all. What is folded later counts again.
    ///
    /// # Errors
    /// A malformed name, and those of any append.
    pub fn delete_snapshots(
        &self,
        stream: &str,
        name: &str,
        version: Option<Version>,
    ) -> Result<(), AppendError> {
        self.refuse_read_only()?;
        snapshots::delete(&self.handle.core, stream, name, version)
    }

    /// Where a cursor is, as far as it is durable; `None`: it was never set. Set by [`Append::advance`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// use annals::{Append, NewEvent, Position, Store};
    /// let store = Store::open(dir.path())?;
    /// store.append(NewEvent::new("order-42", "OrderPlaced"))?.wait()?;
    /// let handled = store.cursor("invoicing")?.and_then(|cursor| cursor.position);
    /// let invoice = Append::from(NewEvent::new("invoice-42", "InvoiceSent"));
    /// let invoice = invoice.expect_cursor("invoicing", handled).advance("invoicing", Some(Position::ZERO));
    /// store.append(invoice)?.wait()?;
    /// assert_eq!(store.cursor("invoicing")?.map(|cursor| cursor.revision), Some(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Damage or failures of a store that is open for reading alone, as it catches up with its writer.
    pub fn cursor(&self, name: &str) -> Result<Option<annals_types::Cursor>, ReadError> {
        cursors::get(&self.handle.core, name)
    }

    /// All cursors, by name.
    ///
    /// # Errors
    /// As those of [`Store::cursor`].
    pub fn cursors(&self) -> Result<Vec<(String, annals_types::Cursor)>, ReadError> {
        cursors::list(&self.handle.core)
    }

    /// The position behind the last durable event: the number of events.
    #[must_use]
    pub fn next_position(&self) -> Position {
        // A reader beside a writer that cannot catch up says what it knows.
        let _ = read_only::refresh(&self.handle.core);
        Position::new(self.handle.core.watermark.position())
    }

    /// The position of the last durable event, if there is any: what a decision rests on that is made by what can be
    /// read now. See [`Append::fail_if_matches`].
    #[must_use]
    pub fn last_position(&self) -> Option<Position> {
        self.next_position().get().checked_sub(1).map(Position::new)
    }

    /// Blocks until the event at `position` is durable, or `timeout` is over; says whether it is.
    ///
    /// # Errors
    /// Failure of catching up with a writer in another process.
    pub fn wait_for(&self, position: Position, timeout: Duration) -> Result<bool, ReadError> {
        let core = &self.handle.core;
        let begun = stopwatch();
        loop {
            read_only::refresh(core)?;
            let left = timeout.saturating_sub(begun.elapsed());
            if core.watermark.position() > position.get() || left.is_zero() || core.watermark.is_over() {
                return Ok(core.watermark.position() > position.get());
            }
            if core.follower.get().is_some() {
                std::thread::sleep(left.min(FOLLOW_PERIOD));
            } else {
                core.watermark.wait_beyond(position.get(), left);
            }
        }
    }

    /// Facts about the store. Counting its streams takes time in proportion to their number.
    ///
    /// # Errors
    /// Damage or failure of what must be looked at.
    pub fn stat(&self) -> Result<Stat, ReadError> {
        stat::stat(&self.handle.core)
    }

    /// What was made durable since the store was opened for writing.
    #[must_use]
    pub fn writes(&self) -> Writes {
        self.handle.core.watermark.tally.told()
    }

    /// Why nothing more is appended: a write failed. `None`: none did.
    #[must_use]
    pub fn poison(&self) -> Option<String> {
        self.handle.core.watermark.poison().map(ToString::to_string)
    }

    /// Checks everything: every checksum, the chain of hashes, every index against the log, manifest and mark. Calls
    /// `progress` with the number of events checked, and of how many.
    ///
    /// # Errors
    /// Failures of the system. Damage is not an error here but the result.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<Verified, ReadError> {
        verify::verify(&self.handle.core, progress)
    }

    /// Makes everything durable, notes that the store was closed cleanly, and ends its threads. Appends through
    /// other clones are refused from then on; reads go on.
    ///
    /// # Errors
    /// [`AppendError::Poisoned`] if the writer had failed: the next opening repairs.
    pub fn close(self) -> Result<(), AppendError> {
        self.handle.close()
    }
}

#[cfg(any(test, feature = "testing"))]
impl Store {
    /// How long a condition on a query takes to judge: under the lock, and outside.
    pub(crate) fn time_condition(
        &self,
        query: &annals_types::Query<'_>,
        after: Option<Position>,
    ) -> Result<(Duration, Duration), AppendError> {
        boundary::time(&self.handle.core, query, after)
    }
}

impl Handle {
    fn new(core: &Arc<Core>) -> Self {
        Self {
            core: Shared::new(core),
            threads: parking_lot::Mutex::default(),
            own: std::sync::OnceLock::new(),
            closing: parking_lot::Mutex::default(),
        }
    }

    fn is_on_own_thread(&self) -> bool {
        let this = std::thread::current().id();
        self.own.get().is_some_and(|own| own.contains(&this))
    }

    /// Starts the store's threads; what was started is ended again with the handle, should one fail to start.
    fn spawn_threads(&self) -> std::io::Result<()> {
        let spawn = |name: &str, work: fn(&Arc<Core>)| -> std::io::Result<()> {
            let core = Arc::clone(&self.core);
            let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
                let _guard = PoisonOnPanic::new(&core);
                work(&core);
            });
            self.threads.lock().push(thread?);
            Ok(())
        };
        spawn("annals-writer", write)?;
        spawn("annals-spare", keeper::keep_spare)?;
        spawn("annals-seal", keeper::keep_sealed)?;
        spawn("annals-spans", spans::keep)?;
        let own = self.threads.lock().iter().map(|thread| thread.thread().id()).collect();
        self.own.set(own).expect("the threads are started once");
        Ok(())
    }
}

/// The writer thread.
fn write(core: &Arc<Core>) {
    go_first();
    let submitter = match core.disk.submitter(Arc::clone(&core.alarm.in_flight)) {
        Ok(submitter) => submitter,
        Err(error) => {
            core.poison(&format!("the disk could not be set up for writing: {error}"));
            return;
        }
    };
    let linger = core.settings.linger;
    writer::run(core.as_ref(), submitter, &core.fills, &core.watermark, &core.alarm, linger);
}

impl Handle {
    fn close(&self) -> Result<(), AppendError> {
        let core = &self.core;
        let on_own_thread = self.is_on_own_thread();
        // Who closes waits for these threads.
        let _alone = (!on_own_thread).then(|| self.closing.lock());
        {
            // Under the lock, so that no append is between its check and its place.
            let _state = core.state.lock();
            core.closing.store(true, Ordering::Release);
            core.work.ring();
            core.room.ring();
        }
        core.alarm.ring();
        if !on_own_thread {
            let threads: Vec<_> = self.threads.lock().drain(..).collect();
            // A thread that panicked has poisoned the store or aborted the process.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        }
        if on_own_thread {
            // A waker dropped the last clone on the writer thread, which cannot wait for itself and may have more to write:
            // the store is given up with the thread's own reference to it, and the next opening repairs.
            core.subscriptions.abandon();
            core.watermark.end();
            return Ok(());
        }
        // Where that fails, what was acknowledged last is handed out again.
        let _ = core.subscriptions.close(core);
        // What was appended with a snapshot was handed over whole by now.
        // Where that fails, they cost a longer replay.
        let _ = core.snapshots.close();
        // Whoever closes first gives the store up to the next writer, whatever comes of it.
        let Some(lock) = core.lock.lock().take() else {
            core.watermark.end();
            return Ok(());
        };
        let (segment, offset) = {
            let state = core.state.lock();
            let tail = state.tail.as_ref().expect("only a store open for writing holds the lock");
            (tail.segment.header.ordinal, tail.frames_end)
        };
        let closed = match core.watermark.poison() {
            Some(reason) => Err(AppendError::Poisoned { reason: Arc::clone(reason) }),
            None => core.mark_durably(segment, offset, true).map_err(AppendError::Io),
        };
        let mut state = core.state.lock();
        state.segments.release_files();
        drop(state.spare.take());
        drop(state);
        drop(lock);
        core.watermark.end();
        closed
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Who wants to know whether closing succeeded calls `close`; the next opening repairs if it did not.
        let _ = self.close();
    }
}
