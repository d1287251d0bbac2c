//! Notes: what a person should know about work that goes on all the same. On standard error.

use serde_json::json;
use std::collections::BTreeSet;

/// Bad lines that are noted one by one; further ones are only counted.
const BAD_LINES_NOTED_MAX: u64 = 20;
/// Names of unknown fields that are remembered, so that each is noted once. A file may have any number.
const NAMES_NOTED_MAX: usize = 1000;

/// The notes of one run.
#[derive(Debug)]
pub(super) struct Notes {
    json: bool,
    names: BTreeSet<String>,
    bad_lines: u64,
}

impl Notes {
    /// None so far.
    pub(super) fn new(json: bool) -> Self {
        Self { json, names: BTreeSet::new(), bad_lines: 0 }
    }

    /// Notes each name of a field that no event has, once.
    pub(super) fn unknown_fields(&mut self, names: &[String]) {
        for name in names {
            if self.names.len() < NAMES_NOTED_MAX && self.names.insert(name.clone()) {
                let shown = name.escape_debug();
                let message = format!("the field \"{shown}\" is not part of an event and is left out");
                self.tell("unknown_field", &message);
            }
        }
    }

    /// Notes a line that is skipped.
    pub(super) fn bad_line(&mut self, line: u64, reason: &str) {
        self.bad_lines += 1;
        match self.bad_lines {
            1..BAD_LINES_NOTED_MAX => self.tell("bad_line", &format!("line {line} is skipped: {reason}")),
            BAD_LINES_NOTED_MAX => {
                let more = "further bad lines are counted and not shown";
                self.tell("bad_line", &format!("line {line} is skipped: {reason}; {more}"));
            }
            _ => {}
        }
    }

    /// Notes a snapshot that cannot be used.
    pub(super) fn passed_over(&self, stream: &str, version: Option<u64>, reason: &str) {
        let of = version.map_or_else(String::new, |version| format!(" of version {version}"));
        let stream = stream.escape_debug();
        self.tell("snapshot", &format!("a snapshot{of} of stream \"{stream}\" cannot be used: {reason}"));
    }

    fn tell(&self, name: &str, message: &str) {
        super::tell(&if self.json {
            json!({"note": name, "message": message}).to_string()
        } else {
            format!("annals: note: {message}")
        });
    }
}
