//! Event-sourced applications on Annals: deciders, projections, process managers, sagas and work queues.
#![doc = include_str!("../README.md")]

// The derived code names this crate from outside; tests within it need the name, too.
extern crate self as annals_sourcing;

mod boundary;
mod codec;
mod context;
mod decider;
mod decoding;
mod error;
mod event;
mod pause;
mod repository;
mod saga;
mod snapshots;
mod stream;
mod upcast;

pub use annals_sourcing_derive::DomainEvent;
pub use boundary::Boundary;
pub use codec::{Codec, CodecError, Json};
pub use context::{Context, Metadata};
pub use decider::{Decider, Place};
pub use decoding::{Decoded, Decoding, UnknownType};
pub use error::{HandleError, SourcingError};
pub use event::{DomainEvent, EventType, Nothing};
pub use pause::Pauses;
pub use repository::{ATTEMPTS_MAX, Handled, ReplayReport, Replayed, Repository};
pub use saga::{SagaContext, SagaError, SagaStep};
#[doc(hidden)]
pub use serde;
pub use snapshots::{SnapshotPolicy, SnapshotQuestion, Snapshots};
pub use upcast::{UpcastError, Upcasts};
