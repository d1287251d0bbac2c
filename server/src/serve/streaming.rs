//! Answers that go on: as far as the client has given credit.

use super::outgoing::{Outgoing, put};
use super::pace::Follower;
use annals::{
    Acknowledger, Delivery, Follow, Followed, Head, Load, Position, Read, ReadError, Store, SubscriptionError,
};
use annals_protocol::{Answer, Events, Failure};
use bytes::BytesMut;
use futures_core::Stream;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::task::Poll;
use tokio::sync::{Notify, SemaphorePermit};

/// Events are gathered up to so many bytes before they are sent.
const GATHERED_BYTES: usize = 128 << 10;

/// The client wants no more of it.
const CANCELLED: u8 = 1;
/// The connection ends.
const ENDED: u8 = 2;

/// The requests of a session whose answers go on, by number.
#[derive(Debug, Default)]
pub(super) struct Streams {
    by_request: Mutex<HashMap<u64, Arc<Flow>>>,
    has_ended: AtomicBool,
}

/// What a client has said of a request whose answers go on.
#[derive(Debug)]
pub(super) struct Flow {
    /// Bytes that may still be sent; what is sent at once may exceed it.
    credit: AtomicI64,
    /// 0: it goes on; else one of [`CANCELLED`] and [`ENDED`].
    over: AtomicU8,
    changed: Notify,
    /// Of one that joined a durable subscription.
    member: Mutex<Option<Acknowledger>>,
}

impl Streams {
    /// As the request arrives, so that what is said of it afterwards is heard. `None`: another of that number is under way.
    pub(super) fn begin(&self, request: u64, credit: u64) -> Option<Arc<Flow>> {
        let flow = Arc::new(Flow {
            credit: AtomicI64::new(i64::try_from(credit).unwrap_or(i64::MAX)),
            over: AtomicU8::new(0),
            changed: Notify::new(),
            member: Mutex::default(),
        });
        let mut known = self.by_request.lock();
        if known.contains_key(&request) {
            return None;
        }
        known.insert(request, Arc::clone(&flow));
        drop(known);
        if self.has_ended.load(Ordering::Acquire) {
            flow.end(ENDED);
        }
        Some(flow)
    }

    pub(super) fn end(&self, request: u64) {
        self.by_request.lock().remove(&request);
    }

    fn get(&self, request: u64) -> Option<Arc<Flow>> {
        self.by_request.lock().get(&request).cloned()
    }

    /// So many bytes more may be sent. Of a request that has ended, that means nothing.
    pub(super) fn credit(&self, request: u64, bytes: u64) {
        if let Some(flow) = self.get(request) {
            let more = i64::try_from(bytes).unwrap_or(i64::MAX);
            let _ = flow
                .credit
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(now.saturating_add(more)));
            flow.changed.notify_one();
        }
    }

    pub(super) fn cancel(&self, request: u64) {
        self.get(request).iter().for_each(|flow| flow.end(CANCELLED));
    }

    /// The connection ends, and all with it.
    pub(super) fn end_all(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.by_request.lock().values().for_each(|flow| flow.end(ENDED));
    }

    /// The member that a request has made.
    pub(super) fn member(&self, request: u64) -> Result<Acknowledger, Failure> {
        let member = self.get(request).and_then(|flow| flow.member.lock().clone());
        member.ok_or(Failure::Subscription(SubscriptionError::Closed))
    }
}

impl Flow {
    fn end(&self, how: u8) {
        self.over.store(how, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether it goes on.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self.over.load(Ordering::Acquire) {
            0 => Ok(()),
            CANCELLED => Err(Failure::Cancelled),
            _ => Err(Failure::ShuttingDown),
        }
    }

    fn spend(&self, bytes: usize) {
        self.credit.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::AcqRel);
    }

    /// Waits until anything may be sent.
    async fn allowed(&self) -> Result<(), Failure> {
        loop {
            let changed = self.changed.notified();
            self.check()?;
            if self.credit.load(Ordering::Acquire) > 0 {
                return Ok(());
            }
            changed.await;
        }
    }

    /// What comes next, unless the request is cancelled meanwhile.
    pub(super) async fn or_cancelled<T>(&self, next: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::pin!(next);
        loop {
            tokio::select! {
                biased;
                next = &mut next => return Ok(next),
                () = self.changed.notified() => self.check()?,
            }
        }
    }
}

/// Where the answers to a request go.
type To<'a> = (&'a Outgoing, u64);

/// Sends what was gathered, in this one's turn, which ends here.
async fn send(
    buffer: &mut BytesMut,
    turn: SemaphorePermit<'_>,
    flow: &Flow,
    (outgoing, _): To<'_>,
) -> Result<(), Failure> {
    if buffer.is_empty() {
        return Ok(());
    }
    flow.spend(buffer.len());
    if !outgoing.send(std::mem::take(buffer)) {
        return Err(Failure::Cancelled);
    }
    drop(turn);
    // Others have their turn.
    tokio::task::yield_now().await;
    flow.or_cancelled(outgoing.room()).await?;
    flow.allowed().await
}

fn too_long(error: &impl ToString) -> Failure {
    Failure::Internal(error.to_string())
}

/// The events of a read, then that it is done.
pub(super) async fn read(store: &Store, read: &Read<'_>, flow: &Flow, to: To<'_>) -> Result<(), Failure> {
    events(store.read(read.clone()).map_err(Failure::Read)?, flow, to).await
}

async fn events(mut events: annals::Reader, flow: &Flow, to: To<'_>) -> Result<(), Failure> {
    flow.allowed().await?;
    loop {
        let turn = flow.or_cancelled(to.0.gather()).await?;
        let mut buffer = BytesMut::with_capacity(GATHERED_BYTES + GATHERED_BYTES / 8);
        let mut frame = Events::begin(&mut buffer, to.1);
        let (mut failed, mut count) = (None, 0);
        while buffer.len() < GATHERED_BYTES {
            match events.next() {
                Some(Ok(record)) => {
                    frame.add(&record, &mut buffer);
                    count += 1;
                }
                Some(Err(error)) => {
                    failed = Some(Err(Failure::Read(error)));
                    break;
                }
                None => {
                    failed = Some(Ok(()));
                    break;
                }
            }
        }
        to.0.metrics.events_read.inc_by(count);
        frame.finish(&mut buffer).map_err(|error| too_long(&error))?;
        match failed {
            None => send(&mut buffer, turn, flow, to).await?,
            Some(Ok(())) => {
                put(&mut buffer, to.1, &Answer::Done, false);
                to.0.send(buffer);
                return Ok(());
            }
            // Behind damage it goes on.
            Some(Err(failure @ Failure::Read(ReadError::Damage(_)))) => {
                put(&mut buffer, to.1, &Answer::Failed(failure), true);
                send(&mut buffer, turn, flow, to).await?;
            }
            Some(Err(failure)) => {
                to.0.send(buffer);
                return Err(failure);
            }
        }
    }
}

/// A stream's state: the snapshot, then the events behind it.
pub(super) async fn load(store: &Store, load: &Load<'_>, flow: &Flow, to: To<'_>) -> Result<(), Failure> {
    flow.allowed().await?;
    let turn = flow.or_cancelled(to.0.gather()).await?;
    let loaded = store.load(load).map_err(Failure::Read)?;
    let mut buffer = BytesMut::new();
    let snapshot = Answer::Snapshots(loaded.snapshot.into_iter().collect(), loaded.passed_over);
    put(&mut buffer, to.1, &snapshot, true);
    drop(snapshot);
    send(&mut buffer, turn, flow, to).await?;
    events(loaded.events, flow, to).await
}

/// All streams with their heads.
pub(super) async fn heads(store: &Store, flow: &Flow, to: To<'_>) -> Result<(), Failure> {
    flow.allowed().await?;
    let mut streams = store.streams().map_err(Failure::Read)?;
    loop {
        let turn = flow.or_cancelled(to.0.gather()).await?;
        let mut heads: Vec<(String, Head)> = Vec::new();
        for stream in streams.by_ref().take(1_000) {
            let (name, head) = stream.map_err(Failure::Read)?;
            heads.push((name.to_string(), head));
        }
        let is_last = heads.len() < 1_000;
        let mut buffer = BytesMut::new();
        put(&mut buffer, to.1, &Answer::Heads(heads), !is_last);
        if is_last {
            to.0.send(buffer);
            return Ok(());
        }
        send(&mut buffer, turn, flow, to).await?;
    }
}

/// The next of a stream; `None`: it has ended.
pub(super) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// The next of a stream, if it is there.
async fn next_at_hand<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| match Pin::new(&mut *stream).poll_next(context) {
        Poll::Ready(item) => Poll::Ready(item),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// What is followed, until it is cancelled or the store is closed.
pub(super) async fn follow(
    store: &Store,
    follow: &Follow<'_>,
    flow: &Flow,
    to: To<'_>,
    mut follower: Follower<'_>,
) -> Result<(), Failure> {
    let mut following = store.follow(follow).map_err(Failure::Read)?.into_stream();
    flow.allowed().await?;
    loop {
        let mut item = flow.or_cancelled(next(&mut following)).await?;
        // What comes until it is this one's turn goes with it.
        flow.or_cancelled(follower.turn()).await?;
        let turn = flow.or_cancelled(to.0.gather()).await?;
        let mut buffer = BytesMut::new();
        let mut frame = Events::begin(&mut buffer, to.1);
        // What was told of the place where it is goes behind the events before.
        let told = loop {
            match item {
                Some(Ok(Followed::Event(record))) => frame.add(&record, &mut buffer),
                other => break other,
            }
            if buffer.len() >= GATHERED_BYTES {
                break None;
            }
            item = next_at_hand(&mut following).await;
            if item.is_none() {
                break None;
            }
        };
        let has_events = !frame.is_empty();
        to.0.metrics.events_read.inc_by(frame.count());
        frame.finish(&mut buffer).map_err(|error| too_long(&error))?;
        let place = |next: Position, caught_up| {
            if caught_up { Answer::CaughtUp(next) } else { Answer::Progress(next) }
        };
        match told {
            Some(Ok(Followed::CaughtUp { next })) => put(&mut buffer, to.1, &place(next, true), true),
            Some(Ok(Followed::Progress { next })) => put(&mut buffer, to.1, &place(next, false), true),
            Some(Err(error @ ReadError::Damage(_))) => {
                put(&mut buffer, to.1, &Answer::Failed(Failure::Read(error)), true);
            }
            Some(Err(error)) => {
                to.0.send(buffer);
                return Err(Failure::Read(error));
            }
            // It has ended: the next look says so, too.
            _ if has_events => {}
            _ => return Err(Failure::ShuttingDown),
        }
        send(&mut buffer, turn, flow, to).await?;
    }
}

/// What a member of a durable subscription is handed, until it is cancelled or is none any more.
pub(super) async fn join(store: &Store, name: &str, flow: &Flow, to: To<'_>) -> Result<(), Failure> {
    let mut member = store.join(name).map_err(Failure::Subscription)?;
    *flow.member.lock() = Some(member.acknowledger());
    let mut joined = BytesMut::new();
    put(&mut joined, to.1, &Answer::Done, true);
    let turn = flow.or_cancelled(to.0.gather()).await?;
    send(&mut joined, turn, flow, to).await?;
    loop {
        let mut item = flow.or_cancelled(next(&mut member)).await?;
        let turn = flow.or_cancelled(to.0.gather()).await?;
        let (mut deliveries, mut bytes): (Vec<Delivery>, usize) = (Vec::new(), 0);
        let failed = loop {
            match item {
                Some(Ok(delivery)) => {
                    bytes += delivery.data().len() + delivery.metadata().len() + 256;
                    deliveries.push(delivery);
                }
                Some(Err(error)) => break Some(Failure::Subscription(error)),
                None => break None,
            }
            if bytes >= GATHERED_BYTES {
                break None;
            }
            item = next_at_hand(&mut member).await;
            if item.is_none() {
                break None;
            }
        };
        let has_ended = deliveries.is_empty();
        let mut buffer = BytesMut::new();
        if !has_ended {
            to.0.metrics.events_read.inc_by(deliveries.len() as u64);
            put(&mut buffer, to.1, &Answer::Deliveries(deliveries), true);
        }
        match failed {
            // A member stays one while its subscription is stopped.
            Some(failure @ Failure::Subscription(SubscriptionError::Stopped { .. })) => {
                put(&mut buffer, to.1, &Answer::Failed(failure), true);
            }
            Some(failure) => {
                to.0.send(buffer);
                return Err(failure);
            }
            None if has_ended => return Err(Failure::ShuttingDown),
            None => {}
        }
        send(&mut buffer, turn, flow, to).await?;
    }
}
