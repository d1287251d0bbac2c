//! Where a read model is kept, with how far it has come.

use crate::clock::now;
use annals_types::{Append, EventStore, Position, Record, Timestamp};
use parking_lot::RwLock;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

/// What a handler, or what keeps a read model, says of a failure.
pub type ModelError = Box<dyn Error + Send + Sync>;

/// What is done with an event of a read model of this type.
pub type Handling<'a, M> = &'a (dyn Fn(&mut M, &Record) -> Result<(), ModelError> + Sync);

/// A read model, and how far it has come: kept together, so that neither is without the other.
pub trait ReadModel: Send {
    /// What handlers change.
    type Model: ?Sized + Send + 'static;

    /// The last event that is in it, or was parked; `None`: none is.
    fn position(&mut self) -> impl Future<Output = Result<Option<Position>, ModelError>> + Send;

    /// Has events handled, in order, until one fails: those before it are kept, and how far that is, and of the one that failed nothing is.
    ///
    /// Where all are handled, what there is up to `last` has been looked at.
    fn apply(
        &mut self,
        events: &[Record],
        last: Position,
        handle: Handling<'_, Self::Model>,
    ) -> impl Future<Output = Result<Applied, ModelError>> + Send;

    /// Sets an event aside, and passes it.
    fn park(
        &mut self,
        event: &Record,
        failures: u32,
        reason: &str,
    ) -> impl Future<Output = Result<(), ModelError>> + Send;

    /// The events that are set aside, in order.
    fn parked(&mut self) -> impl Future<Output = Result<Vec<ParkedEvent>, ModelError>> + Send;

    /// Has an event handled that was set aside; it is so no more, if that succeeds.
    fn apply_parked(
        &mut self,
        event: &Record,
        handle: Handling<'_, Self::Model>,
    ) -> impl Future<Output = Result<Applied, ModelError>> + Send;

    /// Goes on behind this position; `None`: empties the model and begins anew.
    fn reset(&mut self, to: Option<Position>) -> impl Future<Output = Result<(), ModelError>> + Send;
}

/// How many events were handled, and why the next one was not.
#[derive(Debug)]
pub struct Applied {
    /// How many.
    pub events: usize,
    /// Why the next one failed; `None`: there is no next one.
    pub failure: Option<ModelError>,
}

impl Applied {
    /// All of so many.
    #[must_use]
    pub fn all(events: usize) -> Self {
        Self { events, failure: None }
    }

    /// Applies events one after the other.
    pub(crate) fn each<M: ?Sized>(model: &mut M, events: &[Record], handle: Handling<'_, M>) -> Self {
        for (index, event) in events.iter().enumerate() {
            if let Err(failure) = handle(model, event) {
                return Self { events: index, failure: Some(failure) };
            }
        }
        Self::all(events.len())
    }

    /// How far it has come.
    pub(crate) fn position(&self, events: &[Record], last: Position) -> Option<Position> {
        match &self.failure {
            None => Some(last),
            Some(_) => events[..self.events].last().map(Record::position),
        }
    }
}

/// An event that a projection has set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParkedEvent {
    /// Its position.
    pub position: Position,
    /// How often it failed.
    pub failures: u32,
    /// When it was set aside.
    pub time: Timestamp,
    /// Why.
    pub reason: String,
}

/// A read model in memory: it begins anew with each process. Cheap to clone; all clones are the same model.
///
/// Memory has no transactions: a handler that fails must have changed nothing, and of several handlers of one event those before the one that fails have done their
/// work, and do it again when the event is tried again. Where an event can fail, give it one handler.
pub struct InMemory<M> {
    shared: Arc<RwLock<Shared<M>>>,
    make: Arc<dyn Fn() -> M + Send + Sync>,
}

struct Shared<M> {
    model: M,
    position: Option<Position>,
    parked: Vec<ParkedEvent>,
}

impl<M: Send + Sync + 'static> InMemory<M> {
    /// Begins with what this makes.
    pub fn new(make: impl Fn() -> M + Send + Sync + 'static) -> Self {
        let shared = Shared { model: make(), position: None, parked: Vec::new() };
        Self { shared: Arc::new(RwLock::new(shared)), make: Arc::new(make) }
    }

    /// Looks at the model; nothing is handled meanwhile.
    pub fn with<T>(&self, look: impl FnOnce(&M) -> T) -> T {
        look(&self.shared.read().model)
    }
}

impl<M: Default + Send + Sync + 'static> Default for InMemory<M> {
    fn default() -> Self {
        Self::new(M::default)
    }
}

impl<M: Send + Sync + 'static> ReadModel for InMemory<M> {
    type Model = M;

    async fn position(&mut self) -> Result<Option<Position>, ModelError> {
        Ok(self.shared.read().position)
    }

    async fn apply(
        &mut self,
        events: &[Record],
        last: Position,
        handle: Handling<'_, M>,
    ) -> Result<Applied, ModelError> {
        let mut shared = self.shared.write();
        let applied = Applied::each(&mut shared.model, events, handle);
        shared.position = applied.position(events, last).or(shared.position);
        Ok(applied)
    }

    async fn park(&mut self, event: &Record, failures: u32, reason: &str) -> Result<(), ModelError> {
        let mut shared = self.shared.write();
        let (position, reason) = (event.position(), reason.to_owned());
        shared.parked.push(ParkedEvent { position, failures, time: now(), reason });
        shared.position = Some(position);
        Ok(())
    }

    async fn parked(&mut self) -> Result<Vec<ParkedEvent>, ModelError> {
        Ok(self.shared.read().parked.clone())
    }

    async fn apply_parked(&mut self, event: &Record, handle: Handling<'_, M>) -> Result<Applied, ModelError> {
        let mut shared = self.shared.write();
        let applied = Applied::each(&mut shared.model, std::slice::from_ref(event), handle);
        if applied.failure.is_none() {
            shared.parked.retain(|parked| parked.position != event.position());
        }
        Ok(applied)
    }

    async fn reset(&mut self, to: Option<Position>) -> Result<(), ModelError> {
        let mut shared = self.shared.write();
        shared.position = to;
        // What is behind comes again.
        shared.parked.retain(|parked| Some(parked.position) <= to);
        if to.is_none() {
            shared.model = (self.make)();
        }
        Ok(())
    }
}

impl<M> Clone for InMemory<M> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), make: Arc::clone(&self.make) }
    }
}

impl<M> fmt::Debug for InMemory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("position", &self.shared.read().position).finish_non_exhaustive()
    }
}

/// A read model that is somewhere else, with how far it has come as a cursor of the store: it is set behind what was handled, so after a crash events may be
/// handled again. Handlers must be such that this does no harm.
///
/// What is parked is an event of the stream `parked-NAME`, in one batch with the cursor.
pub struct Cursored<S, M> {
    store: S,
    name: String,
    cursor: String,
    model: M,
    empty: Option<Empty<M>>,
}

type Empty<M> = Box<dyn Fn(&mut M) + Send>;

/// An event was set aside by the projection of a name: an event in its stream `parked-NAME`.
#[derive(
    Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize, annals_sourcing_derive::DomainEvent,
)]
pub enum Parking {
    /// It was set aside.
    #[event("EventParked")]
    Parked {
        /// Its position.
        position: u64,
        /// How often it failed.
        failures: u32,
        /// Why.
        reason: String,
    },
    /// It was handled after all.
    #[event("ParkedEventHandled")]
    Handled {
        /// Its position.
        position: u64,
    },
}

impl<S: EventStore, M: Send + 'static> Cursored<S, M> {
    /// Under this name; its cursor is `projection:NAME`.
    pub fn new(store: S, name: impl Into<String>, model: M) -> Self {
        let name = name.into();
        Self { store, cursor: format!("projection:{name}"), name, model, empty: None }
    }

    /// Says how the model is emptied, so that it can be rebuilt.
    #[must_use]
    pub fn emptied_by(mut self, empty: impl Fn(&mut M) + Send + 'static) -> Self {
        self.empty = Some(Box::new(empty));
        self
    }

    /// The model.
    pub fn model(&mut self) -> &mut M {
        &mut self.model
    }

    fn note(&self, parking: &Parking, event: &Record) -> Result<Append<'static>, ModelError> {
        use crate::DomainEvent;
        let mut new = annals_types::NewEvent::new(format!("parked-{}", self.name), parking.event_type().name);
        new.data = parking.encode(&crate::Json)?.into();
        Ok(Append::from(crate::Context::caused_by(event).put(new, 1)))
    }
}

impl<S: EventStore, M: Send + 'static> ReadModel for Cursored<S, M> {
    type Model = M;

    async fn position(&mut self) -> Result<Option<Position>, ModelError> {
        Ok(self.store.cursor(&self.cursor).await?.and_then(|cursor| cursor.position))
    }

    async fn apply(
        &mut self,
        events: &[Record],
        last: Position,
        handle: Handling<'_, M>,
    ) -> Result<Applied, ModelError> {
        let applied = Applied::each(&mut self.model, events, handle);
        if let Some(position) = applied.position(events, last) {
            self.store.append(Append::new().advance(&*self.cursor, Some(position))).await?;
        }
        Ok(applied)
    }

    async fn park(&mut self, event: &Record, failures: u32, reason: &str) -> Result<(), ModelError> {
        let parking =
            Parking::Parked { position: event.position().get(), failures, reason: reason.to_owned() };
        let append = self.note(&parking, event)?.advance(self.cursor.clone(), Some(event.position()));
        self.store.append(append).await?;
        Ok(())
    }

    async fn parked(&mut self) -> Result<Vec<ParkedEvent>, ModelError> {
        use crate::DomainEvent;
        let stream = format!("parked-{}", self.name);
        let mut events = self.store.read(&annals_types::Read::stream(&*stream)).await?;
        let mut parked = std::collections::BTreeMap::new();
        while let Some(event) = crate::stream::next(&mut events).await {
            let event = event?;
            match Parking::decode(event.event_type(), event.data(), &crate::Json) {
                Some(Ok(Parking::Parked { position, failures, reason })) => {
                    let position = Position::new(position);
                    parked.insert(position, ParkedEvent { position, failures, time: event.time(), reason });
                }
                Some(Ok(Parking::Handled { position })) => drop(parked.remove(&Position::new(position))),
                Some(Err(error)) => return Err(error.into()),
                None => {}
            }
        }
        Ok(parked.into_values().collect())
    }

    async fn apply_parked(&mut self, event: &Record, handle: Handling<'_, M>) -> Result<Applied, ModelError> {
        let applied = Applied::each(&mut self.model, std::slice::from_ref(event), handle);
        if applied.failure.is_none() {
            let handled = Parking::Handled { position: event.position().get() };
            let append = self.note(&handled, event)?;
            self.store.append(append).await?;
        }
        Ok(applied)
    }

    async fn reset(&mut self, to: Option<Position>) -> Result<(), ModelError> {
        use crate::DomainEvent;
        let mut append = Append::new().advance(self.cursor.clone(), to);
        // What is behind comes again, so it is parked no more.
        for parked in self.parked().await?.iter().filter(|parked| Some(parked.position) > to) {
            let handled = Parking::Handled { position: parked.position.get() };
            let mut new =
                annals_types::NewEvent::new(format!("parked-{}", self.name), handled.event_type().name);
            new.data = handled.encode(&crate::Json)?.into();
            append = append.event(new);
        }
        if to.is_none() && self.empty.is_none() {
            return Err("nothing says how this model is emptied: see `Cursored::emptied_by`".into());
        }
        // Not the other way round: a model that is empty behind a cursor that is not would miss events, and nobody would know.
        self.store.append(append).await?;
        if let (None, Some(empty)) = (to, &self.empty) {
            empty(&mut self.model);
        }
        Ok(())
    }
}

impl<S, M> fmt::Debug for Cursored<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursored").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What readers use now, and which can be exchanged below them: a read model that was built beside the one in use takes its place, without a moment in
/// which there is none (*blue/green*).
///
/// ```
/// # use annals_sourcing::Live;
/// let live = Live::new("the first");
/// let in_use = live.current();
/// assert_eq!(*live.switch("the second"), "the first");
/// assert_eq!((*in_use, *live.current()), ("the first", "the second"));
/// ```
#[derive(Debug)]
pub struct Live<T>(RwLock<Arc<T>>);

impl<T> Live<T> {
    /// Begins with this.
    pub fn new(first: T) -> Self {
        Self(RwLock::new(Arc::new(first)))
    }

    /// What is in use. Who has it keeps it for as long as they like.
    #[must_use]
    pub fn current(&self) -> Arc<T> {
        Arc::clone(&self.0.read())
    }

    /// Puts another one into its place; gives back what it was.
    pub fn switch(&self, next: T) -> Arc<T> {
        std::mem::replace(&mut *self.0.write(), Arc::new(next))
    }
}
