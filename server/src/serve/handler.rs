//! What a session has done: appends in their order, everything else beside each other.

use super::Context;
use super::access::Access;
use super::outgoing::Outgoing;
use super::streaming::{self, Flow, Streams};
use annals::Store;
use annals_protocol::frame::Header;
use annals_protocol::{Answer, Consistency, Failure, Malformed, Request};
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How long a read waits for a position that its client read elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the progress of a verification is told.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// Stores that a connection may have handles of.
const HANDLES_MAX: usize = 1_000;

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<Context>,
    outgoing: Arc<Outgoing>,
    access: Access,
    /// By their handles.
    stores: Arc<RwLock<Vec<(String, Store)>>>,
    streams: Arc<Streams>,
    /// Requests that were handed on and not looked at yet.
    ahead: AtomicUsize,
}

impl Session {
    /// Begins, with the store that has handle 0.
    pub(super) async fn new(
        context: &Arc<Context>,
        outgoing: &Arc<Outgoing>,
        access: Access,
        store: &str,
    ) -> Result<Self, Failure> {
        access.check_store(store)?;
        let opened = open(context, store).await?;
        Ok(Self {
            context: Arc::clone(context),
            outgoing: Arc::clone(outgoing),
            access,
            stores: Arc::new(RwLock::new(vec![(store.to_owned(), opened)])),
            streams: Arc::default(),
            ahead: AtomicUsize::new(0),
        })
    }

    /// The store of that handle, if the client may have this done to it.
    fn store_for(&self, handle: u32, request: &Request<'_>) -> Result<Store, Failure> {
        let stores = self.stores.read();
        let found = usize::try_from(handle).ok().and_then(|handle| stores.get(handle));
        let (name, store) =
            found.ok_or_else(|| Failure::NoStore { name: format!("with handle {handle}") })?;
        self.access.check(name, request)?;
        Ok(store.clone())
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

    /// Notes that requests are handed on.
    pub(super) fn hand_on(&self, count: usize) {
        self.ahead.fetch_add(count, Ordering::AcqRel);
    }

    /// Appends here and now, if this is an append, no earlier request is to be looked at, and nothing has to be waited for.
    pub(super) fn try_now(&self, asked: &Asked) -> bool {
        if asked.header.kind != APPEND || self.ahead.load(Ordering::Acquire) > 0 {
            return false;
        }
        let Ok(request @ Request::Append(_)) = Request::decode(APPEND, &asked.body) else { return false };
        let Ok(store) = self.store_for(asked.header.store, &request) else { return false };
        let Request::Append(append) = request else { unreachable!("it was looked at") };
        let ticket = store.try_append(&append);
        let is_begun = ticket.is_ok();
        if let Ok(ticket) = ticket {
            self.outgoing.append(asked.header.request, asked.bytes, ticket);
        }
        is_begun
    }

    /// Has requests done as they come, until no more do.
    pub(super) async fn live(self: Arc<Self>, mut incoming: mpsc::Receiver<Vec<Asked>>) {
        while let Some(asked) = incoming.recv().await {
            let mut rest = &asked[..];
            while let Some(first) = rest.first() {
                let appends = rest.iter().take_while(|next| next.is_append_to(first.header.store)).count();
                if appends > 0 {
                    self.append(&rest[..appends]);
                } else if is_about_another(first.header.kind) {
                    self.hear(first);
                } else {
                    self.begin(first);
                }
                rest = &rest[appends.max(1)..];
            }
            self.ahead.fetch_sub(asked.len(), Ordering::AcqRel);
        }
        self.streams.end_all();
    }

    /// Appends, in this order. Where that has to wait, so do all later requests of this connection, and nobody else.
    fn append(&self, asked: &[Asked]) {
        let mut store = None;
        let mut appends = Vec::with_capacity(asked.len());
        let mut decoded = Vec::with_capacity(asked.len());
        for asked in asked {
            let request =
                Request::decode(APPEND, &asked.body).map_err(|error| Failure::Malformed(error.to_string()));
            let allowed =
                request.and_then(|request| Ok((self.store_for(asked.header.store, &request)?, request)));
            match allowed {
                Ok((its_store, Request::Append(append))) => {
                    store = Some(its_store);
                    appends.push(append);
                    decoded.push(asked);
                }
                Ok(_) => unreachable!("its kind was looked at"),
                Err(failure) => self.refuse(asked, failure),
            }
        }
        let Some(store) = store else { return };
        if let [append] = &appends[..]
            && let Ok(ticket) = store.try_append(append)
        {
            self.outgoing.append(decoded[0].header.request, decoded[0].bytes, ticket);
            return;
        }
        // Whoever else is on this thread goes on elsewhere meanwhile.
        let tickets = tokio::task::block_in_place(|| store.append_each(&appends));
        for (asked, ticket) in decoded.into_iter().zip(tickets) {
            match ticket {
                Ok(ticket) => self.outgoing.append(asked.header.request, asked.bytes, ticket),
                Err(error) => self.refuse(asked, Failure::Append(error)),
            }
        }
    }

    fn refuse(&self, asked: &Asked, failure: Failure) {
        self.outgoing.answer(asked.header.request, &Answer::Failed(failure), false);
        self.outgoing.leave(asked.bytes);
    }

    /// Has a request done beside others, and answered.
    fn begin(&self, asked: &Asked) {
        let (header, bytes, body) = (asked.header, asked.bytes, asked.body.clone());
        let request = Request::decode(header.kind, &body);
        let store = request.as_ref().ok().map(|request| self.store_for(header.store, request));
        let flow = match request {
            Ok(request) => match credit_of(&request) {
                None => None,
                Some(credit) => match self.streams.begin(header.request, credit) {
                    None => {
                        let twice = format!("a request {} is under way already", header.request);
                        return self.refuse(asked, Failure::Malformed(twice));
                    }
                    flow => flow,
                },
            },
            Err(malformed) => return self.refuse(asked, malformed_as(&malformed)),
        };
        let task = Task {
            context: Arc::clone(&self.context),
            outgoing: Arc::clone(&self.outgoing),
            stores: Arc::clone(&self.stores),
            streams: Arc::clone(&self.streams),
            request: header.request,
            access: self.access.clone(),
            store: store.expect("the request was decoded"),
            flow,
        };
        tokio::spawn(async move {
            if let Err(failure) = task.run(header.kind, body).await {
                task.outgoing.answer(header.request, &Answer::Failed(failure), false);
            }
            if task.flow.is_some() {
                task.streams.end(header.request);
            }
            task.outgoing.leave(bytes);
        });
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

/// A request that has arrived.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) header: Header,
    pub(super) body: Bytes,
    /// What it takes of what the connection may have under way.
    pub(super) bytes: usize,
}

impl Asked {
    fn is_append_to(&self, store: u32) -> bool {
        self.header.kind == APPEND && self.header.store == store
    }
}

/// The kind of an append.
const APPEND: u16 = 10;

/// Whether a message of this kind is said of another request: that it is cancelled, or given credit.
pub(super) fn is_about_another(kind: u16) -> bool {
    matches!(kind, 4 | 5)
}

async fn open(context: &Arc<Context>, name: &str) -> Result<Store, Failure> {
    let (stores, name) = (Arc::clone(&context.stores), name.to_owned());
    let opened = context.waiting.spawn_blocking(move || stores.get(&name));
    opened.await.unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
}

/// A request on its way.
struct Task {
    context: Arc<Context>,
    outgoing: Arc<Outgoing>,
    stores: Arc<RwLock<Vec<(String, Store)>>>,
    streams: Arc<Streams>,
    access: Access,
    request: u64,
    store: Result<Store, Failure>,
    /// Of one whose answers go on.
    flow: Option<Arc<Flow>>,
}

impl Task {
    async fn run(&self, kind: u16, body: Bytes) -> Result<(), Failure> {
        let request = Request::decode(kind, &body).map_err(|error| Failure::Malformed(error.to_string()))?;
        let flow = || self.flow.as_deref().expect("it has credit");
        let store = || self.store.clone();
        let to = (&*self.outgoing, self.request);
        match request {
            Request::Read(read, consistency, _) => {
                let store = store()?;
                self.catch_up(&store, consistency).await?;
                streaming::read(&store, &read, flow(), to).await
            }
            Request::Follow(follow, _) => streaming::follow(&store()?, &follow, flow(), to).await,
            Request::Load(load, _) => streaming::load(&store()?, &load, flow(), to).await,
            Request::Streams(_) => streaming::heads(&store()?, flow(), to).await,
            Request::Join(name, _) => streaming::join(&store()?, &name, flow(), to).await,
            Request::OpenStore(name) => {
                self.access.check_store(&name)?;
                let opened = open(&self.context, &name).await?;
                let handle = {
                    let mut stores = self.stores.write();
                    if stores.len() >= HANDLES_MAX {
                        return Err(Failure::Overloaded { what: "stores open on one connection".to_owned() });
                    }
                    stores.push((name.into_owned(), opened));
                    u32::try_from(stores.len() - 1).unwrap_or(u32::MAX)
                };
                self.outgoing.answer(self.request, &Answer::Store(handle), false);
                Ok(())
            }
            Request::Verify => {
                let (store, outgoing, request) = (store()?, Arc::clone(&self.outgoing), self.request);
                let verified = self.context.waiting.spawn_blocking(move || {
                    let mut told = Instant::now();
                    store.verify(&mut |done, all| {
                        if told.elapsed() >= PROGRESS_PERIOD {
                            outgoing.answer(request, &Answer::Checked(done, all), true);
                            told = Instant::now();
                        }
                    })
                });
                let verified = verified.await.map_err(|error| Failure::Internal(error.to_string()))?;
                let answer = Answer::Verified(verified.map_err(Failure::Read)?);
                self.outgoing.answer(self.request, &answer, false);
                Ok(())
            }
            _ => {
                // Decoded once more where it is done: it borrows from its body.
                let (context, streams, store) =
                    (Arc::clone(&self.context), Arc::clone(&self.streams), self.store.clone());
                let answered = self.context.waiting.spawn_blocking(move || {
                    let request = Request::decode(kind, &body)
                        .map_err(|error| Failure::Malformed(error.to_string()))?;
                    answer(&context, &streams, store, request)
                });
                let answer = answered.await.map_err(|error| Failure::Internal(error.to_string()))??;
                let mut pieces = answer.into_pieces().into_iter().peekable();
                while let Some(piece) = pieces.next() {
                    self.outgoing.room().await;
                    self.outgoing.answer(self.request, &piece, pieces.peek().is_some());
                }
                Ok(())
            }
        }
    }

    /// Waits until what the client has read elsewhere is there.
    async fn catch_up(&self, store: &Store, consistency: Consistency) -> Result<(), Failure> {
        if consistency.level > 1 {
            return Err(Failure::Malformed(format!("an unknown consistency level {}", consistency.level)));
        }
        let Some(position) = consistency.at_least else { return Ok(()) };
        if store.next_position() > position {
            return Ok(());
        }
        let store = store.clone();
        let waited = self.context.waiting.spawn_blocking(move || store.wait_for(position, PATIENCE));
        match waited.await.map_err(|error| Failure::Internal(error.to_string()))? {
            Ok(true) => Ok(()),
            Ok(false) => {
                Err(Failure::Overloaded { what: format!("events to come before position {position}") })
            }
            Err(error) => Err(Failure::Read(error)),
        }
    }
}

/// Does what is asked for, and has one answer. It may wait.
fn answer(
    context: &Context,
    streams: &Streams,
    store: Result<Store, Failure>,
    request: Request<'_>,
) -> Result<Answer, Failure> {
    let (read, append, subscription) = (Failure::Read, Failure::Append, Failure::Subscription);
    let count = |count: usize| Answer::Count(count as u64);
    let done = |()| Answer::Done;
    match request {
        Request::Ping => store.map(|_| Answer::Done),
        Request::Stores => store.map(|_| Answer::Names(context.stores.names())),
        Request::CreateStore(name) => store.and_then(|_| context.stores.create(&name)).map(done),
        Request::DropStore(_) => Err(Failure::Forbidden { what: "drop stores".to_owned() }),
        Request::Head(stream) => store?.head(&stream).map(Answer::Head).map_err(read),
        Request::Cursor(name) => store?.cursor(&name).map(Answer::Cursor).map_err(read),
        Request::Cursors => store?.cursors().map(Answer::Cursors).map_err(read),
        Request::Stat => store?.stat().map(Answer::Stat).map_err(read),
        Request::WriteSnapshot(snapshot, version) => {
            store?.write_snapshot(&snapshot, version).map(done).map_err(append)
        }
        Request::Snapshots(stream) => {
            let (snapshots, passed_over) = store?.snapshots(&stream).map_err(read)?;
            Ok(Answer::Snapshots(snapshots, passed_over))
        }
        Request::SnapshotStreams => store?.snapshot_streams().map(Answer::Names).map_err(read),
        Request::DeleteSnapshots(stream, name, version) => {
            store?.delete_snapshots(&stream, &name, version).map(done).map_err(append)
        }
        Request::CreateSubscription(new) => {
            store?.create_subscription(&new).map(Answer::Flag).map_err(subscription)
        }
        Request::DeleteSubscription(name) => {
            store?.delete_subscription(&name).map(done).map_err(subscription)
        }
        Request::ResetSubscription(name, start) => {
            store?.reset_subscription(&name, start).map(done).map_err(subscription)
        }
        Request::StopSubscription(name, reason) => {
            store?.stop_subscription(&name, &reason).map(done).map_err(subscription)
        }
        Request::ResumeSubscription(name) => {
            store?.resume_subscription(&name).map(done).map_err(subscription)
        }
        Request::Subscription(name) => {
            let status = store?.subscription(&name).map_err(subscription)?;
            Ok(Answer::Subscriptions(vec![status]))
        }
        Request::Subscriptions => store?.subscriptions().map(Answer::Subscriptions).map_err(subscription),
        Request::Parked(name) => store?.parked(&name).map(Answer::Parked).map_err(subscription),
        Request::ReplayParked(name, which) => {
            store?.replay_parked(&name, &which).map(count).map_err(subscription)
        }
        Request::DiscardParked(name, which) => {
            store?.discard_parked(&name, &which).map(count).map_err(subscription)
        }
        Request::Ack(member, ids) => {
            store.and_then(|_| streams.member(member))?.ack_each(&ids).map(done).map_err(subscription)
        }
        Request::Nack(member, id, nack) => {
            store.and_then(|_| streams.member(member))?.nack(id, &nack).map(done).map_err(subscription)
        }
        Request::Renew(member) => {
            store.and_then(|_| streams.member(member))?.renew().map(done).map_err(subscription)
        }
        other => Err(Failure::UnknownRequest { kind: other.kind() }),
    }
}
