//! Following, beside writers that come and go.

use crate::support::{Place, annals_fed, command, sample};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A `follow` under way; killed when a test fails.
struct Following {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Following {
    fn start(data: &Path, arguments: &[&str]) -> Self {
        let arguments = [&["follow", "--json"], arguments].concat();
        let mut child = command(data, &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// Interrupts it and gives its exit code.
    fn interrupt(mut self) -> Option<i32> {
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
fn subscriptions_are_not_there_yet() {
    let place = Place::new();
    let run = place.run(&["follow", "--subscription", "s", "--json"]).expect_code(2);
    assert_eq!(run.error()["error"], json!("not_there_yet"));
}
