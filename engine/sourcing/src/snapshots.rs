//! Snapshots of states: when they are made, and what their bytes are.

use crate::codec::{Codec, CodecError, Json};
use crate::event::EventType;
use crate::upcast::{UpcastError, Upcasts};
use annals_types::{Snapshot, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

type Encode<S> = Arc<dyn Fn(&S) -> Result<Vec<u8>, CodecError> + Send + Sync>;
type Decode<S> = Arc<dyn Fn(&[u8]) -> Result<S, CodecError> + Send + Sync>;
type Ask<S> = Arc<dyn Fn(&SnapshotQuestion<'_, S>) -> bool + Send + Sync>;

/// When a snapshot is written, together with the events that make the state: both or neither.
pub enum SnapshotPolicy<S> {
    /// Only by hand.
    Never,
    /// With each append that brings the number of the stream's events to a multiple of this, or over one.
    Every(u64),
    /// Where more events than this had to be replayed.
    AfterReplayed(u64),
    /// Where this says so.
    Custom(Ask<S>),
}

impl<S> SnapshotPolicy<S> {
    /// Where this says so.
    pub fn custom(ask: impl Fn(&SnapshotQuestion<'_, S>) -> bool + Send + Sync + 'static) -> Self {
        Self::Custom(Arc::new(ask))
    }

    pub(crate) fn says(&self, question: &SnapshotQuestion<'_, S>) -> bool {
        match self {
            Self::Never => false,
            Self::Every(0) => true,
            Self::Every(count) => {
                let events = question.version.get() + 1;
                events / count > (events - question.appended.min(events)) / count
            }
            Self::AfterReplayed(count) => question.replayed > *count,
            Self::Custom(ask) => ask(question),
        }
    }
}

/// What a policy is asked about.
#[derive(Debug)]
pub struct SnapshotQuestion<'a, S> {
    /// The state, with what is appended.
    pub state: &'a S,
    /// The stream's last version then.
    pub version: Version,
    /// Events that are appended.
    pub appended: u64,
    /// Events that had to be replayed for it.
    pub replayed: u64,
}

/// How states are kept as snapshots.
///
/// A snapshot carries the schema of its form. One of an older schema is used if upcasts lead from it to that of now, and passed over otherwise, as one of a
/// newer schema is: then the state comes from an earlier snapshot, or from all events.
pub struct Snapshots<S> {
    pub(crate) policy: SnapshotPolicy<S>,
    pub(crate) schema: u32,
    pub(crate) name: String,
    upcasts: Upcasts,
    oldest: u32,
    encode: Encode<S>,
    decode: Decode<S>,
}

/// Upcasts know snapshots by this name.
const FORM: &str = "";

impl<S: Serialize + DeserializeOwned + 'static> Snapshots<S> {
    /// As JSON, in the form of this schema.
    #[must_use]
    pub fn new(policy: SnapshotPolicy<S>, schema: u32) -> Self {
        Self::in_codec(policy, schema, Json)
    }

    /// In another codec.
    #[must_use]
    pub fn in_codec(policy: SnapshotPolicy<S>, schema: u32, codec: impl Codec) -> Self {
        let reader = codec.clone();
        Self {
            policy,
            schema,
            name: String::new(),
            upcasts: Upcasts::none(),
            oldest: schema,
            encode: Arc::new(move |state| codec.encode(state)),
            decode: Arc::new(move |data| reader.decode(data)),
        }
    }
}

impl<S> Snapshots<S> {
    /// Tells apart what different deciders make of the same streams.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Uses snapshots of older forms, too: steps from the type `""` of a schema to that of the next.
    ///
    /// # Errors
    /// The steps don't lead to the schema of now: see [`Upcasts::check`].
    pub fn upcasts(mut self, upcasts: Upcasts) -> Result<Self, UpcastError> {
        self.oldest = (1..self.schema).find(|schema| upcasts.begins(FORM, *schema)).unwrap_or(self.schema);
        upcasts.check(&[EventType { name: FORM, schema: self.schema, oldest: self.oldest }])?;
        self.upcasts = upcasts;
        Ok(self)
    }

    pub(crate) fn schemas(&self) -> RangeInclusive<u32> {
        self.oldest..=self.schema
    }

    pub(crate) fn encode(&self, state: &S) -> Result<Vec<u8>, CodecError> {
        (self.encode)(state)
    }

    pub(crate) fn decode(&self, snapshot: &Snapshot) -> Result<S, CodecError> {
        let (_, schema, data) = self.upcasts.apply(FORM, snapshot.schema, &snapshot.data)?;
        if schema != self.schema {
            return Err(CodecError::new(format!("its form is of schema {schema}")));
        }
        (self.decode)(&data)
    }
}

impl<S> fmt::Debug for Snapshots<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshots")
            .field("schema", &self.schema)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<S> fmt::Debug for SnapshotPolicy<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("Never"),
            Self::Every(count) => write!(f, "Every({count})"),
            Self::AfterReplayed(count) => write!(f, "AfterReplayed({count})"),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(policy: &SnapshotPolicy<()>, version: u64, appended: u64) -> bool {
        policy.says(&SnapshotQuestion { state: &(), version: Version::new(version), appended, replayed: 7 })
    }

    #[test]
    fn every_n_is_where_a_multiple_is_reached_or_passed() {
        let every = SnapshotPolicy::Every(10);
        assert!(says(&every, 9, 1) && says(&every, 11, 3) && says(&every, 40, 41));
        assert!(!says(&every, 8, 9) && !says(&every, 10, 1) && !says(&every, 18, 9));
        assert!(
            says(&SnapshotPolicy::AfterReplayed(6), 0, 1) && !says(&SnapshotPolicy::AfterReplayed(7), 0, 1)
        );
        assert!(!says(&SnapshotPolicy::Never, 9, 1));
        assert!(says(&SnapshotPolicy::custom(|question| question.appended == 2), 5, 2));
    }
}
