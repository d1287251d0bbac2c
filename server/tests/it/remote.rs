//! The command on a server: it does and says what it does and says on a directory.

use crate::support::{Place, Run, Served, bare, sample};
use annals_client::{ClientError, Failure, Options, blocking::Client};
use serde_json::{Value, json};

/// What a run left, but for what a directory and a server differ in.
fn compared(run: Run) -> (Option<i32>, String, Option<Value>) {
    let error = run.err.lines().last().and_then(|line| serde_json::from_str(line).ok());
    (run.code, run.out, error)
}

#[test]
fn every_command_answers_as_it_does_on_the_directory() {
    let place = Place::new();
    let file = place.file("events", sample(3_000));
    let served = Served::start(&place.data(), "127.0.0.1:0");
    let imported = served.run(&["--json", "import", &file]).expect_code(0).json();
    assert_eq!((&imported["events"], &imported["streams"]), (&json!(3_000), &json!(7)));
    let again = served.run(&["--json", "import", &file]).expect_code(0).json();
    assert_eq!((&again["events"], &again["repeated"]), (&json!(0), &json!(3_000)));
    served.run(&["subscription", "create", "work", "--type", "Noted", "--shared"]).expect_code(0);
    for arguments in [
        &["export"][..],
        &["export", "--stream", "order-3"],
        &["read"],
        &["read", "--json", "--stream", "order-3", "--from", "7", "--until", "20"],
        &["read", "--json", "--tag", "n:2", "--backwards", "--limit", "5"],
        &["read", "--json", "--category", "order", "--type", "Noted", "--from", "2990"],
        &["read", "--json", "--stream", "nobody"],
        &["read", "--json", "--from", "5000"],
        &["read", "--json", "--stream", "order-1", "--tag", ""],
        &["--json", "snapshot", "list"],
        &["--json", "snapshot", "show", "order-1"],
        &["--json", "subscription", "parked", "work"],
        &["--json", "subscription", "show", "nobody"],
        &["--json", "verify"],
    ] {
        let here = compared(place.run(arguments));
        assert_eq!(compared(served.run(arguments)), here, "{arguments:?}");
    }
    let sorted = |run: Run| {
        let mut lines = run.json_lines();
        lines.sort_by_key(|line| line["stream"].to_string());
        lines
    };
    let streams = ["--json", "streams", "--prefix", "order-"];
    assert_eq!(sorted(served.run(&streams)), sorted(place.run(&streams)));
    let stat = served.run(&["--json", "stat"]).expect_code(0).json();
    assert_eq!(stat, place.run(&["--json", "stat"]).json());
    assert_eq!(stat["writer"], json!(served.id()));
    let status = served.run(&["--json", "subscription", "show", "work"]).expect_code(0).json();
    assert_eq!(status["lag"], json!(3_000));
    let explained = served.run(&["read", "--explain", "--limit", "1"]).expect_code(2);
    assert!(explained.err.contains("give --data"), "{explained:?}");
}

#[test]
fn conditions_and_bad_input_are_told_as_ever() {
    let place = Place::new();
    let served = Served::start(&place.data(), "127.0.0.1:0");
    let append = ["--json", "append", "order-1", "--type", "T", "--data", "{}", "--expect", "none"];
    assert_eq!(served.run(&append).expect_code(0).json()["position"], json!(0));
    let refused = served.run(&append).expect_code(3).error();
    assert_eq!((&refused["error"], &refused["actual"]), (&json!("wrong_version"), &json!(0)));
    let batch =
        r#"{"events":[{"stream":"a","type":"T"}],"conditions":[{"query":{"items":[{"types":["T"]}]}}]}"#;
    let refused = served.fed(&["--json", "append", "--batch", "-"], batch.as_bytes()).expect_code(3).error();
    assert_eq!((&refused["error"], &refused["position"]), (&json!("query_matched"), &json!(0)));
    served.run(&["append", "order-1", "--type", "T", "--data", "{"]).expect_code(2);
    served.run(&["append", "", "--type", "T"]).expect_code(2);
    let bad = served
        .fed(&["--json", "import", "-"], b"{\"stream\":\"s\",\"type\":\"T\"}\nnothing\n")
        .expect_code(1);
    assert_eq!((&bad.json()["events"], &bad.error()["line"]), (&json!(1), &json!(2)));
    assert_eq!(served.run(&["--json", "stat"]).json()["events"], json!(2));
}

#[test]
fn it_is_clear_where_the_store_is() {
    let place = Place::new();
    let served = Served::start(&place.data(), "127.0.0.1:0");
    let both = place.run(&["--json", "stat", "--server", &served.address]).expect_code(2).error();
    assert!(both["message"].as_str().unwrap().contains("leave out one"), "{both}");
    let run = |command: &mut std::process::Command| command.output().unwrap().status.code();
    // A flag is stronger than the environment, and that than the file.
    assert_eq!(run(bare(&["stat", "--server", &served.address]).env("ANNALS_DATA", "/nowhere")), Some(0));
    assert_eq!(run(bare(&["stat", "--data", "/nowhere"]).env("ANNALS_SERVER", &served.address)), Some(1));
    let file = place.file("settings", format!("server = \"{}\"\n", served.address));
    assert_eq!(run(&mut bare(&["stat", "--config", &file])), Some(0));
    for (arguments, error) in [
        (&["stat", "--server", "localhost"][..], "usage"),
        (&["stat", "--server", "10.0.0.1:4777", "--token", "/dev/null"], "usage"),
        (&["stat", "--server", &served.address, "--token", "annals_secret"], "usage"),
        (&["serve", "--server", "x"], "usage"),
        (&["token", "list", "--server", "x"], "usage"),
        (&["stat", "--server", &served.address, "--cert", "x"], "usage"),
        (&["stat", "--server", &served.address, "--token", "/nowhere"], "usage"),
        (&["stat", "--server", &served.address, "--ca", "/dev/null"], "usage"),
    ] {
        let output = bare(&[&["--json"], arguments].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let told: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(told["error"], json!(error));
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = bare(&["--json", "stat", "--server", &free]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&told["error"], &told["address"]), (&json!("unreachable"), &json!(free)));
}

#[test]
fn stores_are_created_listed_and_dropped() {
    let place = Place::new();
    // Where it is can be said behind each command, too.
    let data = place.data();
    let behind = ["store", "list", "--data", data.to_str().unwrap()];
    assert!(bare(&behind).output().unwrap().status.success());
    // A directory of stores is made by a first store that has a name.
    place.run(&["store", "create", "first"]).expect_code(0);
    assert_eq!(place.run(&["store", "list"]).expect_code(0).out, "first\n");
    place.run(&["store", "create", "first"]).expect_code(2);
    let served = Served::start(&place.data(), "127.0.0.1:0");
    served.run(&["store", "create", "second"]).expect_code(0);
    let there = served.run(&["--json", "store", "create", "second"]).expect_code(2).error();
    assert_eq!(there["error"], json!("store_exists"));
    served.run(&["append", "s", "--type", "T", "--store", "second"]).expect_code(0);
    assert_eq!(served.run(&["store", "list"]).expect_code(0).out, "first\nsecond\n");
    let none = served.run(&["--json", "stat"]).expect_code(2).error();
    assert_eq!((&none["error"], &none["store"]), (&json!("no_store"), &json!("default")));
    assert_eq!(none["stores"], json!(["first", "second"]));
    // A directory that is given more strongly than a server, and has no default store.
    let file = place.file("settings", "server = \"127.0.0.1:1\"\n");
    let listed = place.run(&["store", "list", "--config", &file]).expect_code(0);
    assert_eq!(listed.out, "first\nsecond\n");
    for name in ["../x", "a/b", ".hidden", "", "manifest", "lock", &"x".repeat(300)] {
        served.run(&["store", "create", name]).expect_code(2);
        place.run(&["store", "create", name]).expect_code(2);
    }
    // Nobody says yes.
    served.run(&["store", "drop", "second"]).expect_code(2);
    served.run(&["store", "drop", "second", "--yes"]).expect_code(0);
    served.run(&["--json", "stat", "--store", "second"]).expect_code(2);
    served.run(&["store", "drop", "second", "--yes"]).expect_code(2);
    assert_eq!(std::fs::read_dir(place.data()).unwrap().count(), 1, "nothing is left of it");
    // Who has it, or follows it, is told; what is there by its name afterwards is found again.
    let connect = || Client::connect(Options::new(served.address.clone()).store("third")).unwrap();
    served.run(&["store", "create", "third"]).expect_code(0);
    let client = connect();
    client.append(annals::NewEvent::new("s", "T")).unwrap();
    let mut following = connect().follow(&annals::Follow::all()).unwrap();
    following.next().unwrap().unwrap();
    served.run(&["store", "drop", "third", "--yes"]).expect_code(0);
    let ended = following.find_map(Result::err).unwrap();
    assert!(matches!(ended, ClientError::Refused(Failure::NoStore { .. })), "{ended}");
    let refused = client.append(annals::NewEvent::new("s", "T")).unwrap_err();
    assert!(matches!(refused, ClientError::Refused(Failure::NoStore { .. })), "{refused}");
    served.run(&["store", "create", "third"]).expect_code(0);
    assert_eq!(
        client.append(annals::NewEvent::new("s", "T")).unwrap().first_position(),
        annals::Position::ZERO
    );
    served.run(&["store", "drop", "third", "--yes"]).expect_code(0);
    // What a server has is not dropped beside it, once somebody has used it.
    served.run(&["append", "s", "--type", "T", "--store", "first"]).expect_code(0);
    place.run(&["store", "drop", "first", "--yes"]).expect_code(5);
    assert_eq!(served.signal("-TERM"), Some(0));
    place.run(&["store", "drop", "first", "--yes"]).expect_code(0);
    assert_eq!(place.run(&["store", "list"]).expect_code(0).out, "");
    // A server that cannot be asked is not replaced by a directory.
    place.run(&["store", "create", "kept"]).expect_code(0);
    let file = place.file("settings", "server = \"127.0.0.1:1\"\ntoken = \"/nowhere\"\n");
    let mut dropping = bare(&["store", "drop", "kept", "--yes", "--config", &file]);
    let output = dropping.current_dir(place.path("")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(place.run(&["store", "list"]).expect_code(0).out, "kept\n");
    // One store is one store.
    let alone = Place::new();
    let served = Served::start(&alone.data(), "127.0.0.1:0");
    let refused = served.run(&["--json", "store", "create", "x"]).expect_code(2).error();
    assert_eq!(refused["error"], json!("unsupported"));
    served.run(&["store", "drop", "default", "--yes"]).expect_code(2);
}

#[test]
fn an_import_that_loses_its_server_leaves_each_stream_in_its_order() {
    let place = Place::new();
    let mut served = Served::start(&place.data(), "127.0.0.1:0");
    let address = served.address.clone();
    let file = place.file("events", sample(60_000));
    let mut failed = 0;
    for round in 0..40 {
        let import = std::thread::spawn({
            let (address, file) = (address.clone(), file.clone());
            move || {
                bare(&["--server", &address, "import", &file, "--batch", "20"])
                    .output()
                    .unwrap()
                    .status
                    .code()
            }
        });
        if round < 6 {
            std::thread::sleep(std::time::Duration::from_millis(60 + 40 * round));
            served.signal("-KILL");
            served = Served::start(&place.data(), &address);
        }
        match import.join().unwrap() {
            Some(0) if round >= 6 => break,
            Some(0) => {}
            Some(1 | 5) => failed += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(failed > 0, "the server was killed while nothing was imported");
    for stream in 0..7 {
        let mut next = stream;
        for event in
            served.run(&["export", "--stream", &format!("order-{stream}")]).expect_code(0).json_lines()
        {
            assert_eq!(event["data"]["n"], json!(next));
            next += 7;
        }
        assert!(next >= 60_000);
    }
}

#[test]
fn what_is_followed_on_a_server_goes_on_where_it_starts_again() {
    let place = Place::new();
    let served = Served::start(&place.data(), "127.0.0.1:0");
    served.run(&["append", "s", "--type", "First"]).expect_code(0);
    let address = served.address.clone();
    let mut follower = bare(&["--server", &address, "--json", "follow", "--from", "start"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(follower.stdout.take().unwrap()));
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["type"], json!("First"));
    assert_eq!(served.signal("-KILL"), None);
    let served = Served::start(&place.data(), &address);
    served.run(&["append", "s", "--type", "Second"]).expect_code(0);
    let second = next();
    assert_eq!((&second["type"], &second["position"]), (&json!("Second"), &json!(1)));
    follower.kill().unwrap();
    follower.wait().unwrap();
    // As a member, what was printed is not printed again.
    let member = |from: &str| {
        let mut member =
            bare(&["--server", &address, "--json", "follow", "--subscription", "printer", "--from", from]);
        let mut member = member.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = std::io::BufReader::new(member.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut out, &mut line).unwrap();
        let acknowledged =
            || served.run(&["--json", "subscription", "show", "printer"]).json()["next_position"].clone();
        let printed: Value = serde_json::from_str(&line).unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while acknowledged() != json!(printed["position"].as_u64().unwrap() + 1) {
            assert!(std::time::Instant::now() < deadline, "it is acknowledged");
        }
        member.kill().unwrap();
        member.wait().unwrap();
        printed["position"].clone()
    };
    served.run(&["append", "s", "--type", "Third"]).expect_code(0);
    assert_eq!(member("2"), json!(2));
    served.run(&["append", "s", "--type", "Fourth"]).expect_code(0);
    assert_eq!(member("2"), json!(3));
}
