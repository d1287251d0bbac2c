//! Maps of immutable files, opened on use and bounded over the whole process: the system allows each process some
//! 65,000, and a store may have more segments than that. Those not used lately are let go of, unless somebody still
//! reads from them.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

/// Maps that are kept, over all stores of the process.
const MAPS_MAX: usize = 8192;
/// Maps looked at, at the most, when one is added to too many.
const LOOKS_MAX: usize = 64;

static KEPT: Kept = Kept::new(MAPS_MAX);

/// What a file is mapped for: tells the system what to read ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Advice {
    /// Reading it in order.
    Scan,
    /// Reading here and there: what is around is not read, too. Cold, this is fifty times faster in the worst case.
    Points,
}

/// Something that keeps a map alive.
pub(crate) trait Mapped: Send + Sync + Debug + 'static {
    /// Whether nobody else reads from the map.
    fn is_unreferenced(&self) -> bool;
}

impl Mapped for Bytes {
    fn is_unreferenced(&self) -> bool {
        self.is_unique()
    }
}

/// A place for a map, which is opened on its use and may be let go of.
#[derive(Debug)]
pub(crate) struct Slot<T> {
    inner: Arc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    map: Mutex<Option<Arc<T>>>,
    used: AtomicBool,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { inner: Arc::new(Inner { map: Mutex::new(None), used: AtomicBool::new(false) }) }
    }
}

impl<T: Mapped> Slot<T> {
    /// The map; `open` makes it where there is none.
    pub(crate) fn get<E>(&self, open: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        self.get_kept_by(&KEPT, open)
    }

    fn get_kept_by<E>(&self, kept: &Kept, open: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut map = self.inner.map.lock();
        if let Some(map) = &*map {
            // Most often it says so already, and then it is left alone: others look at it, too.
            if !self.inner.used.load(Ordering::Relaxed) {
                self.inner.used.store(true, Ordering::Relaxed);
            }
            return Ok(Arc::clone(map));
        }
        let opened = Arc::new(open()?);
        *map = Some(Arc::clone(&opened));
        drop(map);
        let weak: Weak<Inner<T>> = Arc::downgrade(&self.inner);
        kept.add(weak);
        Ok(opened)
    }

    /// Lets go of the map: the file is another now.
    pub(crate) fn forget(&self) {
        let forgotten = self.inner.map.lock().take();
        drop(forgotten);
    }
}

/// A slot, to whoever makes room.
trait LetGo: Send + Sync + Debug {
    /// Lets go of the map, unless it was used since the last look or is in use; whether there is none now.
    fn let_go(&self) -> bool;
}

impl<T: Mapped> LetGo for Inner<T> {
    fn let_go(&self) -> bool {
        if self.used.swap(false, Ordering::Relaxed) {
            return false;
        }
        // Whoever holds the lock uses it.
        let Some(mut slot) = self.map.try_lock() else { return false };
        let in_use = slot.as_ref().is_some_and(|map| Arc::strong_count(map) > 1 || !map.is_unreferenced());
        if in_use {
            return false;
        }
        let map = slot.take();
        drop(slot);
        drop(map);
        true
    }
}

/// The slots with maps, oldest first.
#[derive(Debug)]
struct Kept {
    slots: Mutex<VecDeque<Weak<dyn LetGo>>>,
    most: usize,
}

impl Kept {
    const fn new(most: usize) -> Self {
        Self { slots: Mutex::new(VecDeque::new()), most }
    }

    fn add(&self, slot: Weak<dyn LetGo>) {
        let mut slots = self.slots.lock();
        slots.push_back(slot);
        for _ in 0..LOOKS_MAX {
            if slots.len() <= self.most {
                return;
            }
            let Some(oldest) = slots.pop_front() else { return };
            // A slot that is gone has taken its map with it.
            if oldest.upgrade().is_some_and(|slot| !slot.let_go()) {
                slots.push_back(oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::sync::atomic::AtomicUsize;

    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>, Bytes);

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Mapped for Counted {
        fn is_unreferenced(&self) -> bool {
            self.1.is_unreferenced()
        }
    }

    #[test]
    fn maps_are_bounded_and_those_in_use_stay() {
        let kept = Kept::new(10);
        let open = Arc::new(AtomicUsize::new(0));
        let map = |slot: &Slot<Counted>| {
            let opened = slot.get_kept_by::<Infallible>(&kept, || {
                open.fetch_add(1, Ordering::Relaxed);
                Ok(Counted(Arc::clone(&open), Bytes::from(vec![7; 100])))
            });
            opened.unwrap()
        };
        let slots: Vec<Slot<Counted>> = (0..100).map(|_| Slot::default()).collect();
        let held = map(&slots[0]);
        let lent = map(&slots[1]).1.slice(10..20);
        for round in 0..3 {
            for slot in &slots {
                drop(map(slot));
                assert!(open.load(Ordering::Relaxed) <= 11, "in round {round}");
            }
        }
        assert_eq!((held.1[0], &lent[..]), (7, &[7; 10][..]));
        assert!(slots[0].inner.map.lock().is_some() && slots[1].inner.map.lock().is_some());
        drop((held, lent));
        drop(slots);
        assert_eq!(open.load(Ordering::Relaxed), 0);
    }
}
