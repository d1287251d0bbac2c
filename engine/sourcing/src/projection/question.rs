//! What is asked of a projection while it runs: answered between what it does, so that nothing is given up for it.

use crate::pause::Pauses;
use crate::projection::{ParkedEvent, ProjectionError, Projector, ReadModel};
use annals_types::EventStore;
use std::pin::pin;
use tokio::sync::{mpsc, oneshot};

/// Something about what is parked.
pub(crate) enum Question {
    /// Which events are.
    Parked(oneshot::Sender<Result<Vec<ParkedEvent>, ProjectionError>>),
    /// Have them handled now.
    Replay(oneshot::Sender<Result<usize, ProjectionError>>),
}

/// The next question, whenever it comes.
pub(crate) async fn asked(questions: &mut Option<mpsc::Receiver<Question>>) -> Question {
    if let Some(questions) = questions
        && let Some(question) = questions.recv().await
    {
        return question;
    }
    std::future::pending().await
}

impl<S: EventStore, R: ReadModel> Projector<S, R> {
    /// Whoever asked may have gone.
    pub(crate) async fn answer(&mut self, question: Question) {
        match question {
            Question::Parked(to) => drop(to.send(self.parked().await)),
            Question::Replay(to) => drop(to.send(self.replay_parked().await)),
        }
    }

    /// Tells of a failure and waits, and answers meanwhile.
    pub(crate) async fn rest(&mut self, pauses: Pauses, failures: u32, reason: &str) {
        let watcher = self.watcher.clone();
        let mut rest = pin!(pauses.rest_after(&watcher, failures, reason));
        loop {
            tokio::select! {
                biased;
                () = &mut rest => return,
                question = asked(&mut self.questions) => self.answer(question).await,
            }
        }
    }
}
