//! A request that is done beside others: what it takes, and its answers.

use super::access::Access;
use super::handler::Handles;
use super::outgoing::Outgoing;
use super::stores::InUse;
use super::streaming::{self, Flow, Streams};
use super::{Context, now};
use annals::{Append, Follow, Position, Start, Store};
use annals_protocol::{Answer, Consistency, Failure, Request};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// The kind of a ping.
pub(super) const PING: u16 = 2;
/// The kind of an append.
pub(super) const APPEND: u16 = 10;
/// How long a read waits for a position that its client read elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the progress of a verification is told.
const PROGRESS_PERIOD: Duration = Duration::from_millis(500);
/// Stores that a connection may have handles of.
const HANDLES_MAX: usize = 1_000;

/// The name of a kind of request, as it is counted.
pub(super) fn name_of(kind: u16) -> &'static str {
    match kind {
        2 => "ping",
        3 => "open_store",
        11 => "read",
        12 => "follow",
        13 => "head",
        14 => "streams",
        15 | 16 => "cursors",
        17 => "stat",
        18 => "verify",
        19 => "append_again",
        20 => "load",
        21..=24 => "snapshots",
        30..=39 => "subscriptions",
        40 => "join",
        41 => "ack",
        42 => "nack",
        43 => "renew",
        50..=52 => "stores",
        _ => "other",
    }
}

/// Whether its answer is a list, which may be long.
fn answers_with_list(request: &Request<'_>) -> bool {
    matches!(
        request,
        Request::Cursors
            | Request::Snapshots(_)
            | Request::SnapshotStreams
            | Request::Subscriptions
            | Request::Parked(_)
            | Request::Stores
    )
}

/// A request on its way.
pub(super) struct Task {
    pub(super) context: Arc<Context>,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) stores: Arc<Handles>,
    pub(super) streams: Arc<Streams>,
    pub(super) access: Access,
    pub(super) request: u64,
    pub(super) kind: u16,
    pub(super) body: Bytes,
    pub(super) store: Result<Arc<InUse>, Failure>,
    /// Behind the store's last event when the request arrived: what comes behind it in the connection comes behind that, too.
    pub(super) end: Option<Position>,
    /// Of one whose answers go on.
    pub(super) flow: Option<Arc<Flow>>,
}

/// A request that is being done, and takes its place among those of its connection: until it is answered, or its task panics.
pub(super) struct UnderWay {
    pub(super) task: Task,
    pub(super) bytes: usize,
    pub(super) is_answered: bool,
}

impl UnderWay {
    /// Does it, and answers.
    pub(super) async fn run(&mut self) {
        let done = self.task.run().await;
        self.end(done);
    }

    /// The same, here and now: it may wait.
    fn answer(&mut self) {
        let Task { context, outgoing, streams, access, store, request, kind, body, .. } = &self.task;
        let decoded = Request::decode(*kind, body).map_err(|error| Failure::Malformed(error.to_string()));
        let store = store.as_ref().map(|open| open.store.clone()).map_err(Clone::clone);
        let answered = decoded.and_then(|decoded| answer(context, access, streams, store, decoded));
        let done = answered.map(|answer| outgoing.answer(*request, &answer, false));
        self.end(done);
    }

    fn end(&mut self, done: Result<(), Failure>) {
        if let Err(failure) = done {
            // A store that was dropped is closed, but not because the server goes.
            let gone = self.task.store.as_ref().ok().and_then(|open| open.is_there().err());
            let failure = gone.unwrap_or(failure);
            self.task.outgoing.answer(self.task.request, &Answer::Failed(failure), false);
        }
        self.is_answered = true;
    }
}

/// Answers requests that take a moment each, one after the other: a thread that may wait for each of them would cost many times as
/// much.
pub(super) async fn answer_each(context: Arc<Context>, outgoing: Arc<Outgoing>, mut each: Vec<UnderWay>) {
    let _turn = outgoing.waiting.acquire().await;
    let answered = context.waiting.spawn_blocking(move || each.iter_mut().for_each(UnderWay::answer));
    // Those that were not answered because one has panicked say so as they are dropped.
    let _ = answered.await;
}

/// Whether requests of a kind take a moment, and have a short answer.
pub(super) fn is_short(kind: u16) -> bool {
    matches!(kind, 13 | 15 | 35 | 41..=43)
}

/// Whether a message of this kind is said of another request: that it is cancelled, or given credit.
pub(super) fn is_about_another(kind: u16) -> bool {
    matches!(kind, 4 | 5)
}

/// What a request of a kind takes of a processor about, apart from waiting and from what is sent of a stream.
pub(super) fn takes(kind: u16) -> Duration {
    match kind {
        APPEND => Duration::ZERO,
        // A word about another request, or an answer that needs no store.
        PING => Duration::from_micros(1),
        kind if is_about_another(kind) => Duration::from_micros(1),
        kind if is_short(kind) => Duration::from_micros(5),
        _ => Duration::from_micros(20),
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Task { outgoing, streams, request, flow, .. } = &self.task;
        if !self.is_answered {
            let failure = Failure::Internal("it could not be done; see the server's log".to_owned());
            outgoing.answer(*request, &Answer::Failed(failure), false);
        }
        if flow.is_some() {
            streams.end(*request);
        }
        outgoing.leave(self.bytes);
    }
}

impl Task {
    async fn run(&self) -> Result<(), Failure> {
        let request =
            Request::decode(self.kind, &self.body).map_err(|error| Failure::Malformed(error.to_string()))?;
        let flow = || self.flow.as_deref().expect("it has credit");
        let store = || self.store.as_ref().map(|open| &open.store).map_err(Clone::clone);
        let to = (&*self.outgoing, self.request);
        match request {
            Request::Read(read, consistency, _) => {
                self.catch_up(store()?, consistency).await?;
                streaming::read(store()?, &read, flow(), to).await
            }
            Request::Follow(mut follow, _) => {
                if let (Start::End, Some(end)) = (follow.start, self.end) {
                    follow.start = Start::From(end.into());
                }
                streaming::follow(store()?, &follow, flow(), to, self.context.pace.enter()).await
            }
            Request::Load(load, _) => streaming::load(store()?, &load, flow(), to).await,
            Request::Streams(_) => streaming::heads(store()?, flow(), to).await,
            Request::Join(name, _) => streaming::join(store()?, &name, flow(), to).await,
            Request::OpenStore(name) => self.open_store(&name).await,
            Request::AppendAgain(append, since) => self.append(store()?, append.again(since)).await,
            Request::Verify => {
                let flow = self.flow.as_ref().expect("it can be cancelled");
                self.verify(store()?.clone(), flow).await
            }
            // What is not about the store of the handle.
            Request::CreateStore(ref name) => {
                self.access.check("", &request)?;
                self.context.stores.create(name).await.map(|()| self.done())
            }
            Request::DropStore(ref name) => {
                self.access.check("", &request)?;
                self.context.stores.drop_store(name).await.map(|()| self.done())
            }
            _ => self.answer_elsewhere(answers_with_list(&request)).await,
        }
    }

    fn done(&self) {
        self.outgoing.answer(self.request, &Answer::Done, false);
    }

    /// Appends beside other appends: what may be there already is no part of their order.
    async fn append(&self, store: &Store, append: Append<'_>) -> Result<(), Failure> {
        if append.events.is_empty() || append.events.iter().any(|event| event.id.is_none()) {
            return Err(Failure::Malformed(
                "what is appended again has events, and all of them have ids".to_owned(),
            ));
        }
        let begun = now();
        // Whoever else is on this thread goes on elsewhere meanwhile.
        let outcome = match tokio::task::block_in_place(|| store.append(append)) {
            Ok(ticket) => ticket.await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(appended) => self.outgoing.metrics.appended(appended, begun.elapsed()),
            Err(error) => self.outgoing.metrics.refused(error, begun.elapsed()),
        }
        self.outgoing.answer(self.request, &Answer::Appended(outcome.map_err(Failure::Append)?), false);
        Ok(())
    }

    async fn open_store(&self, name: &str) -> Result<(), Failure> {
        self.access.check_store(name)?;
        let opened = self.context.stores.get(name).await?;
        let handle = {
            let mut stores = self.stores.write();
            if stores.len() >= HANDLES_MAX {
                return Err(Failure::Overloaded { what: "stores open on one connection".to_owned() });
            }
            stores.push(Some(opened));
            u32::try_from(stores.len() - 1).unwrap_or(u32::MAX)
        };
        self.outgoing.answer(self.request, &Answer::Store(handle), false);
        Ok(())
    }

    /// Checks a store; those who come later wait without a thread.
    async fn verify(&self, store: Store, flow: &Arc<Flow>) -> Result<(), Failure> {
        let turn = flow.or_cancelled(Arc::clone(&self.context.verifications).acquire_owned()).await?;
        let (outgoing, request, going_on) = (Arc::clone(&self.outgoing), self.request, Arc::clone(flow));
        let verified = self.context.waiting.spawn_blocking(move || {
            // Held until it has ended, whether anybody waits for it or not.
            let _turn = turn;
            let mut told = now();
            store.verify(&mut |done, all| {
                // Behind the last answer nothing more is said.
                if told.elapsed() >= PROGRESS_PERIOD && going_on.check().is_ok() {
                    outgoing.answer(request, &Answer::Checked(done, all), true);
                    told = now();
                }
            })
        });
        let verified = flow.or_cancelled(verified).await?;
        let verified = verified.map_err(|error| Failure::Internal(error.to_string()))?;
        self.outgoing.answer(self.request, &Answer::Verified(verified.map_err(Failure::Read)?), false);
        Ok(())
    }

    /// Has it done where waiting is allowed.
    async fn answer_elsewhere(&self, is_list: bool) -> Result<(), Failure> {
        let outgoing = &self.outgoing;
        let _list = if is_list { outgoing.listing.acquire().await.ok() } else { None };
        let answer = {
            let _turn = outgoing.waiting.acquire().await;
            // Decoded once more where it is done: it borrows from its body.
            let (context, access) = (Arc::clone(&self.context), self.access.clone());
            let (streams, store) = (Arc::clone(&self.streams), self.store.clone());
            let (kind, body) = (self.kind, self.body.clone());
            let answered = self.context.waiting.spawn_blocking(move || {
                let request =
                    Request::decode(kind, &body).map_err(|error| Failure::Malformed(error.to_string()))?;
                answer(&context, &access, &streams, store.map(|open| open.store.clone()), request)
            });
            answered.await.map_err(|error| Failure::Internal(error.to_string()))??
        };
        let mut pieces = answer.into_pieces().into_iter().peekable();
        while let Some(piece) = pieces.next() {
            outgoing.room().await;
            outgoing.answer(self.request, &piece, pieces.peek().is_some());
        }
        Ok(())
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
        // Its event is followed: that takes no thread.
        let mut following = store.follow(&Follow::all().from(position)).map_err(Failure::Read)?.into_stream();
        let coming = async {
            loop {
                match streaming::next(&mut following).await {
                    Some(Ok(followed)) if followed.next_position() > position => return Ok(()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(Failure::Read(error)),
                    None => return Err(Failure::ShuttingDown),
                }
            }
        };
        match timeout(PATIENCE, coming).await {
            Ok(come) => come,
            Err(_) => Err(Failure::Late { what: format!("an event at position {position}") }),
        }
    }
}

/// Does what is asked for, and has one answer. It may wait.
fn answer(
    context: &Context,
    access: &Access,
    streams: &Streams,
    store: Result<Store, Failure>,
    request: Request<'_>,
) -> Result<Answer, Failure> {
    let (read, append) = (Failure::Read, Failure::Append);
    let done = |()| Answer::Done;
    match request {
        Request::Ping => store.map(|_| Answer::Done),
        // What is not about the store of the handle.
        Request::Stores => {
            access.check("", &request)?;
            let mut names = context.stores.names();
            names.retain(|name| access.is_for(name));
            Ok(Answer::Names(names))
        }
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
        other => answer_subscription(streams, store, other),
    }
}

/// The same, for what is about durable subscriptions.
fn answer_subscription(
    streams: &Streams,
    store: Result<Store, Failure>,
    request: Request<'_>,
) -> Result<Answer, Failure> {
    let subscription = Failure::Subscription;
    let count = |count: usize| Answer::Count(count as u64);
    let done = |()| Answer::Done;
    match request {
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
