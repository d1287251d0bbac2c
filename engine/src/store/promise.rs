//! Room for batches that will be appended once something else is decided: a full disk is met when it is promised.

use super::Store;
use super::commit::{self, NOT_DURABLE_BYTES_MAX};
use super::core::Core;
use super::ticket::Ticket;
use crate::format::frame::FRAME_FIXED_BYTES;
use crate::format::{BLOCK_BYTES, align_up, batch};
use crate::striped::Shared;
use annals_types::{Append, AppendError};
use std::time::Duration;

/// How long a promise waits for others to be kept between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// See the module. What is left of it when it is dropped, others may have.
#[derive(Debug)]
pub(crate) struct Promise {
    store: Store,
    left: u64,
}

impl Promise {
    /// The most bytes that this append can take, those included that are left out before it to begin with a block.
    pub(crate) fn bytes_for(append: &Append<'_>) -> u64 {
        let block = BLOCK_BYTES as u64;
        align_up((FRAME_FIXED_BYTES + batch::encoded_bytes(append)) as u64, BLOCK_BYTES) + block
    }

    /// Sees to it that so many bytes will find room, whatever else is appended before them.
    pub(crate) fn new(store: &Store, bytes: u64) -> Result<Self, AppendError> {
        let core: &Shared<Core> = &store.handle.core;
        let mut failures_seen = None;
        loop {
            let mut state = core.state.lock();
            commit::refuse_if_closed(core)?;
            let wanted = state.promised + bytes;
            if state.promised > 0 && wanted > NOT_DURABLE_BYTES_MAX {
                // A segment for all of them would be too large.
                drop(core.room.wait_for(state, LOOK));
            } else if commit::has_room(core, &mut state, wanted) {
                state.promised = wanted;
                return Ok(Self { store: store.clone(), left: bytes });
            } else {
                commit::wait_for_room(core, state, wanted, &mut failures_seen)?;
            }
        }
    }

    /// Appends into that room.
    pub(crate) fn append(&mut self, append: &Append<'_>) -> Result<Ticket, AppendError> {
        let bytes = Self::bytes_for(append).min(self.left);
        let (ticket, _) = commit::append_promised(&self.store.handle.core, append, bytes)?;
        if ticket.is_written() {
            self.left -= bytes;
        }
        Ok(ticket)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let core = &self.store.handle.core;
        let mut state = core.state.lock();
        state.promised -= self.left;
        core.room.ring();
    }
}
