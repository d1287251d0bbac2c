//! The harness runs twice: once to wait, and once, started by that one, to do the work. As root, the second has mounts of its own, which
//! end with it; and the first takes away what it leaves behind, whatever ends it.

use crate::cycle::Failure;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Says where the second one works.
const PLACE: &str = "ANNALS_TORTURE_PLACE";
const LOOK: Duration = Duration::from_millis(50);

/// Where this one works, if it is the second.
pub(crate) fn place() -> Option<PathBuf> {
    std::env::var_os(PLACE).map(PathBuf::from)
}

/// Starts the second one below a directory, and waits for it. What is there is kept where it does not succeed by itself.
pub(crate) fn start(below: &Path) -> Result<ExitCode, Failure> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    let place = tempfile::Builder::new().prefix("annals-torture-").tempdir_in(below)?;
    let this = std::env::current_exe()?;
    let is_root = rustix::process::geteuid().is_root();
    let mut command = if is_root && Command::new("unshare").arg("--version").output().is_ok() {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]).arg(this);
        command
    } else {
        Command::new(this)
    };
    // In a group of its own, with its servers: all of it is ended together.
    command.args(std::env::args_os().skip(1)).env(PLACE, place.path()).process_group(0);
    let mut child = command.spawn()?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if is_over.load(Ordering::Acquire) {
            let group = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
            child.wait()?;
            return Err("interrupted; nothing is left behind".into());
        }
        std::thread::sleep(LOOK);
    };
    if status.success() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("journals are in {}", place.keep().display());
    Ok(ExitCode::FAILURE)
}
