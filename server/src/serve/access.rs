//! What a request needs, and whether its client may have it.

use crate::locate;
use crate::tokens::{LOOK_PERIOD, Right, Token, Tokens};
use annals::{Condition, Query};
use annals_protocol::{Failure, Request};
use std::sync::Arc;

/// Who a client is. `None`: anybody, who may do anything.
#[derive(Clone, Debug)]
pub(super) struct Access(Option<(Arc<Tokens>, Token)>);

impl Access {
    /// Whoever has this token.
    pub(super) fn identify(tokens: Option<&Arc<Tokens>>, token: Option<&str>) -> Result<Self, Failure> {
        let Some(tokens) = tokens else { return Ok(Self(None)) };
        Ok(Self(Some((Arc::clone(tokens), tokens.identify(token)?))))
    }

    /// What the client is called, where there are tokens.
    pub(super) fn name(&self) -> &str {
        self.0.as_ref().map_or("anybody", |(_, token)| &token.name)
    }

    /// Ends when the token is revoked, or allows something else than it did.
    pub(super) async fn revoked(&self) {
        let Some((tokens, token)) = &self.0 else { return std::future::pending().await };
        while tokens.check(token).is_ok() {
            tokio::time::sleep(LOOK_PERIOD).await;
        }
    }

    /// Whether the client may use a store at all.
    pub(super) fn is_for(&self, store: &str) -> bool {
        self.0.as_ref().is_none_or(|(_, token)| token.is_for(store))
    }

    /// The same; else why not.
    pub(super) fn check_store(&self, store: &str) -> Result<(), Failure> {
        if self.is_for(store) {
            return Ok(());
        }
        let store = locate::shortened(store);
        Err(Failure::Forbidden { what: format!("use the store \"{}\"", store.escape_debug()) })
    }

    /// Whether the client may have this done to a store.
    pub(super) fn check(&self, store: &str, request: &Request<'_>) -> Result<(), Failure> {
        // That it is revoked ends the connection: see `revoked`.
        let Some((_, token)) = &self.0 else { return Ok(()) };
        // What is about another store needs the right to that.
        let store = match request {
            Request::CreateStore(name) | Request::DropStore(name) => name,
            _ => store,
        };
        let needs = needs(request);
        let refused = needs.iter().find(|(right, stream)| !token.allows(*right, store, stream.as_deref()));
        let Some((right, stream)) = refused else { return Ok(()) };
        let what = match right {
            Right::Read => "read",
            Right::Append => "append to",
            Right::Admin => "administer",
        };
        let whom = stream
            .as_ref()
            .map_or_else(|| "the store".to_owned(), |stream| format!("stream \"{}\"", stream.escape_debug()));
        Err(Failure::Forbidden { what: format!("{what} {whom}") })
    }
}

/// A right, and the stream that it is needed for; `None`: all.
type Need = (Right, Option<String>);

fn needs(request: &Request<'_>) -> Vec<Need> {
    let of = |right, stream: &str| vec![(right, Some(stream.to_owned()))];
    match request {
        Request::Hello(_)
        | Request::Ping
        | Request::Cancel(_)
        | Request::Credit(..)
        | Request::OpenStore(_)
        | Request::Stores => Vec::new(),
        Request::Append(append) | Request::AppendAgain(append, _) => {
            let mut needs: Vec<Need> = Vec::new();
            let mut need = |right, stream: Option<&str>| {
                let need = (right, stream.map(str::to_owned));
                if !needs.contains(&need) {
                    needs.push(need);
                }
            };
            append.events.iter().for_each(|event| need(Right::Append, Some(&event.stream)));
            for condition in &append.conditions {
                match condition {
                    // Whoever writes a stream has to know how it stands.
                    Condition::Stream { stream, .. }
                        if append.events.iter().any(|event| event.stream == *stream) => {}
                    Condition::Stream { stream, .. } => need(Right::Read, Some(stream)),
                    Condition::NoMatch { query, .. } => {
                        streams_of(None, query).into_iter().for_each(|stream| need(Right::Read, stream))
                    }
                    _ => need(Right::Append, None),
                }
            }
            if !append.advances.is_empty() {
                need(Right::Append, None);
            }
            needs
        }
        Request::Read(read, ..) => reading(read.stream.as_deref(), &read.query),
        Request::Follow(follow, _) => reading(follow.stream.as_deref(), &follow.query),
        Request::Head(stream) | Request::Snapshots(stream) => of(Right::Read, stream),
        Request::Load(load, _) => of(Right::Read, &load.stream),
        Request::WriteSnapshot(snapshot, _) => of(Right::Append, &snapshot.stream),
        Request::DeleteSnapshots(stream, ..) => of(Right::Append, stream),
        Request::Streams(_)
        | Request::Cursor(_)
        | Request::Cursors
        | Request::Stat
        | Request::Verify
        | Request::SnapshotStreams
        | Request::Subscription(_)
        | Request::Subscriptions
        | Request::Parked(_)
        | Request::Join(..)
        | Request::Ack(..)
        | Request::Nack(..)
        | Request::Renew(_) => vec![(Right::Read, None)],
        _ => vec![(Right::Admin, None)],
    }
}

fn reading(stream: Option<&str>, query: &Query<'_>) -> Vec<Need> {
    streams_of(stream, query).into_iter().map(|stream| (Right::Read, stream.map(str::to_owned))).collect()
}

/// The streams whose events can match; `None`: any.
fn streams_of<'a>(stream: Option<&'a str>, query: &'a Query<'_>) -> Vec<Option<&'a str>> {
    match stream {
        Some(stream) => vec![Some(stream)],
        None if query.items.is_empty() => vec![None],
        None => query.items.iter().map(|item| item.stream.as_deref()).collect(),
    }
}
