//! Following, beside writers that come and go.

use crate::support::{Place, Random, annals_fed, command, sample};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How soon after an append's answer a follower in another process has printed the event, in the middle of many.
const LATENCY_MEDIAN_MAX: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// A `follow` under way; killed when a test fails.
pub(crate) struct Following {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
}

impl Following {
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let arguments = [&["follow", "--json"], arguments].concat();
        let mut child = command(data, &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = child.stdout.take().map(BufReader::new);
        Self { child, out }
    }

    pub(crate) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.out.as_mut().unwrap().read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// The lines that are printed from now on, each with the moment of its arrival.
    fn arrivals(&mut self) -> mpsc::Receiver<(Instant, String)> {
        let (sender, lines) = mpsc::channel();
        let out = self.out.take().unwrap();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if sender.send((Instant::now(), line)).is_err() {
                    return;
                }
            }
        });
        lines
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Interrupts it and gives its exit code.
    pub(crate) fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It may have ended long ago, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_other_processes_append_is_printed() {
    let place = Place::new();
    let append = |stream: &str| place.run(&["append", stream, "--type", "T"]).expect_code(0);
    append("a");
    let mut all = Following::start(&place.data(), &["--from", "start"]);
    let mut one = Following::start(&place.data(), &["--from", "0", "--stream", "b"]);
    assert_eq!(all.next()["stream"], json!("a"));
    for (version, stream) in ["a", "b", "b"].into_iter().enumerate() {
        append(stream);
        let event = all.next();
        assert_eq!((&event["stream"], &event["position"]), (&json!(stream), &json!(version + 1)));
    }
    assert_eq!(one.next()["version"], json!(0));
    assert_eq!(one.next()["version"], json!(1));
    assert_eq!((all.interrupt(), one.interrupt()), (Some(0), Some(0)));
}

#[test]
fn a_burst_is_printed_whole_and_in_order() {
    let place = Place::new();
    place.run(&["append", "a", "--type", "T"]).expect_code(0);
    let mut following = Following::start(&place.data(), &["--from", "1"]);
    annals_fed(&place.data(), &["import", "-", "--batch", "10"], sample(2000).as_bytes()).expect_code(0);
    for position in 1..=2000 {
        assert_eq!(following.next()["position"], json!(position));
    }
    assert_eq!(following.interrupt(), Some(0));
}

#[test]
fn what_another_process_appends_is_printed_within_milliseconds_whatever_becomes_of_writers() {
    const KILLS: u64 = 5;
    const APPENDS_A_KILL: u64 = 10;
    let place = Place::new();
    place.run(&["append", "a", "--type", "T"]).expect_code(0);
    let mut following = Following::start(&place.data(), &["--from", "start"]);
    let lines = following.arrivals();
    let mut random = Random::new(7);
    let mut latencies = Vec::new();
    let mut next = 0;
    let mut expect = |until: u64| loop {
        let (arrived, line): (Instant, String) = lines.recv_timeout(PATIENCE).unwrap();
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["position"], json!(next), "a gap or a duplicate");
        next += 1;
        if next > until {
            return arrived;
        }
    };
    for _ in 0..KILLS {
        for _ in 0..APPENDS_A_KILL {
            let (answered, position) = append_answered(&place);
            latencies.push(expect(position).saturating_duration_since(answered));
        }
        kill_a_flood(&place, Duration::from_micros(20_000 + random.below(60_000)));
    }
    let (_, last) = append_answered(&place);
    expect(last);
    latencies.sort();
    let (median, greatest) = (latencies[latencies.len() / 2], latencies[latencies.len() - 1]);
    println!(
        "{} appends of {last} events followed in {median:?} (median), {greatest:?} (greatest)",
        latencies.len()
    );
    assert!(last > 2 * KILLS * APPENDS_A_KILL, "the floods brought nothing");
    assert!(median <= LATENCY_MEDIAN_MAX, "{median:?}");
    assert_eq!(following.interrupt(), Some(0));
}

/// Appends one event in a process of its own; gives when its answer came, and the event's position.
fn append_answered(place: &Place) -> (Instant, u64) {
    let arguments = ["append", "a", "--type", "T", "--json"];
    let mut child = command(&place.data(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut answer = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut answer).unwrap();
    let answered = Instant::now();
    assert!(child.wait().unwrap().success());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    (answered, answer["position"].as_u64().unwrap())
}

/// Imports without end, and is killed after a while.
fn kill_a_flood(place: &Place, after: Duration) {
    let mut child = command(&place.data(), &["import", "-", "--batch", "100"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let flood = std::thread::spawn(move || while input.write_all(sample(1000).as_bytes()).is_ok() {});
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
    flood.join().unwrap();
}

#[test]
fn following_ends_when_its_reader_has_left() {
    let place = Place::new();
    place.run(&["append", "a", "--type", "T"]).expect_code(0);
    let mut child =
        command(&place.data(), &["follow", "--from", "start"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // The pipe is closed now, and nothing more is appended.
    let begun = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("it goes on without a reader");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}
