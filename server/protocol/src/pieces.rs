//! Lists that are too long for one frame, as several answers.

use crate::answer::{Answer, ListPart};
use bytes::BytesMut;

/// Bytes of a list in one answer, about: a longer part is alone.
const PIECE_BYTES: usize = 1 << 20;

impl Answer {
    /// The same as one or more answers, each of which fits a frame: lists may be longer.
    #[must_use]
    pub fn into_pieces(self) -> Vec<Self> {
        match self {
            Self::Names(list) => each(list, Self::Names),
            Self::Heads(list) => each(list, Self::Heads),
            Self::Cursors(list) => each(list, Self::Cursors),
            Self::Subscriptions(list) => each(list, Self::Subscriptions),
            Self::Parked(list) => each(list, Self::Parked),
            Self::Snapshots(list, passed_over) => {
                let is_whole = passed_over.is_empty();
                let mut answers = each(list, |list| Self::Snapshots(list, Vec::new()));
                if !is_whole {
                    answers.extend(each(passed_over, |passed| Self::Snapshots(Vec::new(), passed)));
                }
                answers
            }
            other => vec![other],
        }
    }

    /// Joins what was one list: the other's parts come behind these. What is no list of the same kind is given back.
    ///
    /// # Errors
    /// The other, which does not belong to it.
    pub fn join(&mut self, other: Self) -> Result<(), Self> {
        match (self, other) {
            (Self::Names(list), Self::Names(more)) => list.extend(more),
            (Self::Heads(list), Self::Heads(more)) => list.extend(more),
            (Self::Cursors(list), Self::Cursors(more)) => list.extend(more),
            (Self::Subscriptions(list), Self::Subscriptions(more)) => list.extend(more),
            (Self::Parked(list), Self::Parked(more)) => list.extend(more),
            (Self::Snapshots(list, passed_over), Self::Snapshots(more, more_passed_over)) => {
                list.extend(more);
                passed_over.extend(more_passed_over);
            }
            (_, other) => return Err(other),
        }
        Ok(())
    }
}

fn each<T: ListPart>(list: Vec<T>, answer: impl Fn(Vec<T>) -> Answer) -> Vec<Answer> {
    let (mut answers, mut piece, mut bytes, mut measured) = (Vec::new(), Vec::new(), 0, BytesMut::new());
    for part in list {
        measured.clear();
        part.put_one(&mut measured);
        bytes += measured.len();
        if bytes > PIECE_BYTES && !piece.is_empty() {
            answers.push(answer(std::mem::take(&mut piece)));
            bytes = measured.len();
        }
        piece.push(part);
    }
    answers.push(answer(piece));
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_come_in_pieces_and_are_whole_again() {
        // Miri takes minutes for as many as there should be.
        let (count, length) = if cfg!(miri) { (50, 60_000) } else { (50_000, 60) };
        let names: Vec<String> =
            (0..count).map(|number| format!("{number:05}") + &"0".repeat(length - 5)).collect();
        let pieces = Answer::Names(names.clone()).into_pieces();
        assert_eq!(pieces.len(), 3);
        let mut pieces = pieces.into_iter();
        let mut whole = pieces.next().unwrap();
        for piece in pieces {
            let mut body = BytesMut::new();
            piece.encode(&mut body);
            assert!(body.len() <= PIECE_BYTES + 4);
            whole.join(piece).unwrap();
        }
        assert!(matches!(&whole, Answer::Names(list) if *list == names));
        assert!(whole.join(Answer::Done).is_err());
        assert_eq!(Answer::Names(Vec::new()).into_pieces().len(), 1);
        assert_eq!(Answer::Done.into_pieces().len(), 1);
    }
}
