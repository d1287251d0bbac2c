//! Appends: one that is sent again where its answer is lost, and ones that are on their way together, in their order.

use crate::link::{Asked, Link, unexpected};
use crate::requests::Repeat;
use crate::{Client, ClientError};
use annals_protocol::{Answer, Request};
use annals_types::{Append, Appended, NewEvent, Uuid};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

impl Client {
    /// Appends a batch; it is durable once this is ready. Where the answer is lost with the connection, the same batch is sent
    /// once more over a new one: its events get ids here, by which the server knows it again, as long as no more events have
    /// come meanwhile than it knows the ids of; then this fails with [`ClientError::Lost`]. Give ids yourself
    /// ([`NewEvent::id`]) where you want to repeat it after [`ClientError::Late`] or [`ClientError::Lost`], and say since when it may be
    /// there ([`Append::again`]).
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the server says; [`ClientError::Late`] and [`ClientError::Lost`]: it may have been
    /// appended, or not; others: it was not.
    pub async fn append<'a>(&self, append: impl Into<Append<'a>>) -> Result<Appended, ClientError> {
        let append = with_ids(append.into());
        let repeat = if append.events.is_empty() { Repeat::Never } else { Repeat::ById };
        appended(self.ask(&request(append), repeat).await?)
    }

    /// Begins a pipeline: appends that are on their way together, and decided in their order.
    ///
    /// # Errors
    /// The server cannot be reached, or does not want this client.
    pub async fn pipeline(&self) -> Result<Pipeline, ClientError> {
        Ok(Pipeline { link: self.link().await?, timeout: self.options().request_timeout })
    }
}

/// Appends over one connection. Batches that are begun one after the other are decided in that order: where the connection is lost, none
/// is sent again, and no more are taken, so that what comes behind a lost one is not there without it.
///
/// ```no_run
/// # async fn run(client: annals_client::Client) -> Result<(), annals_client::ClientError> {
/// use annals_types::NewEvent;
/// let pipeline = client.pipeline().await?;
/// let mut pending = Vec::new();
/// for n in 0..1_000 {
///     pending.push(pipeline.begin(NewEvent::new("measurements", "Measured").json(n.to_string())).await?);
/// }
/// for append in pending {
///     append.outcome().await?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pipeline {
    link: Arc<Link>,
    timeout: Duration,
}

impl Pipeline {
    /// Sends a batch, whose outcome is awaited later. One that may be there already ([`Append::again`]) is decided in no order with
    /// the others. It waits while much of what was sent before is not on its way yet.
    ///
    /// # Errors
    /// [`ClientError::Lost`]: the connection was lost, and this batch was not sent; others: it was not sent either.
    pub async fn begin<'a>(&self, append: impl Into<Append<'a>>) -> Result<PendingAppend, ClientError> {
        let request = request(with_ids(append.into()));
        self.link.room().await;
        if self.link.is_over() {
            return Err(self.link.lost());
        }
        Ok(PendingAppend { asked: self.link.ask(&request)?, timeout: self.timeout })
    }
}

/// An append on its way.
#[must_use = "an append is known to be durable only once its outcome says so"]
pub struct PendingAppend {
    asked: Asked,
    timeout: Duration,
}

impl PendingAppend {
    /// Whether its outcome is there, so that awaiting it does not wait.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.asked.is_answered()
    }

    /// What became of it.
    ///
    /// # Errors
    /// See [`Client::append`].
    pub async fn outcome(self) -> Result<Appended, ClientError> {
        if self.is_answered() {
            // Most are, where many are on their way: no clock is needed.
            return appended(self.asked.answer().await?);
        }
        let answer = timeout(self.timeout, self.asked.answer()).await;
        appended(answer.map_err(|_| ClientError::Late)??)
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("is_over", &self.link.is_over()).finish_non_exhaustive()
    }
}

impl fmt::Debug for PendingAppend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAppend").finish_non_exhaustive()
    }
}

fn appended(answer: Answer) -> Result<Appended, ClientError> {
    match answer {
        Answer::Appended(appended) => Ok(appended),
        other => Err(unexpected(other)),
    }
}

/// The request that it is: one that may be there already says so.
fn request(append: Append<'_>) -> Request<'_> {
    match append.again {
        Some(since) => Request::AppendAgain(append, since),
        None => Request::Append(append),
    }
}

/// Makes sure that its events can be known again.
fn with_ids(mut append: Append<'_>) -> Append<'_> {
    append.events.iter_mut().for_each(give_id);
    append
}

fn give_id(event: &mut NewEvent<'_>) {
    event.id.get_or_insert_with(|| {
        // A random UUID of version 8: 122 bits by chance.
        let mut bytes: [u8; 16] = rand::random();
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid::from_bytes(bytes)
    });
}
