//! A ticket: the outcome of an append, decided, and readable once what it rests on is durable.

use super::core::Core;
use crate::striped::Share;
use annals_types::{AppendError, Appended};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// The outcome of an append on its way.
///
/// The store has decided; the outcome can be read once all that it rests on is durable: block for it with
/// [`Ticket::wait`], or await the ticket. Dropping a ticket cancels nothing. Tickets of one thread settle in
/// the order of their appends, so that it is enough to wait for the oldest of many.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// use annals::{NewEvent, Store};
/// let store = Store::open(dir.path())?;
/// let tickets: Vec<_> = (0..100)
///     .map(|n| store.append(NewEvent::new("order-42", "ItemAdded").json(format!(r#"{{"n":{n}}}"#))))
///     .collect::<Result<_, _>>()?;
/// for ticket in tickets {
///     ticket.wait()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an append is known to be durable only once its ticket says so"]
pub struct Ticket {
    core: Share<Core>,
    /// Settled when all batches below this one are durable.
    batch: u64,
    /// The group that holds the last of them.
    group: u64,
    decided: Decided,
    /// What else has to be durable: the append's snapshot.
    snapshot: Option<Box<SnapshotOnItsWay>>,
}

/// The snapshot of an append that was written.
pub(crate) enum SnapshotOnItsWay {
    Ticket(Ticket),
    /// It could not even be begun.
    Failed(AppendError),
}

/// What was decided.
pub(crate) enum Decided {
    Written(Appended),
    Repeated(Appended),
    Rejected(AppendError),
}

impl Ticket {
    pub(crate) fn new(core: Share<Core>, batch: u64, group: u64, decided: Decided) -> Self {
        Self { core, batch, group, decided, snapshot: None }
    }

    /// This one's outcome for an append whose events were there before, as `appended`.
    pub(super) fn of_repeat(mut self, appended: Appended) -> Self {
        if let Decided::Written(_) = self.decided {
            self.decided = Decided::Repeated(appended);
        }
        self
    }

    /// This one's outcome once the snapshot is durable, too.
    pub(super) fn with_snapshot(mut self, snapshot: SnapshotOnItsWay) -> Self {
        self.snapshot = Some(Box::new(snapshot));
        self
    }

    /// Whether it is decided that the batch is written, and was not there before.
    pub(super) fn is_written(&self) -> bool {
        matches!(self.decided, Decided::Written(_))
    }

    fn snapshot_ticket(&self) -> Option<&Self> {
        match self.snapshot.as_deref() {
            Some(SnapshotOnItsWay::Ticket(ticket)) => Some(ticket),
            Some(SnapshotOnItsWay::Failed(_)) | None => None,
        }
    }

    /// Blocks until the outcome is settled, and returns it.
    ///
    /// # Errors
    /// The append was rejected ([`AppendError::WrongVersion`], [`AppendError::QueryMatched`],
    /// [`AppendError::AfterTheEnd`], [`AppendError::QueryTooBroad`], [`AppendError::WrongCursor`],
    /// [`AppendError::CursorAfterTheEnd`], [`AppendError::IdConflict`]), or the writer failed
    /// before it was durable: [`AppendError::UnknownOutcome`] if it had been written, else
    /// [`AppendError::Poisoned`].
    pub fn wait(self) -> Result<Appended, AppendError> {
        self.core.watermark.wait(self.batch, self.group);
        if let Some(snapshot) = self.snapshot_ticket() {
            snapshot.core.watermark.wait(snapshot.batch, snapshot.group);
        }
        self.outcome()
    }

    /// Whether the outcome can be read without waiting.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.core.watermark.is_settled(self.batch) && self.snapshot_ticket().is_none_or(Self::is_settled)
    }

    fn outcome(self) -> Result<Appended, AppendError> {
        if self.core.watermark.batch() >= self.batch {
            let appended = match self.decided {
                Decided::Written(appended) | Decided::Repeated(appended) => appended,
                Decided::Rejected(error) => return Err(error),
            };
            return match self.snapshot.map(|snapshot| *snapshot) {
                None => Ok(appended),
                Some(SnapshotOnItsWay::Ticket(ticket)) => match ticket.outcome() {
                    Ok(_) => Ok(appended),
                    Err(error) => Err(without_snapshot(&error)),
                },
                Some(SnapshotOnItsWay::Failed(error)) => Err(without_snapshot(&error)),
            };
        }
        let reason = self.core.watermark.poison().map_or_else(|| "closed".into(), Arc::clone);
        Err(match self.decided {
            Decided::Written(_) | Decided::Repeated(_) => AppendError::UnknownOutcome { reason },
            Decided::Rejected(_) => AppendError::Poisoned { reason },
        })
    }
}

impl Future for Ticket {
    type Output = Result<Appended, AppendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.get_mut();
        if !ticket.core.watermark.register(ticket.batch, context.waker()) {
            return Poll::Pending;
        }
        if let Some(snapshot) = ticket.snapshot_ticket()
            && !snapshot.core.watermark.register(snapshot.batch, context.waker())
        {
            return Poll::Pending;
        }
        // A future is not polled again once it is ready; what stays behind is never read.
        let decided = std::mem::replace(&mut ticket.decided, Decided::Rejected(AppendError::ReadOnly));
        let ready = Ticket::new(ticket.core.clone(), ticket.batch, ticket.group, decided);
        Poll::Ready(Ticket { snapshot: ticket.snapshot.take(), ..ready }.outcome())
    }
}

/// The batch is there, and its snapshot may not be: not what was asked for. Its repeat will be told so.
fn without_snapshot(error: &AppendError) -> AppendError {
    AppendError::UnknownOutcome { reason: format!("its snapshot was not written: {error}").into() }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("batch", &self.batch).field("settled", &self.is_settled()).finish()
    }
}
