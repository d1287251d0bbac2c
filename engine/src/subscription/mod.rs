//! Durable subscriptions without time, disk or log: what is handed to whom, and what becomes of it.
//!
//! A subscription has looked at all before one position. Of that, what matches is done, or open, or parked. What is open is
//! in flight with a member or waits: for its turn, or for a moment. Each change that must last is said by notes; from the
//! notes so far, another machine goes on.

mod lanes;
mod machine;
mod standing;
#[cfg(test)]
mod tests;

pub(crate) use machine::{Machine, MayGive, Offer, Refusal, Taken};
pub(crate) use standing::{Outline, ParkedEntry, Standing};
