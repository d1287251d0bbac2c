//! Who waits for the answers to which request.

use crate::ClientError;
use crate::link::Answered;
use annals_protocol::Answer;
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use tokio::sync::mpsc;

/// Bits of a request's number that say its place here; the others make it one that is used once.
const PLACE_BITS: u32 = 20;
/// Requests that may be under way at a time: beyond what any server allows.
const PLACES_MAX: usize = 1 << PLACE_BITS;

/// What became of a request so far.
pub(crate) enum Waiting {
    /// Nobody has it.
    Free,
    /// Its one answer is waited for.
    Once(Option<Waker>),
    /// Its answer is there, and not taken yet. Boxed: hundreds of thousands may be under way.
    Answered(Box<Answer>),
    /// Nobody is interested in its answer any more.
    Abandoned,
    /// The connection has ended.
    Lost,
    /// Its answers go on.
    Many(mpsc::UnboundedSender<Answered>),
}

impl Default for Waiting {
    fn default() -> Self {
        Self::Once(None)
    }
}

/// All requests of a connection that are under way, by their numbers.
#[derive(Default)]
pub(crate) struct Asking {
    places: Vec<Place>,
    free: VecDeque<usize>,
    under_way: usize,
}

struct Place {
    /// How often it was used.
    turn: u64,
    waiting: Waiting,
}

impl Asking {
    /// Begins a request. Returns its number, and whether no other is under way.
    pub(crate) fn begin(&mut self, waiting: Waiting) -> Result<(u64, bool), ClientError> {
        let place = match self.free.pop_front() {
            Some(place) => place,
            None if self.places.len() < PLACES_MAX => {
                // Number 0 is the server's own.
                self.places.push(Place { turn: 1, waiting: Waiting::Free });
                self.places.len() - 1
            }
            None => return Err(ClientError::TooManyUnderWay { max: PLACES_MAX }),
        };
        self.places[place].waiting = waiting;
        self.under_way += 1;
        Ok((self.places[place].turn << PLACE_BITS | place as u64, self.under_way == 1))
    }

    fn place(&mut self, number: u64) -> Option<(usize, &mut Waiting)> {
        let place = usize::try_from(number).ok()? & (PLACES_MAX - 1);
        let found = self.places.get_mut(place)?;
        (found.turn == number >> PLACE_BITS).then_some((place, &mut found.waiting))
    }

    fn free(&mut self, place: usize) {
        self.places[place].waiting = Waiting::Free;
        self.places[place].turn += 1;
        self.free.push_back(place);
        self.under_way -= 1;
    }

    /// A request is under way no more.
    pub(crate) fn end(&mut self, number: u64) {
        if let Some((place, _)) = self.place(number) {
            self.free(place);
        }
    }

    /// Whether its answer is there, or will never be.
    pub(crate) fn is_answered(&mut self, number: u64) -> bool {
        !matches!(self.place(number), Some((_, Waiting::Once(_))))
    }

    /// Nobody takes its answer.
    pub(crate) fn abandon(&mut self, number: u64) {
        let Some((place, waiting)) = self.place(number) else { return };
        match waiting {
            Waiting::Once(_) => *waiting = Waiting::Abandoned,
            _ => self.free(place),
        }
    }

    /// Notes an answer; who is to be told of it is to be woken.
    pub(crate) fn answer(&mut self, number: u64, answered: Answered) -> Option<Waker> {
        let (place, waiting) = self.place(number)?;
        let is_last = !answered.has_more;
        match waiting {
            Waiting::Once(waker) if is_last => {
                let waker = waker.take();
                *waiting = Waiting::Answered(Box::new(answered.answer));
                waker
            }
            Waiting::Abandoned if is_last => {
                self.free(place);
                None
            }
            Waiting::Many(sender) => {
                let is_heard = sender.send(answered).is_ok();
                if is_last || !is_heard {
                    self.free(place);
                }
                None
            }
            _ => None,
        }
    }

    /// The answer; `None`: there is none, as the connection has ended.
    pub(crate) fn poll(&mut self, number: u64, context: &mut Context<'_>) -> Poll<Option<Answer>> {
        let Some((place, waiting)) = self.place(number) else { return Poll::Ready(None) };
        match waiting {
            Waiting::Once(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    None => *waker = Some(context.waker().clone()),
                }
                Poll::Pending
            }
            waiting => {
                let taken = std::mem::replace(waiting, Waiting::Free);
                self.free(place);
                match taken {
                    Waiting::Answered(answer) => Poll::Ready(Some(*answer)),
                    _ => Poll::Ready(None),
                }
            }
        }
    }

    /// The connection has ended: whoever waits is to be woken.
    pub(crate) fn end_all(&mut self) -> Vec<Waker> {
        let mut woken = Vec::new();
        for place in 0..self.places.len() {
            match &mut self.places[place].waiting {
                Waiting::Once(waker) => {
                    woken.extend(waker.take());
                    self.places[place].waiting = Waiting::Lost;
                }
                // Their receivers see it by the sender's end.
                Waiting::Many(_) | Waiting::Abandoned => self.free(place),
                Waiting::Free | Waiting::Answered(_) | Waiting::Lost => {}
            }
        }
        woken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(has_more: bool) -> Answered {
        Answered { answer: Answer::Done, has_more, bytes: 24 }
    }

    #[test]
    fn numbers_are_used_once_and_answers_find_who_asked() {
        let mut asking = Asking::default();
        let mut context = Context::from_waker(Waker::noop());
        let (first, is_alone) = asking.begin(Waiting::default()).unwrap();
        let (second, is_second_alone) = asking.begin(Waiting::default()).unwrap();
        assert!(is_alone && !is_second_alone && first != second && first != 0);
        assert!(asking.poll(first, &mut context).is_pending());
        // What goes on is not the answer to a request that has one.
        assert!(asking.answer(first, done(true)).is_none());
        assert!(asking.answer(first, done(false)).is_some());
        assert!(matches!(asking.poll(first, &mut context), Poll::Ready(Some(Answer::Done))));
        asking.abandon(second);
        assert!(asking.answer(second, done(false)).is_none());
        let (third, is_alone) = asking.begin(Waiting::default()).unwrap();
        assert!(is_alone && third != first && third != second);
        // An answer to one that is long answered is nobody's.
        assert!(asking.answer(first, done(false)).is_none());
        assert!(asking.poll(third, &mut context).is_pending());
        asking.end_all();
        assert!(matches!(asking.poll(third, &mut context), Poll::Ready(None)));
    }
}
