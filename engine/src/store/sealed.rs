//! The sealed segments of a store, and spans over them: so that what is in few segments is found without asking all.
//!
//! A span of the first level is of 8 segments, one of the next level of 8 spans, and so on; the first is of the first
//! segments, and each further one of those that follow. So of the segments that have no part in a span of the highest
//! level there are fewer than 8, and so on downwards.

use super::core::Core;
use crate::format::index::{BadBlock, IndexOf};
use crate::format::segment::Seal;
use crate::format::span::{PARTS, SpanOf};
use crate::index::sealed::SealedIndex;
use crate::index::search::Way;
use crate::index::span::{Span, SpanFilter};
use crate::log::sealed::Sealed;
use crate::log::{index_name, span_name};
use annals_types::Uuid;
use smallvec::SmallVec;
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

/// A sealed segment with its index.
#[derive(Debug)]
pub(crate) struct SealedSegment {
    pub(crate) log: Sealed,
    pub(crate) index: SealedIndex,
}

impl SealedSegment {
    fn new(dir: &Path, store: Uuid, seal: Seal) -> Self {
        let of = IndexOf {
            ordinal: seal.ordinal,
            salt: seal.salt,
            first_position: seal.first_position,
            last_crc: seal.last_crc,
        };
        let index = SealedIndex::new(dir.join(index_name(seal.ordinal)), store, of);
        Self { log: Sealed::new(dir, seal), index }
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct SealedSegments {
    segments: Vec<Arc<SealedSegment>>,
    /// By level.
    spans: Vec<Vec<Arc<Span>>>,
}

impl Deref for SealedSegments {
    type Target = [Arc<SealedSegment>];

    fn deref(&self) -> &Self::Target {
        &self.segments
    }
}

impl SealedSegments {
    /// The segments with these seals, oldest first.
    pub(crate) fn of<'a>(dir: &Path, store: Uuid, seals: impl IntoIterator<Item = &'a Seal>) -> Self {
        let mut sealed = Self::default();
        seals.into_iter().for_each(|seal| sealed.push(dir, store, *seal));
        sealed
    }

    /// Adds the next segment, and the spans that it completes.
    pub(crate) fn push(&mut self, dir: &Path, store: Uuid, seal: Seal) {
        self.segments.push(Arc::new(SealedSegment::new(dir, store, seal)));
        let mut len = PARTS;
        for level in 0.. {
            if !self.segments.len().is_multiple_of(len) {
                return;
            }
            let first = seal.ordinal + 1 - len as u64;
            let of = SpanOf { first, last: seal.ordinal, chain: seal.chain };
            let span = Arc::new(Span::new(dir.join(span_name(of.first, of.last)), store, of));
            if level == self.spans.len() {
                self.spans.push(Vec::new());
            }
            self.spans[level].push(span);
            len *= PARTS;
        }
    }

    /// All spans, the smaller ones first, each with the segments that it is of.
    pub(crate) fn spans(&self) -> impl Iterator<Item = (&Arc<Span>, &[Arc<SealedSegment>])> {
        self.levels().flat_map(|(spans, len)| spans.iter().zip(self.segments.chunks_exact(len)))
    }

    /// The spans of each level, and of how many segments each is.
    fn levels(&self) -> impl DoubleEndedIterator<Item = (&[Arc<Span>], usize)> + ExactSizeIterator {
        // There are fewer levels than bits in a number of segments.
        let len_of = |level: usize| PARTS.pow(u32::try_from(level).expect("a small number") + 1);
        self.spans.iter().enumerate().map(move |(level, spans)| (spans.as_slice(), len_of(level)))
    }

    /// The next segment, from the one `at` on in this way, where spans do not rule out that something matches: `parts_of`
    /// says it of a span's parts.
    pub(crate) fn next_that_may_match(
        &self,
        core: &Core,
        at: usize,
        way: Way,
        parts_of: impl Fn(SpanFilter<'_>) -> Result<u8, BadBlock>,
    ) -> Option<usize> {
        let mut at = Some(at).filter(|&at| at < self.segments.len())?;
        // What the span of each level said that was asked last.
        let mut asked: SmallVec<[(usize, u8); 8]> = SmallVec::from_elem((usize::MAX, 0), self.spans.len());
        'segment: loop {
            for (level, (spans, len)) in self.levels().enumerate().rev() {
                let number = at / len;
                let Some(span) = spans.get(number) else { continue };
                if asked[level].0 != number {
                    asked[level] = (number, span.parts(core.disk.as_ref(), &parts_of));
                }
                let (parts, part) = (asked[level].1, at % len / (len / PARTS));
                if parts & 1 << part != 0 {
                    continue;
                }
                // On to the next part that is not ruled out, or out of the span.
                let start = |part: u32| number * len + part as usize * (len / PARTS);
                at = match way {
                    Way::Upwards => {
                        let next = (parts >> part << part).trailing_zeros();
                        Some(start(next)).filter(|&next| next < self.segments.len())?
                    }
                    Way::Downwards => {
                        let behind = u8::BITS - (parts & ((1 << part) - 1)).leading_zeros();
                        start(behind).checked_sub(1)?
                    }
                };
                continue 'segment;
            }
            return Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_complete_and_without_gaps() {
        let mut sealed = SealedSegments::default();
        let seal = |ordinal| Seal {
            ordinal,
            salt: 0,
            first_batch: ordinal - 1,
            first_position: ordinal - 1,
            next_batch: ordinal,
            next_position: ordinal,
            end: 0,
            least_time: 0,
            greatest_time: 0,
            last_crc: 0,
            chain_before: [0; 32],
            chain: [0; 32],
        };
        for ordinal in 1..=600 {
            sealed.push(Path::new("/"), Uuid::nil(), seal(ordinal));
        }
        let lens: Vec<usize> = sealed.spans.iter().map(Vec::len).collect();
        assert_eq!(lens, [75, 9, 1]);
        for (span, segments) in sealed.spans() {
            let of = segments.iter().map(|segment| segment.log.seal.ordinal);
            assert_eq!(of.collect::<Vec<_>>(), (span.of.first..=span.of.last).collect::<Vec<_>>());
        }
    }
}
