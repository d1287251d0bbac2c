//! Writers, readers, followers and members of a subscription of a server, until it is cut off.

use crate::beside;
use crate::journal::{Journal, Outcome};
use crate::plan::{Batch, Planned, TAGS, Terms, tag_name};
use annals_client::{Client, ClientError, Failure, Options};
use annals_types::{AppendError, Follow, Followed, Position, QueryItem, Read};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;

/// Writers; each has streams that it alone writes, and all have some together.
const WRITERS: u64 = 8;
const OWN_STREAMS: u32 = 6;
const SHARED_STREAMS: u32 = 3;
/// Members of the subscription.
const MEMBERS: usize = 2;
/// How long an answer may take: longer than any that is not lost.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What is done to a server at the same time, by tasks that end when this is dropped.
#[derive(Debug)]
pub(crate) struct Workload {
    tasks: JoinSet<()>,
}

impl Workload {
    /// Begins, over connections of its own. `seed`: what is done, as far as it does not depend on who comes first.
    pub(crate) async fn start(address: &str, journal: &Arc<Journal>, seed: u64) -> Result<Self, ClientError> {
        let mut options = Options::new(address);
        options.request_timeout = REQUEST_TIMEOUT;
        let mut tasks = JoinSet::new();
        for writer in 0..WRITERS {
            let client = Client::connect(options.clone()).await?;
            let random = SmallRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(writer));
            tasks.spawn(
                Writer { client, journal: Arc::clone(journal), random, writer, heads: HashMap::new() }.run(),
            );
        }
        let client = Client::connect(options.clone()).await?;
        tasks.spawn(follow(client, Arc::clone(journal)));
        for _ in 0..MEMBERS {
            let deliveries = beside::join(&Client::connect(options.clone()).await?).await?;
            tasks.spawn(beside::take(deliveries, Arc::clone(journal)));
        }
        let client = Client::connect(options).await?;
        tasks.spawn(read(client, Arc::clone(journal), SmallRng::seed_from_u64(seed)));
        Ok(Self { tasks })
    }

    /// Ends it; what is on its way is of unknown outcome.
    pub(crate) async fn stop(mut self) {
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Asks again for everything of unknown outcome, one after the other.
pub(crate) async fn ask_again(address: &str, journal: &Journal) -> Result<usize, ClientError> {
    let client = Client::connect(Options::new(address)).await?;
    let unknown: Vec<(usize, Batch)> = {
        let kept = journal.kept();
        let unknown = kept.asked.iter().enumerate().filter(|(_, asked)| asked.outcome == Outcome::Unknown);
        unknown.map(|(number, asked)| (number, asked.batch.clone())).collect()
    };
    for (number, batch) in &unknown {
        let outcome = ask(&client, journal, batch).await;
        journal.end(*number, outcome);
    }
    Ok(unknown.len())
}

/// Appends, and says what became of it. What no answer may be is noted.
async fn ask(client: &Client, journal: &Journal, batch: &Batch) -> Outcome {
    let error = match client.append(batch.append()).await {
        Ok(appended) => {
            return Outcome::Appended {
                first: appended.first_position().get(),
                last_version: appended.last_version.get(),
            };
        }
        Err(error) => error,
    };
    match &error {
        ClientError::Refused(Failure::Append(append)) => match append {
            AppendError::WrongVersion { actual, .. } => {
                return Outcome::WrongVersion(actual.map(|head| (head.version.get(), head.position.get())));
            }
            AppendError::QueryMatched { position, .. } => return Outcome::Matched(position.get()),
            AppendError::UnknownOutcome { .. } => return Outcome::Unknown,
            AppendError::Poisoned { .. } | AppendError::DiskFull(_) => return Outcome::Refused,
            _ => {}
        },
        ClientError::Refused(Failure::ShuttingDown) | ClientError::Unreachable { .. } => {
            return Outcome::Refused;
        }
        ClientError::Lost { .. } | ClientError::Late => return Outcome::Unknown,
        _ => {}
    }
    journal.kept().wrong.push(format!("an append was answered with: {error}"));
    Outcome::Unknown
}

struct Writer {
    client: Client,
    journal: Arc<Journal>,
    random: SmallRng,
    writer: u64,
    /// Last versions of its own streams, as far as it knows; `None`: no event.
    heads: HashMap<String, Option<u64>>,
}

impl Writer {
    async fn run(mut self) {
        for own in 0..OWN_STREAMS {
            let stream = self.own(own);
            let Ok(head) = self.client.head(&stream).await else { return };
            if let Some(head) = head {
                self.journal.see_head(&stream, head);
            }
            self.heads.insert(stream, head.map(|head| head.version.get()));
        }
        let (mut reached, mut last) = (None, None);
        loop {
            // Now and then the same is sent again, as if its answer had been lost.
            let again = last.take().filter(|_| self.random.random_range(0..25) == 0);
            let is_first = again.is_none();
            let (number, batch) = again.unwrap_or_else(|| {
                let batch = self.draw(reached);
                (self.journal.begin(&batch), batch)
            });
            let outcome = ask(&self.client, &self.journal, &batch).await;
            self.journal.end(number, outcome.clone());
            match outcome {
                Outcome::Appended { first, .. } => {
                    reached = reached.max(Some(first + batch.events.len() as u64 - 1));
                    if is_first {
                        self.note(&batch);
                    }
                    last = Some((number, batch));
                }
                Outcome::WrongVersion(_) | Outcome::Matched(_) => {}
                Outcome::Refused => tokio::time::sleep(Duration::from_millis(5)).await,
                // The server is gone, or will be.
                Outcome::Unknown => return,
            }
        }
    }

    fn own(&self, own: u32) -> String {
        format!("own-{}-{own}", self.writer)
    }

    fn any_stream(&mut self) -> String {
        match self.random.random_range(0..2) {
            0 => {
                let own = self.random.random_range(0..OWN_STREAMS);
                self.own(own)
            }
            _ => format!("shared-{}", self.random.random_range(0..SHARED_STREAMS)),
        }
    }

    /// Its own streams have more events now.
    fn note(&mut self, batch: &Batch) {
        for event in &batch.events {
            if let Some(head) = self.heads.get_mut(&event.stream) {
                *head = Some(head.map_or(0, |head| head + 1));
            }
        }
    }

    fn draw(&mut self, reached: Option<u64>) -> Batch {
        let stream = self.any_stream();
        let known = self.heads.get(&stream).copied();
        let terms = match self.random.random_range(0..10) {
            0..=3 => match known {
                Some(Some(version)) => Terms::Exactly(stream.clone(), version),
                Some(None) => Terms::NoStream(stream.clone()),
                // Others write it, too: they race.
                None => Terms::Exactly(stream.clone(), self.random.random_range(0..2_000)),
            },
            // Wrong, unless somebody is ahead.
            4 => match known {
                Some(Some(version)) => Terms::Exactly(stream.clone(), version + 3),
                _ => Terms::Exactly(stream.clone(), 1 << 40),
            },
            5 => Terms::NoStream(stream.clone()),
            6..=7 => {
                let back = self.random.random_range(0..8);
                let after = reached.and_then(|reached: u64| reached.checked_sub(back));
                Terms::NoMatch(self.random.random_range(0..TAGS), after)
            }
            _ => Terms::Any,
        };
        let is_tagged = matches!(terms, Terms::NoMatch(..));
        let count = if self.random.random_range(0..4) == 0 { self.random.random_range(2..8) } else { 1 };
        let mut events = vec![Planned::draw(&mut self.random, stream, is_tagged)];
        for _ in 1..count {
            let stream = self.any_stream();
            events.push(Planned::draw(&mut self.random, stream, false));
        }
        let batch = Batch { events, terms, state: None };
        if self.random.random_range(0..12) == 0 { batch.with_state() } else { batch }
    }
}

/// Follows everything, from the beginning on.
async fn follow(client: Client, journal: Arc<Journal>) {
    let Ok(mut following) = client.follow(&Follow::all()).await else { return };
    let mut next = 0;
    while let Some(Ok(followed)) = following.next().await {
        if let Followed::Event(record) = followed {
            let position = record.position().get();
            if position != next {
                journal.kept().wrong.push(format!("a follower was given {position} where {next} comes"));
            }
            next = position + 1;
            journal.see(&record);
        }
    }
}

/// Reads here and there, and asks for heads.
async fn read(client: Client, journal: Arc<Journal>, mut random: SmallRng) {
    loop {
        let read = match random.random_range(0..4) {
            0 => Read::all().backwards().limit(30),
            1 => Read::stream(format!("shared-{}", random.random_range(0..SHARED_STREAMS)))
                .backwards()
                .limit(30),
            2 => Read::query(QueryItem::new().tag(tag_name(random.random_range(0..TAGS))))
                .backwards()
                .limit(30),
            _ => Read::all().from(Position::new(random.random_range(0..1_000))).limit(100),
        };
        let Ok(mut events) = client.read(&read).await else { return };
        while let Some(record) = events.next().await {
            let Ok(record) = record else { return };
            journal.see(&record);
        }
        let stream = format!("shared-{}", random.random_range(0..SHARED_STREAMS));
        match client.head(&stream).await {
            Ok(Some(head)) => journal.see_head(&stream, head),
            Ok(None) => {}
            Err(_) => return,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
