//! Requests: what has one answer.

use crate::link::{Link, is_going, unexpected};
use crate::streams::{Deliveries, Events, Following};
use crate::{ClientError, Options};
use annals_protocol::{Answer, Consistency, Failure, Request};
use annals_types::{
    Append, Appended, Cursor, Follow, Head, NewEvent, NewSubscription, Parked, ParkedChoice, Position, Read,
    Start, Stat, SubscriptionStatus, Uuid,
};
use bytes::BytesMut;
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
    /// Held by who connects.
    connecting: tokio::sync::Mutex<()>,
}

impl Client {
    /// Connects to a server.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`]; [`ClientError::Refused`] where the server does not want this client.
    pub async fn connect(options: Options) -> Result<Self, ClientError> {
        let link = Link::connect(&options).await?;
        let shared =
            Shared { options, link: Mutex::new(Some(link)), connecting: tokio::sync::Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    /// The connection, made anew where it is lost.
    pub(crate) async fn link(&self) -> Result<Arc<Link>, ClientError> {
        let known = || self.shared.link.lock().clone().filter(|link| !link.is_over());
        if let Some(link) = known() {
            return Ok(link);
        }
        let _alone = self.shared.connecting.lock().await;
        if let Some(link) = known() {
            return Ok(link);
        }
        let link = Link::connect(&self.shared.options).await?;
        *self.shared.link.lock() = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Appends a batch. Where the answer is lost with the connection, the same batch is sent once more over a new one: its
    /// events get ids here, by which the server knows it again.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the server says; [`ClientError::Late`] and [`ClientError::Unreachable`]: it
    /// may have been appended, or not; [`ClientError::Lost`]: as before, and it has no events by which it could be known.
    pub async fn append<'a>(&self, append: impl Into<Append<'a>>) -> Result<Appended, ClientError> {
        let mut append = append.into();
        append.events.iter_mut().for_each(give_id);
        let is_known_again = !append.events.is_empty();
        match self.ask(&Request::Append(append), is_known_again).await? {
            Answer::Appended(appended) => Ok(appended),
            other => Err(unexpected(other)),
        }
    }

    /// Asks until there is an answer, or it is too late. `is_repeatable`: whether asking twice is as good as asking once.
    pub(crate) async fn ask(
        &self,
        request: &Request<'_>,
        is_repeatable: bool,
    ) -> Result<Answer, ClientError> {
        let mut body = BytesMut::new();
        request.encode(&mut body);
        let deadline = Instant::now() + self.shared.options.request_timeout;
        let mut pause = PAUSE;
        loop {
            let failed = match timeout_at(deadline, self.link()).await {
                Ok(Ok(link)) => match timeout_at(deadline, link.ask(request.kind(), &body)).await {
                    Ok(Ok(Answer::Failed(failure))) if is_going(&failure) => failure.into(),
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error @ ClientError::Lost { .. })) if is_repeatable => error,
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Err(ClientError::Late),
                },
                Ok(Err(error @ (ClientError::Unreachable { .. } | ClientError::Lost { .. }))) => error,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(ClientError::Late),
            };
            // By chance, so that not all clients come back at once.
            let wait = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            if Instant::now() + wait >= deadline {
                return Err(failed);
            }
            sleep(wait).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    /// Reads a stream, or everything, up to what is durable now.
    ///
    /// # Errors
    /// The server cannot be reached. What it says comes with the events.
    pub async fn read(&self, read: &Read<'_>) -> Result<Events, ClientError> {
        let credit = self.options().stream_bytes;
        let link = self.link().await?;
        Events::open(link, &Request::Read(read.clone(), Consistency::default(), credit))
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
        match self.ask(&Request::Head(stream.into()), true).await? {
            Answer::Head(head) => Ok(head),
            other => Err(unexpected(other)),
        }
    }

    /// Where a cursor is; `None`: it was never set.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn cursor(&self, name: &str) -> Result<Option<Cursor>, ClientError> {
        match self.ask(&Request::Cursor(name.into()), true).await? {
            Answer::Cursor(cursor) => Ok(cursor),
            other => Err(unexpected(other)),
        }
    }

    /// Facts about the store.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stat(&self) -> Result<Stat, ClientError> {
        match self.ask(&Request::Stat, true).await? {
            Answer::Stat(stat) => Ok(stat),
            other => Err(unexpected(other)),
        }
    }

    /// Creates a durable subscription; `false`: there was one with just these settings.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, ClientError> {
        match self.ask(&Request::CreateSubscription(new.clone()), true).await? {
            Answer::Flag(is_created) => Ok(is_created),
            other => Err(unexpected(other)),
        }
    }

    /// How a durable subscription stands.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscription(&self, name: &str) -> Result<SubscriptionStatus, ClientError> {
        match self.ask(&Request::Subscription(name.into()), true).await? {
            Answer::Subscriptions(mut statuses) if statuses.len() == 1 => Ok(statuses.remove(0)),
            other => Err(unexpected(other)),
        }
    }

    /// The parked events of a durable subscription.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn parked(&self, subscription: &str) -> Result<Vec<Parked>, ClientError> {
        match self.ask(&Request::Parked(subscription.into()), true).await? {
            Answer::Parked(parked) => Ok(parked),
            other => Err(unexpected(other)),
        }
    }

    /// Has parked events handed out again; how many there were.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Lost`]: it may have been done.
    pub async fn replay_parked(&self, subscription: &str, which: ParkedChoice) -> Result<u64, ClientError> {
        match self.ask(&Request::ReplayParked(subscription.into(), which), false).await? {
            Answer::Count(count) => Ok(count),
            other => Err(unexpected(other)),
        }
    }

    /// Begins a durable subscription again from a place.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Lost`]: it may have been done.
    pub async fn reset_subscription(&self, name: &str, start: Start) -> Result<(), ClientError> {
        self.done(&Request::ResetSubscription(name.into(), start)).await
    }

    /// Deletes a durable subscription.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Lost`]: it may have been done.
    pub async fn delete_subscription(&self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::DeleteSubscription(name.into())).await
    }

    async fn done(&self, request: &Request<'_>) -> Result<(), ClientError> {
        match self.ask(request, false).await? {
            Answer::Done => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Waits until the event at this position is there, for who knows it from elsewhere, and reads from it.
    ///
    /// # Errors
    /// See [`Client::read`].
    pub async fn read_at_least(&self, read: &Read<'_>, position: Position) -> Result<Events, ClientError> {
        let consistency = Consistency { level: 0, at_least: Some(position) };
        let link = self.link().await?;
        Events::open(link, &Request::Read(read.clone(), consistency, self.options().stream_bytes))
    }
}

/// Makes sure that the event can be known again.
fn give_id(event: &mut NewEvent<'_>) {
    event.id.get_or_insert_with(|| {
        // A random UUID of version 8: 122 bits by chance.
        let bytes: [u8; 16] = rand::random();
        let mut bytes = bytes;
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid::from_bytes(bytes)
    });
}

/// What of a failure can be cured by trying once more elsewhere or later.
pub(crate) fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Lost { .. } | ClientError::Unreachable { .. } => true,
        ClientError::Refused(failure) => matches!(failure, Failure::ShuttingDown),
        _ => false,
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("address", &self.shared.options.address).finish_non_exhaustive()
    }
}
