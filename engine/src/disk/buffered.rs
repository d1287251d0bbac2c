//! The buffered disk: durable writes through the page cache, one at a time, where direct ones are refused.

use super::direct::real_disk;
use super::real::{self, Cache};
use super::{Access, Disk, File, Lock, OneAtATime, Submitter};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(crate) struct Buffered;

impl Disk for Buffered {
    fn name(&self) -> &'static str {
        "buffered"
    }

    fn submitter(&self, _wake: Arc<Notify>) -> io::Result<Box<dyn Submitter>> {
        Ok(Box::<OneAtATime>::default())
    }

    real_disk!(Cache::Used);
}
