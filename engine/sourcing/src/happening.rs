//! What is told of work that goes on in the background.

use annals_types::Position;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What happened to a projection, a reactor, a timer or a worker.
#[derive(Debug)]
#[non_exhaustive]
pub enum Happening<'a> {
    /// It begins, behind this position.
    Started {
        /// The last event that is handled.
        after: Option<Position>,
    },
    /// Events were read, to be handled together.
    Read {
        /// How many.
        events: usize,
    },
    /// Events were handled, and it is noted that they were.
    Handled {
        /// How many.
        events: usize,
        /// The last of them.
        last: Position,
    },
    /// All that there is, is handled.
    CaughtUp {
        /// Nothing before this position is to come.
        next: Position,
    },
    /// Something failed and is tried again after a pause.
    Retried {
        /// How often it failed.
        failures: u32,
        /// Why.
        reason: &'a str,
        /// How long is waited.
        pause: Duration,
    },
    /// What an event asked for is refused, and it is done with. Told once, or never where the host ends just then: what the stream `refused-NAME` has is whole.
    Refused {
        /// The event.
        position: Position,
        /// Why.
        reason: &'a str,
    },
    /// An event was set aside: it can be looked at, and be tried again.
    Parked {
        /// The event.
        position: Position,
        /// Why.
        reason: &'a str,
    },
    /// It stands still until somebody resumes it.
    Suspended {
        /// Why.
        reason: &'a str,
    },
    /// Another process does the same, and was quicker: this one stands by.
    StoodBack,
}

type Watch = dyn Fn(&Happening<'_>) + Send + Sync;

/// Who is told. By default nobody.
#[derive(Clone, Default)]
pub(crate) struct Watcher(Option<Arc<Watch>>);

impl Watcher {
    pub(crate) fn new(watch: impl Fn(&Happening<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(watch)))
    }

    pub(crate) fn tell(&self, happening: &Happening<'_>) {
        if let Some(watch) = &self.0 {
            watch(happening);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Watcher(somebody)" } else { "Watcher(nobody)" })
    }
}
