//! Answers that go on: events that are read, followed, or handed to a member.

use crate::link::{Answered, Link, unexpected};
use crate::requests::{Client, Pauses};
use crate::{ClientError, error::is_going};
use annals_protocol::{Answer, Failure, Request};
use annals_types::{Delivery, DeliveryId, Follow, Followed, Head, Nack, Record, Start, SubscriptionError};
use futures_core::Stream;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::sync::mpsc;

/// The answers to a request, and the credit that they are sent on.
pub(crate) struct Flow {
    link: Arc<Link>,
    request: u64,
    answers: mpsc::UnboundedReceiver<Answered>,
    /// Bytes that were taken, and are to be given as credit again.
    taken: u64,
    /// So many are given at a time; 0: the request has no credit.
    portion: u64,
    has_ended: bool,
}

impl Flow {
    pub(crate) fn open(link: Arc<Link>, request: &Request<'_>, credit: u64) -> Result<Self, ClientError> {
        let (number, answers) = link.open(request)?;
        Ok(Self { link, request: number, answers, taken: 0, portion: credit / 4, has_ended: false })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The next answer. `None`: there is none.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Answer, ClientError>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let Some(Answered { answer, has_more, bytes }) = ready!(self.answers.poll_recv(context)) else {
            self.has_ended = true;
            return Poll::Ready(Some(Err(self.link.lost())));
        };
        self.has_ended = !has_more;
        self.taken += bytes;
        if has_more && self.portion > 0 && self.taken >= self.portion {
            self.link.tell(&Request::Credit(self.request, self.taken));
            self.taken = 0;
        }
        Poll::Ready(Some(Ok(answer)))
    }

    /// The next answer, of which there must be one.
    pub(crate) async fn required(&mut self) -> Result<Answer, ClientError> {
        let next = poll_fn(|context| self.poll(context)).await;
        next.unwrap_or_else(|| Err(ClientError::Nonsense("its answer ends too early".to_owned())))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        if !self.has_ended {
            self.link.tell(&Request::Cancel(self.request));
        }
    }
}

/// The next of a stream.
async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// The events of a read, in its order.
pub struct Events {
    pub(crate) flow: Flow,
    ready: std::vec::IntoIter<Record>,
}

impl Events {
    pub(crate) fn open(link: Arc<Link>, request: &Request<'_>, credit: u64) -> Result<Self, ClientError> {
        Ok(Self { flow: Flow::open(link, request, credit)?, ready: Vec::new().into_iter() })
    }

    /// The next event. `None`: there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Record, ClientError>> {
        next(self).await
    }

    /// The next event, if it has arrived already.
    pub(crate) fn at_hand(&mut self) -> Option<Record> {
        self.ready.next()
    }
}

impl Stream for Events {
    type Item = Result<Record, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(record) = this.ready.next() {
                return Poll::Ready(Some(Ok(record)));
            }
            match ready!(this.flow.poll(context)) {
                None | Some(Ok(Answer::Done)) => return Poll::Ready(None),
                Some(Ok(Answer::Events(records))) => this.ready = records.into_iter(),
                Some(Ok(other)) => return Poll::Ready(Some(Err(unexpected(other)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

/// All streams with their last events, in no particular order.
pub struct Heads {
    flow: Flow,
    ready: std::vec::IntoIter<(String, Head)>,
}

impl Heads {
    pub(crate) fn open(link: Arc<Link>, credit: u64) -> Result<Self, ClientError> {
        let flow = Flow::open(link, &Request::Streams(credit), credit)?;
        Ok(Self { flow, ready: Vec::new().into_iter() })
    }

    /// The next stream. `None`: there is none.
    pub async fn next(&mut self) -> Option<Result<(String, Head), ClientError>> {
        next(self).await
    }
}

impl Stream for Heads {
    type Item = Result<(String, Head), ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(head) = this.ready.next() {
                return Poll::Ready(Some(Ok(head)));
            }
            match ready!(this.flow.poll(context)) {
                None => return Poll::Ready(None),
                Some(Ok(Answer::Heads(heads))) => this.ready = heads.into_iter(),
                Some(Ok(other)) => return Poll::Ready(Some(Err(unexpected(other)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
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
    /// The connection was lost: it is gone on over another.
    going_on: Option<GoingOn>,
    has_ended: bool,
}

type GoingOn = Pin<Box<dyn Future<Output = Result<Flow, ClientError>> + Send>>;

impl Following {
    pub(crate) async fn open(client: Client, follow: &Follow<'_>) -> Result<Self, ClientError> {
        let follow = Follow {
            stream: follow.stream.as_deref().map(|stream| stream.to_owned().into()),
            query: follow.query.clone().into_owned(),
            ..*follow
        };
        let flow = begin(&client, &follow).await?;
        Ok(Self { client, follow, flow, ready: VecDeque::new(), going_on: None, has_ended: false })
    }

    /// What comes next; it waits for it. `None`: nothing more will come.
    pub async fn next(&mut self) -> Option<Result<Followed, ClientError>> {
        next(self).await
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Takes in an answer; what is none of those that there may be is a failure.
    fn take(&mut self, answer: Answer) -> Result<(), ClientError> {
        match answer {
            Answer::Events(records) => self.ready = records.into_iter().map(Followed::Event).collect(),
            Answer::CaughtUp(next) => self.ready.push_back(Followed::CaughtUp { next }),
            Answer::Progress(next) => self.ready.push_back(Followed::Progress { next }),
            other => return Err(unexpected(other)),
        }
        // What has arrived is given out here; over another connection it goes on behind it.
        if let Some(last) = self.ready.back() {
            self.follow.start = Start::From(last.next_position().into());
        }
        Ok(())
    }
}

impl Stream for Following {
    type Item = Result<Followed, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(followed) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(followed)));
            }
            if this.has_ended {
                return Poll::Ready(None);
            }
            let failed = if let Some(going_on) = &mut this.going_on {
                let flow = ready!(going_on.as_mut().poll(context));
                this.going_on = None;
                match flow {
                    Ok(flow) => {
                        this.flow = flow;
                        continue;
                    }
                    Err(error) => error,
                }
            } else {
                match ready!(this.flow.poll(context)) {
                    None => {
                        this.has_ended = true;
                        continue;
                    }
                    Some(answer) => match answer.and_then(|answer| this.take(answer)) {
                        Ok(()) => continue,
                        Err(error) if error.is_passing() => {
                            let (client, follow) = (this.client.clone(), this.follow.clone());
                            this.going_on = Some(Box::pin(async move { go_on(&client, &follow).await }));
                            continue;
                        }
                        Err(error) => error,
                    },
                }
            };
            // Damage is told, and gone on behind: the server does so.
            this.has_ended = this.flow.has_ended;
            return Poll::Ready(Some(Err(failed)));
        }
    }
}

/// Over a new connection, for as long as it takes to have one.
async fn go_on(client: &Client, follow: &Follow<'static>) -> Result<Flow, ClientError> {
    let mut pauses = Pauses::default();
    loop {
        tokio::time::sleep(pauses.next()).await;
        match begin(client, follow).await {
            Err(error) if error.is_passing() => {}
            begun => return begun,
        }
    }
}

async fn begin(client: &Client, follow: &Follow<'_>) -> Result<Flow, ClientError> {
    let credit = client.credit();
    Flow::open(client.link().await?, &Request::Follow(follow.clone(), credit), credit)
}

/// A member of a durable subscription, and what it is handed. Where the connection is lost, it is none any more: what it
/// held is handed out again.
pub struct Deliveries {
    client: Client,
    flow: Flow,
    ready: std::vec::IntoIter<Delivery>,
}

impl Deliveries {
    pub(crate) async fn open(client: &Client, subscription: &str) -> Result<Self, ClientError> {
        let credit = client.credit();
        let link = client.link().await?;
        let mut flow = Flow::open(link, &Request::Join(subscription.into(), credit), credit)?;
        match flow.required().await? {
            Answer::Done => Ok(Self { client: client.clone(), flow, ready: Vec::new().into_iter() }),
            other => Err(unexpected(other)),
        }
    }

    /// The event that comes next for this member; it waits for it. `None`: nothing more will come.
    /// [`SubscriptionError::Stopped`] is told each time that the subscription is stopped; from then on it waits until that is
    /// resumed. After any other error it is no member any more.
    pub async fn next(&mut self) -> Option<Result<Delivery, ClientError>> {
        next(self).await
    }

    /// Whether it is no member any more.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.flow.has_ended && self.ready.len() == 0
    }

    /// Events are done with: all of these, or none.
    ///
    /// # Errors
    /// See [`ClientError`]; [`ClientError::Lost`]: the connection was, and with it the membership.
    pub async fn ack_each(&self, ids: &[DeliveryId]) -> Result<(), ClientError> {
        self.say(&Request::Ack(self.flow.request, ids.to_vec())).await
    }

    /// An event is done with.
    ///
    /// # Errors
    /// As those of [`Deliveries::ack_each`].
    pub async fn ack(&self, id: DeliveryId) -> Result<(), ClientError> {
        self.ack_each(&[id]).await
    }

    /// An event could not be handled.
    ///
    /// # Errors
    /// As those of [`Deliveries::ack_each`].
    pub async fn nack(&self, id: DeliveryId, nack: &Nack<'_>) -> Result<(), ClientError> {
        self.say(&Request::Nack(self.flow.request, id, nack.clone())).await
    }

    /// The member needs more time.
    ///
    /// # Errors
    /// As those of [`Deliveries::ack_each`].
    pub async fn renew(&self) -> Result<(), ClientError> {
        self.say(&Request::Renew(self.flow.request)).await
    }

    /// Over the connection that made it a member, or not at all.
    async fn say(&self, request: &Request<'_>) -> Result<(), ClientError> {
        let asked = self.flow.link.ask(request)?.answer();
        match tokio::time::timeout(self.client.options().request_timeout, asked).await {
            Ok(Ok(Answer::Done)) => Ok(()),
            Ok(Ok(other)) => Err(unexpected(other)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ClientError::Late),
        }
    }
}

impl Stream for Deliveries {
    type Item = Result<Delivery, ClientError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(delivery) = this.ready.next() {
                return Poll::Ready(Some(Ok(delivery)));
            }
            match ready!(this.flow.poll(context)) {
                None => return Poll::Ready(None),
                Some(Ok(Answer::Deliveries(deliveries))) => this.ready = deliveries.into_iter(),
                // The store is closed where it is.
                Some(Ok(Answer::Failed(failure))) if is_going(&failure) => {
                    return Poll::Ready(Some(Err(Failure::Subscription(SubscriptionError::Closed).into())));
                }
                Some(Ok(other)) => return Poll::Ready(Some(Err(unexpected(other)))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heads").field("ready", &self.ready.len()).finish_non_exhaustive()
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
