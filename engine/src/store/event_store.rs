//! The embedded store as any store.

use super::Store;
use super::follow::FollowingStream;
use super::member::{Acknowledger, Member};
use super::read::Reader;
use annals_types::{
    Append, Appended, AsStoreStream, Cursor, Delivery, DeliveryId, EventStore, Follow, Head, Load, Loaded,
    Nack, NewSnapshot, NewSubscription, Parked, ParkedChoice, Read, ReadError, Record, StoreError,
    SubscriptionMember, Version,
};
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The events of a read as a stream. It is never pending: what has to be read from the disk is read by the thread that polls.
#[derive(Debug)]
pub struct ReaderStream(Reader);

impl Reader {
    /// The same as a stream, for code that runs on any store.
    #[must_use]
    pub fn into_stream(self) -> ReaderStream {
        ReaderStream(self)
    }
}

impl Stream for ReaderStream {
    type Item = Result<Record, ReadError>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().0.next())
    }
}

impl EventStore for Store {
    type Events = AsStoreStream<ReaderStream>;
    type Following = AsStoreStream<FollowingStream>;
    type Member = Member;

    async fn append(&self, append: Append<'_>) -> Result<Appended, StoreError> {
        let ticket = Self::append(self, append)?;
        Ok(ticket.await?)
    }

    async fn read(&self, read: &Read<'_>) -> Result<Self::Events, StoreError> {
        Ok(AsStoreStream::new(Self::read(self, read.clone())?.into_stream()))
    }

    async fn load(&self, load: &Load<'_>) -> Result<Loaded<Self::Events>, StoreError> {
        let Loaded { snapshot, events, passed_over } = Self::load(self, load)?;
        Ok(Loaded { snapshot, events: AsStoreStream::new(events.into_stream()), passed_over })
    }

    async fn follow(&self, follow: &Follow<'_>) -> Result<Self::Following, StoreError> {
        Ok(AsStoreStream::new(Self::follow(self, follow)?.into_stream()))
    }

    async fn head(&self, stream: &str) -> Result<Option<Head>, StoreError> {
        Ok(Self::head(self, stream)?)
    }

    async fn cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(Self::cursor(self, name)?)
    }

    async fn write_snapshot(&self, snapshot: &NewSnapshot<'_>, version: Version) -> Result<(), StoreError> {
        Ok(Self::write_snapshot(self, snapshot, version)?)
    }

    async fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, StoreError> {
        Ok(Self::create_subscription(self, new)?)
    }

    async fn parked(&self, subscription: &str) -> Result<Vec<Parked>, StoreError> {
        Ok(Self::parked(self, subscription)?)
    }

    async fn replay_parked(&self, subscription: &str, which: &ParkedChoice) -> Result<usize, StoreError> {
        Ok(Self::replay_parked(self, subscription, which)?)
    }

    async fn join(&self, subscription: &str) -> Result<Self::Member, StoreError> {
        Ok(Self::join(self, subscription)?)
    }
}

impl SubscriptionMember for Member {
    async fn next_delivery(&mut self) -> Option<Result<Delivery, StoreError>> {
        let next = poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await;
        next.map(|delivery| Ok(delivery?))
    }

    async fn ack(&self, ids: &[DeliveryId]) -> Result<(), StoreError> {
        Ok(self.ack_each(ids)?)
    }

    async fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), StoreError> {
        Ok(Acknowledger::nack(self, id, nack)?)
    }

    async fn renew(&self) -> Result<(), StoreError> {
        Ok(Acknowledger::renew(self)?)
    }
}
