//! Event-sourced applications on Annals: deciders, projections, process managers, sagas and work queues.
#![doc = include_str!("../README.md")]

// The derived code names this crate from outside; tests within it need the name, too.
extern crate self as annals_sourcing;

mod boundary;
mod clock;
mod codec;
mod context;
mod decider;
mod decoding;
mod definitions;
mod error;
mod event;
mod happening;
mod pause;
#[cfg(feature = "progress")]
mod progress;
mod projection;
mod queue;
mod reactor;
mod repository;
mod saga;
mod saga_view;
mod snapshots;
mod stream;
pub mod testing;
mod timers;
mod upcast;

pub use annals_sourcing_derive::DomainEvent;
pub use boundary::Boundary;
pub use codec::{Codec, CodecError, Json};
pub use context::{Context, Metadata};
pub use decider::{Decider, Place};
pub use decoding::{Decoded, Decoding, UnknownType};
pub use definitions::{Definitions, NoDefinition};
pub use error::{HandleError, SourcingError};
pub use event::{DomainEvent, EventType, Nothing, query_of};
pub use happening::Happening;
pub use pause::Pauses;
#[cfg(feature = "progress")]
pub use progress::progress_bar;
pub use projection::{
    Applied, Cursored, Handlers, Handling, InMemory, Live, ModelError, OnFailure, ParkedEvent, Parking,
    ProjectionError, ProjectionState, ProjectionStatus, Projector, ReadModel, Running,
};
#[cfg(feature = "sqlite")]
pub use projection::{Schema, SqliteModel};
pub use queue::{Enqueued, Job, JobError, Queue, QueueSettings, Worker};
pub use reactor::{Order, Reactor, TriggerRefused};
pub use repository::{ATTEMPTS_MAX, Handled, ReplayReport, Replayed, Repository};
#[cfg(feature = "sqlite")]
pub use rusqlite;
pub use saga::{SagaContext, SagaError, SagaStep};
pub use saga_view::{SagaRun, SagaStepInitiated, SagaView, StepView};
#[doc(hidden)]
pub use serde;
pub use snapshots::{SnapshotPolicy, SnapshotQuestion, Snapshots};
pub use stream::next;
pub use timers::{Deadline, TimeoutElapsed, Timers};
pub use upcast::{UpcastError, Upcasts};
