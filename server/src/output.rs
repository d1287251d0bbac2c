//! Standard output: buffered, locked once, flushed where a reader waits.

use crate::failure::Failure;
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

    /// Flushes, then goes on with `outcome`: what was printed before a failure stays printed.
    pub(crate) fn finish(mut self, outcome: Result<(), Failure>) -> Result<(), Failure> {
        let flushed = self.flush();
        outcome.and(flushed)
    }
}
