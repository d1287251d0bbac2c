//! Planted bugs: a mistake that loses or invents something is put into a copy of the source, and the drivers that know of none in
//! particular have to find it. A driver that never failed proves nothing.

use crate::cycle::{Failure, Score};
use rustix::process::{Pid, Signal};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Where the patches are, in the source.
const PATCHES: &str = "bench/torture/planted";
/// The engine's tests that try everything they can think of on the simulated disk and on real ones, whatever the mistake is: where
/// they are, and what their names begin with.
const DRIVERS: [(&[&str], &str); 6] = [
    (IN_TESTS, "crash::"),
    (IN_TESTS, "damage::"),
    (IN_TESTS, "model::"),
    (IN_TESTS, "torn_tail::"),
    (IN_TESTS, "beside::"),
    (&["--lib"], "disk::real::"),
];
const IN_TESTS: &[&str] = &["--test", "it"];
/// Who hangs is found out, too.
const TIME: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);

/// A copy of the source, to plant in.
#[derive(Debug)]
pub(crate) struct Copy {
    tree: PathBuf,
    target: PathBuf,
}

/// Whether a directory is a source that has them.
pub(crate) fn is_source(directory: &Path) -> bool {
    directory.join(PATCHES).is_dir()
}

/// Names of all patches.
pub(crate) fn patches(source: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<_> = std::fs::read_dir(source.join(PATCHES))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "patch"))
        .collect();
    found.sort();
    Ok(found)
}

impl Copy {
    /// Copies what git knows of a source.
    pub(crate) fn new(source: &Path, below: &Path) -> Result<Self, Failure> {
        let listed = Command::new("git").arg("-C").arg(source).args(["ls-files", "-z"]).output()?;
        if !listed.status.success() {
            return Err(format!("{} is no source that git knows", source.display()).into());
        }
        let (tree, target) = (below.join("tree"), below.join("target"));
        for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
            let to = tree.join(name);
            std::fs::create_dir_all(to.parent().expect("it is below the tree"))?;
            std::fs::copy(source.join(name), to)?;
        }
        Ok(Self { tree, target })
    }

    /// Whether the drivers find what a patch plants. `black_box`: what else tries a command `annals`, and what it finds.
    pub(crate) fn catches(
        &self,
        patch: &Path,
        black_box: &dyn Fn(&Path) -> Result<Score, Failure>,
    ) -> Result<Option<String>, Failure> {
        self.apply(patch, false)?;
        let caught = self.try_all(black_box);
        self.apply(patch, true)?;
        caught
    }

    fn try_all(
        &self,
        black_box: &dyn Fn(&Path) -> Result<Score, Failure>,
    ) -> Result<Option<String>, Failure> {
        let test = ["test", "--quiet", "--locked", "-p", "annals"];
        // What does not build is not caught: it was never tried.
        let built = self.succeeds(&[&test[..], &["--lib", "--test", "it", "--no-run"]].concat())?;
        expect(built, "it does not build")?;
        for (place, driver) in DRIVERS {
            if !self.succeeds(&[&test[..], place, &["--", driver]].concat())? {
                return Ok(Some(driver.trim_end_matches(':').to_owned()));
            }
        }
        let built = self.succeeds(&["build", "--quiet", "--locked", "-p", "annals-server"])?;
        expect(built, "the server does not build")?;
        let score = black_box(&self.target.join("debug/annals"))?;
        Ok(score.wrong.first().map(|wrong| format!("from outside: {wrong}")))
    }

    fn apply(&self, patch: &Path, is_taken_back: bool) -> Result<(), Failure> {
        let mut command = Command::new("git");
        command.current_dir(&self.tree).arg("apply").args(is_taken_back.then_some("--reverse")).arg(patch);
        // Not the repository that the tree may lie in.
        command.env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree));
        let applied = command.output()?;
        if applied.status.success() {
            return Ok(());
        }
        let why = String::from_utf8_lossy(&applied.stderr);
        Err(format!("{} does not apply any more: {}", patch.display(), why.trim()).into())
    }

    /// Whether cargo succeeds with these arguments, in time.
    fn succeeds(&self, arguments: &[&str]) -> io::Result<bool> {
        let mut command = Command::new("cargo");
        command.current_dir(&self.tree).args(arguments).env("CARGO_TARGET_DIR", &self.target);
        // In a group of its own, with what it starts.
        command.process_group(0);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        for _ in 0..TIME.as_millis() / LOOK.as_millis() {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            std::thread::sleep(LOOK);
        }
        rustix::process::kill_process_group(Pid::from_child(&child), Signal::KILL)?;
        child.wait()?;
        Ok(false)
    }
}

fn expect(holds: bool, otherwise: &str) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(otherwise.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told by whoever changes what a patch changes, and not only by the run that plants it.
    #[test]
    fn every_patch_applies_to_this_source() {
        let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let patches = patches(source).unwrap();
        assert_eq!(patches.len(), 17);
        for patch in patches {
            let checked =
                Command::new("git").current_dir(source).args(["apply", "--check"]).arg(&patch).output();
            let checked = checked.unwrap();
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
        }
    }
}
