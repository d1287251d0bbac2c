//! What a projection does with events, by their type.

use crate::codec::{Codec, Json};
use crate::decoding::{Decoded, Decoding, UnknownType};
use crate::event::{DomainEvent, named, names};
use crate::projection::ModelError;
use crate::upcast::UpcastError;
use annals_types::{Query, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

type Handle<M> = Arc<dyn Fn(&mut M, &Record) -> Result<(), ModelError> + Send + Sync>;

/// What is done with events, by their type. Events of other types are not even read.
///
/// ```
/// use annals_sourcing::{DomainEvent, Handlers};
/// use std::collections::BTreeMap;
///
/// #[derive(DomainEvent, serde::Serialize, serde::Deserialize)]
/// #[event("TagCreated")]
/// struct TagCreated {
///     name: String,
/// }
///
/// let handlers = Handlers::<BTreeMap<String, u64>>::new().when::<TagCreated>(|tags, created, event| {
///     tags.insert(created.name.clone(), event.position().get());
///     Ok(())
/// });
/// ```
pub struct Handlers<M: ?Sized> {
    by_type: BTreeMap<&'static str, Vec<Handle<M>>>,
    of_each: Vec<Handle<M>>,
    wrong: Option<UpcastError>,
}

impl<M: ?Sized + 'static> Handlers<M> {
    /// Does nothing with any event.
    #[must_use]
    pub fn new() -> Self {
        Self { by_type: BTreeMap::new(), of_each: Vec::new(), wrong: None }
    }

    /// Does this with each event of these types. Several things may be done with one; they are in the order in which they are said.
    #[must_use]
    pub fn when<E: DomainEvent>(
        self,
        handle: impl Fn(&mut M, &E, &Record) -> Result<(), ModelError> + Send + Sync + 'static,
    ) -> Self {
        self.when_in(Json, handle)
    }

    /// The same with events in another codec.
    #[must_use]
    pub fn when_in<E: DomainEvent, C: Codec>(
        mut self,
        codec: C,
        handle: impl Fn(&mut M, &E, &Record) -> Result<(), ModelError> + Send + Sync + 'static,
    ) -> Self {
        match Decoding::<E, C>::new(codec) {
            Ok(decoding) => {
                let decoding = decoding.unknown(UnknownType::Skip);
                let handle: Handle<M> = Arc::new(move |model, record| match decoding.decode(record)? {
                    Decoded::Event { event, .. } => handle(model, &event, record),
                    Decoded::Unknown => Ok(()),
                });
                for name in names::<E>() {
                    self.by_type.entry(name).or_default().push(Arc::clone(&handle));
                }
            }
            Err(error) => drop(self.wrong.get_or_insert(error)),
        }
        self
    }

    /// Does this with each event, of whatever type, as it is stored.
    #[must_use]
    pub fn each(
        mut self,
        handle: impl Fn(&mut M, &Record) -> Result<(), ModelError> + Send + Sync + 'static,
    ) -> Self {
        self.of_each.push(Arc::new(handle));
        self
    }

    /// The events that something is done with.
    pub(crate) fn query(&self) -> Result<Query<'static>, UpcastError> {
        match &self.wrong {
            Some(error) => Err(error.clone()),
            None if !self.of_each.is_empty() => Ok(Query::all()),
            None => Ok(named(&self.by_type.keys().copied().collect::<BTreeSet<_>>())),
        }
    }

    pub(crate) fn handle(&self, model: &mut M, record: &Record) -> Result<(), ModelError> {
        for handle in self.by_type.get(record.event_type()).into_iter().flatten().chain(&self.of_each) {
            handle(model, record)?;
        }
        Ok(())
    }
}

impl<M: ?Sized + 'static> Default for Handlers<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: ?Sized> fmt::Debug for Handlers<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").field("types", &self.by_type.keys()).finish_non_exhaustive()
    }
}
