//! What a session has done: appends in their order, everything else beside each other.

use super::Context;
use super::access::Access;
use super::outgoing::{Outgoing, UnderWay};
use super::pace::Asks;
use super::stores::InUse;
use super::streaming::Streams;
use super::task::{self, APPEND, PING, Task, is_about_another};
use annals::{Append, AppendError, Position, Ticket};
use annals_protocol::frame::Header;
use annals_protocol::{Answer, Failure, Malformed, Request};
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// The stores that a connection has handles of; `None`: handle 0 of one who has named none.
pub(super) type Handles = RwLock<Vec<Option<Arc<InUse>>>>;

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<Context>,
    outgoing: Arc<Outgoing>,
    pub(super) access: Access,
    stores: Arc<Handles>,
    streams: Arc<Streams>,
    /// Requests that were handed on and not looked at yet.
    ahead: AtomicUsize,
    /// Told when there are fewer.
    looked_at: Notify,
}

impl Session {
    /// Begins, with the store that has handle 0; without a name, there is none.
    pub(super) async fn new(
        context: &Arc<Context>,
        outgoing: &Arc<Outgoing>,
        access: Access,
        store: &str,
    ) -> Result<Self, Failure> {
        let opened = if store.is_empty() {
            None
        } else {
            access.check_store(store)?;
            Some(context.stores.get(store).await?)
        };
        Ok(Self {
            context: Arc::clone(context),
            outgoing: Arc::clone(outgoing),
            access,
            stores: Arc::new(RwLock::new(vec![opened])),
            streams: Arc::default(),
            ahead: AtomicUsize::new(0),
            looked_at: Notify::new(),
        })
    }

    /// The next position of the store with handle 0.
    pub(super) fn next_position(&self) -> Position {
        let stores = self.stores.read();
        stores[0].as_ref().map_or(Position::new(0), |open| open.store.next_position())
    }

    /// The store of that handle.
    fn store_of(&self, handle: u32) -> Result<Arc<InUse>, Failure> {
        let stores = self.stores.read();
        let found = usize::try_from(handle).ok().and_then(|handle| stores.get(handle)?.clone());
        let open = found.ok_or_else(|| Failure::NoStore { name: format!("with handle {handle}") })?;
        // Another one of its name may be there now: who connects again has that.
        open.is_there().map(|()| open)
    }

    /// The same, if the client may have this done to it.
    fn store_for(&self, handle: u32, request: &Request<'_>) -> Result<Arc<InUse>, Failure> {
        let open = self.store_of(handle)?;
        self.access.check(&open.name, request)?;
        Ok(open)
    }

    /// Hears what is said of another request.
    fn hear(&self, asked: &Asked) {
        match Request::decode(asked.header.kind, &asked.body) {
            Ok(Request::Credit(of, more)) => self.streams.credit(of, more),
            Ok(Request::Cancel(of)) => self.streams.cancel(of),
            Ok(_) => unreachable!("its kind was looked at"),
            Err(malformed) => {
                self.outgoing.answer(asked.header.request, &Answer::Failed(malformed_as(&malformed)), false);
            }
        }
    }

    /// Notes that requests are handed on. Appends may wait then, and their clients may send them again meanwhile.
    pub(super) fn hand_on(&self, each: &mut [Asked]) {
        self.ahead.fetch_add(each.len(), Ordering::AcqRel);
        let are_known = self.context.stores.are_ids_known();
        for asked in each.iter_mut().filter(|asked| are_known && asked.header.kind == APPEND) {
            asked.arrived = self.store_of(asked.header.store).ok().map(|open| open.store.next_position());
        }
    }

    /// Waits until all that were handed on were looked at: what comes behind them is done where it arrives again.
    pub(super) async fn caught_up(&self) {
        while self.ahead.load(Ordering::Acquire) > 0 {
            self.looked_at.notified().await;
        }
    }

    /// Appends here and now, as far as these are appends, no earlier request is to be looked at, and nothing has to be waited
    /// for. How many it did.
    pub(super) fn try_now(&self, asked: &[Asked]) -> usize {
        let Some(first) = asked.first() else { return 0 };
        let count = asked.iter().take_while(|next| next.is_append_to(first.header.store)).count();
        if count == 0 || self.ahead.load(Ordering::Acquire) > 0 {
            return 0;
        }
        let mut done = 0;
        // Decoded a few at a time: those behind one that has to wait are decoded once more.
        for run in asked[..count].chunks(RUN_MAX) {
            let decoded = self.decode(run);
            let answers = match &decoded.store {
                Some(store) => store.store.try_append_each(&decoded.appends).answers,
                None => Vec::new(),
            };
            // Up to the first that has to wait; what is refused behind it is refused when its turn comes.
            let looked_at = decoded.asked.get(answers.len()).map_or(run.len(), |(place, _)| *place);
            self.answer_appends(&decoded.asked, answers);
            self.refuse_each(decoded.refused, looked_at);
            done += looked_at;
            if looked_at < run.len() {
                break;
            }
        }
        done
    }

    /// Has requests done as they come, until no more do.
    pub(super) async fn live(self: Arc<Self>, mut incoming: mpsc::Receiver<Vec<Asked>>) {
        let asks = Asks::default();
        while let Some(asked) = incoming.recv().await {
            self.context
                .looks
                .turn(&asks, asked.iter().map(|asked| task::takes(asked.header.kind)).sum())
                .await;
            let (mut rest, mut short) = (&asked[..], Vec::new());
            while let Some(first) = rest.first() {
                let appends = rest.iter().take_while(|next| next.is_append_to(first.header.store)).count();
                if appends > 0 {
                    self.append(&rest[..appends]);
                } else if is_about_another(first.header.kind) {
                    self.hear(first);
                } else if first.header.kind == PING {
                    self.outgoing.answer(first.header.request, &Answer::Done, false);
                    self.outgoing.leave(first.bytes);
                } else if let Some(mut under_way) = self.begin(first) {
                    if task::is_short(first.header.kind) {
                        short.push(under_way);
                    } else {
                        tokio::spawn(async move { under_way.run().await });
                    }
                }
                rest = &rest[appends.max(1)..];
            }
            if !short.is_empty() {
                tokio::spawn(task::answer_each(Arc::clone(&self.context), Arc::clone(&self.outgoing), short));
            }
            self.ahead.fetch_sub(asked.len(), Ordering::AcqRel);
            self.looked_at.notify_one();
        }
        self.streams.end_all();
    }

    /// Appends, in this order. Where that has to wait, so do all later requests of this connection, and nobody else.
    fn append(&self, asked: &[Asked]) {
        let Decoded { store, appends, asked: each, refused } = self.decode(asked);
        self.refuse_each(refused, asked.len());
        let Some(store) = store else { return };
        // Whoever else is on this thread goes on elsewhere meanwhile.
        let answers = tokio::task::block_in_place(|| store.store.append_each(&appends));
        self.answer_appends(&each, answers);
    }

    /// Refuses those before a place.
    fn refuse_each(&self, refused: Vec<(usize, &Asked, Failure)>, before: usize) {
        for (_, asked, failure) in refused.into_iter().filter(|(place, ..)| *place < before) {
            self.refuse(asked, failure);
        }
    }

    /// Takes appends to one store apart: those that may be begun, and those that are none or that the client may not do.
    fn decode<'a>(&self, asked: &'a [Asked]) -> Decoded<'a> {
        let mut decoded = Decoded {
            store: None,
            appends: Vec::with_capacity(asked.len()),
            asked: Vec::with_capacity(asked.len()),
            refused: Vec::new(),
        };
        let Some(first) = asked.first() else { return decoded };
        let store = self.store_of(first.header.store);
        for (place, asked) in asked.iter().enumerate() {
            let allowed = store.as_ref().map_err(Clone::clone).and_then(|store| {
                let request =
                    Request::decode(APPEND, &asked.body).map_err(|malformed| malformed_as(&malformed))?;
                self.access.check(&store.name, &request).map(|()| request)
            });
            match allowed {
                Ok(Request::Append(append)) => {
                    decoded.appends.push(Append { again: asked.arrived, ..append });
                    decoded.asked.push((place, asked));
                }
                Ok(_) => unreachable!("its kind was looked at"),
                Err(failure) => decoded.refused.push((place, asked, failure)),
            }
        }
        decoded.store = store.ok();
        decoded
    }

    /// Has appends that were begun answered once they are durable, and the others now.
    fn answer_appends(&self, asked: &[(usize, &Asked)], answers: Vec<Result<Ticket, AppendError>>) {
        let mut refused = Vec::new();
        self.outgoing.append_each(asked.iter().zip(answers).filter_map(
            |((_, asked), answer)| match answer {
                Ok(ticket) => Some(UnderWay::new(asked, ticket)),
                Err(error) => {
                    refused.push((*asked, error));
                    None
                }
            },
        ));
        for (asked, error) in refused {
            self.outgoing.metrics.refused(&error, asked.since.elapsed());
            self.refuse(asked, Failure::Append(error));
        }
    }

    fn refuse(&self, asked: &Asked, failure: Failure) {
        self.outgoing.answer(asked.header.request, &Answer::Failed(failure), false);
        self.outgoing.leave(asked.bytes);
    }

    /// Takes a request apart that is to be done beside others. `None`: it is none, and was refused.
    fn begin(&self, asked: &Asked) -> Option<task::UnderWay> {
        let header = asked.header;
        let request = match Request::decode(header.kind, &asked.body) {
            Ok(request) => request,
            Err(malformed) => {
                self.refuse(asked, malformed_as(&malformed));
                return None;
            }
        };
        let store = self.store_for(header.store, &request);
        let flow = match credit_of(&request) {
            None => None,
            Some(credit) => {
                let flow = self.streams.begin(header.request, credit);
                if flow.is_none() {
                    let twice = format!("a request {} is under way already", header.request);
                    self.refuse(asked, Failure::Malformed(twice));
                    return None;
                }
                flow
            }
        };
        // What is asked for to the end of the connection holds on to nothing but itself of what it came with.
        let body = if flow.is_some() { Bytes::copy_from_slice(&asked.body) } else { asked.body.clone() };
        let end = store.as_ref().ok().map(|open| open.store.next_position());
        self.context.metrics.requests.get_or_create(&[("kind", task::name_of(header.kind))]).inc();
        let task = Task {
            context: Arc::clone(&self.context),
            outgoing: Arc::clone(&self.outgoing),
            stores: Arc::clone(&self.stores),
            streams: Arc::clone(&self.streams),
            request: header.request,
            kind: header.kind,
            body,
            access: self.access.clone(),
            store,
            end,
            flow,
        };
        Some(task::UnderWay { task, bytes: asked.bytes, is_answered: false })
    }
}

/// The credit of a request whose answers go on.
fn credit_of(request: &Request<'_>) -> Option<u64> {
    match request {
        Request::Read(_, _, credit)
        | Request::Follow(_, credit)
        | Request::Load(_, credit)
        | Request::Streams(credit)
        | Request::Join(_, credit) => Some(*credit),
        // It has no credit, and can be cancelled all the same.
        Request::Verify => Some(0),
        _ => None,
    }
}

/// What it is to a client that its request was not understood.
fn malformed_as(malformed: &Malformed) -> Failure {
    match malformed.unknown_kind {
        Some(kind) => Failure::UnknownRequest { kind },
        None => Failure::Malformed(malformed.to_string()),
    }
}

/// Appends to one store.
struct Decoded<'a> {
    /// `None`: there is none of that handle, and so no appends.
    store: Option<Arc<InUse>>,
    appends: Vec<Append<'a>>,
    /// The request of each, and its place among those that were looked at.
    asked: Vec<(usize, &'a Asked)>,
    /// The others, with their places.
    refused: Vec<(usize, &'a Asked, Failure)>,
}

/// A request that has arrived.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) header: Header,
    pub(super) body: Bytes,
    /// What it takes of what the connection may have under way.
    pub(super) bytes: usize,
    /// When it arrived.
    pub(super) since: Instant,
    /// The store's next position then, of an append that waits.
    pub(super) arrived: Option<Position>,
}

impl Asked {
    fn is_append_to(&self, store: u32) -> bool {
        self.header.kind == APPEND && self.header.store == store
    }
}

/// Appends that are decoded before any of them is begun.
const RUN_MAX: usize = 32;
