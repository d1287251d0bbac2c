//! Any store behind an adapter (`bench/rivals`): a process that is asked by lines, and can be killed.

use crate::history::{Held, History};
use rand::rngs::SmallRng;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Appends that are asked before one of them is answered.
const UNDER_WAY: usize = 32;
/// How long a line that has to come may take.
const LINE_TIME: Duration = Duration::from_secs(60);
/// How long an adapter may take to end.
const END_TIME: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// How an adapter is started.
#[derive(Clone, Debug)]
pub(crate) struct Adapter {
    pub(crate) binary: PathBuf,
    pub(crate) options: Vec<String>,
}

/// An adapter that was started. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// `None`: nothing more is asked.
    asks: Option<ChildStdin>,
    said: Receiver<String>,
    complaints: Option<JoinHandle<String>>,
}

impl Adapter {
    /// On the store in a directory. Whether it could open that, [`Running::ready`] says.
    pub(crate) fn start(&self, data: &Path) -> io::Result<Running> {
        let mut command = Command::new(&self.binary);
        command.arg(data).args(&self.options).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let asks = child.stdin.take();
        let said = lines(child.stdout.take().expect("it is piped"));
        let complaints = Some(complaints(child.stderr.take().expect("it is piped")));
        Ok(Running { child, asks, said, complaints })
    }
}

/// Its lines, as they come. One that the process was killed in the middle of was not said.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (says, said) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        while matches!(output.read_line(&mut line), Ok(1..)) && line.ends_with('\n') {
            if says.send(line.trim_end().to_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    said
}

fn complaints(mut output: ChildStderr) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut complaints = Vec::new();
        let _ = output.read_to_end(&mut complaints);
        String::from_utf8_lossy(&complaints).trim().to_owned()
    })
}

impl Running {
    /// How the store is set, once it is open; or why it is not.
    pub(crate) fn ready(&mut self) -> Result<String, String> {
        loop {
            if let Some(settings) = self.line()?.strip_prefix("ready ") {
                return Ok(settings.to_owned());
            }
        }
    }

    /// What the store holds, or why it does not say that.
    pub(crate) fn dump(&mut self) -> Result<Vec<Held>, String> {
        let asks = self.asks.as_mut().expect("it was not ended");
        if asks.write_all(b"dump\n").is_err() {
            return Err(self.why());
        }
        let mut held = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(' ') {
                Some(("event", event)) => held.push(Held::parse(event).ok_or(line)?),
                Some(("dumped", count)) if count == held.len().to_string() => return Ok(held),
                Some(("dumped", _)) => return Err(format!("{line}, but {} events came", held.len())),
                _ => {}
            }
        }
    }

    /// Appends for some time, then is killed. What it said before that counts. Why it has ended by itself, if it has.
    pub(crate) fn work(
        mut self,
        history: &mut History,
        random: &mut SmallRng,
        time: Duration,
    ) -> io::Result<Option<String>> {
        let mut asks = self.asks.take().expect("it was not ended");
        let (child, said) = (&mut self.child, &mut self.said);
        let has_ended = std::thread::scope(|scope| {
            scope.spawn(move || load(&mut asks, said, history, random));
            std::thread::sleep(time);
            let has_ended = child.try_wait()?.is_some();
            child.kill()?;
            child.wait()?;
            io::Result::Ok(has_ended)
        })?;
        Ok(has_ended.then(|| self.why()))
    }

    /// Has it close the store and end by itself, which must succeed.
    pub(crate) fn end(mut self) -> Result<(), String> {
        drop(self.asks.take());
        for _ in 0..END_TIME.as_millis() / LOOK.as_millis() {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) => std::thread::sleep(LOOK),
                Ok(Some(_)) | Err(_) => return Err(self.why()),
            }
        }
        Err("it does not end".to_owned())
    }

    /// As a machine that stops would.
    pub(crate) fn kill(mut self) -> Result<(), String> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| format!("it cannot be killed: {error}"))
    }

    fn line(&mut self) -> Result<String, String> {
        self.said.recv_timeout(LINE_TIME).map_err(|_| self.why())
    }

    /// Why nothing more comes. It is over then.
    fn why(&mut self) -> String {
        let _ = self.child.kill();
        let status = self.child.wait();
        let complaints = self.complaints.take().and_then(|complaints| complaints.join().ok());
        match (status, complaints.unwrap_or_default()) {
            (Ok(status), complaints) if complaints.is_empty() => format!("it ended with {status}"),
            (_, complaints) => complaints,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks and notes answers until nothing more is said.
fn load(asks: &mut ChildStdin, said: &mut Receiver<String>, history: &mut History, random: &mut SmallRng) {
    let mut under_way = 0;
    loop {
        while under_way < UNDER_WAY {
            // Where it is gone, what it has said is still there to be noted.
            if writeln!(asks, "{}", history.ask(random)).is_err() {
                break;
            }
            under_way += 1;
        }
        let Ok(line) = said.recv() else { return };
        if let Some(number) = line.strip_prefix("ok ").and_then(|number| number.parse().ok()) {
            history.acknowledge(number);
            under_way -= 1;
        }
    }
}
