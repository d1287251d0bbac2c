//! What a server tells of itself: health, metrics, logs.

use crate::support::{Place, Served, command};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Asks over HTTP: the status and the body.
fn get(address: &str, path: &str) -> (String, String) {
    let mut socket = TcpStream::connect(address).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// The value of a metric.
fn value(metrics: &str, metric: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{metric}: {metrics}")).parse().unwrap()
}

#[test]
fn health_and_metrics_are_told_over_http() {
    let place = Place::new();
    let served = Served::start_with(&place.data(), &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let admin = served.admin.clone().unwrap();
    assert_eq!(get(&admin, "/health"), ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned()));
    served.run(&["append", "s", "--type", "T", "--expect", "none"]).expect_code(0);
    served.run(&["append", "s", "--type", "T", "--expect", "none"]).expect_code(3);
    served.run(&["read"]).expect_code(0);
    served.run(&["subscription", "create", "work"]).expect_code(0);
    let (status, metrics) = get(&admin, "/metrics");
    assert_eq!(status, "HTTP/1.1 200 OK");
    for (metric, expected) in [
        ("annals_appends_total{outcome=\"appended\"}", 1.0),
        ("annals_appends_total{outcome=\"conflict\"}", 1.0),
        ("annals_append_seconds_count", 2.0),
        ("annals_events_appended_total", 1.0),
        ("annals_events_read_total", 1.0),
        ("annals_requests_total{kind=\"read\"}", 1.0),
        ("annals_connections_accepted_total", 4.0),
        ("annals_connections_refused_total", 0.0),
        ("annals_store_next_position{store=\"default\"}", 1.0),
        ("annals_store_poisoned{store=\"default\"}", 0.0),
        ("annals_store_batches_total{store=\"default\"}", 1.0),
        ("annals_store_group_seconds_count{store=\"default\"}", 1.0),
        ("annals_store_group_seconds_bucket{le=\"+Inf\",store=\"default\"}", 1.0),
        ("annals_subscription_lag{store=\"default\",subscription=\"work\"}", 1.0),
    ] {
        assert!((value(&metrics, metric) - expected).abs() < 1e-9, "{metric}: {metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
    assert_eq!(get(&admin, "/secret").0, "HTTP/1.1 404 Not Found");
    // Somebody who says nothing keeps nobody else from asking.
    let _silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&admin).unwrap()).collect();
    assert_eq!(get(&admin, "/health").0, "HTTP/1.1 200 OK");
}

#[test]
fn stores_that_nobody_uses_are_closed_and_opened_again() {
    let place = Place::new();
    let served = Served::start_with(
        &place.data(),
        &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--store-idle-seconds", "1"],
    );
    served.run(&["append", "s", "--type", "T"]).expect_code(0);
    let admin = served.admin.clone().unwrap();
    let is_open = || get(&admin, "/metrics").1.contains("annals_store_next_position{");
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_open() {
        assert!(Instant::now() < deadline, "it is closed some time");
        std::thread::sleep(Duration::from_millis(50));
    }
    // Another process may have it now; then the server has it again.
    place.run(&["append", "s", "--type", "T"]).expect_code(0);
    served.run(&["append", "s", "--type", "T"]).expect_code(0);
    assert_eq!(served.run(&["--json", "stat"]).json()["events"], json!(3));
    // Somebody who follows uses it.
    let mut follower =
        crate::support::bare(&["--server", &served.address, "follow"]).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(3_500));
    assert!(is_open());
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn what_happens_is_logged_as_asked() {
    let place = Place::new();
    let logged = |options: &[&str]| {
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--json"], options].concat();
        let mut child = command(&place.data(), &arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let address = ready["ready"].as_str().unwrap().to_owned();
        // One who is no client.
        TcpStream::connect(&address).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        crate::support::bare(&["--server", &address, "stat"]).output().unwrap();
        std::process::Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(child.wait().unwrap().success());
        lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap()).collect::<Vec<_>>()
    };
    let messages = |options| -> Vec<String> {
        logged(options).iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(messages(&["--log", "off"]), Vec::<String>::new());
    assert_eq!(messages(&["--log", "warn"]), ["refused"]);
    assert_eq!(messages(&[]), ["listening", "refused", "stopping", "stopped"]);
    let debug = logged(&["--log", "debug"]);
    let welcomed = debug.iter().find(|line| line["message"] == "welcomed").unwrap();
    assert_eq!((&welcomed["store"], &welcomed["level"]), (&json!("default"), &json!("DEBUG")));
}

#[test]
fn settings_of_a_server_come_from_flags_environment_and_file() {
    let place = Place::new();
    let file = place.file(
        "settings",
        "disk = \"buffered\"\n[serve]\nlisten = \"127.0.0.1:1\"\nlog = \"warn\"\nidle_seconds = 7\n",
    );
    let output = command(&place.data(), &["serve", "--print-config", "--config", &file, "--log", "error"])
        .env("ANNALS_ADMIN", "127.0.0.1:9")
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    for line in [
        "disk = \"buffered\"",
        "listen = \"127.0.0.1:1\"",
        "admin = \"127.0.0.1:9\"",
        "log = \"error\"",
        "idle_seconds = 7",
        "connections_max = 10000",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}: {printed}");
    }
    // What was printed is such a file.
    let again = place.file("again", &printed);
    let output = command(&place.data(), &["serve", "--print-config", "--config", &again]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
    assert!(!place.data().exists());
}
