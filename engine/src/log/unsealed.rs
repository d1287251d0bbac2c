//! A segment that is written, or waits to be sealed: its newest part is in the image, the rest in its map.
#![allow(unsafe_code)]

use super::damage_at;
use super::digests::Digests;
use super::image::Image;
use crate::disk::File;
use crate::disk::maps::Advice;
use crate::format::frame::{Envelope, FRAME_FIXED_BYTES, FrameSeed};
use crate::format::segment::SegmentHeader;
use crate::format::{BLOCK_BYTES, align_down, to_usize};
use annals_types::{DamageKind, IoFailure, ReadError};
use bytes::Bytes;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Frames up to this size are copied for who reads slowly, maybe: a quarter of what the image would keep for it.
const COPIED_BYTES_MAX: usize = 256 << 10;

/// See the module. Apart from its reference count, in a cache line of its own: each append changes that.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Unsealed {
    pub(crate) header: SegmentHeader,
    pub(crate) seed: FrameSeed,
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn File>,
    image: Image,
    /// Of the batches that were appended since the segment was opened.
    pub(crate) digests: Digests,
    /// Behind the last durable frame. Only grows.
    durable_end: AtomicU64,
    /// The map, and the durable end when it was taken: what it is sure to show.
    map: Mutex<(Bytes, u64)>,
}

impl Unsealed {
    /// A segment whose frames up to `end` are durable. Its image begins with the block that holds `end`.
    pub(crate) fn new(header: SegmentHeader, path: PathBuf, file: Arc<dyn File>, end: u64) -> Self {
        Self {
            header,
            seed: FrameSeed::new(header.salt),
            path,
            file,
            image: Image::new(align_down(end, BLOCK_BYTES)),
            digests: Digests::new(header.capacity),
            durable_end: AtomicU64::new(end),
            map: Mutex::new((Bytes::new(), 0)),
        }
    }

    /// The same, to go on in: `begun` is what the block that holds `end` already has of frames.
    pub(crate) fn continued(
        header: SegmentHeader,
        path: PathBuf,
        file: Arc<dyn File>,
        end: u64,
        begun: &[u8],
    ) -> Self {
        let log = Self::new(header, path, file, end);
        assert_eq!(align_down(end, BLOCK_BYTES) + begun.len() as u64, end, "the begun block, up to the end");
        let _ = log.image.reserve(align_down(end, BLOCK_BYTES), end);
        // SAFETY: nobody else knows this segment yet.
        unsafe { log.image.fill(end - begun.len() as u64, begun) };
        log
    }

    /// Where frames must end: behind comes the block of the seal.
    pub(crate) fn frames_limit(&self) -> u64 {
        self.header.capacity - BLOCK_BYTES as u64
    }

    pub(crate) fn image(&self) -> &Image {
        &self.image
    }

    pub(crate) fn durable_end(&self) -> u64 {
        self.durable_end.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable_end(&self, end: u64) {
        self.durable_end.fetch_max(end, Ordering::AcqRel);
    }

    /// The durable frame at `offset`: its verified envelope and all its bytes.
    pub(crate) fn frame(&self, offset: u64) -> Result<(Envelope, Bytes), ReadError> {
        if offset >= self.durable_end() {
            // Nobody asks for what is not durable, unless what led here is damaged.
            return Err(damage_at(&self.path, offset, DamageKind::Missing, None).into());
        }
        let mut fixed = [0; FRAME_FIXED_BYTES];
        // SAFETY: all that is durable was filled.
        if !unsafe { self.image.copy_to(offset, &mut fixed) } {
            return self.mapped_frame(offset);
        }
        let damaged = |kind| damage_at(&self.path, offset, kind, None);
        let envelope = Envelope::decode(&fixed, offset, self.seed).map_err(damaged)?;
        // SAFETY: as above.
        match unsafe { self.image.lend(offset, to_usize(envelope.frame_bytes())) } {
            Some(bytes) => Ok((envelope, bytes)),
            // Trimmed meanwhile: it is durable, and in the map.
            None => self.mapped_frame(offset),
        }
    }

    /// The same, without holding on to the image: copied where it is short, else from the map.
    pub(crate) fn frame_apart(&self, offset: u64) -> Result<(Envelope, Bytes), ReadError> {
        let (envelope, bytes) = self.frame(offset)?;
        if bytes.len() <= COPIED_BYTES_MAX {
            return Ok((envelope, Bytes::copy_from_slice(&bytes)));
        }
        drop(bytes);
        self.mapped_frame(offset)
    }

    fn mapped_frame(&self, offset: u64) -> Result<(Envelope, Bytes), ReadError> {
        let map = self.mapped(offset + FRAME_FIXED_BYTES as u64)?;
        let (envelope, bytes) =
            frame_in(&map, offset, self.seed).map_err(|kind| damage_at(&self.path, offset, kind, None))?;
        if map.len() as u64 >= offset + envelope.frame_bytes()
            && self.is_mapped_to(offset + envelope.frame_bytes())
        {
            return Ok((envelope, bytes));
        }
        let map = self.mapped(offset + envelope.frame_bytes())?;
        frame_in(&map, offset, self.seed).map_err(|kind| damage_at(&self.path, offset, kind, None).into())
    }

    fn is_mapped_to(&self, end: u64) -> bool {
        self.map.lock().1 >= end
    }

    /// The map, taken anew where it may not show all up to `end`.
    fn mapped(&self, end: u64) -> Result<Bytes, ReadError> {
        let mut map = self.map.lock();
        if map.1 < end {
            let durable_end = self.durable_end();
            let bytes =
                self.file.map(Advice::Scan).map_err(|error| IoFailure::new("map", &self.path, error))?;
            *map = (bytes, durable_end);
        }
        Ok(map.0.clone())
    }
}

/// The frame at `offset` of a file's bytes.
pub(crate) fn frame_in(map: &Bytes, offset: u64, seed: FrameSeed) -> Result<(Envelope, Bytes), DamageKind> {
    let at = to_usize(offset);
    let fixed = map.get(at..).ok_or(DamageKind::Missing)?;
    let envelope = Envelope::decode(fixed, offset, seed)?;
    let end = at + to_usize(envelope.frame_bytes());
    if end > map.len() {
        return Err(DamageKind::Missing);
    }
    Ok((envelope, map.slice(at..end)))
}
