//! What leaves a connection: answers as they are made, and those of appends once they are durable.

use super::handler::Asked;
use super::metrics::Metrics;
use super::{Limits, now};
use annals::{AppendError, Appended, Ticket};
use annals_protocol::frame::{self, Header};
use annals_protocol::{Answer, Failure};
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::time::Instant;

/// Answers are gathered up to so many bytes before they are written.
const GATHERED_BYTES: usize = 256 << 10;

/// Requests of a connection that wait for the disk at a time.
const WAITING_MAX: usize = 2;
/// Answers that wait to be written, before no more is asked of the client or sent of streams.
const QUEUED_BYTES: usize = 1 << 20;

/// Where answers are put.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Frames; `None` ends the connection.
    frames: mpsc::UnboundedSender<Option<Bytes>>,
    appends: Mutex<VecDeque<UnderWay>>,
    /// Told when the first append is put.
    appended: Notify,
    load: Load,
    /// Held by who waits for the disk, and by who answers with a list: a connection has some of the former at a time, and one of
    /// the latter, so that it takes neither all threads nor much memory.
    pub(super) waiting: Semaphore,
    pub(super) listing: Semaphore,
    pub(super) metrics: Arc<Metrics>,
    /// Bytes of frames that are not written yet.
    queued: AtomicUsize,
    /// Told when some of them are.
    written: Notify,
}

/// An append on its way.
#[derive(Debug)]
pub(super) struct UnderWay {
    request: u64,
    bytes: usize,
    ticket: Ticket,
    /// When it arrived.
    since: Instant,
}

impl UnderWay {
    pub(super) fn new(asked: &Asked, ticket: Ticket) -> Self {
        Self { request: asked.header.request, bytes: asked.bytes, ticket, since: asked.since }
    }
}

/// What of requests a connection has under way.
#[derive(Debug)]
struct Load {
    max: (u32, u64),
    now: Mutex<(u32, u64)>,
    less: Notify,
}

impl Outgoing {
    /// With what is to be written: see [`write`].
    pub(super) fn new(
        limits: &Limits,
        metrics: &Arc<Metrics>,
    ) -> (Self, mpsc::UnboundedReceiver<Option<Bytes>>) {
        let (frames, receiver) = mpsc::unbounded_channel();
        let load = Load { max: (limits.requests, limits.bytes), now: Mutex::default(), less: Notify::new() };
        let outgoing = Self {
            frames,
            appends: Mutex::default(),
            appended: Notify::new(),
            load,
            waiting: Semaphore::new(WAITING_MAX),
            listing: Semaphore::new(1),
            metrics: Arc::clone(metrics),
            queued: AtomicUsize::new(0),
            written: Notify::new(),
        };
        (outgoing, receiver)
    }

    /// Has one more request, of so many bytes, under way, if that may be; one alone always may.
    pub(super) fn try_enter(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let mut now = self.load.now.lock();
        let may = now.0 == 0 || now.0 < self.load.max.0 && now.1 + bytes <= self.load.max.1;
        if may {
            *now = (now.0 + 1, now.1 + bytes);
        }
        may
    }

    /// The same, once it may be.
    pub(super) async fn enter(&self, bytes: usize) {
        loop {
            // Before looking: what becomes less in between is noticed.
            let less = self.load.less.notified();
            if self.try_enter(bytes) {
                return;
            }
            less.await;
        }
    }

    /// A request, of so many bytes, is under way no more.
    pub(super) fn leave(&self, bytes: usize) {
        self.leave_each(1, bytes as u64);
    }

    /// So many requests, of so many bytes together, are under way no more.
    fn leave_each(&self, count: u32, bytes: u64) {
        {
            let mut now = self.load.now.lock();
            *now = (now.0 - count, now.1 - bytes);
        }
        self.load.less.notify_one();
    }

    /// Whether anything is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.load.now.lock().0 == 0
    }

    /// Waits until nothing is under way.
    pub(super) async fn drained(&self) {
        loop {
            let less = self.load.less.notified();
            if self.is_idle() {
                return;
            }
            less.await;
        }
    }

    /// Ends the connection, once all that was answered is written.
    pub(super) fn end(&self) {
        // Who writes may have ended before, with the client.
        let _ = self.frames.send(None);
    }

    /// Answers requests once their appends are durable; they are under way no more then.
    pub(super) fn append_each(&self, begun: impl Iterator<Item = UnderWay>) {
        let is_first = {
            let mut appends = self.appends.lock();
            let was_empty = appends.is_empty();
            appends.extend(begun);
            was_empty && !appends.is_empty()
        };
        if is_first {
            self.appended.notify_one();
        }
    }

    /// Answers a request.
    pub(super) fn answer(&self, request: u64, answer: &Answer, has_more: bool) {
        let mut buffer = BytesMut::new();
        put(&mut buffer, request, answer, has_more);
        self.send(buffer);
    }

    /// Sends frames that are made. Whether anybody still listens.
    pub(super) fn send(&self, frames: BytesMut) -> bool {
        self.queued.fetch_add(frames.len(), Ordering::AcqRel);
        self.frames.send(Some(frames.freeze())).is_ok()
    }

    /// Waits until the client has taken enough of what there is for it, or is gone.
    pub(super) async fn room(&self) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            // Several may wait: each has to be waiting before it looks.
            written.as_mut().enable();
            if self.queued.load(Ordering::Acquire) < QUEUED_BYTES || self.frames.is_closed() {
                return;
            }
            written.await;
        }
    }

    /// Answers appends that are settled, in their order, until enough is gathered. `first`: the one that is looked at.
    fn answer_settled(&self, first: &mut Option<UnderWay>, buffer: &mut BytesMut) {
        let (mut count, mut bytes, now) = (0, 0, now());
        let mut appends = self.appends.lock();
        while buffer.len() < GATHERED_BYTES {
            if first.is_none() {
                *first = appends.pop_front();
            }
            let Some(settled) = first.take_if(|first| first.ticket.is_settled()) else { break };
            (count, bytes) = (count + 1, bytes + settled.bytes as u64);
            let took = now.saturating_duration_since(settled.since);
            self.put_outcome(settled.request, settled.ticket.wait(), took, buffer);
        }
        drop(appends);
        if count > 0 {
            self.leave_each(count, bytes);
        }
    }

    /// Puts the answer to an append.
    fn put_outcome(
        &self,
        request: u64,
        outcome: Result<Appended, AppendError>,
        took: Duration,
        buffer: &mut BytesMut,
    ) {
        let answer = match outcome {
            Ok(appended) => {
                self.metrics.appended(&appended, took);
                Answer::Appended(appended)
            }
            Err(error) => {
                self.metrics.refused(&error, took);
                Answer::Failed(Failure::Append(error))
            }
        };
        put(buffer, request, &answer, false);
    }

    fn has_written(&self, bytes: usize) {
        if bytes > 0 {
            self.queued.fetch_sub(bytes, Ordering::AcqRel);
            self.written.notify_waiters();
        }
    }
}

/// Appends an answer's frame; what is too long for one is a failure of its own.
pub(super) fn put(buffer: &mut BytesMut, request: u64, answer: &Answer, has_more: bool) {
    let header = Header { request, kind: answer.kind(), has_more, store: 0 };
    let start = frame::begin(buffer, header);
    answer.encode(buffer);
    if let Err(error) = frame::finish(buffer, start) {
        put(buffer, request, &Answer::Failed(Failure::Internal(error.to_string())), false);
    }
}

/// What is to be written; once it is dropped, nothing more is, and whoever waits for room is told.
struct Frames {
    receiver: mpsc::UnboundedReceiver<Option<Bytes>>,
    outgoing: Arc<Outgoing>,
}

impl Drop for Frames {
    fn drop(&mut self) {
        self.receiver.close();
        self.outgoing.written.notify_waiters();
    }
}

/// Writes what leaves, until nothing more is to come or the client is gone.
pub(super) async fn write(
    outgoing: Arc<Outgoing>,
    frames: mpsc::UnboundedReceiver<Option<Bytes>>,
    mut to: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut frames = Frames { receiver: frames, outgoing: Arc::clone(&outgoing) };
    // It grows where there is much to say: most connections have little.
    let mut buffer = BytesMut::new();
    let mut first: Option<UnderWay> = None;
    loop {
        // What is durable is answered, however much else there is to write.
        loop {
            outgoing.answer_settled(&mut first, &mut buffer);
            if buffer.is_empty() {
                break;
            }
            to.write_all(&buffer).await?;
            // What is encrypted may be held back until then.
            to.flush().await?;
            buffer.clear();
        }
        let mut of_frames = 0;
        tokio::select! {
            biased;
            frame = frames.receiver.recv() => match frame.flatten() {
                Some(frame) => {
                    of_frames += frame.len();
                    buffer.put(frame);
                }
                None => return to.shutdown().await,
            },
            outcome = async { (&mut first.as_mut().expect("it is there").ticket).await }, if first.is_some() => {
                let UnderWay { request, bytes, since, .. } = first.take().expect("it is there");
                outgoing.put_outcome(request, outcome, since.elapsed(), &mut buffer);
                outgoing.leave(bytes);
            }
            () = outgoing.appended.notified(), if first.is_none() => continue,
        }
        // What else is at hand goes with it.
        let mut has_ended = false;
        while buffer.len() < GATHERED_BYTES
            && !has_ended
            && let Ok(frame) = frames.receiver.try_recv()
        {
            has_ended = frame.is_none();
            let frame = frame.unwrap_or_default();
            of_frames += frame.len();
            buffer.put(frame);
        }
        outgoing.answer_settled(&mut first, &mut buffer);
        to.write_all(&buffer).await?;
        to.flush().await?;
        buffer.clear();
        outgoing.has_written(of_frames);
        if has_ended {
            return to.shutdown().await;
        }
    }
}
