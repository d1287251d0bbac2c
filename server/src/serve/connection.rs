//! A connection: frames come in, are told apart, and lead to work.

use super::access::Access;
use super::handler::{Asked, Session};
use super::outgoing::{self, Outgoing};
use super::task::is_about_another;
use super::{Context, now};
use annals_protocol::frame::{self, Header};
use annals_protocol::{Answer, Failure, Hello, PREFACE, Request, VERSION, Welcome};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Requests that are handed on together, and how often before any of them are looked at.
const ASKED_MAX: usize = 64;
const REQUESTS_AHEAD: usize = 4;
/// Room is made for so many bytes at a time: what a frame claims to be is believed as it arrives.
const READ_BYTES: usize = 64 << 10;
/// Who has not said who it is may say no more than that.
const HELLO_BYTES_MAX: usize = 256 << 10;
/// How long a connection that ends may take to write what is under way.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// Why a connection ends.
enum End {
    /// The client has left, or it is gone.
    Gone,
    /// It broke the rules, in this way.
    Failed(Failure),
    Stopping,
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<frame::FrameError> for End {
    fn from(error: frame::FrameError) -> Self {
        Self::Failed(Failure::Malformed(error.to_string()))
    }
}

/// See the module.
pub(super) struct Connection<R> {
    context: Arc<Context>,
    outgoing: Arc<Outgoing>,
    peer: SocketAddr,
    incoming: R,
    buffer: BytesMut,
}

/// Serves a client until it leaves, breaks the rules, or the server stops.
///
/// What it says is written on another thread, `writer`: so one that has much to say has two.
pub(super) async fn serve(
    incoming: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    context: Arc<Context>,
    writer: &Handle,
) {
    let outgoing = Arc::new(Outgoing::new(&context.limits, &context.metrics));
    let mut stopping = context.stopping.clone();
    let mut connection =
        Connection { context, outgoing: Arc::clone(&outgoing), peer, incoming, buffer: BytesMut::new() };
    // Ended where it still goes on when this function does.
    let mut writing = JoinSet::new();
    writing.spawn_on(outgoing::write(Arc::clone(&outgoing), to), writer);
    let end = tokio::select! {
        end = connection.live() => end,
        _ = writing.join_next() => return,
        _ = stopping.wait_for(|stop| *stop) => End::Stopping,
    };
    // What is under way is answered; streams end, as nobody asks for more.
    let ending = async {
        match end {
            // Who says nothing more may listen still.
            End::Gone => drop(timeout(DRAIN_TIME, outgoing.drained()).await),
            End::Stopping => {
                let _ = timeout(DRAIN_TIME, outgoing.drained()).await;
                outgoing.answer(0, &Answer::Failed(Failure::ShuttingDown), false);
            }
            End::Failed(failure) => outgoing.answer(0, &Answer::Failed(failure), false),
        }
        outgoing.end();
        std::future::pending::<()>().await;
    };
    let _ = timeout(2 * DRAIN_TIME, async {
        tokio::select! {
            _ = writing.join_next() => {}
            () = ending => {}
        }
    })
    .await;
}

impl<R: AsyncRead + Unpin> Connection<R> {
    /// Takes frames until it ends.
    async fn live(&mut self) -> End {
        match self.converse().await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        let session = self.greet().await.inspect_err(|end| {
            self.context.metrics.connections_refused.inc();
            if let End::Failed(reason) = end {
                tracing::warn!(peer = %self.peer, %reason, "refused");
            }
        })?;
        // What may wait or touch what is not in memory is not done here.
        let (requests, incoming) = mpsc::channel(REQUESTS_AHEAD);
        let session = Arc::new(session);
        let mut live = self.context.waiting.spawn(Arc::clone(&session).live(incoming));
        let revoked = session.access.clone();
        let living = async {
            loop {
                // Who does not read what it asked for is not asked what else it wants.
                self.outgoing.room().await;
                let first = self.next(self.context.limits.body_bytes).await?;
                self.take_all(&session, &requests, first).await?;
            }
        };
        tokio::select! {
            ended = living => ended,
            // It has panicked.
            _ = &mut live => Err(End::Failed(Failure::Internal("see the server's log".to_owned()))),
            // Whatever it has under way, too.
            () = revoked.revoked() => Err(End::Failed(Failure::Unauthenticated)),
        }
    }

    /// Who the client is, and which store it means. Nothing is answered before.
    async fn greet(&mut self) -> Result<Session, End> {
        let handshake = self.context.limits.handshake;
        let said = timeout(handshake, self.hello()).await;
        let (header, body) = said.unwrap_or_else(|_| Err(late("a hello")))?;
        let request = Request::decode(header.kind, &body);
        let Ok(Request::Hello(hello)) = request else {
            return Err(End::Failed(Failure::Malformed("the first message must be a hello".to_owned())));
        };
        if !(hello.version_min..=hello.version_max).contains(&VERSION) {
            return Err(End::Failed(Failure::UnsupportedVersion { min: VERSION, max: VERSION }));
        }
        let Hello { client, store, token, .. } = hello;
        let access = Access::identify(self.context.tokens.as_ref(), token.as_deref()).map_err(End::Failed)?;
        let name = access.name().to_owned();
        let limits = &self.context.limits;
        // However long the store takes to be opened: that is not the client's doing.
        let session =
            Session::new(&self.context, &self.outgoing, access, &store).await.map_err(End::Failed)?;
        let welcome = Welcome {
            version: VERSION,
            features: 0,
            server: concat!("annals ", env!("CARGO_PKG_VERSION")).to_owned(),
            body_bytes_max: u32::try_from(limits.body_bytes).unwrap_or(u32::MAX),
            requests_max: limits.requests,
            bytes_max: limits.bytes,
            next_position: session.next_position(),
        };
        self.outgoing.answer(header.request, &Answer::Welcome(welcome), false);
        tracing::debug!(peer = %self.peer, client = &*client, name, store = &*store, "welcomed");
        Ok(session)
    }

    /// The first message.
    async fn hello(&mut self) -> Result<(Header, Bytes), End> {
        while self.buffer.len() < PREFACE.len() {
            if !PREFACE.starts_with(&self.buffer) {
                break;
            }
            self.read().await?;
        }
        if !self.buffer.starts_with(PREFACE) {
            return Err(End::Failed(Failure::Malformed("this is no Annals client".to_owned())));
        }
        self.buffer.advance(PREFACE.len());
        self.next(HELLO_BYTES_MAX).await
    }

    /// The next frame.
    async fn next(&mut self, body_bytes_max: usize) -> Result<(Header, Bytes), End> {
        let limits = self.context.limits;
        let mut since = None;
        loop {
            if let Some(frame) = frame::take(&mut self.buffer, body_bytes_max)? {
                return Ok(frame);
            }
            if self.buffer.is_empty() {
                since = None;
                match timeout(limits.idle, self.read()).await {
                    Ok(read) => read?,
                    Err(_) if self.outgoing.is_idle() => return Err(late("a request")),
                    // One who waits for answers may be silent.
                    Err(_) => {}
                }
                continue;
            }
            let begun = *since.get_or_insert_with(now);
            let left = limits.frame.saturating_sub(begun.elapsed());
            timeout(left, self.read()).await.unwrap_or_else(|_| Err(late("a frame")))?;
        }
    }

    /// Reads what there is.
    async fn read(&mut self) -> Result<(), End> {
        self.buffer.reserve(READ_BYTES.min(self.context.limits.body_bytes));
        match self.incoming.read_buf(&mut self.buffer).await? {
            0 => Err(End::Gone),
            _ => Ok(()),
        }
    }

    /// Hands on a request, and all others that have arrived whole.
    async fn take_all(
        &mut self,
        session: &Session,
        requests: &mpsc::Sender<Vec<Asked>>,
        first: (Header, Bytes),
    ) -> Result<(), End> {
        let (mut asked, mut next, since) = (Vec::new(), Some(first), now());
        while let Some((header, body)) = next {
            let bytes = frame::HEADER_BYTES + body.len();
            if is_about_another(header.kind) {
                // Said of a request that is under way, it is none itself; but it comes behind that one.
                asked.push(Asked { header, body, bytes: 0, since, arrived: None });
                next = frame::take(&mut self.buffer, self.context.limits.body_bytes)?;
                continue;
            }
            if !self.outgoing.try_enter(bytes) {
                hand_on(session, requests, &mut asked).await?;
                self.outgoing.enter(bytes).await;
            }
            asked.push(Asked { header, body, bytes, since, arrived: None });
            if asked.len() >= ASKED_MAX {
                hand_on(session, requests, &mut asked).await?;
            }
            next = frame::take(&mut self.buffer, self.context.limits.body_bytes)?;
        }
        hand_on(session, requests, &mut asked).await
    }
}

async fn hand_on(
    session: &Session,
    requests: &mpsc::Sender<Vec<Asked>>,
    asked: &mut Vec<Asked>,
) -> Result<(), End> {
    let done = session.try_now(asked);
    asked.drain(..done);
    if asked.is_empty() {
        return Ok(());
    }
    session.hand_on(asked);
    requests.send(std::mem::take(asked)).await.map_err(|_| End::Gone)?;
    session.caught_up().await;
    Ok(())
}

fn late(what: &str) -> End {
    End::Failed(Failure::Late { what: what.to_owned() })
}
