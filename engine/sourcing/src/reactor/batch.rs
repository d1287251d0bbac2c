//! What some events lead to, before it is appended.

use crate::boundary::{Boundary, Seen};
use crate::codec::Codec;
use crate::decider::Decider;
use crate::repository::{Held, Repository, is_behind};
use annals_types::{Append, EventStore, ExpectedVersion, Position, StoreError, Version};
use std::collections::BTreeMap;

/// What some events lead to.
pub(super) struct Batch<D: Decider> {
    pub(super) append: Append<'static>,
    /// The streams that are decided about.
    pub(super) working: BTreeMap<String, Working<D::State>>,
    /// What decisions have put into streams that nothing was decided about yet.
    pub(super) elsewhere: BTreeMap<String, Vec<D::Event>>,
    /// Whether what is remembered is compared with the store first, since others were quicker.
    pub(super) looks_again: bool,
    /// Events whose commands were refused, and why: told once that is in the store.
    pub(super) refusals: Vec<(Position, String)>,
}

/// A stream that is decided about.
pub(super) struct Working<T> {
    /// How far it was read in the store.
    pub(super) seen: Seen,
    /// Its state, with what this batch appends.
    pub(super) held: Held<T>,
    /// Events that this batch puts into it.
    pub(super) written: u64,
    /// Whether its state has led to events, here or elsewhere.
    pub(super) has_led: bool,
}

impl<D: Decider> Batch<D> {
    pub(super) fn new(looks_again: bool) -> Self {
        Self {
            append: Append::new(),
            working: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            looks_again,
            refusals: Vec::new(),
        }
    }

    /// On the condition that nothing came to the streams whose states have led to something.
    pub(super) fn guarded(&mut self) -> Append<'static> {
        let append = std::mem::take(&mut self.append);
        let led = self.working.iter().filter(|(_, working)| working.has_led);
        led.fold(append, |append, (stream, working)| {
            let expected =
                working.seen.head(stream).map_or(ExpectedVersion::NoStream, ExpectedVersion::Exactly);
            append.expect(stream.clone(), expected)
        })
    }

    /// Forgets states of which the store has less: it is another store than the one that they are of.
    pub(super) fn forget_what_is_ahead<S: EventStore, C: Codec>(
        &self,
        conflict: &StoreError,
        repository: &Repository<S, D, C>,
    ) {
        let ahead = self.working.iter().filter(|(_, working)| is_behind(conflict, &working.seen));
        ahead.for_each(|(stream, _)| repository.forget(stream));
    }

    pub(super) fn remember<S: EventStore, C: Codec>(self, repository: &Repository<S, D, C>, end: Position) {
        self.elsewhere.keys().for_each(|stream| repository.forget(stream));
        for (stream, working) in self.working.into_iter().filter(|(_, working)| working.has_led) {
            let head = match working.seen.head(&stream) {
                Some(head) => head.plus(working.written),
                None if working.written > 0 => Version::new(working.written - 1),
                None => continue,
            };
            // A place that is not before its last event, and not behind the batch: nothing else can have come to it in between.
            let last = if working.written > 0 { Position::new(end.get() - 1) } else { continue };
            let held = Held::appended(working.held.state, Seen::up_to(&stream, head, last));
            repository.remember(&Boundary::from(&stream), &held);
        }
    }
}
