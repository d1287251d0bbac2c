//! What the harness is inside of a kernel of its own: its first process, which mounts the disk, and starts and ends servers. It is told
//! over a connection for each: a line with the words of the command, then one with what to do to the server. It tells what the
//! server says, and at the end how that ended.

use crate::cycle::Failure;
use crate::program::run;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Nothing else listens in there.
const PORT: u16 = 1;
/// What the kernel calls its disk, and its network.
const DISK: &str = "/dev/ubda";
const NETWORK: &str = "vec0";
const TERMINATE: &str = "terminate";
const KILL: &str = "kill";
/// How long a connection may take, and a server that is to end.
const CONNECT_TIME: Duration = Duration::from_millis(200);
const END_TIME: Duration = Duration::from_secs(30);

/// See the module. The kernel gives them to its first process.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Arguments {
    /// What is on the disk
    file_system: String,
    /// Where that is mounted
    on: PathBuf,
    /// Its own address, on a network of four
    address: Ipv4Addr,
}

impl Arguments {
    pub(crate) fn new(file_system: &str, on: &Path, address: Ipv4Addr) -> Self {
        Self { file_system: file_system.to_owned(), on: on.to_owned(), address }
    }

    /// As words, which become these arguments again.
    pub(crate) fn words(&self) -> [String; 4] {
        let (on, address) = (self.on.display().to_string(), self.address.to_string());
        ["guest".to_owned(), self.file_system.clone(), on, address]
    }
}

/// Does as it is told, for as long as the kernel runs: a kernel stops where its first process ends.
pub(crate) fn run_inside(arguments: &Arguments) -> Result<(), Failure> {
    if std::process::id() != 1 {
        return Err("this is for the first process of a kernel".into());
    }
    let Arguments { file_system, on, address } = arguments;
    run("mount", &["-t", "proc", "proc", "/proc"])?;
    run("mount", &[OsStr::new("-t"), OsStr::new(file_system), OsStr::new(DISK), on.as_os_str()])?;
    run("ip", &["address", "add", &format!("{address}/30"), "dev", NETWORK])?;
    run("ip", &["link", "set", NETWORK, "up"])?;
    for connection in TcpListener::bind((*address, PORT))?.incoming() {
        if let Err(error) = attend(connection?) {
            eprintln!("annals-torture: {error}");
        }
    }
    Ok(())
}

/// One server, from its start to its end. Who is gone wants none.
fn attend(connection: TcpStream) -> Result<(), Failure> {
    let mut told = BufReader::new(connection.try_clone()?);
    let mut line = String::new();
    if told.read_line(&mut line)? == 0 {
        return Ok(());
    }
    let words: Vec<String> = serde_json::from_str(&line)?;
    let (program, arguments) = words.split_first().ok_or("it is not said what to start")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn()?;
    let id = Pid::from_child(&child);
    let teller = std::thread::spawn(move || tell(child, connection));
    line.clear();
    told.read_line(&mut line)?;
    let signal = if line.trim() == TERMINATE { Signal::TERM } else { Signal::KILL };
    // It may be gone by itself.
    let _ = kill_process(id, signal);
    teller.join().map_err(|_| "it could not be told how a server ended")??;
    Ok(())
}

/// All that a server says, and then how it ended.
fn tell(mut child: Child, mut to: TcpStream) -> io::Result<()> {
    let mut said = child.stderr.take().expect("it is piped");
    // Nobody may listen any more; it has to be waited for all the same.
    let copied = io::copy(&mut said, &mut to);
    let ended = child.wait()?;
    copied?;
    writeln!(to, "{}", json!({"ended": ended.code()}))?;
    to.shutdown(Shutdown::Both)
}

/// A server inside, from outside. Killed when it is dropped, or its kernel is.
#[derive(Debug)]
pub(crate) struct Remote {
    to: TcpStream,
    said: BufReader<TcpStream>,
}

/// Whether the first process of the kernel with this address can be told anything.
pub(crate) fn is_up(address: Ipv4Addr) -> bool {
    connect(address).is_ok()
}

fn connect(address: Ipv4Addr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::from((address, PORT)), CONNECT_TIME)
}

impl Remote {
    /// Has a command started.
    pub(crate) fn start(address: Ipv4Addr, words: &[String]) -> io::Result<Self> {
        let mut to = connect(address)?;
        to.set_read_timeout(Some(END_TIME))?;
        writeln!(to, "{}", json!(words))?;
        Ok(Self { said: BufReader::new(to.try_clone()?), to })
    }

    /// What it says.
    pub(crate) fn said(&mut self) -> &mut impl BufRead {
        &mut self.said
    }

    /// Kills it, or has it end by itself; with what it ended.
    pub(crate) fn end(&mut self, is_killed: bool) -> io::Result<String> {
        writeln!(self.to, "{}", if is_killed { KILL } else { TERMINATE })?;
        let mut last = String::new();
        for line in (&mut self.said).lines() {
            last = line?;
        }
        let ended: serde_json::Value = serde_json::from_str(&last)?;
        Ok(ended["ended"].to_string())
    }
}
