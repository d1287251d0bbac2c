//! A client: its connection, and requests that have one answer.

use crate::error::{is_going, is_judged};
use crate::link::{Link, unexpected};
use crate::streams::{Deliveries, Events, Following, Heads};
use crate::{ClientError, Options};
use annals_protocol::{Answer, Consistency, Failure, Request};
use annals_types::{Cursor, Follow, Head, Load, Loaded, Position, Read, Stat, Verified};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// The pause before a first attempt to connect again; it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A client of a server. Cheap to clone; all clones share one connection, which is made anew when it is lost.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    link: Mutex<Option<Arc<Link>>>,
    /// Held by who connects; the last failure, and when it was.
    connecting: tokio::sync::Mutex<Option<(Instant, ClientError)>>,
}

/// Whether a request may be asked twice, where nobody knows what became of it the first time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Repeat {
    Never,
    /// Twice is as good as once.
    Freely,
    /// The server knows it again, by its ids: unless it was judged, what it refuses may have been done by the first attempt.
    ById,
}

/// Pauses between attempts: longer ones, by chance, so that not all clients come back at once.
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE)
    }
}

impl Pauses {
    /// How long to wait this time.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        self.0 = (2 * self.0).min(PAUSE_MAX);
        pause
    }
}

/// An append that may have been done since the store's next position was this; `None`: it is none, or was not sent yet.
fn again<'a>(request: &'a Request<'_>, since: Option<Position>) -> Option<Request<'a>> {
    match (request, since) {
        (Request::Append(append), Some(since)) => Some(Request::AppendAgain(append.clone(), since)),
        _ => None,
    }
}

impl Client {
    /// Connects to a server. To be called within a tokio runtime, which has the connection's tasks.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], [`ClientError::Untrusted`] and [`ClientError::Options`]; [`ClientError::Refused`] where
    /// the server does not want this client, or has no such store.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        let link = Link::connect(&options).await?;
        let shared =
            Shared { options, link: Mutex::new(Some(link)), connecting: tokio::sync::Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// How it reaches the server.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The connection, if there is one.
    fn known_link(&self) -> Option<Arc<Link>> {
        self.shared.link.lock().clone().filter(|link| !link.is_over())
    }

    /// The connection, made anew where it is lost.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, ClientError> {
        if let Some(link) = self.known_link() {
            return Ok(link);
        }
        let asked = Instant::now();
        let mut failed = self.shared.connecting.lock().await;
        if let Some(link) = self.known_link() {
            return Ok(link);
        }
        // Who waited while another tried has its answer: of many, each would have to wait for all before.
        if let Some((_, error)) = failed.as_ref().filter(|(when, _)| *when >= asked) {
            return Err(error.clone());
        }
        let link = match Link::connect(&self.shared.options).await {
            Ok(link) => link,
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        *self.shared.link.lock() = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Asks until there is an answer that is no failure, or it is too late.
    pub(crate) async fn ask(&self, request: &Request<'_>, repeat: Repeat) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + self.shared.options.request_timeout;
        let (mut pauses, mut lost) = (Pauses::default(), None);
        // Since when it may have been done.
        let mut since = None;
        loop {
            // Only what may have been done is said to be sent again.
            since = since.filter(|_| lost.is_some() && repeat == Repeat::ById);
            let (again, mut was_sent) = (again(request, since), false);
            let attempt = self.attempt(again.as_ref().unwrap_or(request), &mut since, &mut was_sent);
            let failed = match timeout_at(deadline, attempt).await {
                Err(_) if was_sent || lost.is_some() => return Err(ClientError::Late),
                Err(_) => {
                    let (address, reason) =
                        (self.options().address.clone(), "there was no connection in time".to_owned());
                    return Err(ClientError::Unreachable { address, reason });
                }
                Ok(Ok(Answer::Failed(failure))) if is_going(&failure) => failure.into(),
                Ok(Ok(Answer::Failed(failure))) => {
                    let may_be_done = repeat == Repeat::ById && lost.is_some() && !is_judged(&failure);
                    return Err(if may_be_done {
                        ClientError::Lost { reason: format!("repeated, it was refused: {failure}") }
                    } else {
                        failure.into()
                    });
                }
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.is_passing() => {
                    if was_sent {
                        if repeat == Repeat::Never {
                            return Err(error);
                        }
                        lost = Some(error.clone());
                    }
                    error
                }
                Ok(Err(error)) => {
                    return Err(if repeat == Repeat::ById { lost.unwrap_or(error) } else { error });
                }
            };
            let pause = pauses.next();
            if Instant::now() + pause >= deadline {
                // What may have been done is not told as what was not.
                return Err(lost.unwrap_or(failed));
            }
            sleep(pause).await;
        }
    }

    /// Asks once, and says whether the request was sent, and what the store's next position was at least when it was sent first.
    async fn attempt(
        &self,
        request: &Request<'_>,
        since: &mut Option<Position>,
        was_sent: &mut bool,
    ) -> Result<Answer, ClientError> {
        let link = self.link().await?;
        link.room().await;
        let reached = link.reached();
        let asked = link.ask(request)?;
        since.get_or_insert(reached);
        *was_sent = true;
        let answer = asked.answer().await?;
        // Dropped, and perhaps there anew: another connection shows.
        if let Answer::Failed(Failure::NoStore { .. }) = &answer {
            self.forget(&link);
        }
        Ok(answer)
    }

    /// The next request is to be over another connection.
    fn forget(&self, link: &Arc<Link>) {
        let mut known = self.shared.link.lock();
        if known.as_ref().is_some_and(|known| Arc::ptr_eq(known, link)) {
            *known = None;
        }
    }

    /// Asks for a list, which may come in several answers.
    pub(crate) async fn list(&self, request: &Request<'_>) -> Result<Answer, ClientError> {
        let deadline = Instant::now() + self.shared.options.request_timeout;
        let listed = async {
            let mut flow = crate::streams::Flow::open(self.link().await?, request, 0)?;
            let mut whole = flow.required().await?;
            while !flow.has_ended() {
                let more = flow.required().await?;
                whole.join(more).map_err(unexpected)?;
            }
            match whole {
                Answer::Failed(failure) => Err(failure.into()),
                whole => Ok(whole),
            }
        };
        timeout_at(deadline, listed).await.unwrap_or(Err(ClientError::Late))
    }

    /// Asks for what has no more of an answer than that it is done. It may have been done where the answer is lost.
    pub(crate) async fn done(&self, request: &Request<'_>, repeat: Repeat) -> Result<(), ClientError> {
        match self.ask(request, repeat).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Reads a stream, or everything, up to what is durable now.
    ///
    /// # Errors
    /// The server cannot be reached. What it says comes with the events.
    pub async fn read(&self, read: &Read<'_>) -> Result<Events, ClientError> {
        self.read_with(read, Consistency::default()).await
    }

    /// Waits until the event at this position is there, for who knows it from elsewhere, and reads.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub async fn read_at_least(&self, read: &Read<'_>, position: Position) -> Result<Events, ClientError> {
        self.read_with(read, Consistency { level: 0, at_least: Some(position) }).await
    }

    async fn read_with(&self, read: &Read<'_>, consistency: Consistency) -> Result<Events, ClientError> {
        let credit = self.credit();
        Events::open(self.link().await?, &Request::Read(read.clone(), consistency, credit), credit)
    }

    /// Loads a stream's state: a snapshot, if there is one that can be used, and the events behind it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn load(&self, load: &Load<'_>) -> Result<Loaded<Events>, ClientError> {
        let credit = self.credit();
        let mut events = Events::open(self.link().await?, &Request::Load(load.clone(), credit), credit)?;
        match events.flow.required().await? {
            Answer::Snapshots(mut snapshots, passed_over) => {
                Ok(Loaded { snapshot: snapshots.pop(), events, passed_over })
            }
            other => Err(unexpected(other)),
        }
    }

    /// Follows a stream, or what a query selects, or everything. Where the connection is lost, it goes on over a new one,
    /// behind what was given.
    ///
    /// # Errors
    /// The server cannot be reached. What it says comes with what is followed.
    pub async fn follow(&self, follow: &Follow<'_>) -> Result<Following, ClientError> {
        Following::open(self.clone(), follow).await
    }

    /// Becomes a member of a durable subscription.
    ///
    /// # Errors
    /// The server cannot be reached, or says no.
    pub async fn join(&self, subscription: &str) -> Result<Deliveries, ClientError> {
        Deliveries::open(self, subscription).await
    }

    /// A stream's last event; `None`: it has none.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all that follow.
    pub async fn head(&self, stream: &str) -> Result<Option<Head>, ClientError> {
        match self.ask(&Request::Head(stream.into()), Repeat::Freely).await? {
            Answer::Head(head) => Ok(head),
            other => Err(unexpected(other)),
        }
    }

    /// All streams with their last events, in no particular order.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn streams(&self) -> Result<Heads, ClientError> {
        Heads::open(self.link().await?, self.credit())
    }

    /// Where a cursor is; `None`: it was never set.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cursor(&self, name: &str) -> Result<Option<Cursor>, ClientError> {
        match self.ask(&Request::Cursor(name.into()), Repeat::Freely).await? {
            Answer::Cursor(cursor) => Ok(cursor),
            other => Err(unexpected(other)),
        }
    }

    /// All cursors, by name.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cursors(&self) -> Result<Vec<(String, Cursor)>, ClientError> {
        match self.list(&Request::Cursors).await? {
            Answer::Cursors(cursors) => Ok(cursors),
            other => Err(unexpected(other)),
        }
    }

    /// Facts about the store.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stat(&self) -> Result<Stat, ClientError> {
        match self.ask(&Request::Stat, Repeat::Freely).await? {
            Answer::Stat(stat) => Ok(stat),
            other => Err(unexpected(other)),
        }
    }

    /// Has the store checked, however long that takes, and tells how many events are checked, and of how many.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Verified, ClientError> {
        let mut flow = crate::streams::Flow::open(self.link().await?, &Request::Verify, 0)?;
        loop {
            match flow.required().await? {
                Answer::Checked(done, all) => progress(done, all),
                Answer::Verified(verified) => return Ok(verified),
                other => return Err(unexpected(other)),
            }
        }
    }

    /// Bytes that a stream may have on their way.
    pub(crate) fn credit(&self) -> u64 {
        self.options().stream_bytes.max(64 << 10)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.shared.options.address).finish_non_exhaustive()
    }
}
