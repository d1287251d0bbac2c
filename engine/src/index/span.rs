//! The filter over a span of sealed segments, mapped on its first use.

use crate::disk::maps::{Advice, Mapped, Slot};
use crate::disk::{Access, Disk};
use crate::format::index::BadBlock;
use crate::format::span::{SpanLayout, SpanOf};
use annals_types::{DamageKind, Uuid};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// Looks that pass over a span after its file could not be used, before the file is tried again: the writer may have made
/// it meanwhile.
const LOOKS_PASSED_OVER: u32 = 1024;
/// In place of a number of looks: there will be no file.
const GIVEN_UP: u32 = u32::MAX;
/// In place of a number of looks: nobody has looked at the file yet.
const UNSEEN: u32 = u32::MAX - 1;
/// Nothing is ruled out.
const ALL_PARTS: u8 = u8::MAX;

/// See the module.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) path: PathBuf,
    pub(crate) of: SpanOf,
    store: Uuid,
    loaded: Slot<LoadedSpan>,
    /// Looks that still pass it over, not counted exactly.
    passed_over: AtomicU32,
}

#[derive(Debug)]
struct LoadedSpan {
    bytes: Bytes,
    layout: SpanLayout,
}

impl Mapped for LoadedSpan {
    fn is_unreferenced(&self) -> bool {
        self.bytes.is_unreferenced()
    }
}

/// A span that can be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanFilter<'a>(&'a LoadedSpan);

impl SpanFilter<'_> {
    /// The parts that may have a stream or key with this hash, as bits; that the others have not is certain.
    pub(crate) fn parts_with(self, hash: u64) -> Result<u8, BadBlock> {
        self.0.layout.parts_with(&self.0.bytes, hash)
    }
}

impl Span {
    pub(crate) fn new(path: PathBuf, store: Uuid, of: SpanOf) -> Self {
        Self { path, of, store, loaded: Slot::default(), passed_over: AtomicU32::new(UNSEEN) }
    }

    /// The parts where something may match, as bits, which `parts_of` says. A span that is missing or damaged rules nothing
    /// out: the segments have to be asked.
    pub(crate) fn parts(
        &self,
        disk: &dyn Disk,
        parts_of: impl FnOnce(SpanFilter<'_>) -> Result<u8, BadBlock>,
    ) -> u8 {
        match self.passed_over.load(Ordering::Relaxed) {
            0 | UNSEEN => {}
            GIVEN_UP => return ALL_PARTS,
            looks => {
                // Who made or gave up the file meanwhile, or counted, has the last word.
                let _ =
                    self.passed_over.compare_exchange(looks, looks - 1, Ordering::Relaxed, Ordering::Relaxed);
                return ALL_PARTS;
            }
        }
        let answer = self.loaded.get(|| self.load(disk)).and_then(|loaded| parts_of(SpanFilter(&loaded)));
        answer.unwrap_or_else(|_| {
            self.loaded.forget();
            self.passed_over.store(LOOKS_PASSED_OVER, Ordering::Relaxed);
            ALL_PARTS
        })
    }

    /// Whether its file is to be made: it is not there, or was found to be damaged.
    pub(crate) fn is_wanted(&self, disk: &dyn Disk) -> bool {
        match self.passed_over.load(Ordering::Relaxed) {
            GIVEN_UP | 0 => false,
            UNSEEN => {
                let is_there = self.loaded.get(|| self.load(disk)).is_ok();
                self.passed_over.store(if is_there { 0 } else { LOOKS_PASSED_OVER }, Ordering::Relaxed);
                !is_there
            }
            _ => true,
        }
    }

    /// It will not be made, and is passed over for good.
    pub(crate) fn give_up(&self) {
        self.passed_over.store(GIVEN_UP, Ordering::Relaxed);
    }

    /// Its file was made anew: it is that file from now on.
    pub(crate) fn reload(&self) {
        self.loaded.forget();
        self.passed_over.store(0, Ordering::Relaxed);
    }

    fn load(&self, disk: &dyn Disk) -> Result<LoadedSpan, BadBlock> {
        let bad = |kind| BadBlock { offset: 0, kind };
        let opened = disk.open(&self.path, Access::Read).and_then(|file| file.map(Advice::Points));
        let bytes = opened.map_err(|_| bad(DamageKind::Missing))?;
        let layout = SpanLayout::decode(&bytes, self.store, &self.of);
        layout.map(|layout| LoadedSpan { bytes, layout }).map_err(|_| bad(DamageKind::Malformed))
    }
}
