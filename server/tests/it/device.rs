//! A device that can be read no more, under files that are mapped.

use crate::support::{Served, annals, annals_fed};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const IMAGE_BYTES: u64 = 320 << 20;
const EVENTS: u64 = 12_000;
/// The signal of a page that cannot be read.
const SIGBUS: i32 = 7;

/// A file system in a file, mounted as long as this lives.
struct Volume {
    dir: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

impl Volume {
    /// `Err`: why there can be none.
    fn new() -> Result<Self, String> {
        let volume = Self { dir: tempfile::tempdir().unwrap() };
        let image = volume.path("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(IMAGE_BYTES)).unwrap();
        std::fs::create_dir(volume.path("on")).unwrap();
        run("xfs_io", &["-V"])?;
        run("mkfs.xfs", &["-q", image.to_str().unwrap()])?;
        volume.mount()?;
        Ok(volume)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn on(&self) -> String {
        self.path("on").to_str().unwrap().to_owned()
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", self.path("image").to_str().unwrap(), &self.on()])
    }

    /// Gives it back, with what the system has of it in memory; a process that has just ended may hold it for a moment.
    fn unmount(&self) -> Result<(), String> {
        let mut unmounted = Ok(());
        for _ in 0..100 {
            unmounted = run("umount", &[&self.on()]);
            if unmounted.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        unmounted
    }

    /// From now on, nothing of it can be read or written.
    fn shut_down(&self) {
        run("xfs_io", &["-x", "-c", "shutdown", &self.on()]).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy", &self.on()]);
    }
}

/// A store of some sealed segments, none of which is in memory.
fn filled(volume: &Volume, data: &Path) -> String {
    let line =
        |n| format!("{{\"stream\":\"s-{}\",\"type\":\"T\",\"data\":\"{}{n}\"}}\n", n % 20, "x".repeat(4_000));
    let lines: String = (0..EVENTS).map(line).collect();
    let small = ["import", "--segment-bytes-first", "33554432", "--segment-bytes-max", "33554432", "-"];
    annals_fed(data, &small, lines.as_bytes()).expect_code(0);
    let all = annals(data, &["export"]).expect_code(0).out;
    volume.unmount().unwrap();
    volume.mount().unwrap();
    all
}

#[test]
fn what_cannot_be_read_of_a_mapped_file_ends_the_process_and_nothing_is_lost() {
    const NAME: &str = "device::what_cannot_be_read_of_a_mapped_file_ends_the_process_and_nothing_is_lost";
    let volume = match Volume::new() {
        Ok(volume) => volume,
        Err(reason) => {
            std::io::stderr().write_all(format!("SKIPPED {NAME}: {reason}\n").as_bytes()).unwrap();
            return;
        }
    };
    let data = volume.path("on/data");
    let all = filled(&volume, &data);
    let served = Served::start(&data, "127.0.0.1:0");
    // The first event's file is mapped, and some of its pages are in memory.
    served.run(&["read", "--limit", "1"]).expect_code(0);
    std::fs::write("/proc/sys/vm/drop_caches", "1").unwrap();
    volume.shut_down();
    let export = served.run(&["export"]);
    assert_ne!(export.code, Some(0), "it read what cannot be read: {} bytes", export.out.len());
    assert!(all.starts_with(&export.out), "it made something up in {} bytes", export.out.len());
    let status = served.ended();
    assert_eq!(status.signal(), Some(SIGBUS), "{status:?}, {} bytes, {}", export.out.len(), export.err);
    volume.unmount().unwrap();
    volume.mount().unwrap();
    annals(&data, &["verify"]).expect_code(0);
    assert!(annals(&data, &["export"]).out == all, "it is not what it was");
}
