//! What a session has done: appends in their order, everything else beside each other.

use super::Context;
use super::outgoing::Outgoing;
use super::streaming::{self, Streams};
use annals::{Append, Store, Ticket, TryAppendError};
use annals_protocol::frame::Header;
use annals_protocol::{Answer, Consistency, Failure, Request};
use bytes::Bytes;
use parking_lot::RwLock;
use std::sync::Arc;
use std::time::Duration;

/// How long a read waits for a position that its client read elsewhere.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known of a client.
#[derive(Debug)]
pub(super) struct Session {
    context: Arc<Context>,
    outgoing: Arc<Outgoing>,
    /// By their handles.
    stores: Arc<RwLock<Vec<Store>>>,
    pub(super) streams: Arc<Streams>,
}

impl Session {
    /// Begins, with the store that has handle 0.
    pub(super) async fn new(
        context: &Arc<Context>,
        outgoing: &Arc<Outgoing>,
        store: &str,
    ) -> Result<Self, Failure> {
        let store = open(context, store).await?;
        Ok(Self {
            context: Arc::clone(context),
            outgoing: Arc::clone(outgoing),
            stores: Arc::new(RwLock::new(vec![store])),
            streams: Arc::default(),
        })
    }

    fn store(&self, handle: u32) -> Result<Store, Failure> {
        let stores = self.stores.read();
        let store = usize::try_from(handle).ok().and_then(|handle| stores.get(handle));
        store.cloned().ok_or_else(|| Failure::NoStore { name: format!("with handle {handle}") })
    }

    /// Appends; where that would have to wait, this connection does.
    pub(super) async fn append(&self, header: Header, bytes: usize, append: &Append<'_>, body: &Bytes) {
        let ticket = match self.store(header.store) {
            Ok(store) => match store.try_append(append) {
                Ok(ticket) => Ok(ticket),
                Err(TryAppendError::Failed(error)) => Err(Failure::Append(error)),
                Err(_) => self.append_waiting(store, body.clone()).await,
            },
            Err(failure) => Err(failure),
        };
        match ticket {
            Ok(ticket) => self.outgoing.append(header.request, bytes, ticket),
            Err(failure) => {
                self.outgoing.answer(header.request, &Answer::Failed(failure), false);
                self.outgoing.leave(bytes);
            }
        }
    }

    async fn append_waiting(&self, store: Store, body: Bytes) -> Result<Ticket, Failure> {
        let appended = self.context.waiting.spawn_blocking(move || {
            let Ok(Request::Append(append)) = Request::decode(APPEND, &body) else {
                return Err(Failure::Internal("what was an append is none any more".to_owned()));
            };
            store.append(append).map_err(Failure::Append)
        });
        appended.await.unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
    }

    /// Has a request done where waiting is done, and answered.
    pub(super) fn begin(&self, header: Header, bytes: usize, body: Bytes) {
        let task = Task {
            context: Arc::clone(&self.context),
            outgoing: Arc::clone(&self.outgoing),
            stores: Arc::clone(&self.stores),
            streams: Arc::clone(&self.streams),
            request: header.request,
            store: self.store(header.store),
        };
        self.context.waiting.spawn(async move {
            if let Err(failure) = task.run(header.kind, body).await {
                task.outgoing.answer(header.request, &Answer::Failed(failure), false);
            }
            task.streams.end(header.request);
            task.outgoing.leave(bytes);
        });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.streams.end_all();
    }
}

/// The kind of an append.
const APPEND: u16 = 10;

async fn open(context: &Arc<Context>, name: &str) -> Result<Store, Failure> {
    let (stores, name) = (Arc::clone(&context.stores), name.to_owned());
    let opened = context.waiting.spawn_blocking(move || stores.get(&name));
    opened.await.unwrap_or_else(|error| Err(Failure::Internal(error.to_string())))
}

/// A request on its way.
struct Task {
    context: Arc<Context>,
    outgoing: Arc<Outgoing>,
    stores: Arc<RwLock<Vec<Store>>>,
    streams: Arc<Streams>,
    request: u64,
    store: Result<Store, Failure>,
}

impl Task {
    async fn run(&self, kind: u16, body: Bytes) -> Result<(), Failure> {
        let request = Request::decode(kind, &body).map_err(|error| Failure::Malformed(error.to_string()))?;
        let stream = |credit| self.streams.begin(self.request, credit);
        let store = || self.store.clone();
        let to = (&*self.outgoing, self.request);
        match request {
            Request::Read(read, consistency, credit) => {
                let (store, stream) = (store()?, stream(credit));
                self.catch_up(&store, consistency).await?;
                streaming::read(&store, &read, &stream, to).await
            }
            Request::Follow(follow, credit) => {
                streaming::follow(&store()?, &follow, &stream(credit), to).await
            }
            Request::Load(load, credit) => streaming::load(&store()?, &load, &stream(credit), to).await,
            Request::Streams(credit) => streaming::heads(&store()?, &stream(credit), to).await,
            Request::Join(name, credit) => streaming::join(&store()?, &name, &stream(credit), to).await,
            Request::OpenStore(name) => {
                let opened = open(&self.context, &name).await?;
                let mut stores = self.stores.write();
                stores.push(opened);
                let handle = u32::try_from(stores.len() - 1).unwrap_or(u32::MAX);
                self.outgoing.answer(self.request, &Answer::Store(handle), false);
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
                self.outgoing.answer(self.request, &answer, false);
                Ok(())
            }
        }
    }

    /// Waits until what the client has read elsewhere is there.
    async fn catch_up(&self, store: &Store, consistency: Consistency) -> Result<(), Failure> {
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
        Request::Ping => Ok(Answer::Done),
        Request::Stores => Ok(Answer::Names(context.stores.names())),
        Request::CreateStore(name) => context.stores.create(&name).map(done),
        Request::DropStore(_) => Err(Failure::Forbidden { what: "drop stores".to_owned() }),
        Request::Head(stream) => store?.head(&stream).map(Answer::Head).map_err(read),
        Request::Cursor(name) => store?.cursor(&name).map(Answer::Cursor).map_err(read),
        Request::Cursors => store?.cursors().map(Answer::Cursors).map_err(read),
        Request::Stat => store?.stat().map(Answer::Stat).map_err(read),
        Request::Verify => store?.verify(&mut |_, _| {}).map(Answer::Verified).map_err(read),
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
        Request::Ack(member, ids) => streams.member(member)?.ack_each(&ids).map(done).map_err(subscription),
        Request::Nack(member, id, nack) => {
            streams.member(member)?.nack(id, &nack).map(done).map_err(subscription)
        }
        Request::Renew(member) => streams.member(member)?.renew().map(done).map_err(subscription),
        other => Err(Failure::UnknownRequest { kind: other.kind() }),
    }
}
