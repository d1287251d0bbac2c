//! Appends: one that is sent again where its answer is lost, and ones that are on their way together, in their order.

use crate::link::{Asked, unexpected};
use crate::requests::Repeat;
use crate::{Client, ClientError};
use annals_protocol::{Answer, Request};
use annals_types::{Append, Appended, NewEvent, Uuid};
use std::fmt;
use tokio::time::timeout;

impl Client {
    /// Appends a batch; it is durable once this is ready. Where the answer is lost with the connection, the same batch is sent
    /// once more over a new one: its events get ids here, by which the server knows it again. Give ids yourself
    /// ([`NewEvent::id`]) where you want to repeat it after [`ClientError::Late`] or [`ClientError::Lost`].
    ///
    /// # Errors
    /// [`ClientError::Refused`] with what the server says; [`ClientError::Late`] and [`ClientError::Lost`]: it may have been
    /// appended, or not; others: it was not.
    pub async fn append<'a>(&self, append: impl Into<Append<'a>>) -> Result<Appended, ClientError> {
        let append = with_ids(append.into());
        let repeat = if append.events.is_empty() { Repeat::Never } else { Repeat::ById };
        appended(self.ask(&Request::Append(append), repeat).await?)
    }

    /// Sends a batch, whose outcome is awaited later. Batches that are begun one after the other are appended in that order,
    /// unless the connection is lost in between. None is sent again by itself.
    ///
    /// # Errors
    /// The server cannot be reached; it was not sent.
    pub async fn begin_append<'a>(
        &self,
        append: impl Into<Append<'a>>,
    ) -> Result<PendingAppend, ClientError> {
        let request = Request::Append(with_ids(append.into()));
        let link = self.link().await?;
        link.room().await;
        let asked = link.ask(&request)?;
        Ok(PendingAppend { asked, client: self.clone() })
    }
}

/// An append on its way.
#[must_use = "an append is known to be durable only once its outcome says so"]
pub struct PendingAppend {
    asked: Asked,
    client: Client,
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
        let answer = timeout(self.client.options().request_timeout, self.asked.answer()).await;
        appended(answer.map_err(|_| ClientError::Late)??)
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
