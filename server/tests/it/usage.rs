//! The command line, settings, and who may use a store.

use crate::support::{Place, annals, command, sample};
use serde_json::json;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn wrong_usage_exits_2_and_tells_machines_so() {
    let place = Place::new();
    for arguments in [
        &["nonsense"][..],
        &[],
        &["read", "--nonsense"],
        &["read", "--from", "yesterday"],
        &["read", "--limit", "-1"],
        &["follow", "--from", "middle"],
        &["import"],
    ] {
        place.run(arguments).expect_code(2);
        let error = place.run(&[arguments, &["--json"]].concat()).expect_code(2).error();
        assert_eq!(error["error"], json!("usage"), "{arguments:?}");
    }
}

#[test]
fn help_completions_and_manual_are_answers() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["import", "--help"], &["serve", "--help"], &["--version"], &["man"]]
    {
        assert!(!place.run(arguments).expect_code(0).out.is_empty());
    }
    assert!(place.run(&["man", "import"]).expect_code(0).out.contains("skip\\-bad"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(&["completions", shell]).expect_code(0).out.contains("annals"));
    }
}

#[test]
fn a_store_in_use_is_refused_to_a_second_writer_and_open_to_readers() {
    let place = Place::new();
    place.run(&["append", "a", "--type", "T"]).expect_code(0);
    // An import holds the store until its input ends.
    let mut writer =
        command(&place.data(), &["import", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let holder = || place.run(&["stat", "--json"]).expect_code(0).json()["writer"].clone();
    while holder() != json!(writer.id()) {
        assert!(started.elapsed() < Duration::from_secs(30), "the writer never took the store");
    }
    let refused = place.run(&["append", "a", "--type", "T", "--json"]).expect_code(5);
    assert_eq!(refused.error()["error"], json!("in_use"));
    place.run(&["read"]).expect_code(0);
    writer.stdin.take().unwrap().write_all(sample(3).as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}

#[test]
fn an_interrupted_import_keeps_what_it_sent() {
    let place = Place::new();
    let mut import = command(&place.data(), &["import", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = import.stdin.take().unwrap();
    input.write_all(sample(5000).as_bytes()).unwrap();
    // The first chunk is in once readers see it.
    let started = Instant::now();
    while place.run(&["stat", "--json"]).out.lines().all(|line| line.contains("\"events\":0,")) {
        assert!(started.elapsed() < Duration::from_secs(30), "nothing was imported");
    }
    let pid = import.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = import.wait_with_output().unwrap();
    drop(input);
    assert_eq!(output.status.code(), Some(1));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let stat = place.run(&["stat", "--json"]).expect_code(0).json();
    assert_eq!(summary["events"], stat["events"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("\"interrupted\""));
}

#[test]
fn a_directory_of_stores_is_chosen_from() {
    let place = Place::new();
    let root = place.data();
    let append = |store: &str| annals(&root, &["append", "a", "--type", "T", "--store", store]);
    append("first").expect_code(0);
    append("first").expect_code(0);
    annals(&root.join("second"), &["append", "a", "--type", "T"]).expect_code(0);
    let stat = |store: &str| annals(&root, &["stat", "--json", "--store", store]);
    assert_eq!(stat("first").expect_code(0).json()["events"], json!(2));
    assert_eq!(stat("second").expect_code(0).json()["events"], json!(1));
    let error = annals(&root, &["stat", "--json"]).expect_code(2).error();
    assert!(error["message"].as_str().unwrap().contains("first, second"), "{error}");
    stat("../data").expect_code(2);
}

#[test]
fn flags_are_stronger_than_variables_and_these_than_the_file() {
    let place = Place::new();
    let [flag, variable, file] = ["flag", "variable", "file"].map(|name| place.path(name));
    let config = place.file("annals.toml", format!("data = {:?}\n", file.to_str().unwrap()));
    for (count, data) in (1..).zip([&flag, &variable, &file]) {
        for _ in 0..count {
            annals(data, &["append", "a", "--type", "T"]).expect_code(0);
        }
    }
    let events = |with_flag: bool, with_variable: bool| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_annals"));
        command.args(["stat", "--json", "--config", &config]).env_remove("ANNALS_DATA");
        if with_variable {
            command.env("ANNALS_DATA", &variable);
        }
        if with_flag {
            command.arg("--data").arg(&flag);
        }
        let output = command.output().unwrap();
        let stat: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        stat["events"].as_u64()
    };
    assert_eq!(events(true, true), Some(1));
    assert_eq!(events(false, true), Some(2));
    assert_eq!(events(false, false), Some(3));
    let wrong = place.file("wrong.toml", "colour = 1\n");
    place.run(&["stat", "--config", &wrong]).expect_code(2);
    place.run(&["stat", "--config", "nowhere.toml"]).expect_code(2);
}

#[test]
fn a_directory_that_is_no_store_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir(place.data()).unwrap();
    std::fs::write(place.data().join("letter.txt"), "dear").unwrap();
    let error = place.run(&["append", "a", "--type", "T", "--json"]).expect_code(1).error();
    assert_eq!(error["error"], json!("not_a_store"));
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), 1);
}
