//! The wire protocol of Annals: frames and messages, without any I/O.
//!
//! A client opens a TCP connection, says [`PREFACE`] and [`Request::Hello`], and is answered [`Answer::Welcome`]. From then on it
//! may have many requests under way. Each has a number, which its answers repeat; answers to different requests come
//! in any order. `docs/protocol.md` describes all of it for people who write their own client.

mod answer;
mod failure;
pub mod frame;
mod pieces;
mod request;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod wire;

pub use answer::{Answer, Events, Welcome};
pub use failure::Failure;
pub use request::{Consistency, Hello, Request};
pub use wire::Malformed;

/// What a client says before its first frame, so that what is no client is told apart at once.
pub const PREFACE: &[u8; 8] = b"ANNALS\r\n";
/// The version of the protocol that this release speaks.
pub const VERSION: u16 = 1;
