//! Answers that go on: events that are read, followed, or handed to a member.

use crate::ClientError;
use crate::link::{Answered, Link, unexpected};
use crate::requests::{Client, is_passing};
use annals_protocol::{Answer, Request};
use annals_types::{Delivery, DeliveryId, Follow, Followed, Nack, Record, Start};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The answers to a request, and the credit that they are sent on.
struct Flow {
    link: Arc<Link>,
    request: u64,
    answers: mpsc::UnboundedReceiver<Answered>,
    /// Bytes that were taken, and are to be given as credit again.
    taken: u64,
    /// So many are given at a time.
    portion: u64,
    has_ended: bool,
}

impl Flow {
    fn open(link: Arc<Link>, request: &Request<'_>, credit: u64) -> Result<Self, ClientError> {
        let (number, answers) = link.open(request)?;
        Ok(Self { link, request: number, answers, taken: 0, portion: credit / 4, has_ended: false })
    }

    /// The next answer. `None`: there is none.
    async fn next(&mut self) -> Option<Result<Answer, ClientError>> {
        if self.has_ended {
            return None;
        }
        let Some(Answered { answer, has_more, bytes }) = self.answers.recv().await else {
            self.has_ended = true;
            return Some(Err(self.link.lost()));
        };
        self.has_ended = !has_more;
        self.taken += bytes;
        if has_more && self.taken >= self.portion {
            self.link.tell(&Request::Credit(self.request, self.taken));
            self.taken = 0;
        }
        Some(Ok(answer))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !self.has_ended {
            self.link.tell(&Request::Cancel(self.request));
        }
    }
}

/// The events of a read, in its order.
pub struct Events {
    flow: Flow,
    ready: VecDeque<Record>,
}

impl Events {
    pub(crate) fn open(link: Arc<Link>, request: &Request<'_>) -> Result<Self, ClientError> {
        let credit = match request {
            Request::Read(_, _, credit) => *credit,
            _ => 0,
        };
        Ok(Self { flow: Flow::open(link, request, credit)?, ready: VecDeque::new() })
    }

    /// The next event. `None`: there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Record, ClientError>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                return Some(Ok(record));
            }
            match self.flow.next().await? {
                Ok(Answer::Events(records)) => self.ready = records.into(),
                Ok(Answer::Done) => return None,
                Ok(other) => {
                    self.flow.has_ended = true;
                    return Some(Err(unexpected(other)));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What is followed, as it comes.
pub struct Following {
    client: Client,
    follow: Follow<'static>,
    flow: Flow,
    ready: VecDeque<Followed>,
}

impl Following {
    pub(crate) async fn open(client: Client, follow: &Follow<'_>) -> Result<Self, ClientError> {
        let follow = Follow {
            stream: follow.stream.as_deref().map(|stream| stream.to_owned().into()),
            query: follow.query.clone().into_owned(),
            ..*follow
        };
        let flow = begin(&client, &follow).await?;
        Ok(Self { client, follow, flow, ready: VecDeque::new() })
    }

    /// What comes next; it waits for it. `None`: nothing more will come.
    pub async fn next(&mut self) -> Option<Result<Followed, ClientError>> {
        loop {
            if let Some(followed) = self.ready.pop_front() {
                self.follow.start = Start::From(followed.next_position().into());
                return Some(Ok(followed));
            }
            let failed = match self.flow.next().await? {
                Ok(Answer::Events(records)) => {
                    self.ready = records.into_iter().map(Followed::Event).collect();
                    continue;
                }
                Ok(Answer::CaughtUp(next)) => {
                    self.ready.push_back(Followed::CaughtUp { next });
                    continue;
                }
                Ok(Answer::Progress(next)) => {
                    self.ready.push_back(Followed::Progress { next });
                    continue;
                }
                Ok(other) => unexpected(other),
                Err(error) => error,
            };
            if !is_passing(&failed) {
                self.flow.has_ended = true;
                return Some(Err(failed));
            }
            if let Err(error) = self.go_on().await {
                self.flow.has_ended = true;
                return Some(Err(error));
            }
        }
    }

    /// Goes on over a new connection, for as long as it takes to have one.
    async fn go_on(&mut self) -> Result<(), ClientError> {
        let mut pause = Duration::from_millis(20);
        loop {
            match begin(&self.client, &self.follow).await {
                Ok(flow) => {
                    self.flow = flow;
                    return Ok(());
                }
                Err(error) if is_passing(&error) => {
                    tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                    pause = (2 * pause).min(Duration::from_secs(1));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

async fn begin(client: &Client, follow: &Follow<'_>) -> Result<Flow, ClientError> {
    let credit = client.options().stream_bytes;
    let link = client.link().await?;
    Flow::open(link, &Request::Follow(follow.clone(), credit), credit)
}

/// A member of a durable subscription, and what it is handed. Where the connection is lost, it is none any more: what it
/// held is handed out again.
pub struct Deliveries {
    client: Client,
    flow: Flow,
    ready: VecDeque<Delivery>,
}

impl Deliveries {
    pub(crate) async fn open(client: &Client, subscription: &str) -> Result<Self, ClientError> {
        let credit = client.options().stream_bytes;
        let link = client.link().await?;
        let mut flow = Flow::open(link, &Request::Join(subscription.into(), credit), credit)?;
        match flow.next().await {
            Some(Ok(Answer::Done)) => Ok(Self { client: client.clone(), flow, ready: VecDeque::new() }),
            Some(Ok(other)) => {
                flow.has_ended = true;
                Err(unexpected(other))
            }
            Some(Err(error)) => Err(error),
            None => Err(flow.link.lost()),
        }
    }

    /// The event that comes next for this member; it waits for it. `None`: nothing more will come.
    pub async fn next(&mut self) -> Option<Result<Delivery, ClientError>> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Some(Ok(delivery));
            }
            match self.flow.next().await? {
                Ok(Answer::Deliveries(deliveries)) => self.ready = deliveries.into(),
                Ok(other) => return Some(Err(unexpected(other))),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Events are done with: all of these, or none.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Lost`]: the connection was, and with it the membership.
    pub async fn ack(&self, ids: &[DeliveryId]) -> Result<(), ClientError> {
        self.say(&Request::Ack(self.flow.request, ids.to_vec())).await
    }

    /// An event could not be handled.
    ///
    /// # Errors
    /// As those of [`Deliveries::ack`].
    pub async fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), ClientError> {
        self.say(&Request::Nack(self.flow.request, id, nack.clone())).await
    }

    /// The member needs more time.
    ///
    /// # Errors
    /// As those of [`Deliveries::ack`].
    pub async fn renew(&self) -> Result<(), ClientError> {
        self.say(&Request::Renew(self.flow.request)).await
    }

    /// Over the connection that made it a member, or not at all.
    async fn say(&self, request: &Request<'_>) -> Result<(), ClientError> {
        let mut body = bytes::BytesMut::new();
        request.encode(&mut body);
        let asked = self.flow.link.ask(request.kind(), &body);
        match tokio::time::timeout(self.client.options().request_timeout, asked).await {
            Ok(Ok(Answer::Done)) => Ok(()),
            Ok(Ok(other)) => Err(unexpected(other)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ClientError::Late),
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Following {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Following").field("start", &self.follow.start).finish_non_exhaustive()
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deliveries").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}
