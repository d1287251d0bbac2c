//! A connection: requests go out as they come, answers find who asked.

use crate::asking::{Asking, Waiting};
use crate::socket::{self, Plain};
use crate::{ClientError, Options};
use annals_protocol::frame::{self, BODY_BYTES_MAX, Header};
use annals_protocol::{Answer, Failure, Hello, PREFACE, Request, VERSION, Welcome};
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use std::future::poll_fn;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc};

/// What became of a connection that the server has ended.
const CLOSED: &str = "the server has closed it";
/// Room that is made for reading at a time.
const READ_BYTES: usize = 256 << 10;
/// What was written once is room for what comes next, unless it was longer.
const KEPT_BYTES_MAX: usize = 1 << 20;
/// How often it is looked whether anybody still knows of the connection.
const LOOK_PERIOD: Duration = Duration::from_millis(500);

/// An answer, whether others follow, and how many bytes it took.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) has_more: bool,
    pub(crate) bytes: u64,
}

/// See the module. It ends when the connection does; whoever waits then is told.
pub(crate) struct Link {
    /// Where it can be written to at once: what is encrypted on its way is written by a task alone.
    plain: Option<Plain>,
    outgoing: Mutex<Said>,
    /// Told when there is something to write.
    written: Notify,
    asking: Mutex<Asking>,
    welcome: Welcome,
    /// Why it has ended, if it has.
    over: OnceLock<String>,
    /// Told to who writes.
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

    pub(crate) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// What whoever waits is told once it is over.
    pub(crate) fn lost(&self) -> ClientError {
        ClientError::Lost { reason: self.over.get().cloned().unwrap_or_default() }
    }

    /// Asks; the one answer can be awaited.
    pub(crate) fn ask(self: &Arc<Self>, request: &Request<'_>) -> Result<Asked, ClientError> {
        let number = self.send(request, Waiting::default())?;
        Ok(Asked { link: Arc::clone(self), number, is_over: false })
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
        self.ended.notify_one();
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
            return Err(ClientError::Lost { reason: CLOSED.to_owned() });
        }
    };
    let welcome = match Answer::decode(header.kind, &body) {
        Ok(Answer::Welcome(welcome)) => welcome,
        Ok(Answer::Failed(failure)) => return Err(failure.into()),
        _ => return Err(ClientError::Nonsense("it is no welcome".to_owned())),
    };
    let link = Arc::new(Link {
        plain,
        outgoing: Mutex::default(),
        written: Notify::new(),
        asking: Mutex::default(),
        welcome,
        over: OnceLock::new(),
        ended: Notify::new(),
    });
    tokio::spawn(listen(Arc::clone(&link), incoming, buffer));
    tokio::spawn(write(Arc::clone(&link), outgoing));
    Ok(link)
}

/// Takes answers until the connection ends.
async fn listen(link: Arc<Link>, mut incoming: impl AsyncRead + Unpin, mut buffer: BytesMut) {
    let mut answers = Vec::new();
    loop {
        let taken = take(&mut buffer, &mut answers);
        link.answer(&mut answers);
        if let Err(reason) = taken {
            return link.end(reason);
        }
        buffer.reserve(READ_BYTES);
        tokio::select! {
            read = incoming.read_buf(&mut buffer) => match read {
                Ok(1..) => {}
                Ok(0) => return link.end(CLOSED),
                Err(error) => return link.end(error.to_string()),
            },
            () = over(&link) => return link.end("nobody asks for anything any more"),
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
        answers.push((header, Answered { answer, has_more, bytes }));
    }
    Ok(())
}

/// Waits until nobody but the connection's own tasks knows of it, or it is over.
async fn over(link: &Arc<Link>) {
    while Arc::strong_count(link) > 2 && !link.is_over() {
        tokio::time::sleep(LOOK_PERIOD).await;
    }
}

/// Writes what is said, until the connection ends.
async fn write(link: Arc<Link>, mut outgoing: impl AsyncWrite + Unpin) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.clear();
        {
            let mut said = link.outgoing.lock();
            std::mem::swap(&mut said.buffer, &mut buffer);
            said.is_writing = !buffer.is_empty();
        }
        if buffer.is_empty() {
            if link.is_over() {
                return;
            }
            link.written.notified().await;
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
                return link.end(error.to_string());
            },
            () = link.ended.notified() => return,
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
