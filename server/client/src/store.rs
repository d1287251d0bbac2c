//! A client as any store.

use crate::{Client, ClientError, Deliveries, Events, Following};
use annals_types::{
    Append, AppendError, Appended, AsStoreStream, Cursor, Delivery, DeliveryId, EventStore, Follow, Head,
    InputError, Load, Loaded, Nack, NewSnapshot, NewSubscription, Parked, ParkedChoice, Read, StoreError,
    SubscriptionMember, Version,
};

impl EventStore for Client {
    type Events = AsStoreStream<Events>;
    type Following = AsStoreStream<Following>;
    type Member = Deliveries;

    async fn append(&self, append: Append<'_>) -> Result<Appended, StoreError> {
        match Self::append(self, append).await {
            // In parts it may do: as with a batch that the store itself finds too long.
            Err(ClientError::TooLong { bytes, bytes_max }) => {
                Err(AppendError::Input(InputError::TooLong { what: "request", bytes, bytes_max }).into())
            }
            appended => Ok(appended?),
        }
    }

    async fn read(&self, read: &Read<'_>) -> Result<Self::Events, StoreError> {
        Ok(AsStoreStream::new(Self::read(self, read).await?))
    }

    async fn load(&self, load: &Load<'_>) -> Result<Loaded<Self::Events>, StoreError> {
        let Loaded { snapshot, events, passed_over } = Self::load(self, load).await?;
        Ok(Loaded { snapshot, events: AsStoreStream::new(events), passed_over })
    }

    async fn follow(&self, follow: &Follow<'_>) -> Result<Self::Following, StoreError> {
        Ok(AsStoreStream::new(Self::follow(self, follow).await?))
    }

    async fn head(&self, stream: &str) -> Result<Option<Head>, StoreError> {
        Ok(Self::head(self, stream).await?)
    }

    async fn cursor(&self, name: &str) -> Result<Option<Cursor>, StoreError> {
        Ok(Self::cursor(self, name).await?)
    }

    async fn write_snapshot(&self, snapshot: &NewSnapshot<'_>, version: Version) -> Result<(), StoreError> {
        Ok(Self::write_snapshot(self, snapshot, version).await?)
    }

    async fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, StoreError> {
        Ok(Self::create_subscription(self, new).await?)
    }

    async fn parked(&self, subscription: &str) -> Result<Vec<Parked>, StoreError> {
        Ok(Self::parked(self, subscription).await?)
    }

    async fn replay_parked(&self, subscription: &str, which: &ParkedChoice) -> Result<usize, StoreError> {
        Ok(Self::replay_parked(self, subscription, which).await?)
    }

    async fn join(&self, subscription: &str) -> Result<Self::Member, StoreError> {
        Ok(Self::join(self, subscription).await?)
    }
}

impl SubscriptionMember for Deliveries {
    async fn next_delivery(&mut self) -> Option<Result<Delivery, StoreError>> {
        self.next().await.map(|delivery| Ok(delivery?))
    }

    async fn ack(&self, ids: &[DeliveryId]) -> Result<(), StoreError> {
        Ok(self.ack_each(ids).await?)
    }

    async fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), StoreError> {
        Ok(Self::nack(self, id, nack).await?)
    }

    async fn renew(&self) -> Result<(), StoreError> {
        Ok(Self::renew(self).await?)
    }
}
