//! The watermark: what is durable, and so what readers may see; and everybody who waits for it.
//!
//! Blocked threads wait on one word a group, so that one system call wakes all that a device write made
//! durable and nobody else: waking threads one by one costs more than the write.

use super::crowd::Crowd;
use super::tally::Tally;
use super::watcher::{self, Watcher};
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, Word, many};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Duration;

/// Groups whose waiters have a word of their own at a time.
const WORDS: usize = many(64);

/// See the module.
#[derive(Debug)]
pub(crate) struct Watermark {
    reached: Reached,
    words: [Word; WORDS],
    wakers: Mutex<Vec<(u64, Waker)>>,
    /// Changed with each advance, as long as there are sleepers: one system call wakes all of them.
    advanced: Word,
    sleepers: AtomicUsize,
    /// Who is to be woken by the next advance.
    watchers: Mutex<Vec<Arc<Watcher>>>,
    /// Wakes them where they are many.
    crowd: Arc<Crowd>,
    poison: OnceLock<Arc<str>>,
    ended: AtomicBool,
    /// What the writer has made durable.
    pub(crate) tally: Tally,
}

/// What is durable. In a cache line of its own: everybody looks at it all the time.
#[derive(Debug)]
#[repr(align(64))]
struct Reached {
    /// First batch not known durable.
    batch: AtomicU64,
    /// Position that follows from it.
    position: AtomicU64,
}

impl Watermark {
    pub(crate) fn new(batch: u64, position: u64) -> Self {
        Self {
            reached: Reached { batch: AtomicU64::new(batch), position: AtomicU64::new(position) },
            words: std::array::from_fn(|_| Word::default()),
            wakers: Mutex::default(),
            advanced: Word::default(),
            sleepers: AtomicUsize::new(0),
            watchers: Mutex::default(),
            crowd: Arc::default(),
            poison: OnceLock::new(),
            ended: AtomicBool::new(false),
            tally: Tally::default(),
        }
    }

    /// First batch not known durable.
    pub(crate) fn batch(&self) -> u64 {
        self.reached.batch.load(Ordering::Acquire)
    }

    /// Position behind the last durable event.
    pub(crate) fn position(&self) -> u64 {
        self.reached.position.load(Ordering::SeqCst)
    }

    /// Whether the event at `position` is durable.
    pub(crate) fn is_beyond(&self, position: u64) -> bool {
        self.position() > position
    }

    /// Why the writer stopped, if it did.
    pub(crate) fn poison(&self) -> Option<&Arc<str>> {
        self.poison.get()
    }

    /// Whether all batches below `batch` are durable, or will never be known to be.
    pub(crate) fn is_settled(&self, batch: u64) -> bool {
        self.batch() >= batch || self.poison.get().is_some()
    }

    /// Moves on, and wakes all who waited for it. `groups`: those that became durable.
    pub(crate) fn advance(&self, batch: u64, position: u64, groups: std::ops::Range<u64>) {
        debug_assert!(batch >= self.batch() && position >= self.position());
        self.reached.position.store(position, Ordering::SeqCst);
        self.reached.batch.store(batch, Ordering::Release);
        for group in groups {
            self.wake_word(group);
        }
        self.wake_others(batch);
    }

    /// Moves on to what a scan beside the writer has reached; never back.
    pub(crate) fn raise(&self, batch: u64, position: u64) {
        if batch > self.batch() {
            self.advance(batch, position.max(self.position()), 0..0);
        }
    }

    /// Ends all waiting: nothing more becomes durable.
    pub(crate) fn poison_with(&self, reason: &str) {
        let _first_reason_stays = self.poison.set(reason.into());
        for word in 0..WORDS as u64 {
            self.wake_word(word);
        }
        self.wake_others(u64::MAX);
    }

    fn wake_word(&self, group: u64) {
        let word = self.word(group);
        word.fetch_add(1, Ordering::Release);
        word.wake_all();
    }

    fn word(&self, group: u64) -> &Word {
        &self.words[crate::format::to_usize(group % WORDS as u64)]
    }

    fn wake_others(&self, batch: u64) {
        let mut ready = Vec::new();
        self.wakers.lock().retain(|(awaited, waker)| {
            let waits = *awaited > batch;
            if !waits {
                ready.push(waker.clone());
            }
            waits
        });
        ready.into_iter().for_each(watcher::wake);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.advanced.fetch_add(1, Ordering::SeqCst);
            self.advanced.wake_all();
        }
        self.wake_watchers();
    }

    /// Wakes who watches, for this or any other reason.
    pub(crate) fn wake_watchers(&self) {
        let watchers = std::mem::take(&mut *self.watchers.lock());
        self.crowd.wake(watchers);
    }

    /// Nothing more becomes durable, as planned: the store is closed.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.wake_others(self.batch());
    }

    /// Whether nothing more becomes durable, as planned or not.
    pub(crate) fn is_over(&self) -> bool {
        self.ended.load(Ordering::SeqCst) || self.poison.get().is_some()
    }

    /// Blocks until [`Self::is_settled`]. `group` is the one that the batch before `batch` is in.
    pub(crate) fn wait(&self, batch: u64, group: u64) {
        let word = self.word(group);
        loop {
            let seen = word.load(Ordering::Acquire);
            if self.is_settled(batch) {
                return;
            }
            // Interrupted, or changed meanwhile: look again.
            word.sleep(seen, None);
        }
    }

    /// Has `waker` woken once [`Self::is_settled`]; `true`: it is so already.
    pub(crate) fn register(&self, batch: u64, waker: &Waker) -> bool {
        let mut wakers = self.wakers.lock();
        if self.is_settled(batch) {
            return true;
        }
        wakers.push((batch, waker.clone()));
        false
    }

    /// Has `waker` woken by the next advance, or the end. Who asks looks once more afterwards: it may just have been.
    pub(crate) fn watch(&self, watcher: &Arc<Watcher>, waker: &Waker) {
        if watcher.set(waker) {
            self.watchers.lock().push(Arc::clone(watcher));
        }
    }

    /// Forgets a watcher.
    pub(crate) fn unwatch(&self, watcher: &Arc<Watcher>) {
        self.watchers.lock().retain(|known| !Arc::ptr_eq(known, watcher));
    }

    /// Blocks until the position is beyond `position`, the time is over or nothing more comes; whether it is beyond.
    pub(crate) fn wait_beyond(&self, position: u64, timeout: Duration) -> bool {
        // Counted before looking: an advance that does not see the sleeper was seen by it.
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let seen = self.advanced.load(Ordering::SeqCst);
        if self.position() <= position && !self.is_over() {
            // Interrupted, over time, or changed meanwhile: callers look.
            self.advanced.sleep(seen, Some(timeout));
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.position() > position
    }
}
