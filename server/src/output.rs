//! Standard output: buffered, locked once, flushed where a reader waits.

use crate::failure::Failure;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Big enough that a long export makes few system calls, small enough to stay in the cache.
const BUFFER_BYTES: usize = 256 << 10;

/// Standard output, buffered. What is not flushed when it is dropped is lost: call `finish`.
#[derive(Debug)]
pub(crate) struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Takes standard output for itself.
    pub(crate) fn open() -> Self {
        Self(BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock()))
    }

    /// Writes one object as one line of JSON.
    pub(crate) fn json_line(&mut self, object: &impl Serialize) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.0, object).map_err(|error| Failure::Output(error.into()))?;
        self.write(|out| out.write_all(b"\n"))
    }

    /// Lets `write` write, and makes an error of it one of the output.
    pub(crate) fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        write(&mut self.0).map_err(Failure::Output)
    }

    /// Hands everything to the reader at the other end.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(Failure::Output)
    }

    /// Fails, as writing would, if the reader at the other end of a pipe has left.
    pub(crate) fn check_reader(&self) -> Result<(), Failure> {
        let stdout = self.0.get_ref();
        let mut watched = [PollFd::new(stdout, PollFlags::empty())];
        // Where it cannot be asked, the next write will tell.
        let _ = poll(&mut watched, Some(&Timespec::default()));
        if watched[0].revents().intersects(PollFlags::ERR) {
            return Err(Failure::Output(io::ErrorKind::BrokenPipe.into()));
        }
        Ok(())
    }

    /// Flushes, then goes on with `outcome`: what was printed before a failure stays printed.
    pub(crate) fn finish(mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let flushed = self.flush();
        outcome.and(flushed)
    }
}
