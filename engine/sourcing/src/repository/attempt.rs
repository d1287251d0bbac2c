//! The attempts of a command: decide on what is there, append on the condition that it is still so, and again where it was not.

use super::{Handled, Held, Repository, new_snapshot};
use crate::boundary::{Boundary, Seen};
use crate::codec::Codec;
use crate::context::Context;
use crate::decider::Decider;
use crate::error::{HandleError, SourcingError};
use crate::snapshots::SnapshotQuestion;
use crate::stream::next;
use annals_types::{
    Append, AppendError, Appended, EventStore, NewEvent, Position, QueryItem, Read, StoreError, Version,
};

impl<S: EventStore, D: Decider, C: Codec> Repository<S, D, C> {
    /// Decides and appends until nobody was quicker. `version`: the only one that it is to be decided on.
    pub(super) async fn attempt<F, W>(
        &self,
        boundary: &Boundary<'_>,
        version: Option<Option<Version>>,
        context: &Context,
        decide: F,
        with: W,
    ) -> Result<Handled<D::Event, D::State>, HandleError<D::Error>>
    where
        F: Fn(&D::State) -> Result<Vec<D::Event>, D::Error> + Send + Sync,
        W: for<'a> Fn(Append<'a>) -> Append<'a> + Send + Sync,
    {
        let mut held = self.begin(boundary).await?;
        let mut attempts = 0;
        loop {
            if let Some((stream, expected)) = boundary.stream().zip(version)
                && held.seen.head(stream) != expected
            {
                if !held.is_fresh {
                    self.catch_up(boundary, &mut held).await?;
                    continue;
                }
                let actual = held.seen.head(stream);
                let repeated = self.repeated(boundary, &held, context, attempts).await?;
                let out_of_date = HandleError::OutOfDate { stream: stream.to_owned(), expected, actual };
                return repeated.ok_or(out_of_date);
            }
            let decided = decide(&held.state);
            let leads_on = matches!(&decided, Ok(events) if !events.is_empty());
            if !leads_on && !held.is_fresh {
                // What was remembered may be out of date: nothing is refused, and nothing left undone, because of that.
                self.catch_up(boundary, &mut held).await?;
                continue;
            }
            if !leads_on && (decided.is_err() || !adds_something(&with)) {
                // Perhaps because it was done before.
                if let Some(repeated) = self.repeated(boundary, &held, context, attempts).await? {
                    return Ok(repeated);
                }
                let events = decided.map_err(HandleError::Refused)?;
                let Held { state, report, .. } = held;
                return Ok(Handled { events, state, appended: None, repeated: None, attempts, report });
            }
            let events = decided.map_err(HandleError::Refused)?;
            attempts += 1;
            let (news, state) = self.outcome(boundary, &held.state, &events, context)?;
            let conflict = match self.append(boundary, &held, news, (&state, context), &with).await? {
                Ok((appended, seen)) => {
                    let report = held.report;
                    self.remember_appended(boundary, &state, seen);
                    let appended = Some(appended);
                    return Ok(Handled { events, state, appended, repeated: None, attempts, report });
                }
                Err(error) => error,
            };
            if conflict.is_conflict()
                && let Some(repeated) = self.repeated(boundary, &held, context, attempts).await?
            {
                return Ok(repeated);
            }
            held = self.look_again(boundary, version, held, conflict, attempts).await?;
        }
    }

    /// What is there now, where another decision may mend the conflict: where others were quicker with what the decision is about.
    async fn look_again(
        &self,
        boundary: &Boundary<'_>,
        version: Option<Option<Version>>,
        mut held: Held<D::State>,
        conflict: StoreError,
        attempts: u32,
    ) -> Result<Held<D::State>, HandleError<D::Error>> {
        if !is_about(&conflict, boundary, &held.seen) {
            return Err(conflict.into());
        }
        if let (Some((stream, expected)), Some(actual)) = (boundary.stream().zip(version), head_of(&conflict))
        {
            return Err(HandleError::OutOfDate { stream: stream.to_owned(), expected, actual });
        }
        let matched = match &conflict {
            StoreError::Append(AppendError::QueryMatched { position, .. }) => Some(*position),
            _ => None,
        };
        // One that cannot be read yet may be one of those that this is about.
        let is_there = match matched {
            Some(position) => self.is_there(position).await?,
            None => false,
        };
        let is_last = attempts >= self.inner.attempts_max;
        if !is_last {
            self.inner.pauses.wait(attempts).await;
        }
        match boundary.stream().filter(|_| is_behind(&conflict, &held.seen)) {
            // It is another store than the one that is remembered: a backup, or one that was made anew.
            Some(stream) => {
                self.forget(stream);
                held = self.stored(boundary).await?;
            }
            None => self.catch_up(boundary, &mut held).await?,
        }
        if is_there && held.seen.last() < matched {
            // It is none of them: a condition of the caller's was about it.
            return Err(conflict.into());
        }
        if is_last {
            return Err(HandleError::Conflicts { attempts, last: conflict });
        }
        Ok(held)
    }

    async fn is_there(&self, position: Position) -> Result<bool, SourcingError> {
        let mut event = self.inner.store.read(&Read::all().from(position).limit(1)).await?;
        Ok(next(&mut event).await.transpose()?.is_some())
    }

    /// What the command has led to, where it is to be done once and was done: with the state of now.
    async fn repeated(
        &self,
        boundary: &Boundary<'_>,
        held: &Held<D::State>,
        context: &Context,
        attempts: u32,
    ) -> Result<Option<Handled<D::Event, D::State>>, SourcingError> {
        let Some(position) = self.done_before(context).await? else { return Ok(None) };
        let mut held = held.clone();
        self.catch_up(boundary, &mut held).await?;
        Ok(Some(held.repeated(position, attempts)))
    }

    /// Where the first event of a command is that is to be done once, if it was done.
    async fn done_before(&self, context: &Context) -> Result<Option<Position>, SourcingError> {
        let Some(tag) = context.once_tag() else { return Ok(None) };
        let read = Read::query(QueryItem::new().tag(tag)).limit(1);
        let mut first = self.inner.store.read(&read).await?;
        Ok(next(&mut first).await.transpose()?.map(|event| event.position()))
    }

    /// The events to be stored, and the state with those of them that the decision is about.
    pub(super) fn outcome(
        &self,
        boundary: &Boundary<'_>,
        state: &D::State,
        events: &[D::Event],
        context: &Context,
    ) -> Result<(Vec<NewEvent<'static>>, D::State), SourcingError> {
        let mut state = state.clone();
        let mut news = Vec::with_capacity(events.len());
        for event in events {
            let mut new = self.new_event(boundary, event, context)?;
            if news.is_empty() {
                new.tags.extend(context.once_tag().map(Into::into));
            }
            if boundary.has(&new) {
                self.inner.decider.evolve(&mut state, event);
            }
            news.push(new);
        }
        Ok((news, state))
    }

    /// Appends the events, on the condition that nothing was added to what was seen; what is seen with them, where that is known.
    async fn append<W>(
        &self,
        boundary: &Boundary<'_>,
        held: &Held<D::State>,
        events: Vec<NewEvent<'static>>,
        (state, context): (&D::State, &Context),
        with: &W,
    ) -> Result<Result<(Appended, Option<Seen>), StoreError>, SourcingError>
    where
        W: for<'a> Fn(Append<'a>) -> Append<'a> + Send + Sync,
    {
        let own = |append: &Append<'_>| {
            let here = append.events.iter().filter(|event| boundary.stream() == Some(&*event.stream));
            here.count() as u64
        };
        let mut append = boundary.guard(events.into_iter().collect(), &held.seen);
        let written = own(&append);
        let head = boundary.stream().and_then(|stream| match held.seen.head(stream) {
            Some(head) => Some(head.plus(written)),
            None => written.checked_sub(1).map(Version::new),
        });
        if let (Some(stream), Some(snapshots), Some(version)) =
            (boundary.stream(), &self.inner.snapshots, head)
        {
            let question =
                SnapshotQuestion { state, version, appended: written, replayed: held.report.events };
            if written > 0 && snapshots.policy.says(&question) {
                append = append.snapshot(new_snapshot(snapshots, stream, state)?);
            }
        }
        append = with(append);
        if let Some(tag) = context.once_tag() {
            append = append.fail_if_matches(QueryItem::new().tag(tag), None);
        }
        // The caller has more to say about the stream than the decider knows of: then this is not its state.
        let is_whole = own(&append) == written;
        if !is_whole {
            append.snapshot = None;
        }
        Ok(self.inner.store.append(append).await.map(|appended| {
            let last = Position::new(appended.positions.end.get().saturating_sub(1));
            let seen = match (boundary.stream(), head) {
                _ if !is_whole => None,
                (Some(stream), Some(head)) if written > 0 => Some(Seen::up_to(stream, head, last)),
                _ => Some(held.seen.clone()),
            };
            (appended, seen)
        }))
    }
}

/// Whether the store has less of a stream than was seen.
pub(crate) fn is_behind(conflict: &StoreError, seen: &Seen) -> bool {
    match conflict {
        StoreError::Append(AppendError::WrongVersion { stream, actual, .. }) => {
            seen.head(stream).is_some_and(|seen| actual.as_ref().is_none_or(|head| head.version < seen))
        }
        _ => false,
    }
}

/// Whether others were quicker with what the decision is about, as far as the conflict tells, so that it may be another one on what is there now. Not
/// where a cursor is elsewhere: then somebody else has handled what this is about; nor where a condition of the caller's does not hold.
fn is_about(conflict: &StoreError, boundary: &Boundary<'_>, seen: &Seen) -> bool {
    match conflict {
        StoreError::Append(AppendError::WrongVersion { stream, expected, .. }) => {
            boundary.expected(stream, seen) == Some(*expected)
        }
        StoreError::Append(AppendError::QueryMatched { after, .. }) => {
            matches!(boundary, Boundary::Query(_)) && *after == seen.last()
        }
        _ => false,
    }
}

/// The stream's last version, where that is what the conflict is about.
fn head_of(conflict: &StoreError) -> Option<Option<Version>> {
    match conflict {
        StoreError::Append(AppendError::WrongVersion { actual, .. }) => {
            Some(actual.as_ref().map(|head| head.version))
        }
        _ => None,
    }
}

/// Whether the caller appends something beside what is decided.
fn adds_something(with: &impl for<'a> Fn(Append<'a>) -> Append<'a>) -> bool {
    let added = with(Append::new());
    !added.events.is_empty() || !added.advances.is_empty()
}
