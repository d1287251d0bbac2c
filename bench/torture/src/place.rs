//! Where a store lies, and how the machine under it stops: nothing of a place is left when it is dropped.

use crate::kernel::{self, Kernel};
use crate::program::{is_there, run};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a place can do to what lies there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cut {
    /// Nothing: the process alone is killed.
    Kill,
    /// The file system loses power, as its device does.
    Power(&'static str),
    /// The device has a cache that loses what was not flushed, but for some blocks.
    Cache,
    /// A kernel of its own crashes, which has that file system on its disk: what was in its memory alone is lost.
    Kernel(&'static str),
    /// Nothing either: the file system is small, and becomes full.
    Full,
}

/// Size of an image, enough for a file system of any kind.
const IMAGE_BYTES: u64 = 400 << 20;
const OUTER_BYTES: u64 = 560 << 20;
/// Size of a file system that becomes full, and of what is taken away when it is.
const SMALL_BYTES: usize = 48 << 20;
const BALLAST_BYTES: usize = 20 << 20;
const BLOCK_BYTES: u64 = 4 << 10;
/// Blocks of the image that are kept by chance, each time.
const KEPT_BLOCKS: usize = 400;
/// How often it is tried to let go of what a killed process may still hold for a moment.
const TRIES: usize = 200;
const PAUSE: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(crate) struct Place {
    dir: tempfile::TempDir,
    cut: Cut,
    outer: Option<Mount>,
    inner: Option<Mount>,
    kernel: Option<Kernel>,
    random: SmallRng,
}

/// A file system that is mounted.
#[derive(Debug)]
struct Mount {
    on: PathBuf,
    /// It is given back.
    is_over: bool,
}

impl Mount {
    /// Of an image. Its device goes with it, whatever becomes of this process.
    fn new(image: &Path, on: &Path) -> io::Result<Self> {
        let arguments = [OsStr::new("-o"), OsStr::new("loop"), image.as_os_str(), on.as_os_str()];
        run("mount", &arguments)?;
        Ok(Self { on: on.to_owned(), is_over: false })
    }

    /// A small one in memory.
    fn small(on: &Path) -> io::Result<Self> {
        let size = format!("size={SMALL_BYTES}");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs"].map(OsStr::new);
        run("mount", &[&arguments[..], &[on.as_os_str()]].concat())?;
        Ok(Self { on: on.to_owned(), is_over: false })
    }

    /// Loses what is not on the device; nothing can be done to the file system any more.
    fn shut_down(&self) -> io::Result<()> {
        run("xfs_io", &[OsStr::new("-x"), OsStr::new("-c"), OsStr::new("shutdown"), self.on.as_os_str()])
            .map(drop)
    }

    /// Lets go of it. What is mounted for a moment longer is waited for.
    fn end(mut self) -> io::Result<()> {
        let mut ended = Ok(());
        for _ in 0..TRIES {
            ended = run("umount", &[&self.on]).map(drop);
            if ended.is_ok() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        self.is_over = ended.is_ok();
        ended
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let _ = run("umount", &[OsStr::new("--lazy"), self.on.as_os_str()]);
    }
}

fn image(path: &Path, bytes: u64, file_system: &str) -> io::Result<()> {
    std::fs::File::create(path)?.set_len(bytes)?;
    let quiet = if file_system == "xfs" { ["-q", "-f"] } else { ["-q", "-F"] };
    let mut arguments: Vec<&OsStr> = quiet.iter().map(OsStr::new).collect();
    arguments.push(path.as_os_str());
    run(&format!("mkfs.{file_system}"), &arguments).map(drop)
}

impl Place {
    /// Why a cut cannot be made here; `None`: it can.
    pub(crate) fn is_missing(cut: Cut) -> Option<String> {
        if cut == Cut::Kill {
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            return Some("it needs root, to mount images".to_owned());
        }
        let of_images = match cut {
            Cut::Kill | Cut::Full => None,
            Cut::Power(file_system) | Cut::Kernel(file_system) => Some(format!("mkfs.{file_system}")),
            Cut::Cache => Some("mkfs.ext4".to_owned()),
        };
        let mut programs = vec!["mount", "umount"];
        programs.extend(of_images.as_deref());
        programs.extend(match cut {
            Cut::Power(_) | Cut::Cache => Some("xfs_io"),
            Cut::Kernel(_) => Some("ip"),
            Cut::Kill | Cut::Full => None,
        });
        if let Some(program) = programs.iter().find(|program| !is_there(program)) {
            return Some(format!("it needs {program}"));
        }
        if let Cut::Kernel(file_system) = cut { kernel::is_missing(file_system) } else { None }
    }

    /// An empty one below a directory.
    pub(crate) fn new(below: &Path, cut: Cut, seed: u64) -> io::Result<Self> {
        let dir = tempfile::tempdir_in(std::path::absolute(below)?)?;
        let random = SmallRng::seed_from_u64(seed);
        let mut place = Self { dir, cut, outer: None, inner: None, kernel: None, random };
        for name in ["outer", "inner"] {
            std::fs::create_dir(place.path(name))?;
        }
        match cut {
            Cut::Kill => {}
            Cut::Full => {
                place.inner = Some(Mount::small(&place.path("inner"))?);
                std::fs::write(place.ballast(), vec![1; BALLAST_BYTES])?;
            }
            Cut::Power(file_system) | Cut::Kernel(file_system) => {
                image(&place.path("inner.img"), IMAGE_BYTES, file_system)?;
                place.mount()?;
            }
            Cut::Cache => {
                image(&place.path("outer.img"), OUTER_BYTES, "ext4")?;
                place.outer = Some(Mount::new(&place.path("outer.img"), &place.path("outer"))?);
                image(&place.inner_image(), IMAGE_BYTES, "ext4")?;
                place.mount()?;
            }
        }
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn inner_image(&self) -> PathBuf {
        if self.cut == Cut::Cache { self.path("outer/inner.img") } else { self.path("inner.img") }
    }

    fn mount(&mut self) -> io::Result<()> {
        let (image, on) = (self.inner_image(), self.path("inner"));
        if let Cut::Kernel(file_system) = self.cut {
            self.kernel = Some(Kernel::boot(&image, file_system, &on, self.dir.path())?);
        } else {
            self.inner = Some(Mount::new(&image, &on)?);
        }
        Ok(())
    }

    /// The kernel that servers run in, if it is not this machine's.
    pub(crate) fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// Where the store is.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("inner").join("data")
    }

    fn ballast(&self) -> PathBuf {
        self.path("inner/ballast")
    }

    /// Makes room where it has become full.
    pub(crate) fn make_room(&self) -> io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    /// The kernel stops, with the server that runs in it, if it has one of its own.
    pub(crate) fn crash(&mut self) -> io::Result<()> {
        self.kernel.take().map_or(Ok(()), Kernel::crash)
    }

    /// The machine stops, if it has not yet, and starts again. Nothing of this one may use what lies here.
    pub(crate) fn cut(&mut self) -> io::Result<()> {
        if matches!(self.cut, Cut::Kernel(_)) {
            self.crash()?;
            return self.mount();
        }
        let Some(inner) = self.inner.take() else { return Ok(()) };
        if self.outer.is_some() {
            self.keep_some()?;
        }
        self.outer.as_ref().unwrap_or(&inner).shut_down()?;
        inner.end()?;
        if let Some(outer) = self.outer.take() {
            outer.end()?;
            self.outer = Some(Mount::new(&self.path("outer.img"), &self.path("outer"))?);
        }
        self.mount()
    }

    /// Some blocks of what the device has in its cache are on it all the same.
    fn keep_some(&mut self) -> io::Result<()> {
        let mut arguments = Vec::new();
        for _ in 0..KEPT_BLOCKS {
            let block = self.random.random_range(0..IMAGE_BYTES / BLOCK_BYTES);
            arguments.extend([
                "-c".to_owned(),
                format!("sync_range -b -w -a {} {BLOCK_BYTES}", block * BLOCK_BYTES),
            ]);
        }
        arguments.push(self.inner_image().to_string_lossy().into_owned());
        run("xfs_io", &arguments).map(drop)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.kernel.take());
        // The inner one lies in the outer.
        drop(self.inner.take());
        drop(self.outer.take());
    }
}
