//! The harness runs twice: once to wait, and once, started by that one, to do the work. As root, the second has mounts of its own, which
//! end with it; and the first takes away what it leaves behind, processes as well as files, whatever ends it.

use crate::cycle::Failure;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};
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
    // What the second one leaves behind becomes a child of this one.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    // In a group of its own, with its servers: all of it is ended together.
    command.args(std::env::args_os().skip(1)).env(PLACE, place.path()).process_group(0);
    let worker = Pid::from_child(&command.spawn()?);
    let ended = wait(worker, &is_over);
    end_all(worker)?;
    match ended? {
        None => Err("interrupted; nothing is left behind".into()),
        Some(true) => Ok(ExitCode::SUCCESS),
        Some(false) => {
            eprintln!("journals are in {}", place.keep().display());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Whether the second one has succeeded; `None`: it is to end before that.
fn wait(worker: Pid, is_over: &AtomicBool) -> Result<Option<bool>, Failure> {
    while !is_over.load(Ordering::Acquire) {
        match rustix::process::wait(WaitOptions::NOHANG)? {
            Some((process, status)) if process == worker => return Ok(Some(status.exit_status() == Some(0))),
            // It has become a child of this one, and is over.
            Some(_) => {}
            None => std::thread::sleep(LOOK),
        }
    }
    Ok(None)
}

/// Ends the second one's group, and then each process that has become a child of this one, with its group if it has one.
fn end_all(worker: Pid) -> Result<(), Failure> {
    kill(worker)?;
    loop {
        children()?.into_iter().try_for_each(kill)?;
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => std::thread::sleep(LOOK),
            Err(Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// A process, and all of the group that it leads, at once.
fn kill(process: Pid) -> Result<(), Failure> {
    for killed in [
        rustix::process::kill_process_group(process, Signal::KILL),
        rustix::process::kill_process(process, Signal::KILL),
    ] {
        match killed {
            // It is over, or leads nobody.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Processes that are children of this one now.
fn children() -> Result<Vec<Pid>, Failure> {
    let this = std::process::id();
    let listed = std::fs::read_to_string(format!("/proc/{this}/task/{this}/children"))?;
    Ok(listed.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect())
}
