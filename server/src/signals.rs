//! SIGINT and SIGTERM as a flag that long work looks at between two steps.

use crate::failure::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Exit code of a process that a second signal ended, as shells have it for SIGINT.
const EXIT_SECOND_SIGNAL: i32 = 130;

/// Signals that come so soon after the first say the same.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// Whether somebody asked this process to stop.
#[derive(Clone, Debug)]
pub(crate) struct StopRequest(Arc<AtomicBool>);

impl StopRequest {
    /// Watches for SIGINT and SIGTERM from now on. The first sets the flag; one that comes a second or more later ends the
    /// process at once: whoever asks twice does not want to wait for a tidy end. But who ends a whole group of processes
    /// may well say it twice at once.
    pub(crate) fn watch() -> Result<Self, Failure> {
        let (stop, is_ending) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (asked, ending) = (Arc::clone(&stop), Arc::clone(&is_ending));
        std::thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK_PERIOD);
            }
            std::thread::sleep(PATIENCE);
            ending.store(true, Ordering::Relaxed);
        });
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so it sees the flag as it was before this very signal.
            flag::register_conditional_shutdown(signal, EXIT_SECOND_SIGNAL, Arc::clone(&is_ending))
                .and_then(|_| flag::register(signal, Arc::clone(&stop)))
                .map_err(|source| Failure::io("watch for", "signals", source))?;
        }
        Ok(Self(stop))
    }

    /// Whether a signal came.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
