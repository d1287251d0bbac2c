//! The direct disk: durable writes past the page cache, one at a time.

use super::real::{self, Cache};
use super::{Access, Disk, File, Lock, OneAtATime, Submitter};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::Notify;

/// See the module.
#[derive(Debug)]
pub(crate) struct Direct;

/// The parts of [`Disk`] that the disks of a real machine have in common.
macro_rules! real_disk {
    ($cache:expr) => {
        fn create_dirs(&self, dir: &Path) -> io::Result<()> {
            real::create_dirs(dir)
        }

        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            real::list(dir)
        }

        fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
            std::fs::read(path)
        }

        fn write_new(&self, path: &Path, content: &[u8]) -> io::Result<()> {
            real::write_new(path, content)
        }

        fn preallocate(&self, path: &Path, len: u64, zeroed: &mut dyn FnMut(u64) -> bool) -> io::Result<()> {
            real::preallocate(path, len, $cache, zeroed)
        }

        fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
            real::open(path, access, $cache)
        }

        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            std::fs::rename(from, to)
        }

        fn remove(&self, path: &Path) -> io::Result<()> {
            std::fs::remove_file(path)
        }

        fn remove_dir(&self, dir: &Path) -> io::Result<()> {
            std::fs::remove_dir(dir)
        }

        fn sync_dir(&self, dir: &Path) -> io::Result<()> {
            real::sync_dir(dir)
        }

        fn lock(&self, path: &Path) -> io::Result<Result<Box<dyn Lock>, Option<u32>>> {
            real::lock(path, self.name())
        }

        fn lock_holder(&self, path: &Path) -> io::Result<Option<u32>> {
            real::lock_holder(path)
        }
    };
}
pub(super) use real_disk;

impl Disk for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn submitter(&self, _wake: Arc<Notify>) -> io::Result<Box<dyn Submitter>> {
        Ok(Box::<OneAtATime>::default())
    }

    real_disk!(Cache::Bypassed);
}
