//! Executions of a workflow: each is moved from state to state by events, at once or by a worker later; each tenant has a store of its own.

use annals_sourcing::{
    Context, Decider, Decoded, Decoding, DomainEvent, Enqueued, HandleError, Handled, Job, JobError, Json,
    Metadata, Queue, QueueSettings, Repository, SnapshotPolicy, Snapshots, SourcingError, next,
};
use annals_types::{EventStore, Read, Record, Timestamp, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use uuid::Uuid;

/// An execution has gone from one state to another: the stream `execution-ID`. Who asked for it is in the event's metadata, when in its time.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, DomainEvent)]
#[event("WorkflowMoved")]
pub struct Moved {
    /// What moved it.
    pub name: String,
    pub from_state: String,
    pub to_state: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub payload: Map<String, Value>,
}

/// What is to move an execution.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Move {
    pub name: String,
    #[serde(default)]
    pub payload: Map<String, Value>,
}

impl Move {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), payload: Map::new() }
    }

    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.payload.insert(key.to_owned(), value.into());
        self
    }
}

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Execution {
    pub state: String,
    pub data: Map<String, Value>,
    pub moves: u64,
}

/// No way leads from the state by this.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoWay {
    pub state: String,
    pub name: String,
}

impl fmt::Display for NoWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from the state {:?} nothing leads on by {:?}", self.state, self.name)
    }
}

/// The ways: from a state, by what, to which state.
const WAYS: [(&str, &str, &str); 6] = [
    ("new", "submit", "submitted"),
    ("submitted", "comment", "submitted"),
    ("submitted", "approve", "approved"),
    ("submitted", "reject", "rejected"),
    ("rejected", "submit", "submitted"),
    ("approved", "close", "closed"),
];

#[derive(Clone)]
pub struct Workflow;

impl Decider for Workflow {
    type State = Execution;
    type Command = Move;
    type Event = Moved;
    type Error = NoWay;

    fn initial(&self) -> Execution {
        Execution { state: "new".to_owned(), data: Map::new(), moves: 0 }
    }

    fn evolve(&self, execution: &mut Execution, moved: &Moved) {
        execution.state.clone_from(&moved.to_state);
        execution.data.extend(moved.payload.clone());
        execution.moves += 1;
    }

    fn decide(&self, execution: &Execution, wanted: &Move) -> Result<Vec<Moved>, NoWay> {
        let way = WAYS.iter().find(|(from, by, _)| *from == execution.state && *by == wanted.name);
        let Some((from, _, to)) = way else {
            return Err(NoWay { state: execution.state.clone(), name: wanted.name.clone() });
        };
        Ok(vec![Moved {
            name: wanted.name.clone(),
            from_state: (*from).to_owned(),
            to_state: (*to).to_owned(),
            payload: wanted.payload.clone(),
        }])
    }
}

pub fn stream(execution: &str) -> String {
    format!("execution-{execution}")
}

/// A line of the audit trail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    pub id: Uuid,
    pub version: Version,
    pub time: Timestamp,
    pub user: Option<String>,
    pub name: String,
    pub from_state: String,
    pub to_state: String,
}

/// The workflows of one tenant.
pub struct Workflows<S> {
    pub executions: Repository<S, Workflow>,
    pub queue: Queue<S>,
}

/// What a move led to, or why to nothing.
pub type Told = Result<Handled<Moved, Execution>, HandleError<NoWay>>;

impl<S: EventStore> Workflows<S> {
    /// Snapshots are written where more than this many events had to be replayed.
    pub async fn open(store: S, snapshot_after: u64, settings: QueueSettings) -> Result<Self, SourcingError> {
        let snapshots = Snapshots::new(SnapshotPolicy::AfterReplayed(snapshot_after), 1);
        let executions = Repository::new(store.clone(), Workflow)?.snapshots(snapshots);
        let queue = Queue::open(store, "moves", settings).await?;
        Ok(Self { executions, queue })
    }

    /// Moves an execution now.
    pub async fn submit(&self, execution: &str, wanted: &Move, user: &str) -> Told {
        self.executions.handle(stream(execution), wanted, &Context::new().user(user)).await
    }

    /// Has an execution moved later, once: the key makes it one.
    pub async fn enqueue(
        &self,
        execution: &str,
        key: &str,
        wanted: &Move,
        user: &str,
    ) -> Result<Enqueued, SourcingError> {
        self.queue.enqueue(execution, key, wanted, &Context::new().user(user)).await
    }

    /// What a worker does with what was enqueued: the move and the completion of the job are one append.
    pub async fn work(&self, job: Job) -> Result<annals_types::Append<'static>, JobError> {
        let wanted: Move = job.decode()?;
        let decide = |execution: &Execution| Workflow.decide(execution, &wanted);
        let context = job.context().source("worker");
        let stream = stream(job.of());
        match self.executions.transact_with(stream, &context, decide, |append| job.completed_by(append)).await
        {
            Ok(_) => Ok(annals_types::Append::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// One event of an execution, by its id.
    pub async fn event(&self, execution: &str, id: Uuid) -> Result<Option<Record>, SourcingError> {
        let stream = stream(execution);
        let mut events = self.executions.store().read(&Read::stream(&*stream).backwards()).await?;
        while let Some(event) = next(&mut events).await {
            let event = event?;
            if event.id() == id {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Who did what, and when: a page of the execution's events, and how many there are.
    pub async fn audit(
        &self,
        execution: &str,
        from: u64,
        limit: u64,
    ) -> Result<(Vec<Line>, u64), SourcingError> {
        let store = self.executions.store();
        let stream = stream(execution);
        let total = store.head(&stream).await?.map_or(0, |head| head.version.get() + 1);
        let read = Read::stream(&*stream).from(Version::new(from)).limit(limit);
        let mut events = store.read(&read).await?;
        let decoding = Decoding::<Moved, Json>::new(Json)?;
        let mut lines = Vec::new();
        while let Some(event) = next(&mut events).await {
            let event = event?;
            if let Decoded::Event { event: moved, .. } = decoding.decode(&event)? {
                lines.push(line(&event, moved));
            }
        }
        Ok((lines, total))
    }
}

fn line(event: &Record, moved: Moved) -> Line {
    Line {
        id: event.id(),
        version: event.version(),
        time: event.time(),
        user: Metadata::of(event).user.map(Into::into),
        name: moved.name,
        from_state: moved.from_state,
        to_state: moved.to_state,
    }
}
