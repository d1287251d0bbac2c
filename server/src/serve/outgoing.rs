//! What leaves a connection: answers as they are made, and those of appends once they are durable.

use super::handler::Asked;
use super::metrics::Metrics;
use super::{Limits, now};
use annals::{AppendError, Appended, Ticket};
use annals_protocol::frame::{self, Header};
use annals_protocol::{Answer, Failure};
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Answers are gathered up to so many bytes before they are written.
const GATHERED_BYTES: usize = 256 << 10;

/// Requests of a connection that wait for the disk at a time.
const WAITING_MAX: usize = 2;
/// Short answers are put together up to so many bytes: one at a time, many would be much to take and to give up.
const TOGETHER_BYTES: usize = 16 << 10;
/// Answers that wait to be written, before no more is asked of the client or sent of streams.
const QUEUED_BYTES: usize = 1 << 20;

/// Where answers are put.
#[derive(Debug)]
pub(super) struct Outgoing {
    frames: Mutex<Frames>,
    appends: Mutex<VecDeque<UnderWay>>,
    /// Told when there is something to write, or an append to wait for, where there was none.
    changed: Notify,
    load: Load,
    /// Held by who waits for the disk, and by who answers with a list: a connection has some of the former at a time, and one of
    /// the latter, so that it takes neither all threads nor much memory.
    pub(super) waiting: Semaphore,
    /// Held by what gathers answers that go on: one at a time, so that many together put no more than one does.
    gathering: Semaphore,
    pub(super) listing: Semaphore,
    pub(super) metrics: Arc<Metrics>,
    /// Told when some frames are written.
    written: Notify,
}

/// Frames that are to be written.
#[derive(Debug, Default)]
struct Frames {
    chunks: VecDeque<BytesMut>,
    /// Bytes that are not written yet.
    bytes: usize,
    /// Nothing more is to come: the connection ends behind these.
    is_last: bool,
    /// Nobody writes any more.
    is_gone: bool,
}

impl Frames {
    /// Puts frames behind the others. Whether somebody writes them.
    fn put(&mut self, frames: BytesMut) -> bool {
        if self.is_gone || self.is_last {
            return false;
        }
        self.bytes += frames.len();
        match self.chunks.back_mut() {
            Some(last) if last.len() + frames.len() <= TOGETHER_BYTES => last.extend_from_slice(&frames),
            _ => self.chunks.push_back(frames),
        }
        true
    }
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
    pub(super) fn new(limits: &Limits, metrics: &Arc<Metrics>) -> Self {
        let load = Load { max: (limits.requests, limits.bytes), now: Mutex::default(), less: Notify::new() };
        Self {
            frames: Mutex::default(),
            appends: Mutex::default(),
            changed: Notify::new(),
            load,
            waiting: Semaphore::new(WAITING_MAX),
            gathering: Semaphore::new(1),
            listing: Semaphore::new(1),
            metrics: Arc::clone(metrics),
            written: Notify::new(),
        }
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
        self.frames.lock().is_last = true;
        self.changed.notify_one();
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
            self.changed.notify_one();
        }
    }

    /// Answers a request.
    pub(super) fn answer(&self, request: u64, answer: &Answer, has_more: bool) {
        let mut frame = BytesMut::new();
        put(&mut frame, request, answer, has_more);
        self.send(frame);
    }

    /// Sends frames that are made. Whether anybody still listens.
    pub(super) fn send(&self, frames: BytesMut) -> bool {
        let is_there = self.frames.lock().put(frames);
        self.changed.notify_one();
        is_there
    }

    /// Waits for this one's turn to gather answers, and for room for them.
    pub(super) async fn gather(&self) -> SemaphorePermit<'_> {
        let turn = self.gathering.acquire().await.expect("it is never closed");
        self.room().await;
        turn
    }

    /// Waits until the client has taken enough of what there is for it, or is gone.
    pub(super) async fn room(&self) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            // Several may wait: each has to be waiting before it looks.
            written.as_mut().enable();
            {
                let frames = self.frames.lock();
                if frames.bytes < QUEUED_BYTES || frames.is_gone {
                    return;
                }
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

    /// Puts frames that wait into the buffer, until enough is gathered. How many bytes, and whether they are the last.
    fn take_frames(&self, buffer: &mut BytesMut) -> (usize, bool) {
        let mut frames = self.frames.lock();
        let mut taken = 0;
        while buffer.len() < GATHERED_BYTES
            && let Some(chunk) = frames.chunks.pop_front()
        {
            taken += chunk.len();
            if buffer.is_empty() {
                *buffer = chunk;
            } else {
                buffer.extend_from_slice(&chunk);
            }
        }
        (taken, frames.is_last && frames.chunks.is_empty())
    }

    fn has_written(&self, bytes: usize) {
        if bytes > 0 {
            self.frames.lock().bytes -= bytes;
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

/// Whoever writes. Once that has ended, nothing more is put, and whoever waits for room is told.
struct Writer(Arc<Outgoing>);

impl Drop for Writer {
    fn drop(&mut self) {
        let chunks = {
            let mut frames = self.0.frames.lock();
            frames.is_gone = true;
            std::mem::take(&mut frames.chunks)
        };
        drop(chunks);
        self.0.written.notify_waiters();
    }
}

/// Writes what leaves, until nothing more is to come or the client is gone.
pub(super) async fn write(outgoing: Arc<Outgoing>, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let writer = Writer(outgoing);
    let outgoing = &*writer.0;
    // It grows where there is much to say: most connections have little.
    let mut buffer = BytesMut::new();
    let mut first: Option<UnderWay> = None;
    loop {
        // What is durable is answered first, however much else there is to write.
        outgoing.answer_settled(&mut first, &mut buffer);
        let (of_frames, is_last) = outgoing.take_frames(&mut buffer);
        if !buffer.is_empty() {
            to.write_all(&buffer).await?;
            // What is encrypted may be held back until then.
            to.flush().await?;
            buffer.clear();
            outgoing.has_written(of_frames);
            continue;
        }
        if is_last {
            return to.shutdown().await;
        }
        if buffer.capacity() > TOGETHER_BYTES {
            // Who has nothing to say takes no memory for it.
            buffer = BytesMut::new();
        }
        tokio::select! {
            biased;
            outcome = async { (&mut first.as_mut().expect("it is there").ticket).await }, if first.is_some() => {
                let UnderWay { request, bytes, since, .. } = first.take().expect("it is there");
                outgoing.put_outcome(request, outcome, since.elapsed(), &mut buffer);
                outgoing.leave(bytes);
            }
            () = outgoing.changed.notified() => {}
        }
    }
}
