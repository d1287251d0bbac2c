//! The command as its users meet it: the binary, run on directories of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]
#![expect(clippy::disallowed_methods, reason = "deadlines of tests that wait for other processes")]

mod append;
mod device;
mod documents;
mod either;
mod flights;
mod follow;
mod hardship;
mod import;
mod raw;
mod read;
mod remote;
mod replay;
mod serve;
mod snapshot;
mod subscription;
mod support;
mod tls;
mod usage;
mod watching;
