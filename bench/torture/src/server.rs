//! A server as a process of its own, which can be killed.

use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    /// The command `annals`.
    pub(crate) binary: PathBuf,
    /// How it writes: ring, direct or buffered.
    pub(crate) disk: &'static str,
}

/// See the module. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
}

/// Segments are small, so that many are begun, sealed and left behind.
const SEGMENT_BYTES: &str = "4194304";
/// How long a server may take to end.
const END_TIME: Duration = Duration::from_secs(30);

impl Launch {
    /// Starts a server, and waits until it can be asked.
    pub(crate) fn start(&self, data: &Path) -> io::Result<Server> {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANNALS_"))
        {
            command.env_remove(name);
        }
        command.arg("--data").arg(data).args([
            "--json",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log",
            "error",
        ]);
        command.args([
            "--disk",
            self.disk,
            "--segment-bytes-first",
            "65536",
            "--segment-bytes-max",
            SEGMENT_BYTES,
        ]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut lines = String::new();
        loop {
            let before = lines.len();
            if said.read_line(&mut lines)? == 0 {
                let _ = child.wait();
                return Err(io::Error::other(format!("the server did not start: {}", lines.trim_end())));
            }
            let line: Option<serde_json::Value> = serde_json::from_str(lines[before..].trim_end()).ok();
            if let Some(address) = line.as_ref().and_then(|line| line["ready"].as_str()) {
                let address = address.to_owned();
                // It says whatever it wants.
                std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
                return Ok(Server { child, address });
            }
        }
    }
}

impl Server {
    /// As a machine that stops would.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Has it end by itself, which must succeed.
    pub(crate) fn end(mut self) -> io::Result<()> {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        for _ in 0..END_TIME.as_millis() / 10 {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the server ended with {status}"))),
                None => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        Err(io::Error::other("the server did not end"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
