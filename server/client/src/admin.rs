//! Snapshots, durable subscriptions and stores: their administration.

use crate::link::unexpected;
use crate::requests::Repeat;
use crate::{Client, ClientError};
use annals_protocol::{Answer, Request};
use annals_types::{
    NewSnapshot, NewSubscription, Parked, ParkedChoice, PassedOver, Snapshot, Start, SubscriptionStatus,
    Version,
};

/// Errors are those of [`ClientError`]; after [`ClientError::Lost`] or [`ClientError::Late`] a change may have been made.
impl Client {
    /// Writes a snapshot of a stream at a version.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn write_snapshot(
        &self,
        snapshot: &NewSnapshot<'_>,
        version: Version,
    ) -> Result<(), ClientError> {
        self.done(&Request::WriteSnapshot(snapshot.clone(), version), Repeat::Freely).await
    }

    /// A stream's snapshots, the one written last first, and those that cannot be used.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn snapshots(&self, stream: &str) -> Result<(Vec<Snapshot>, Vec<PassedOver>), ClientError> {
        match self.list(&Request::Snapshots(stream.into())).await? {
            Answer::Snapshots(snapshots, passed_over) => Ok((snapshots, passed_over)),
            other => Err(unexpected(other)),
        }
    }

    /// Names of streams that have snapshots.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn snapshot_streams(&self) -> Result<Vec<String>, ClientError> {
        self.names(&Request::SnapshotStreams).await
    }

    /// Deletes a stream's snapshots of a name: that of a version, or all.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_snapshots(
        &self,
        stream: &str,
        name: &str,
        version: Option<Version>,
    ) -> Result<(), ClientError> {
        self.done(&Request::DeleteSnapshots(stream.into(), name.into(), version), Repeat::Freely).await
    }

    /// Creates a durable subscription; `false`: there was one with just these settings.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, ClientError> {
        match self.ask(&Request::CreateSubscription(new.clone()), Repeat::Freely).await? {
            Answer::Flag(is_created) => Ok(is_created),
            other => Err(unexpected(other)),
        }
    }

    /// How a durable subscription stands.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscription(&self, name: &str) -> Result<SubscriptionStatus, ClientError> {
        match self.ask(&Request::Subscription(name.into()), Repeat::Freely).await? {
            Answer::Subscriptions(mut statuses) if statuses.len() == 1 => Ok(statuses.remove(0)),
            other => Err(unexpected(other)),
        }
    }

    /// How all durable subscriptions stand.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionStatus>, ClientError> {
        match self.list(&Request::Subscriptions).await? {
            Answer::Subscriptions(statuses) => Ok(statuses),
            other => Err(unexpected(other)),
        }
    }

    /// The parked events of a durable subscription.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn parked(&self, subscription: &str) -> Result<Vec<Parked>, ClientError> {
        match self.list(&Request::Parked(subscription.into())).await? {
            Answer::Parked(parked) => Ok(parked),
            other => Err(unexpected(other)),
        }
    }

    /// Has parked events handed out again; how many there were.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn replay_parked(
        &self,
        subscription: &str,
        which: &ParkedChoice,
    ) -> Result<usize, ClientError> {
        self.count(&Request::ReplayParked(subscription.into(), which.clone())).await
    }

    /// Is done with parked events; how many there were.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn discard_parked(
        &self,
        subscription: &str,
        which: &ParkedChoice,
    ) -> Result<usize, ClientError> {
        self.count(&Request::DiscardParked(subscription.into(), which.clone())).await
    }

    /// Begins a durable subscription again from a place.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn reset_subscription(&self, name: &str, start: Start) -> Result<(), ClientError> {
        self.done(&Request::ResetSubscription(name.into(), start), Repeat::Never).await
    }

    /// Has a durable subscription hand out nothing, for a reason.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stop_subscription(&self, name: &str, reason: &str) -> Result<(), ClientError> {
        self.done(&Request::StopSubscription(name.into(), reason.into()), Repeat::Freely).await
    }

    /// Has a durable subscription hand out events again.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn resume_subscription(&self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::ResumeSubscription(name.into()), Repeat::Freely).await
    }

    /// Deletes a durable subscription, and all that is known of it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn delete_subscription(&self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::DeleteSubscription(name.into()), Repeat::Never).await
    }

    /// Names of the server's stores that this client may use.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stores(&self) -> Result<Vec<String>, ClientError> {
        self.names(&Request::Stores).await
    }

    /// Creates a store.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_store(&self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::CreateStore(name.into()), Repeat::Never).await
    }

    /// Drops a store, with all that is in it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn drop_store(&self, name: &str) -> Result<(), ClientError> {
        self.done(&Request::DropStore(name.into()), Repeat::Never).await
    }

    async fn names(&self, request: &Request<'_>) -> Result<Vec<String>, ClientError> {
        match self.list(request).await? {
            Answer::Names(names) => Ok(names),
            other => Err(unexpected(other)),
        }
    }

    async fn count(&self, request: &Request<'_>) -> Result<usize, ClientError> {
        match self.ask(request, Repeat::Never).await? {
            Answer::Count(count) => Ok(usize::try_from(count).unwrap_or(usize::MAX)),
            other => Err(unexpected(other)),
        }
    }
}
