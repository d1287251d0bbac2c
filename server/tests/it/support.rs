//! Running the binary, and looking at what came of it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Run {
    /// The only line of standard output, as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.out).unwrap()
    }

    /// Every line of standard output, as JSON.
    pub(crate) fn json_lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The error object: the last line of standard error.
    pub(crate) fn error(&self) -> Value {
        serde_json::from_str(self.err.lines().last().unwrap_or_default())
            .unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The same run, once it is certain that it ended with this exit code.
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }
}

/// A command line for a store in `data`, untouched by the environment's settings.
pub(crate) fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = bare(&[]);
    command.arg("--data").arg(data).args(arguments);
    command
}

/// A command line that does not say where the store is.
pub(crate) fn bare(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annals"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ANNALS_") {
            command.env_remove(name);
        }
    }
    command.args(arguments);
    command
}

/// Runs the binary without input.
pub(crate) fn annals(data: &Path, arguments: &[&str]) -> Run {
    ended(command(data, arguments).stdin(Stdio::null()).output().unwrap())
}

/// Runs the binary with this input.
pub(crate) fn annals_fed(data: &Path, arguments: &[&str], input: &[u8]) -> Run {
    feed(command(data, arguments), input)
}

fn feed(mut command: Command, input: &[u8]) -> Run {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The command may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    ended(child.wait_with_output().unwrap())
}

fn ended(output: Output) -> Run {
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `annals serve` in a process of its own.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    /// Where it tells of its health, if it does.
    pub(crate) admin: Option<String>,
}

impl Served {
    pub(crate) fn start(data: &Path, listen: &str) -> Self {
        Self::start_with(data, &["--listen", listen])
    }

    pub(crate) fn start_with(data: &Path, options: &[&str]) -> Self {
        let arguments = [&["--json", "serve"], options].concat();
        Self::of(command(data, &arguments))
    }

    /// Of a command line that serves, with `--json`.
    pub(crate) fn of(mut command: Command) -> Self {
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        // Ended also where what it says is not what it should.
        let mut served = Self { child, address: String::new(), admin: None };
        let mut line = String::new();
        BufReader::new(served.child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let told = |name: &str| ready[name].as_str().map(str::to_owned);
        served.address = told("ready").unwrap_or_else(|| panic!("{line}"));
        served.admin = told("admin");
        served
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs the binary on it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.fed(arguments, b"")
    }

    /// The same, with this input.
    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Run {
        feed(bare(&[&["--server", &self.address], arguments].concat()), input)
    }

    /// How it ended, by itself or because it is killed now.
    pub(crate) fn ended(mut self) -> ExitStatus {
        for _ in 0..100 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended long ago, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory for one test, and the store in it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A path in the directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the store is, or will be.
    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Writes a file and gives its path as an argument.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs the binary on the store.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        annals(&self.data(), arguments)
    }
}

/// Lines of a sample: `count` events in seven streams, their times a second apart.
pub(crate) fn sample(count: usize) -> String {
    (0..count)
        .map(|index| {
            let (stream, ts) = (index % 7, 1_357_020_000 + index);
            format!(
                "{{\"ts\":{ts},\"stream\":\"order-{stream}\",\"type\":\"Noted\",\"tags\":[\"n:{}\"],\
                 \"data\":{{ \"n\": {index}, \"x\":1.50 }}}}\n",
                index % 3
            )
        })
        .collect()
}

/// Numbers that look random and are the same in every run (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number smaller than `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&mut self) -> f64 {
        f64::from(u32::try_from(self.below(1_000_001)).unwrap()) / 1e6
    }
}
