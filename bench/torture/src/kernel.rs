//! A kernel of its own for a server: Linux in user mode, a process whose disk is an image. To kill it is a crash of that kernel: what it
//! had in memory is lost, what it had handed to its disk is there.
//!
//! It sees the files of this machine, but cannot change them, and its first process is this harness (see `guest`). It is reached over a
//! network of two that exists while it runs.

use crate::guest;
use crate::program::run;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const LINUX: &str = "linux.uml";
const TUNNEL: &str = "/dev/net/tun";
const MEMORY: &str = "mem=256M";
/// Addresses that are set aside for measuring networks (RFC 2544), by fours; what has all of them cannot be asked for.
const NETWORKS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 0);
const NETWORKS_COUNT: u32 = 1 << 14;
/// How long it may take to be up, and how often it is looked.
const BOOT_TRIES: usize = 600;
const PAUSE: Duration = Duration::from_millis(50);
/// How much of what it says is told where it does not come up.
const TOLD_BYTES: usize = 2_000;

/// See the module. Crashes when it is dropped.
#[derive(Debug)]
pub(crate) struct Kernel {
    process: Child,
    /// Ends with the last of its processes.
    console: Option<JoinHandle<String>>,
    address: Ipv4Addr,
}

/// Why none can be run here, with such a file system.
pub(crate) fn is_missing(file_system: &str) -> Option<String> {
    let Ok(configuration) = run(LINUX, &["--showconfig"]) else {
        return Some(format!("it needs {LINUX} (Debian: user-mode-linux)"));
    };
    let wanted = format!("CONFIG_{}_FS=y", file_system.to_uppercase());
    if !configuration.lines().any(|line| line == wanted) {
        return Some(format!("this {LINUX} has no {file_system}"));
    }
    std::fs::File::open(TUNNEL).err().map(|error| format!("it needs {TUNNEL}: {error}"))
}

/// All but what the first process is given.
fn command(image: &Path, beside: &Path, device: &str) -> io::Result<Command> {
    let mut command = Command::new(LINUX);
    command.args([MEMORY, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"]);
    // With a console named, it appends none to what its first process is given.
    command.args(["console=tty0", "con=null", "con0=null,fd:1", "ssl=null"]);
    command.arg("PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    command.arg(format!("uml_dir={}/", beside.display()));
    // What it writes there is this machine's at once, and outlives it. It is never synced: ubd of Linux 6.1 drops each flush, so that a
    // cache below, which loses what was not flushed, would be its mistake and not the server's.
    command.arg(format!("ubd0={}", image.display()));
    // Large packets come as they are: they would be lost otherwise.
    command.arg(format!("vec0:transport=tap,ifname={device},gro=1"));
    command.arg(format!("init={}", std::env::current_exe()?.display()));
    Ok(command)
}

impl Kernel {
    /// Boots one, with what is on the image mounted somewhere; `beside`: what it keeps meanwhile.
    pub(crate) fn boot(image: &Path, file_system: &str, on: &Path, beside: &Path) -> io::Result<Self> {
        // One that has just crashed may hold a name for a moment longer.
        static BOOTED: AtomicU32 = AtomicU32::new(0);
        let (this, boot) = (std::process::id(), BOOTED.fetch_add(1, Ordering::Relaxed));
        let device = format!("annals{}x{}", this % 100_000, boot % 100);
        let network = NETWORKS.to_bits() + 4 * (this % NETWORKS_COUNT);
        let (here, there) = (Ipv4Addr::from_bits(network + 1), Ipv4Addr::from_bits(network + 2));
        let mut command = command(image, beside, &device)?;
        command.arg("--").args(guest::Arguments::new(file_system, on, there).words());
        let (mut said, console) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(console.try_clone()?).stderr(console);
        // A group of its own, all of which stops in one moment: a process of the kernel's that outlives the one which watches
        // it would go on as one of this machine, with the kernel's files.
        let process = command.process_group(0).spawn()?;
        // It has the other end for itself.
        drop(command);
        let console = std::thread::spawn(move || {
            let mut all = Vec::new();
            let _ = said.read_to_end(&mut all);
            String::from_utf8_lossy(&all).into_owned()
        });
        let mut kernel = Self { process, console: Some(console), address: there };
        if kernel.is_up(&device, here) {
            return Ok(kernel);
        }
        let said = kernel.end()?;
        let told = said.floor_char_boundary(said.len().saturating_sub(TOLD_BYTES));
        Err(io::Error::other(format!("{LINUX} does not come up: {}", said[told..].trim())))
    }

    /// Whether it comes up. Its network is there once the kernel has it.
    fn is_up(&mut self, device: &str, here: Ipv4Addr) -> bool {
        let mut has_network = false;
        for _ in 0..BOOT_TRIES {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return false;
            }
            has_network = has_network
                || (Path::new("/sys/class/net").join(device).exists()
                    && run("ip", &["address", "replace", &format!("{here}/30"), "dev", device]).is_ok()
                    && run("ip", &["link", "set", device, "up"]).is_ok());
            if has_network && guest::is_up(self.address) {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        false
    }

    /// How its first process is reached.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Stops it at once. Nothing of it runs any more when this returns.
    pub(crate) fn crash(mut self) -> io::Result<()> {
        self.end().map(drop)
    }

    /// What it has said.
    fn end(&mut self) -> io::Result<String> {
        let Some(console) = self.console.take() else { return Ok(String::new()) };
        match kill_process_group(Pid::from_child(&self.process), Signal::KILL) {
            Err(error) if error != rustix::io::Errno::SRCH => return Err(error.into()),
            _ => {}
        }
        self.process.wait()?;
        Ok(console.join().unwrap_or_default())
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
