//! A server as a process of its own, on this machine or in a kernel of its own, which can be killed.

use crate::guest::Remote;
use crate::place::Place;
use std::io::{self, BufRead, BufReader};
use std::net::Ipv4Addr;
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
    process: Process,
    pub(crate) address: String,
}

#[derive(Debug)]
enum Process {
    Here(Child),
    Inside(Remote),
}

/// Segments are small, so that many are begun, sealed and left behind.
const SEGMENT_BYTES: &str = "4194304";
/// How long a server may take to end.
const END_TIME: Duration = Duration::from_secs(30);

impl Launch {
    /// Starts a server at a place, and waits until it can be asked.
    pub(crate) fn start(&self, place: &Place) -> io::Result<Server> {
        match place.kernel() {
            None => self.start_here(&place.data()),
            Some(kernel) => self.start_inside(&place.data(), kernel.address()),
        }
    }

    fn start_here(&self, data: &Path) -> io::Result<Server> {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANNALS_"))
        {
            command.env_remove(name);
        }
        command.args(self.arguments(data, Ipv4Addr::LOCALHOST));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(child.stderr.take().expect("it is piped"));
        match ready(&mut said) {
            Ok(address) => {
                // It says whatever it wants.
                std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
                Ok(Server { process: Process::Here(child), address })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }

    fn start_inside(&self, data: &Path, address: Ipv4Addr) -> io::Result<Server> {
        let mut words = vec![std::path::absolute(&self.binary)?.display().to_string()];
        words.extend(self.arguments(data, address));
        // Nobody but this machine reaches it.
        words.push("--insecure".to_owned());
        let mut remote = Remote::start(address, &words)?;
        let address = ready(remote.said())?;
        Ok(Server { process: Process::Inside(remote), address })
    }

    fn arguments(&self, data: &Path, address: Ipv4Addr) -> Vec<String> {
        let (data, listen) = (data.display().to_string(), format!("{address}:0"));
        let to_serve = ["--data", &data, "--json", "serve", "--listen", &listen, "--log", "error"];
        let of_segments = ["--segment-bytes-first", "65536", "--segment-bytes-max", SEGMENT_BYTES];
        let all = to_serve.into_iter().chain(["--disk", self.disk]).chain(of_segments);
        all.map(str::to_owned).collect()
    }
}

/// The address that a server says it can be asked at, once it says so.
fn ready(said: &mut impl BufRead) -> io::Result<String> {
    let mut lines = String::new();
    loop {
        let before = lines.len();
        if said.read_line(&mut lines)? == 0 {
            return Err(io::Error::other(format!("the server did not start: {}", lines.trim_end())));
        }
        let line: Option<serde_json::Value> = serde_json::from_str(lines[before..].trim_end()).ok();
        if let Some(address) = line.as_ref().and_then(|line| line["ready"].as_str()) {
            return Ok(address.to_owned());
        }
    }
}

impl Server {
    /// As a machine that stops would.
    pub(crate) fn kill(mut self) -> io::Result<()> {
        match &mut self.process {
            Process::Here(child) => {
                child.kill()?;
                child.wait().map(drop)
            }
            Process::Inside(remote) => remote.end(true).map(drop),
        }
    }

    /// Has it end by itself, which must succeed.
    pub(crate) fn end(mut self) -> io::Result<()> {
        let ended = match &mut self.process {
            Process::Here(child) => end_here(child)?,
            Process::Inside(remote) => remote.end(false)?,
        };
        if ended == "0" { Ok(()) } else { Err(io::Error::other(format!("the server ended with {ended}"))) }
    }
}

fn end_here(child: &mut Child) -> io::Result<String> {
    let id = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
    for _ in 0..END_TIME.as_millis() / 10 {
        match child.try_wait()? {
            Some(status) => {
                return Ok(status.code().map_or_else(|| status.to_string(), |code| code.to_string()));
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    Err(io::Error::other("the server did not end"))
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Process::Here(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
