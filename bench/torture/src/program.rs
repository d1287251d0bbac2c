//! Programs of the machine, run to their end.

use std::ffi::OsStr;
use std::io;
use std::process::{Command, Stdio};

/// What it says; where it fails, why.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

/// Whether there is such a program.
pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}
