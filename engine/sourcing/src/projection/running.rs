//! A projection that runs by itself, and can be told to pause, go on, begin anew and stop.

use crate::pause::{Pauses, is_passing};
use crate::projection::question::{Question, asked};
use crate::projection::{ParkedEvent, ProjectionError, Projector, ReadModel};
use crate::stream::next;
use annals_types::{EventStore, Position, Read, StoreError};
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// How a projection stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProjectionState {
    /// It handles what comes.
    Running,
    /// It was told to pause.
    Paused,
    /// It failed, and stands still until it is resumed or reset.
    Suspended {
        /// Why.
        reason: String,
    },
    /// It was told to stop.
    Stopped,
}

/// How a projection stands, and how far it has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProjectionStatus {
    /// How it stands.
    pub state: ProjectionState,
    /// The last event that is in the model, or was parked.
    pub position: Option<Position>,
    /// Whether all that there was was handled since it began to run.
    pub is_caught_up: bool,
}

impl ProjectionStatus {
    /// Events of the log, whether they matter to it or not, that it has not come to.
    ///
    /// # Errors
    /// The store fails.
    pub async fn lag<S: EventStore>(&self, store: &S) -> Result<u64, StoreError> {
        let mut newest = store.read(&Read::all().backwards().limit(1)).await?;
        let after = |position: Option<Position>| position.map_or(0, |position| position.get() + 1);
        let newest = next(&mut newest).await.transpose()?.map(|event| event.position());
        Ok(after(newest).saturating_sub(after(self.position)))
    }
}

/// A projection that runs on a task of its own. Dropped, it stops.
pub struct Running<R> {
    wishes: mpsc::Sender<(Wish, oneshot::Sender<()>)>,
    questions: mpsc::Sender<Question>,
    status: watch::Receiver<ProjectionStatus>,
    task: JoinHandle<()>,
    rest: Arc<Mutex<Option<R>>>,
}

enum Wish {
    Pause,
    Resume,
    Reset(Option<Position>),
    Stop,
}

impl<S: EventStore, R: ReadModel + 'static> Projector<S, R> {
    /// Runs it on a task of its own. It has to be on a runtime.
    #[must_use]
    pub fn spawn(mut self) -> Running<R> {
        let (wishes, wished) = mpsc::channel(4);
        let (questions, asked) = mpsc::channel(4);
        let begun = ProjectionStatus { state: ProjectionState::Running, position: None, is_caught_up: false };
        let (tell, status) = watch::channel(begun);
        let rest = Arc::new(Mutex::new(None));
        let left = Arc::clone(&rest);
        let task = tokio::spawn(async move {
            let ended = Ended(&tell);
            self.questions = Some(asked);
            let model = obey(self, wished, &tell).await;
            *left.lock() = Some(model);
            drop(ended);
        });
        Running { wishes, questions, status, task, rest }
    }
}

/// Tells the end of the task, however it ends.
struct Ended<'a>(&'a watch::Sender<ProjectionStatus>);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        let state = match std::thread::panicking() {
            true => ProjectionState::Suspended {
                reason: "a handler has panicked; it cannot be resumed".to_owned(),
            },
            false => ProjectionState::Stopped,
        };
        self.0.send_modify(|status| status.state = state);
    }
}

enum Happened {
    Stepped(Result<bool, ProjectionError>),
    Asked(Question),
    Wished(Option<(Wish, oneshot::Sender<()>)>),
}

/// Does what is wished until that is to stop.
async fn obey<S: EventStore, R: ReadModel>(
    mut projector: Projector<S, R>,
    mut wished: mpsc::Receiver<(Wish, oneshot::Sender<()>)>,
    tell: &watch::Sender<ProjectionStatus>,
) -> R {
    let mut following = None;
    let mut runs = true;
    loop {
        let going_on = async {
            match runs {
                true => Happened::Stepped(step(&mut projector, &mut following).await),
                // While it runs, it looks for questions by itself.
                false => Happened::Asked(asked(&mut projector.questions).await),
            }
        };
        let happened = tokio::select! {
            biased;
            wish = wished.recv() => Happened::Wished(wish),
            happened = going_on => happened,
        };
        match happened {
            Happened::Asked(question) => projector.answer(question).await,
            Happened::Stepped(stepped) => {
                let position = projector.model.position().await;
                tell.send_modify(|status| {
                    if let Ok(position) = position {
                        status.position = position;
                    }
                    match stepped {
                        Ok(is_caught_up) => status.is_caught_up |= is_caught_up,
                        Err(error) => {
                            runs = false;
                            status.state = ProjectionState::Suspended { reason: error.to_string() };
                        }
                    }
                });
            }
            Happened::Wished(None) => return projector.model,
            Happened::Wished(Some((wish, done))) => {
                following = None;
                let state = match wish {
                    Wish::Stop => return projector.model,
                    Wish::Pause => ProjectionState::Paused,
                    Wish::Resume => ProjectionState::Running,
                    Wish::Reset(to) => match projector.model.reset(to).await {
                        Ok(()) => ProjectionState::Running,
                        Err(error) => ProjectionState::Suspended { reason: error.to_string() },
                    },
                };
                runs = state == ProjectionState::Running;
                let position = projector.model.position().await.unwrap_or_default();
                tell.send_replace(ProjectionStatus { state, position, is_caught_up: false });
                // Who asked may have gone.
                let _ = done.send(());
            }
        }
    }
}

/// Handles what there is; where the store cannot be reached for a while, it is tried again.
async fn step<S: EventStore, R: ReadModel>(
    projector: &mut Projector<S, R>,
    following: &mut Option<S::Following>,
) -> Result<bool, ProjectionError> {
    let mut failures = 0;
    loop {
        let stepped = match following {
            None => projector.begin().await.map(|begun| *following = Some(begun)).map(|()| None),
            Some(following) => projector.step(following).await.map(Some),
        };
        match stepped {
            Ok(Some(is_caught_up)) => return Ok(is_caught_up),
            Ok(None) => {}
            Err(ProjectionError::Store(error)) if is_passing(&error) => {
                *following = None;
                failures += 1;
                projector.rest(Pauses::outages(), failures, &error.to_string()).await;
            }
            Err(error) => return Err(error),
        }
    }
}

impl<R> Running<R> {
    /// How it stands.
    #[must_use]
    pub fn status(&self) -> ProjectionStatus {
        self.status.borrow().clone()
    }

    /// Handles nothing more until it is resumed. When this is ready, nothing is being handled.
    pub async fn pause(&self) {
        self.wish(Wish::Pause).await;
    }

    /// Goes on, also where it was suspended.
    pub async fn resume(&self) {
        self.wish(Wish::Resume).await;
    }

    /// Goes on behind this position; `None`: empties the model and begins anew.
    pub async fn reset(&self, to: Option<Position>) {
        self.wish(Wish::Reset(to)).await;
    }

    /// The events that are parked. `None`: the projection has stopped.
    ///
    /// # Errors
    /// The model fails.
    pub async fn parked(&self) -> Result<Option<Vec<ParkedEvent>>, ProjectionError> {
        self.ask(Question::Parked).await
    }

    /// Has what is parked handled now; how many events could be, and stay parked no more. `None`: the projection has stopped.
    ///
    /// # Errors
    /// The store or the model fails.
    pub async fn replay_parked(&self) -> Result<Option<usize>, ProjectionError> {
        self.ask(Question::Replay).await
    }

    /// Waits until the event at this position is handled or passed; `false`: the projection has stopped or is suspended.
    pub async fn reached(&mut self, position: Position) -> bool {
        let is_over = |status: &ProjectionStatus| {
            matches!(status.state, ProjectionState::Stopped | ProjectionState::Suspended { .. })
        };
        let reached = |status: &ProjectionStatus| status.position >= Some(position);
        match self.status.wait_for(|status| reached(status) || is_over(status)).await {
            Ok(status) => reached(&status),
            Err(_) => false,
        }
    }

    /// Waits until it has caught up, or stands still; while the store cannot be reached it does neither.
    pub async fn settled(&mut self) -> ProjectionStatus {
        let is_settled =
            |status: &ProjectionStatus| status.is_caught_up || status.state != ProjectionState::Running;
        // It fails where the task is gone: then it stands as it stood last.
        let _ = self.status.wait_for(is_settled).await;
        self.status()
    }

    /// Stops it and gives back the model; `None`: a handler has panicked.
    pub async fn stop(mut self) -> Option<R> {
        self.wish(Wish::Stop).await;
        // A panic of a handler has been told by the runtime.
        let _ = (&mut self.task).await;
        self.rest.lock().take()
    }

    async fn ask<T>(
        &self,
        question: impl Fn(oneshot::Sender<Result<T, ProjectionError>>) -> Question,
    ) -> Result<Option<T>, ProjectionError> {
        loop {
            let (to, answered) = oneshot::channel();
            if self.questions.send(question(to)).await.is_err() {
                return Ok(None);
            }
            // Where it was told to do something else just then, it is asked again.
            if let Ok(answer) = answered.await {
                return answer.map(Some);
            }
        }
    }

    async fn wish(&self, wish: Wish) {
        let (done, is_done) = oneshot::channel();
        if self.wishes.send((wish, done)).await.is_ok() {
            // Where it has stopped there is nobody to answer.
            let _ = is_done.await;
        }
    }
}

impl<R> Drop for Running<R> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<R> fmt::Debug for Running<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("status", &self.status()).finish_non_exhaustive()
    }
}
