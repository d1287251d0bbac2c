//! The words of Annals, an event store: what an application says to a store, embedded or remote.
//!
//! This crate knows nothing of bytes, files or the network. Most applications use it through the
//! `annals` crate, which re-exports what they need.

mod append;
mod cursor;
mod error;
mod event;
mod event_store;
mod follow;
pub mod limits;
mod position;
mod query;
mod read;
mod report;
mod settings;
mod snapshot;
mod stream;
mod subscription;

pub use append::{Append, Appended, Condition};
pub use cursor::{Advance, Cursor};
pub use error::{
    AppendError, Damage, DamageKind, Head, InputError, IoFailure, OpenError, ReadError, SubscriptionError,
};
pub use event::{ContentKind, NewEvent, Record, RecordParts, check_name};
pub use event_store::{AsStoreStream, EventStore, Loaded, StoreError, SubscriptionMember};
pub use follow::{Follow, Followed, Start};
pub use position::{Position, Timestamp, Version};
pub use query::{Query, QueryItem};
pub use read::{Bound, Read};
pub use report::{Histogram, Stat, Verified, Writes};
pub use settings::{DiskChoice, Settings};
pub use snapshot::{Load, NewSnapshot, PassedOver, Snapshot};
pub use stream::{ExpectedVersion, category};
pub use subscription::{
    CursorAt, Delivery, DeliveryId, DeliveryOrder, Membership, Nack, NewSubscription, Parked, ParkedChoice,
    SubscriptionStatus, check_subscription_name,
};
pub use uuid::Uuid;
