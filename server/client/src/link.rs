//! A connection: requests go out as they come, answers find who asked.

use crate::asking::{Asking, Waiting};
use crate::socket::{self, Plain};
use crate::{ClientError, Options};
use annals_protocol::frame::{self, BODY_BYTES_MAX, Header};
use annals_protocol::{Answer, Failure, Hello, PREFACE, Request, VERSION, Welcome};
use annals_types::Position;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

/// What became of a connection that the server has ended.
const CLOSED: &str = "the server has closed it";
/// Room that is made for reading at a time.
const READ_BYTES: usize = 256 << 10;
/// Bytes that wait to be written, before more requests wait to be said: the server is slower than who asks.
const SAID_BYTES_MAX: usize = 8 << 20;
/// What was written once is room for what comes next, unless it was longer.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// An answer, whether others follow, and how many bytes it took.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) has_more: bool,
    pub(crate) bytes: u64,
}

/// A connection that somebody uses: it ends when nobody does any more.
pub(crate) struct Link(Arc<Wire>);

impl Deref for Link {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.0
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.0.end("nobody asks for anything any more");
    }
}

/// What those who use a connection share with the tasks that read and write. It ends when the connection does; whoever waits
/// then is told.
pub(crate) struct Wire {
    /// Where it can be written to at once: what is encrypted on its way is written by a task alone.
    plain: Option<Plain>,
    outgoing: Mutex<Said>,
    /// Told when there is something to write.
    written: Notify,
    /// Bytes of `outgoing`, as they were when it was put or taken, and who waits for it to be taken.
    said_bytes: AtomicUsize,
    taken: Notify,
    asking: Mutex<Asking>,
    welcome: Welcome,
    /// The greatest next position of the store that the server has told of.
    reached: AtomicU64,
    /// Why it has ended, if it has.
    over: OnceLock<String>,
    /// Told to who reads and writes.
    ended: Notify,
}

/// What is to be written.
#[derive(Default)]
struct Said {
    buffer: BytesMut,
    /// Something that was said before is being written.
    is_writing: bool,
}

impl Link {
    /// Connects, and says who it is.
    pub(crate) async fn connect(options: &Options) -> Result<Arc<Self>, ClientError> {
        let begun = async {
            let socket =
                socket::connect(&options.address).await.map_err(|error| unreachable(options, &error))?;
            match &options.tls {
                None => {
                    let plain = Plain::new(socket);
                    greet(plain.clone(), plain.clone(), Some(plain), options).await
                }
                Some(tls) => {
                    let encrypted = tls.connect(socket, options).await?;
                    let (incoming, outgoing) = tokio::io::split(encrypted);
                    greet(incoming, outgoing, None, options).await
                }
            }
        };
        match tokio::time::timeout(options.connect_timeout, begun).await {
            Ok(greeted) => greeted,
            Err(_) => Err(ClientError::Unreachable {
                address: options.address.clone(),
                reason: "it does not answer".to_owned(),
            }),
        }
    }

    /// Asks; the one answer can be awaited.
    pub(crate) fn ask(self: &Arc<Self>, request: &Request<'_>) -> Result<Asked, ClientError> {
        let number = self.send(request, Waiting::default())?;
        Ok(Asked { link: Arc::clone(self), number, is_over: false })
    }
}

impl Wire {
    pub(crate) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// What whoever waits is told once it is over.
    pub(crate) fn lost(&self) -> ClientError {
        ClientError::Lost { reason: self.over.get().cloned().unwrap_or_default() }
    }

    /// What is sent from now on comes at this position or behind.
    pub(crate) fn reached(&self) -> Position {
        Position::new(self.reached.load(Ordering::Acquire))
    }

    /// Waits until what was said before is on its way: whoever asks for much holds no more memory than that.
    pub(crate) async fn room(&self) {
        while self.said_bytes.load(Ordering::Acquire) >= SAID_BYTES_MAX && !self.is_over() {
            let taken = self.taken.notified();
            tokio::pin!(taken);
            // Several may wait: each has to be waiting before it looks again.
            taken.as_mut().enable();
            if self.said_bytes.load(Ordering::Acquire) >= SAID_BYTES_MAX && !self.is_over() {
                taken.await;
            }
        }
    }

    /// Asks for answers that go on. Returns the request's number, too.
    pub(crate) fn open(
        &self,
        request: &Request<'_>,
    ) -> Result<(u64, mpsc::UnboundedReceiver<Answered>), ClientError> {
        let (sender, answers) = mpsc::unbounded_channel();
        let number = self.send(request, Waiting::Many(sender))?;
        Ok((number, answers))
    }

    /// Says something that has no answer.
    pub(crate) fn tell(&self, request: &Request<'_>) {
        let mut said = self.outgoing.lock();
        // What is told is short.
        let _ = put(&mut said.buffer, 0, request, BODY_BYTES_MAX);
        drop(said);
        self.written.notify_one();
    }

    fn send(&self, request: &Request<'_>, waiting: Waiting) -> Result<u64, ClientError> {
        let (number, is_alone) = self.asking.lock().begin(waiting)?;
        let bytes_max = usize::try_from(self.welcome.body_bytes_max).unwrap_or(BODY_BYTES_MAX);
        let sent = {
            let mut said = self.outgoing.lock();
            let sent = put(&mut said.buffer, number, request, bytes_max.min(BODY_BYTES_MAX));
            // One that is alone does not wait for another task.
            if is_alone
                && !said.is_writing
                && let Some(plain) = &self.plain
                && let Ok(written) = plain.try_write(&said.buffer)
            {
                said.buffer.advance(written);
            }
            self.said_bytes.store(said.buffer.len(), Ordering::Release);
            sent.map(|()| said.buffer.is_empty())
        };
        match sent {
            Ok(true) => {}
            Ok(false) => self.written.notify_one(),
            Err(error) => {
                self.asking.lock().end(number);
                return Err(error);
            }
        }
        if self.is_over() {
            // It ended meanwhile, perhaps before this one could be told.
            self.tell_all();
        }
        Ok(number)
    }

    /// Nothing more comes, for this reason or an earlier one.
    fn end(&self, reason: impl Into<String>) {
        let _ = self.over.set(reason.into());
        self.tell_all();
        self.written.notify_one();
        self.taken.notify_waiters();
        self.ended.notify_waiters();
    }

    /// Waits until it is over.
    async fn ended(&self) {
        let ended = self.ended.notified();
        tokio::pin!(ended);
        // Waiting before looking: an end in between is noticed.
        ended.as_mut().enable();
        if !self.is_over() {
            ended.await;
        }
    }

    /// Tells whoever waits that it is over.
    fn tell_all(&self) {
        let woken = self.asking.lock().end_all();
        woken.into_iter().for_each(Waker::wake);
    }

    /// Hands answers to who asked.
    fn answer(&self, answers: &mut Vec<(Header, Answered)>) {
        if answers.is_empty() {
            return;
        }
        if let Some(reached) = answers.iter().filter_map(|(_, answered)| reached_by(&answered.answer)).max() {
            self.reached.fetch_max(reached, Ordering::AcqRel);
        }
        let mut asking = self.asking.lock();
        let woken: Vec<_> = answers
            .drain(..)
            .filter_map(|(header, answered)| asking.answer(header.request, answered))
            .collect();
        drop(asking);
        woken.into_iter().for_each(Waker::wake);
    }

    fn poll_answer(&self, number: u64, context: &mut Context<'_>) -> Poll<Result<Answer, ClientError>> {
        self.asking.lock().poll(number, context).map(|answer| answer.ok_or_else(|| self.lost()))
    }
}

/// What an answer shows the store's next position to be, at least.
fn reached_by(answer: &Answer) -> Option<u64> {
    let position = match answer {
        Answer::Appended(appended) => appended.positions.end,
        Answer::Events(records) => Position::new(records.last()?.position().get() + 1),
        Answer::Head(head) => Position::new((*head)?.position.get() + 1),
        Answer::CaughtUp(position) | Answer::Progress(position) => *position,
        Answer::Stat(stat) => stat.next_position,
        _ => return None,
    };
    Some(position.get())
}

/// Appends a request's frame; what is longer than it may be is taken back.
fn put(
    buffer: &mut BytesMut,
    number: u64,
    request: &Request<'_>,
    bytes_max: usize,
) -> Result<(), ClientError> {
    let header = Header { request: number, kind: request.kind(), ..Header::default() };
    let start = frame::begin(buffer, header);
    request.encode(buffer);
    let bytes = buffer.len() - start - frame::HEADER_BYTES;
    if bytes > bytes_max {
        buffer.truncate(start);
        return Err(ClientError::TooLong { bytes, bytes_max });
    }
    // Shorter than any frame may be.
    let _ = frame::finish(buffer, start);
    Ok(())
}

/// A request that was sent, until its answer is taken.
pub(crate) struct Asked {
    link: Arc<Link>,
    number: u64,
    is_over: bool,
}

impl Asked {
    /// Whether the answer is there, or will never be.
    pub(crate) fn is_answered(&self) -> bool {
        self.link.asking.lock().is_answered(self.number)
    }

    /// The answer.
    pub(crate) async fn answer(mut self) -> Result<Answer, ClientError> {
        let answer = poll_fn(|context| self.link.poll_answer(self.number, context)).await;
        self.is_over = true;
        answer
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if !self.is_over {
            self.link.asking.lock().abandon(self.number);
        }
    }
}

pub(crate) fn unreachable(options: &Options, error: &std::io::Error) -> ClientError {
    ClientError::Unreachable { address: options.address.clone(), reason: error.to_string() }
}

async fn greet<R, W>(
    mut incoming: R,
    mut outgoing: W,
    plain: Option<Plain>,
    options: &Options,
) -> Result<Arc<Link>, ClientError>
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let lost = |error: std::io::Error| socket::lost(options, &error);
    let hello = Request::Hello(Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: 0,
        client: options.name.as_str().into(),
        store: options.store.as_str().into(),
        token: options.token.as_deref().map(Into::into),
    });
    let mut buffer = BytesMut::from(&PREFACE[..]);
    put(&mut buffer, 0, &hello, BODY_BYTES_MAX)?;
    outgoing.write_all(&buffer).await.map_err(lost)?;
    outgoing.flush().await.map_err(lost)?;
    buffer.clear();
    let (header, body) = loop {
        let taken = frame::take(&mut buffer, BODY_BYTES_MAX);
        if let Some(frame) = taken.map_err(|error| ClientError::Nonsense(error.to_string()))? {
            break frame;
        }
        if incoming.read_buf(&mut buffer).await.map_err(lost)? == 0 {
            // Nothing was asked for yet, so that nothing can be lost.
            let hint = if plain.is_some() { "; perhaps it expects encrypted connections" } else { "" };
            let address = options.address.clone();
            return Err(ClientError::Unreachable { address, reason: format!("{CLOSED}{hint}") });
        }
    };
    let welcome = match Answer::decode(header.kind, &body) {
        Ok(Answer::Welcome(welcome)) => welcome,
        Ok(Answer::Failed(failure)) => return Err(failure.into()),
        _ => return Err(ClientError::Nonsense("it is no welcome".to_owned())),
    };
    let wire = Arc::new(Wire {
        plain,
        outgoing: Mutex::default(),
        written: Notify::new(),
        said_bytes: AtomicUsize::new(0),
        taken: Notify::new(),
        asking: Mutex::default(),
        reached: AtomicU64::new(welcome.next_position.get()),
        welcome,
        over: OnceLock::new(),
        ended: Notify::new(),
    });
    tokio::spawn(listen(Arc::clone(&wire), incoming, buffer));
    tokio::spawn(write(Arc::clone(&wire), outgoing));
    Ok(Arc::new(Link(wire)))
}

/// Takes answers until the connection ends.
async fn listen(wire: Arc<Wire>, mut incoming: impl AsyncRead + Unpin, mut buffer: BytesMut) {
    let mut answers = Vec::new();
    loop {
        let taken = take(&mut buffer, &mut answers);
        wire.answer(&mut answers);
        if let Err(reason) = taken {
            return wire.end(reason);
        }
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = incoming.read_buf(&mut buffer) => match read {
                Ok(1..) => {}
                Ok(0) => return wire.end(CLOSED),
                Err(error) => return wire.end(error.to_string()),
            },
            () = wire.ended() => return,
        }
    }
}

/// Takes the answers that have arrived whole.
fn take(buffer: &mut BytesMut, answers: &mut Vec<(Header, Answered)>) -> Result<(), String> {
    while let Some((header, body)) = frame::take(buffer, BODY_BYTES_MAX).map_err(|error| error.to_string())? {
        let bytes = (frame::HEADER_BYTES + body.len()) as u64;
        let (answer, has_more) = match Answer::decode(header.kind, &body) {
            Ok(answer) => (answer, header.has_more),
            // What only a newer client understands ends the request, not the connection.
            Err(unknown) if unknown.unknown_kind.is_some() => {
                let message = format!(
                    "the server's answer is of a kind {} that this client does not know",
                    header.kind
                );
                (Answer::Failed(Failure::Other { code: 0, message }), false)
            }
            Err(malformed) => return Err(malformed.to_string()),
        };
        // What the server says of itself: why it ends the connection.
        if let (0, Answer::Failed(failure)) = (header.request, &answer) {
            return Err(failure.to_string());
        }
        answers.push((header, Answered { answer, has_more, bytes }));
    }
    Ok(())
}

/// Writes what is said, until the connection ends.
async fn write(wire: Arc<Wire>, mut outgoing: impl AsyncWrite + Unpin) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.clear();
        {
            let mut said = wire.outgoing.lock();
            std::mem::swap(&mut said.buffer, &mut buffer);
            said.is_writing = !buffer.is_empty();
            wire.said_bytes.store(0, Ordering::Release);
        }
        if buffer.len() >= SAID_BYTES_MAX {
            wire.taken.notify_waiters();
        }
        if buffer.is_empty() {
            if wire.is_over() {
                return;
            }
            wire.written.notified().await;
            // Whoever else is about to say something goes with it.
            tokio::task::yield_now().await;
            continue;
        }
        let writing = async {
            outgoing.write_all(&buffer).await?;
            outgoing.flush().await
        };
        tokio::select! {
            biased;
            written = writing => if let Err(error) = written {
                return wire.end(error.to_string());
            },
            () = wire.ended() => return,
        }
        if buffer.capacity() > KEPT_BYTES_MAX {
            buffer = BytesMut::new();
        }
    }
}

/// What an answer says that is none of those that were hoped for.
pub(crate) fn unexpected(answer: Answer) -> ClientError {
    match answer {
        Answer::Failed(failure) => ClientError::Refused(failure),
        other => ClientError::Nonsense(format!("an answer of kind {:#x}", other.kind())),
    }
}
