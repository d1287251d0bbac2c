//! Events as the application knows them, and the types under which they are stored.

use crate::codec::{Codec, CodecError};
use crate::upcast::Upcasts;
use annals_types::{Query, QueryItem, limits};
use std::collections::BTreeSet;

/// The type under which an event is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventType {
    /// Its name. It is in the store for ever: it doesn't change with the name of the Rust type.
    pub name: &'static str,
    /// The version of the form that its data has now: 1, 2, 3, …
    pub schema: u32,
    /// The oldest form that can still be read, by upcasts.
    pub oldest: u32,
}

/// Events of an application: mostly an enum, derived.
///
/// ```
/// use annals_sourcing::DomainEvent;
///
/// #[derive(DomainEvent)]
/// enum AccountEvent {
///     #[event("AccountOpened")]
///     Opened { owner: String },
///     #[event("MoneyDeposited")]
///     Deposited { cents: u64 },
///     #[event("AccountClosed")]
///     Closed,
/// }
///
/// let deposited = AccountEvent::Deposited { cents: 1200 };
/// assert_eq!(deposited.event_type().name, "MoneyDeposited");
/// assert_eq!(deposited.encode(&annals_sourcing::Json)?, br#"{"cents":1200}"#);
/// # Ok::<(), annals_sourcing::CodecError>(())
/// ```
pub trait DomainEvent: Sized + Send + Sync + 'static {
    /// The types that there are, each once.
    const TYPES: &'static [EventType];

    /// The type of this one: one of [`TYPES`](Self::TYPES).
    fn event_type(&self) -> &'static EventType;

    /// Its data, in the form of its type's schema.
    ///
    /// # Errors
    /// The codec cannot write it.
    fn encode<C: Codec>(&self, codec: &C) -> Result<Vec<u8>, CodecError>;

    /// The event of this type with these data, which have the form of the type's schema; `None`: there is no such type here.
    fn decode<C: Codec>(event_type: &str, data: &[u8], codec: &C) -> Option<Result<Self, CodecError>>;

    /// How older forms become those of now. Default: there are none.
    fn upcasts() -> Upcasts {
        Upcasts::none()
    }
}

/// The data of an event that has none: an empty object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Nothing {}

/// The query of all events of these types, and of those that their upcasts begin with: also what was stored under an older name is found.
///
/// ```
/// # use annals_sourcing::{DomainEvent, query_of};
/// # #[derive(DomainEvent)]
/// # enum AccountEvent { #[event("AccountOpened")] Opened }
/// let all = query_of::<AccountEvent>();
/// assert_eq!(all.items[0].types, ["AccountOpened"]);
/// ```
#[must_use]
pub fn query_of<E: DomainEvent>() -> Query<'static> {
    named(&names::<E>())
}

/// The names under which these events are stored, or were once.
pub(crate) fn names<E: DomainEvent>() -> BTreeSet<&'static str> {
    E::TYPES.iter().map(|known| known.name).chain(E::upcasts().names()).collect()
}

/// The query of all events that have one of these names.
pub(crate) fn named(names: &BTreeSet<&'static str>) -> Query<'static> {
    let names: Vec<_> = names.iter().copied().collect();
    names.chunks(limits::QUERY_TYPES_MAX).fold(Query::all(), |query, names| {
        query.or(names.iter().fold(QueryItem::new(), |item, name| item.of_type(*name)))
    })
}
