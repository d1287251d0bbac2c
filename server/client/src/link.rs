//! A connection: requests go out as they come, answers find who asked.

use crate::{ClientError, Options};
use annals_protocol::frame::{self, BODY_BYTES_MAX, Header};
use annals_protocol::{Answer, Failure, Hello, Malformed, PREFACE, Request, VERSION};
use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};

/// What became of a connection that the server has ended.
const CLOSED: &str = "the server has closed it";
/// Room that is made for reading at a time.
const READ_BYTES: usize = 256 << 10;

/// An answer, whether others follow, and how many bytes it took.
pub(crate) struct Answered {
    pub(crate) answer: Answer,
    pub(crate) has_more: bool,
    pub(crate) bytes: u64,
}

/// Who waits for the answers to a request.
enum Asking {
    Once(oneshot::Sender<Answer>),
    Many(mpsc::UnboundedSender<Answered>),
}

/// See the module. It ends when the connection does; whoever waits then is told by their channel.
pub(crate) struct Link {
    socket: TcpStream,
    outgoing: Mutex<Said>,
    /// Told when there is something to write.
    written: Notify,
    asking: Mutex<HashMap<u64, Asking>>,
    last: AtomicU64,
    /// Why it has ended, if it has.
    over: OnceLock<String>,
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
        let unreachable =
            |reason: String| ClientError::Unreachable { address: options.address.clone(), reason };
        let begun = async {
            let socket =
                TcpStream::connect(&options.address).await.map_err(|error| unreachable(error.to_string()))?;
            let _ = socket.set_nodelay(true);
            greet(socket, options).await
        };
        match tokio::time::timeout(options.connect_timeout, begun).await {
            Ok(greeted) => greeted,
            Err(_) => Err(unreachable("it does not answer".to_owned())),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.get().is_some()
    }

    /// What whoever waits is told once it is over.
    pub(crate) fn lost(&self) -> ClientError {
        ClientError::Lost { reason: self.over.get().cloned().unwrap_or_default() }
    }

    /// Asks, and waits for the one answer.
    pub(crate) async fn ask(&self, kind: u16, body: &[u8]) -> Result<Answer, ClientError> {
        let (sender, answer) = oneshot::channel();
        self.send(kind, body, Asking::Once(sender))?;
        answer.await.map_err(|_| self.lost())
    }

    /// Asks for answers that go on. Returns the request's number, too.
    pub(crate) fn open(
        &self,
        request: &Request<'_>,
    ) -> Result<(u64, mpsc::UnboundedReceiver<Answered>), ClientError> {
        let mut body = BytesMut::new();
        request.encode(&mut body);
        let (sender, answers) = mpsc::unbounded_channel();
        let number = self.send(request.kind(), &body, Asking::Many(sender))?;
        Ok((number, answers))
    }

    /// Says something that has no answer.
    pub(crate) fn tell(&self, request: &Request<'_>) {
        let mut said = self.outgoing.lock();
        let start = frame::begin(&mut said.buffer, Header { kind: request.kind(), ..Header::default() });
        request.encode(&mut said.buffer);
        // What is told is short.
        let _ = frame::finish(&mut said.buffer, start);
        drop(said);
        self.written.notify_one();
    }

    fn send(&self, kind: u16, body: &[u8], asking: Asking) -> Result<u64, ClientError> {
        let request = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let is_alone = {
            let mut others = self.asking.lock();
            others.insert(request, asking);
            others.len() == 1
        };
        let sent = {
            let mut said = self.outgoing.lock();
            let header = Header { request, kind, ..Header::default() };
            let start = frame::begin(&mut said.buffer, header);
            said.buffer.extend_from_slice(body);
            let sent = frame::finish(&mut said.buffer, start);
            // One that is alone does not wait for another task.
            if is_alone
                && !said.is_writing
                && let Ok(written) = self.socket.try_write(&said.buffer)
            {
                said.buffer.advance(written);
            }
            sent.map(|_| said.buffer.is_empty())
        };
        match sent {
            Ok(true) => {}
            Ok(false) => self.written.notify_one(),
            Err(error) => {
                self.asking.lock().remove(&request);
                return Err(ClientError::Nonsense(error.to_string()));
            }
        }
        if self.is_over() {
            // It ended meanwhile, perhaps before this one could be told.
            self.asking.lock().remove(&request);
        }
        Ok(request)
    }

    /// Nothing more comes, for this reason or an earlier one.
    fn end(&self, reason: impl Into<String>) {
        let _ = self.over.set(reason.into());
        self.asking.lock().clear();
        self.written.notify_one();
    }

    /// Hands an answer to who asked.
    fn answer(&self, header: Header, body: &Bytes) -> Result<(), Malformed> {
        let answer = match Answer::decode(header.kind, body) {
            Ok(answer) => answer,
            // What only a newer client understands ends the request, not the connection.
            Err(unknown) if unknown.unknown_kind.is_some() => {
                self.asking.lock().remove(&header.request);
                return Ok(());
            }
            Err(malformed) => return Err(malformed),
        };
        let mut asking = self.asking.lock();
        let is_last = !header.has_more;
        let done = match asking.get(&header.request) {
            Some(Asking::Once(_)) => is_last.then(|| asking.remove(&header.request)).flatten(),
            Some(Asking::Many(sender)) => {
                let bytes = (frame::HEADER_BYTES + body.len()) as u64;
                let is_heard = sender
                    .send(Answered { answer: answer.clone(), has_more: header.has_more, bytes })
                    .is_ok();
                if is_last || !is_heard {
                    asking.remove(&header.request);
                }
                None
            }
            None => None,
        };
        drop(asking);
        if let Some(Asking::Once(sender)) = done {
            // Who asked may have given up.
            let _ = sender.send(answer);
        }
        Ok(())
    }
}

async fn greet(mut socket: TcpStream, options: &Options) -> Result<Arc<Link>, ClientError> {
    let lost = |error: std::io::Error| ClientError::Lost { reason: error.to_string() };
    let hello = Request::Hello(Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: 0,
        client: options.name.as_str().into(),
        store: options.store.as_str().into(),
        token: options.token.as_deref().map(Into::into),
    });
    let mut buffer = BytesMut::from(&PREFACE[..]);
    let start = frame::begin(&mut buffer, Header { kind: hello.kind(), ..Header::default() });
    hello.encode(&mut buffer);
    frame::finish(&mut buffer, start).map_err(|error| ClientError::Nonsense(error.to_string()))?;
    socket.write_all(&buffer).await.map_err(lost)?;
    buffer.clear();
    let (header, body) = loop {
        let taken = frame::take(&mut buffer, BODY_BYTES_MAX);
        if let Some(frame) = taken.map_err(|error| ClientError::Nonsense(error.to_string()))? {
            break frame;
        }
        if socket.read_buf(&mut buffer).await.map_err(lost)? == 0 {
            return Err(ClientError::Lost { reason: CLOSED.to_owned() });
        }
    };
    match Answer::decode(header.kind, &body) {
        Ok(Answer::Welcome(_)) => {}
        Ok(Answer::Failed(failure)) => return Err(failure.into()),
        _ => return Err(ClientError::Nonsense("it is no welcome".to_owned())),
    }
    let link = Arc::new(Link {
        socket,
        outgoing: Mutex::default(),
        written: Notify::new(),
        asking: Mutex::default(),
        last: AtomicU64::new(0),
        over: OnceLock::new(),
    });
    tokio::spawn(listen(Arc::clone(&link), buffer));
    tokio::spawn(write(Arc::clone(&link)));
    Ok(link)
}

/// Takes answers until the connection ends.
async fn listen(link: Arc<Link>, mut buffer: BytesMut) {
    loop {
        loop {
            let taken = match frame::take(&mut buffer, BODY_BYTES_MAX) {
                Ok(Some((header, body))) => link.answer(header, &body).map_err(|error| error.to_string()),
                Ok(None) => break,
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = taken {
                return link.end(reason);
            }
        }
        buffer.reserve(READ_BYTES);
        tokio::select! {
            ready = link.socket.readable() => match ready.and_then(|()| link.socket.try_read_buf(&mut buffer)) {
                Ok(1..) => {}
                Ok(0) => return link.end(CLOSED),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return link.end(error.to_string()),
            },
            () = over(&link) => return link.end("nobody asks for anything any more"),
        }
    }
}

/// Waits until nobody but the connection's own tasks knows of it, or it is over.
async fn over(link: &Arc<Link>) {
    while Arc::strong_count(link) > 2 && !link.is_over() {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
}

/// Writes what is said, until the connection ends.
async fn write(link: Arc<Link>) {
    loop {
        let mut buffer = {
            let mut said = link.outgoing.lock();
            said.is_writing = !said.buffer.is_empty();
            std::mem::take(&mut said.buffer)
        };
        if buffer.is_empty() {
            if link.is_over() {
                return;
            }
            link.written.notified().await;
            // Whoever else is about to say something goes with it.
            tokio::task::yield_now().await;
            continue;
        }
        while buffer.has_remaining() {
            let written = match link.socket.try_write(&buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if link.is_over() {
                        return;
                    }
                    link.socket.writable().await.map(|()| 0)
                }
                written => written,
            };
            match written {
                Ok(written) => buffer.advance(written),
                Err(error) => return link.end(error.to_string()),
            }
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

/// Whether it says that the server is going.
pub(crate) fn is_going(failure: &Failure) -> bool {
    matches!(failure, Failure::ShuttingDown)
}
