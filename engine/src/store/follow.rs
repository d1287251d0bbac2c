//! Following: what is durable, from a place on, and then what becomes durable, without a seam.
//!
//! It pulls. What was looked at is what lies before the watermark; when that is given, the watermark is looked at again,
//! and where it has not moved, waited for. A follower that does not ask costs nobody anything, and holds on to no memory
//! of the log meanwhile.

use super::core::Core;
use super::pulse::{Beside, FOLLOW_PERIOD, Pulse, Timer};
use super::query::Step;
use super::read::Reader;
use super::read_only;
use crate::clock::stopwatch;
use crate::log::watcher::Watcher;
use annals_types::{Follow, Followed, Position, ReadError, Start};
use futures_core::Stream;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Events of the store that it may be behind and still count as live.
const BEHIND_MAX: u64 = 1_000;
/// Steps of a search that one poll of a stream makes.
const STEPS_A_POLL: u32 = 64;
/// How long a wait without any other end lasts before it looks again.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What was asked to be followed, as it comes: an iterator that blocks, until the store is closed.
///
/// Every event that matches comes once, in position order: first what is there, then what becomes durable. After a damage
/// error it goes on with the first event behind the damage; after any other error it has ended.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals::{Follow, Followed, NewEvent, Store};
/// let store = Store::open(dir.path())?;
/// store.append(NewEvent::new("order-42", "OrderPlaced"))?.wait()?;
/// for followed in store.follow(&Follow::all())? {
///     match followed? {
///         Followed::Event(event) => println!("{} {}", event.position(), event.event_type()),
///         Followed::CaughtUp { next } => {
///             println!("nothing more before {next}");
///             break;
///         }
///         Followed::Progress { .. } => {}
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Following {
    core: Arc<Core>,
    reader: Reader,
    start: Start,
    /// Where the watermark was when it was looked at.
    durable: u64,
    /// Nothing before this position is to come, as was told last.
    told: u64,
    /// Since when there is more to tell of.
    untold_since: Option<Instant>,
    progress_every: Duration,
    is_live: bool,
    has_ended: bool,
}

/// What there is without waiting.
enum Look {
    Found(Followed),
    /// More steps are needed.
    OnTheWay,
    /// Nothing, for now.
    Nothing,
    /// Nothing, for ever.
    Ended,
}

impl Following {
    pub(crate) fn new(core: &Arc<Core>, follow: &Follow<'_>) -> Result<Self, ReadError> {
        read_only::refresh(core)?;
        let durable = core.watermark.position();
        let mut read = follow.read();
        if follow.start == Start::End {
            read.from = Some(Position::new(durable).into());
        }
        let reader = Reader::endless(core, &read, durable)?;
        Ok(Self {
            core: Arc::clone(core),
            told: reader.passed(),
            reader,
            start: follow.start,
            durable,
            untold_since: None,
            progress_every: follow.progress_every,
            is_live: false,
            has_ended: false,
        })
    }

    /// What comes within this time. `None`: nothing did, or nothing more will ([`Self::has_ended`]).
    ///
    /// # Errors
    /// As those of reading; [`ReadError::Stopped`] where the store's writer failed.
    pub fn next_within(&mut self, patience: Duration) -> Result<Option<Followed>, ReadError> {
        let mut until = None;
        loop {
            match self.look()? {
                Look::Found(followed) => return Ok(Some(followed)),
                Look::OnTheWay => {}
                Look::Ended => return Ok(None),
                Look::Nothing => {
                    let now = stopwatch();
                    let until = *until.get_or_insert_with(|| now.checked_add(patience));
                    let left = until.map_or(PATIENCE, |until| until.saturating_duration_since(now));
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let due = self.progress_at().map_or(left, |at| at.saturating_duration_since(now));
                    self.wait(left.min(due));
                }
            }
        }
    }

    /// Whether nothing more will come, because the store was closed or it ended with an error.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The same, to await: it needs no thread, and no particular runtime.
    ///
    /// What has to be read from the disk is read by the thread that polls.
    #[must_use]
    pub fn into_stream(self) -> FollowingStream {
        let beside = self.core.follower.get().is_some().then(|| Pulse::follow(&self.core));
        FollowingStream { following: self, watcher: Arc::default(), timer: None, _beside: beside }
    }

    /// One look at what is there.
    fn look(&mut self) -> Result<Look, ReadError> {
        if self.has_ended {
            return Ok(Look::Ended);
        }
        let looked = self.step();
        if let Err(error) = &looked
            && !matches!(error, ReadError::Damage(_))
        {
            self.has_ended = true;
        }
        looked
    }

    fn step(&mut self) -> Result<Look, ReadError> {
        match self.reader.step() {
            Some(Ok(Step::Record(record))) if !self.start.is_behind(&record) => {
                Ok(self.tell(Followed::Event(record)))
            }
            Some(Ok(_)) => Ok(self.progress().unwrap_or(Look::OnTheWay)),
            Some(Err(error)) => Err(error),
            None => self.look_further(),
        }
    }

    /// All that was durable was given: looks whether there is more by now.
    fn look_further(&mut self) -> Result<Look, ReadError> {
        // Before the watermark: what became durable before the end is given.
        let is_over = self.core.watermark.is_over();
        read_only::refresh(&self.core)?;
        let durable = self.core.watermark.position();
        if durable > self.durable {
            self.is_live &= durable - self.durable < BEHIND_MAX;
            self.durable = durable;
            self.reader.extend(durable);
            return Ok(Look::OnTheWay);
        }
        if !self.is_live {
            self.is_live = true;
            let next = Position::new(durable.max(self.told));
            return Ok(self.tell(Followed::CaughtUp { next }));
        }
        if let Some(progress) = self.progress() {
            return Ok(progress);
        }
        if let Some(reason) = self.core.watermark.poison() {
            return Err(ReadError::Stopped { reason: Arc::clone(reason) });
        }
        self.has_ended = is_over;
        Ok(if is_over { Look::Ended } else { Look::Nothing })
    }

    fn tell(&mut self, followed: Followed) -> Look {
        self.told = followed.next_position().get();
        self.untold_since = None;
        Look::Found(followed)
    }

    /// What is told where nothing matches for long enough.
    fn progress(&mut self) -> Option<Look> {
        let passed = self.reader.passed().min(self.durable);
        if passed <= self.told {
            return None;
        }
        let since = *self.untold_since.get_or_insert_with(stopwatch);
        if since.elapsed() < self.progress_every {
            return None;
        }
        Some(self.tell(Followed::Progress { next: Position::new(passed) }))
    }

    /// When progress is to be told, if there is any.
    fn progress_at(&self) -> Option<Instant> {
        self.untold_since.and_then(|since| since.checked_add(self.progress_every))
    }

    /// Waits for more, for this long at the most.
    fn wait(&self, time: Duration) {
        if self.core.follower.get().is_some() {
            std::thread::sleep(time.min(FOLLOW_PERIOD));
        } else {
            self.core.watermark.wait_beyond(self.durable, time);
        }
    }
}

impl Iterator for Following {
    type Item = Result<Followed, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_within(PATIENCE) {
                Ok(Some(followed)) => return Some(Ok(followed)),
                Ok(None) if self.has_ended => return None,
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { told, durable, is_live, has_ended, .. } = self;
        let mut debug = f.debug_struct("Following");
        debug.field("told", told).field("durable", durable).field("is_live", is_live);
        debug.field("has_ended", has_ended).finish_non_exhaustive()
    }
}

/// What was asked to be followed, as it comes, to await.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals::{Follow, NewEvent, Store};
/// use futures_core::Stream;
/// use std::future::poll_fn;
/// use std::pin::pin;
///
/// let store = Store::open(dir.path())?;
/// store.append(NewEvent::new("order-42", "OrderPlaced"))?.wait()?;
/// let mut orders = pin!(store.follow(&Follow::stream("order-42"))?.into_stream());
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # runtime.block_on(async {
/// let first = poll_fn(|context| orders.as_mut().poll_next(context)).await;
/// let event = first.expect("the store is open")?.into_event().expect("there is one");
/// assert_eq!(event.event_type(), "OrderPlaced");
/// # Ok::<(), annals::ReadError>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FollowingStream {
    following: Following,
    watcher: Arc<Watcher>,
    timer: Option<Timer>,
    _beside: Option<Beside>,
}

impl Stream for FollowingStream {
    type Item = Result<Followed, ReadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut is_watching = false;
        for _ in 0..STEPS_A_POLL {
            match this.following.look() {
                Ok(Look::Found(followed)) => return Poll::Ready(Some(Ok(followed))),
                Ok(Look::OnTheWay) => {}
                Ok(Look::Ended) => return Poll::Ready(None),
                Ok(Look::Nothing) if is_watching => {
                    let due = this.following.progress_at();
                    this.timer = due.map(|due| Pulse::wake_at(&this.following.core, due, &this.watcher));
                    return Poll::Pending;
                }
                Ok(Look::Nothing) => {
                    // Looked at once more: it may have come in between.
                    is_watching = true;
                    this.following.core.watermark.watch(&this.watcher, context.waker());
                }
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
        // Others have their turn.
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for FollowingStream {
    fn drop(&mut self) {
        self.following.core.watermark.unwatch(&self.watcher);
    }
}
