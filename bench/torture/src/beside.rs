//! What a store keeps beside its log, and what becomes of that: states of streams, and how far a durable subscription has come.

use crate::check::Log;
use crate::journal::Journal;
use crate::plan::{STATE_BYTES, data};
use annals_client::{Client, ClientError, Deliveries, Failure, Options};
use annals_types::{DeliveryId, Load, NewSubscription, Position, SubscriptionError};
use std::sync::Arc;
use std::time::Duration;

/// The subscription that all members are of.
const SUBSCRIPTION: &str = "everything";
/// Events that are acknowledged together, and that a member may hold.
const TOGETHER: usize = 64;
const IN_FLIGHT: u32 = 500;
/// How long a member waits for more before it acknowledges what it has.
const MOMENT: Duration = Duration::from_millis(1);
/// How long is waited for an event that may come.
const A_WHILE: Duration = Duration::from_millis(50);
/// How long an event may take that has to come: longer than a member that is gone is believed to be there.
const SOON: Duration = Duration::from_secs(40);
/// No failure of a member is the event's: none is parked.
const RETRIES: u32 = 1_000_000;

/// Becomes a member, which there may be several of.
pub(crate) async fn join(client: &Client) -> Result<Deliveries, ClientError> {
    let backoff = Duration::from_millis(1);
    let all = NewSubscription::new(SUBSCRIPTION).shared().in_flight_max(IN_FLIGHT);
    client.create_subscription(&all.retries(RETRIES, backoff, backoff)).await?;
    client.join(SUBSCRIPTION).await
}

/// Takes and acknowledges events until the server is gone.
pub(crate) async fn take(mut deliveries: Deliveries, journal: Arc<Journal>) {
    while let Ok(true) = take_some(&mut deliveries, &journal, SOON).await {}
}

/// Takes some events, if any come soon, and acknowledges them. Whether any came.
async fn take_some(
    deliveries: &mut Deliveries,
    journal: &Journal,
    patience: Duration,
) -> Result<bool, ClientError> {
    let mut taken: Vec<DeliveryId> = Vec::new();
    while taken.len() < TOGETHER {
        let patience = if taken.is_empty() { patience } else { MOMENT };
        let Ok(next) = tokio::time::timeout(patience, deliveries.next()).await else { break };
        let delivery =
            next.unwrap_or(Err(ClientError::Refused(Failure::Subscription(SubscriptionError::Closed))))?;
        journal.take(&delivery.event);
        taken.push(delivery.id);
    }
    deliveries.ack_each(&taken).await?;
    journal.acknowledge(taken.iter().map(|id| id.position.get()));
    Ok(!taken.is_empty())
}

/// Takes what members have left over, up to the end of the log; says what never comes.
pub(crate) async fn take_rest(
    address: &str,
    journal: &Journal,
    events: u64,
) -> Result<Option<String>, ClientError> {
    let client = Client::connect(Options::new(address)).await?;
    let mut deliveries = join(&client).await?;
    while let Some(missing) = journal.not_taken(events) {
        if !take_some(&mut deliveries, journal, SOON).await? {
            return Ok(Some(format!("position {missing} never comes to a member of the subscription")));
        }
    }
    // And what comes again.
    for _ in 0..SOON.as_millis() / A_WHILE.as_millis() {
        let status = client.subscription(SUBSCRIPTION).await?;
        if status.open == 0 && status.next.get() >= events {
            journal.settle();
            return Ok(None);
        }
        take_some(&mut deliveries, journal, A_WHILE).await?;
    }
    Ok(Some("some events of the subscription are never done".to_owned()))
}

/// Loads the state of each stream, up to where the log was read: it is that of the event at its version. What is wrong.
pub(crate) async fn check_states(client: &Client, log: &Log) -> Result<Vec<String>, ClientError> {
    let mut wrong = Vec::new();
    // What was asked before may be done later than that.
    let Some(last) = (log.len() as u64).checked_sub(1) else { return Ok(wrong) };
    for stream in log.streams() {
        let load = Load::stream(stream).until(Position::new(last));
        let Some(state) = client.load(&load).await?.snapshot else { continue };
        match log.event_of(stream, state.version.get()) {
            None => {
                wrong.push(format!("{stream} has a state of version {}, which is not there", state.version))
            }
            Some(id) if state.data[..] != data(id, STATE_BYTES) => {
                wrong.push(format!("{stream} at version {} has the state of another event", state.version));
            }
            Some(_) => {}
        }
    }
    Ok(wrong)
}
