//! Hard times for a server and those who use it: processes that are killed, and memory that is short.

use crate::serve::event;
use crate::support::{Place, Served, bare, command};
use annals::{Follow, Followed, NewEvent};
use annals_client::{Client, Options};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::Duration;

#[test]
fn of_three_processes_that_share_a_subscription_one_is_killed_and_nothing_is_lost() {
    const EVENTS: u64 = 600;
    let place = Place::new();
    let served = Served::start(&place.data(), "127.0.0.1:0");
    let create =
        ["subscription", "create", "work", "--shared", "--handling-timeout", "1", "--in-flight-max", "4"];
    served.run(&create).expect_code(0);
    let (sender, printed) = mpsc::channel();
    let member = |number: usize| {
        let sender = sender.clone();
        let mut child = bare(&["--server", &served.address, "--json", "follow", "--subscription", "work"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let position = serde_json::from_str::<Value>(&line).unwrap()["position"].as_u64().unwrap();
                let _ = sender.send((number, position));
            }
        });
        child
    };
    let mut members: Vec<Child> = (0..3).map(member).collect();
    let lines: String = (0..EVENTS)
        .map(|n| format!("{{\"stream\":\"s-{}\",\"type\":\"T\",\"data\":{n}}}\n", n % 20))
        .collect();
    served.fed(&["import", "-"], lines.as_bytes()).expect_code(0);
    let (mut seen, mut by_member) = (BTreeSet::new(), [0; 3]);
    while seen.len() < usize::try_from(EVENTS).unwrap() {
        let (number, position) = printed.recv_timeout(Duration::from_secs(60)).expect("all are handed out");
        seen.insert(position);
        by_member[number] += 1;
        if by_member[0] == 20 {
            members[0].kill().unwrap();
        }
    }
    assert!(seen.into_iter().eq(0..EVENTS));
    assert!(by_member[1] > 0 && by_member[2] > 0, "{by_member:?}");
    // What was printed is acknowledged, too.
    for _ in 0..200 {
        let status = served.run(&["--json", "subscription", "show", "work"]).json();
        if status["next_position"] == json!(EVENTS) && status["open"] == json!(0) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = served.run(&["--json", "subscription", "show", "work"]).json();
    assert_eq!((&status["next_position"], &status["open"]), (&json!(EVENTS), &json!(0)), "{status}");
    for mut member in members {
        let _ = member.kill();
        member.wait().unwrap();
    }
}

/// Sees to it that so many files may be open, or says why not.
fn enough_files(count: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    match getrlimit(Resource::Nofile).current {
        Some(files) if files < count => Err(format!("only {files} files may be open")),
        _ => Ok(()),
    }
}

/// A group of processes that may take so much memory. Removed when this is dropped, with whoever is in it.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `Err`: why there can be none.
    fn new(bytes: u64) -> Result<Self, String> {
        let name = format!("annals-test-{}", std::process::id());
        for (root, limit) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let group = Self(Path::new(root).join(&name));
            if Path::new(root).join("cgroup.procs").exists() && std::fs::create_dir(&group.0).is_ok() {
                return match std::fs::write(group.0.join(limit), bytes.to_string()) {
                    Ok(()) => Ok(group),
                    Err(error) => Err(format!("{}: {error}", group.0.join(limit).display())),
                };
            }
        }
        Err("no group of processes can be made in /sys/fs/cgroup".to_owned())
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        for id in std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = std::process::Command::new("kill").args(["-KILL", id]).status();
        }
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn a_thousand_subscribers_are_fed_from_little_memory_though_some_never_read() {
    const NAME: &str = "hardship::a_thousand_subscribers_are_fed_from_little_memory_though_some_never_read";
    const READING: usize = 990;
    const EVENTS: u64 = 150;
    let group = match enough_files(3_000).and_then(|()| MemoryGroup::new(512 << 20)) {
        Ok(group) => group,
        Err(reason) => {
            std::io::stderr().write_all(format!("SKIPPED {NAME}: {reason}\n").as_bytes()).unwrap();
            return;
        }
    };
    let place = Place::new();
    let served = Served::of(command(&place.data(), &["--json", "serve", "--listen", "127.0.0.1:0"]));
    std::fs::write(group.0.join("cgroup.procs"), served.id().to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut subscribers = tokio::task::JoinSet::new();
        let mut silent = Vec::new();
        for number in 0..READING + 10 {
            let mut options = Options::new(served.address.clone());
            options.stream_bytes = 256 << 10;
            let client = Client::connect(options).await.unwrap();
            let mut following = client.follow(&Follow::all()).await.unwrap();
            if number >= READING {
                // Asked for, and never taken.
                silent.push((client, following));
                continue;
            }
            subscribers.spawn(async move {
                let mut next = 0;
                while next < EVENTS {
                    if let Followed::Event(event) = following.next().await.unwrap().unwrap() {
                        assert_eq!(event.position().get(), next);
                        next += 1;
                    }
                }
            });
        }
        let writer = Client::connect(Options::new(served.address.clone())).await.unwrap();
        for _ in 0..EVENTS {
            writer.append(NewEvent::new("hot", "T").binary(vec![7; 8 << 10])).await.unwrap();
        }
        let fed = async {
            while let Some(fed) = subscribers.join_next().await {
                fed.unwrap()
            }
        };
        tokio::time::timeout(Duration::from_secs(120), fed).await.expect("all that read are fed");
        writer.append(event("s")).await.unwrap();
        assert_eq!(writer.stat().await.unwrap().events, EVENTS + 1);
        drop(silent);
    });
    assert_eq!(served.signal("-TERM"), Some(0));
}
