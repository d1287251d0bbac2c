//! What a command works on: a store in a directory, or one of a server. Both answer alike.

use crate::failure::Failure;
use annals::{
    Append, Appended, Delivery, DeliveryId, Follow, Followed, Head, Load, Loaded, NewSubscription, Parked,
    ParkedChoice, PassedOver, Position, Read, Record, Snapshot, Start, Stat, Store, SubscriptionStatus,
    Touched, Verified, Version,
};
use annals_client::blocking;
use std::sync::OnceLock;
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(crate) enum Source {
    /// A store that this process has open.
    Here(Store),
    /// A store of a server; and a pipeline to it, once something is begun without waiting for it.
    There(blocking::Client, OnceLock<blocking::Pipeline>),
}

/// What both do by the same name.
macro_rules! both {
    ($source:expr, $it:ident => $does:expr) => {
        match $source {
            Self::Here($it, ..) => Ok($does?),
            Self::There($it, ..) => Ok($does?),
        }
    };
}

impl Source {
    /// Appends, in the order of the calls.
    pub(crate) fn append(&self, append: Append<'_>) -> Result<Pending, Failure> {
        match self {
            Self::Here(store) => Ok(Pending::Here(store.append(append)?)),
            Self::There(client, pipeline) => {
                let pipeline = match pipeline.get() {
                    Some(pipeline) => pipeline,
                    None => pipeline.get_or_init({
                        let begun = client.pipeline()?;
                        || begun
                    }),
                };
                Ok(Pending::There(pipeline.begin(append)?))
            }
        }
    }

    /// Appends, and waits until that is durable. On a server it is sent again where the answer is lost.
    pub(crate) fn append_and_wait(&self, append: Append<'_>) -> Result<Appended, Failure> {
        match self {
            Self::Here(store) => Ok(store.append(append)?.wait()?),
            Self::There(client, _) => Ok(client.append(append)?),
        }
    }

    pub(crate) fn read(&self, read: Read<'_>) -> Result<Events, Failure> {
        match self {
            Self::Here(store) => Ok(Events::Here(Box::new(store.read(read)?))),
            Self::There(client, _) => Ok(Events::There(client.read(&read)?)),
        }
    }

    /// A stream's state: a snapshot, and the events behind it.
    pub(crate) fn load(&self, load: &Load<'_>) -> Result<Replay, Failure> {
        match self {
            Self::Here(store) => {
                let Loaded { snapshot, events, passed_over } = store.load(load)?;
                Ok(Replay { snapshot, passed_over, events: Events::Here(Box::new(events)) })
            }
            Self::There(client, _) => {
                let annals_client::Loaded { snapshot, events, passed_over } = client.load(load)?;
                Ok(Replay { snapshot, passed_over, events: Events::There(events) })
            }
        }
    }

    pub(crate) fn follow(&self, follow: &Follow<'_>) -> Result<Following, Failure> {
        match self {
            Self::Here(store) => Ok(Following::Here(Box::new(store.follow(follow)?))),
            Self::There(client, _) => Ok(Following::There(Box::new(client.follow(follow)?))),
        }
    }

    pub(crate) fn join(&self, subscription: &str) -> Result<Member, Failure> {
        match self {
            Self::Here(store) => Ok(Member::Here(store.join(subscription)?)),
            Self::There(client, _) => Ok(Member::There(client.join(subscription)?)),
        }
    }

    pub(crate) fn head(&self, stream: &str) -> Result<Option<Head>, Failure> {
        both!(self, it => it.head(stream))
    }

    /// Calls `take` with each stream and its head, in no particular order.
    pub(crate) fn each_stream(
        &self,
        mut take: impl FnMut(&str, Head) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::Here(store) => store.streams()?.try_for_each(|stream| {
                stream.map_err(Failure::from).and_then(|(name, head)| take(&name, head))
            }),
            Self::There(client, _) => client.streams()?.try_for_each(|stream| {
                stream.map_err(Failure::from).and_then(|(name, head)| take(&name, head))
            }),
        }
    }

    pub(crate) fn next_position(&self) -> Result<Position, Failure> {
        match self {
            Self::Here(store) => Ok(store.next_position()),
            Self::There(client, _) => Ok(client.stat()?.next_position),
        }
    }

    pub(crate) fn stat(&self) -> Result<Stat, Failure> {
        both!(self, it => it.stat())
    }

    pub(crate) fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<Verified, Failure> {
        match self {
            Self::Here(store) => Ok(store.verify(&mut progress)?),
            Self::There(client, _) => Ok(client.verify(progress)?),
        }
    }

    pub(crate) fn snapshots(&self, stream: &str) -> Result<(Vec<Snapshot>, Vec<PassedOver>), Failure> {
        both!(self, it => it.snapshots(stream))
    }

    pub(crate) fn snapshot_streams(&self) -> Result<Vec<String>, Failure> {
        both!(self, it => it.snapshot_streams())
    }

    pub(crate) fn delete_snapshots(
        &self,
        stream: &str,
        name: &str,
        version: Option<Version>,
    ) -> Result<(), Failure> {
        both!(self, it => it.delete_snapshots(stream, name, version))
    }

    pub(crate) fn create_subscription(&self, new: &NewSubscription<'_>) -> Result<bool, Failure> {
        both!(self, it => it.create_subscription(new))
    }

    pub(crate) fn subscription(&self, name: &str) -> Result<SubscriptionStatus, Failure> {
        both!(self, it => it.subscription(name))
    }

    pub(crate) fn subscriptions(&self) -> Result<Vec<SubscriptionStatus>, Failure> {
        both!(self, it => it.subscriptions())
    }

    pub(crate) fn parked(&self, subscription: &str) -> Result<Vec<Parked>, Failure> {
        both!(self, it => it.parked(subscription))
    }

    pub(crate) fn replay_parked(&self, subscription: &str, which: &ParkedChoice) -> Result<usize, Failure> {
        both!(self, it => it.replay_parked(subscription, which))
    }

    pub(crate) fn discard_parked(&self, subscription: &str, which: &ParkedChoice) -> Result<usize, Failure> {
        both!(self, it => it.discard_parked(subscription, which))
    }

    pub(crate) fn reset_subscription(&self, name: &str, start: Start) -> Result<(), Failure> {
        both!(self, it => it.reset_subscription(name, start))
    }

    pub(crate) fn stop_subscription(&self, name: &str, reason: &str) -> Result<(), Failure> {
        both!(self, it => it.stop_subscription(name, reason))
    }

    pub(crate) fn resume_subscription(&self, name: &str) -> Result<(), Failure> {
        both!(self, it => it.resume_subscription(name))
    }

    pub(crate) fn delete_subscription(&self, name: &str) -> Result<(), Failure> {
        both!(self, it => it.delete_subscription(name))
    }

    /// Ends the work: what was written here may fail still.
    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Here(store) => Ok(store.close()?),
            Self::There(..) => Ok(()),
        }
    }
}

/// An append on its way.
#[derive(Debug)]
pub(crate) enum Pending {
    Here(annals::Ticket),
    There(blocking::PendingAppend),
}

impl Pending {
    pub(crate) fn wait(self) -> Result<Appended, Failure> {
        both!(self, it => it.wait())
    }
}

/// A stream's state: where it begins, and what is behind that.
pub(crate) struct Replay {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) passed_over: Vec<PassedOver>,
    pub(crate) events: Events,
}

/// The events of a read.
pub(crate) enum Events {
    Here(Box<annals::Reader>),
    There(blocking::Events),
}

impl Events {
    /// What was looked at, where that is known.
    pub(crate) fn touched(&self) -> Option<Touched> {
        match self {
            Self::Here(reader) => Some(reader.touched()),
            Self::There(_) => None,
        }
    }
}

impl Iterator for Events {
    type Item = Result<Record, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Here(reader) => reader.next().map(|event| Ok(event?)),
            Self::There(events) => events.next().map(|event| Ok(event?)),
        }
    }
}

/// What is followed.
pub(crate) enum Following {
    Here(Box<annals::Following>),
    There(Box<blocking::Following>),
}

impl Following {
    pub(crate) fn next_within(&mut self, patience: Duration) -> Result<Option<Followed>, Failure> {
        both!(self, it => it.next_within(patience))
    }
}

/// A member of a durable subscription.
pub(crate) enum Member {
    Here(annals::Member),
    There(blocking::Deliveries),
}

impl Member {
    pub(crate) fn next_within(&mut self, patience: Duration) -> Result<Option<Delivery>, Failure> {
        both!(self, it => it.next_within(patience))
    }

    pub(crate) fn ack(&self, id: DeliveryId) -> Result<(), Failure> {
        both!(self, it => it.ack(id))
    }
}
