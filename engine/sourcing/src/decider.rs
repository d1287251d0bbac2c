//! Deciders: what an application decides, without any store.

use crate::event::DomainEvent;
use crate::saga::SagaContext;
use annals_types::Record;
use std::borrow::Cow;

/// What decides: its state is what events made of it, and a command makes new events of the state, or is refused.
///
/// It is pure: no clock, no chance, no input or output. What a decision needs of those is in the command. The shape is known as the *Decider*
/// (Jérémie Chassaing, "Functional event sourcing decider", 2021).
///
/// ```
/// use annals_sourcing::{Decider, DomainEvent};
///
/// #[derive(Clone, Debug, PartialEq, DomainEvent)]
/// enum AccountEvent {
///     #[event("MoneyDeposited")]
///     Deposited { cents: u64 },
///     #[event("MoneyWithdrawn")]
///     Withdrawn { cents: u64 },
/// }
///
/// struct Account;
///
/// impl Decider for Account {
///     type State = u64;
///     type Command = AccountEvent; // mostly a type of its own
///     type Event = AccountEvent;
///     type Error = String;
///
///     fn initial(&self) -> u64 {
///         0
///     }
///
///     fn evolve(&self, cents: &mut u64, event: &AccountEvent) {
///         match event {
///             AccountEvent::Deposited { cents: more } => *cents += more,
///             AccountEvent::Withdrawn { cents: less } => *cents -= less,
///         }
///     }
///
///     fn decide(&self, cents: &u64, command: &AccountEvent) -> Result<Vec<AccountEvent>, String> {
///         match command {
///             AccountEvent::Withdrawn { cents: wanted } if wanted > cents => Err(format!("there are {cents} cents")),
///             allowed => Ok(vec![allowed.clone()]),
///         }
///     }
/// }
/// ```
pub trait Decider: Send + Sync + 'static {
    /// What decisions are based on.
    type State: Clone + Send + Sync + 'static;
    /// What is asked for.
    type Command: Sync;
    /// What happens.
    type Event: DomainEvent;
    /// Why a command is refused.
    type Error: Send;

    /// The state before any event.
    fn initial(&self) -> Self::State;

    /// Has an event become part of the state. It cannot fail: what happened, happened.
    fn evolve(&self, state: &mut Self::State, event: &Self::Event);

    /// What happens because of a command: one event, several, none; or why it is refused.
    ///
    /// # Errors
    /// The application's own.
    fn decide(&self, state: &Self::State, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Error>;

    /// Whether a refusal is no answer to the command but says that the program cannot judge it, as where a definition was taken out that a case
    /// goes by. A reactor then stands still at the event, until a program that can goes on from there. Default: it is an answer, and the
    /// reactor goes on.
    fn cannot_judge(&self, refusal: &Self::Error) -> bool {
        let _ = refusal;
        false
    }

    /// Where an event goes. Default: to the one stream that the decision is about, without tags.
    fn place(&self, event: &Self::Event) -> Place {
        let _ = event;
        Place::default()
    }

    /// Has an event of a type that [`Event`](Self::Event) doesn't have become part of the state, where that was asked for
    /// ([`UnknownType::Raw`](crate::UnknownType::Raw)). Default: nothing.
    fn evolve_raw(&self, state: &mut Self::State, event: &Record) {
        let _ = (state, event);
    }
}

/// Where an event goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Its stream; `None`: the one that the decision is about.
    pub stream: Option<Cow<'static, str>>,
    /// Its tags.
    pub tags: Vec<Cow<'static, str>>,
    /// The steps of sagas that it is; `None`: those of the context in which it was decided.
    pub sagas: Option<SagaContext>,
}

impl Place {
    /// This stream.
    pub fn stream(stream: impl Into<Cow<'static, str>>) -> Self {
        Self { stream: Some(stream.into()), ..Self::default() }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<Cow<'static, str>>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Sets the steps of sagas that it is.
    #[must_use]
    pub fn sagas(mut self, sagas: SagaContext) -> Self {
        self.sagas = Some(sagas);
        self
    }
}
