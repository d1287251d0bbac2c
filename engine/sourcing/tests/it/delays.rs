//! A read model of the flight records, against what a few lines make of the file.

#[path = "../../examples/delays/model.rs"]
mod model;

use crate::outages::server_at;
use crate::{Fresh, run};
use annals::{Append, NewEvent, Store};
use annals_sourcing::{InMemory, Projector, SqliteModel};
use flate2::read::GzDecoder;
use model::{Delays, Row};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

fn lines(file: &Path) -> impl Iterator<Item = Value> {
    let file = BufReader::new(GzDecoder::new(File::open(file).unwrap()));
    file.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
}

fn import(store: &Store, file: &Path) {
    let mut batch = Vec::new();
    for line in lines(file) {
        let text = |key: &str| line[key].as_str().unwrap().to_owned();
        let mut event = NewEvent::new(text("stream"), text("type")).json(line["data"].to_string());
        event.tags = line["tags"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tag| tag.as_str().unwrap().to_owned().into())
            .collect();
        batch.push(event);
        if batch.len() == 1_000 {
            drop(store.append(std::mem::take(&mut batch).into_iter().collect::<Append<'_>>()).unwrap());
        }
    }
    if !batch.is_empty() {
        drop(store.append(batch.into_iter().collect::<Append<'_>>()).unwrap());
    }
    store.append(NewEvent::new("end", "End")).unwrap().wait().unwrap();
}

/// The same by plain loops over the file.
fn expected(file: &Path) -> Vec<Row> {
    let mut delays = Delays::new();
    for line in lines(file).filter(|line| line["type"] == "FlightArrived") {
        let Some(minutes) = line["data"]["arr_delay"].as_f64() else { continue };
        let tags = line["tags"].as_array().unwrap();
        let tag = |prefix: &str| {
            tags.iter().find_map(|tag| tag.as_str().unwrap().strip_prefix(prefix)).unwrap().to_owned()
        };
        let delay = delays.entry(tag("carrier:")).or_default().entry(tag("route:")).or_default();
        delay.flights += 1;
        delay.minutes += minutes;
    }
    model::rows_of(&delays)
}

fn compare(file: &Path) {
    let fresh = Fresh::new();
    import(&fresh.store, file);
    let expected = expected(file);
    assert!(expected.len() > 100);
    run(async {
        let mut projector =
            Projector::new(fresh.store.clone(), InMemory::default(), model::in_memory()).unwrap();
        let begun = Instant::now();
        projector.catch_up().await.unwrap();
        let in_memory = begun.elapsed();
        assert_eq!(projector.model().with(model::rows_of), expected);
        let tables =
            SqliteModel::open(fresh.directory.path().join("delays.sqlite"), "delays", model::TABLES).unwrap();
        let mut projector = Projector::new(fresh.store.clone(), tables, model::in_tables()).unwrap();
        let begun = Instant::now();
        projector.catch_up().await.unwrap();
        println!("in memory {in_memory:?}, in SQLite {:?}", begun.elapsed());
        assert_eq!(model::rows_in(projector.model().connection()).unwrap(), expected);
    });
}

#[test]
fn delays_of_the_sample_are_those_of_the_file() {
    compare(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/data/flights-sample.jsonl.gz"));
}

/// The program says the same of a directory, of a server over it, and of its SQLite database, again and again.
#[test]
fn the_example_says_the_same_of_a_directory_and_of_a_server() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../bench/data/flights-sample.jsonl.gz");
    let fresh = Fresh::new();
    import(&fresh.store, &file);
    fresh.store.close().unwrap();
    let line = |(carrier, route, flights, minutes): &Row| {
        format!("{carrier}\t{route}\t{flights}\t{:.2}\n", minutes / f64::from(*flights))
    };
    let expected: String = expected(&file).iter().map(line).collect();
    let examples = std::env::current_exe().unwrap().parent().unwrap().with_file_name("examples");
    let say = |arguments: &[&str]| {
        let done = Command::new(examples.join("delays")).args(arguments).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let data = fresh.directory.path();
    let sqlite = tempfile::tempdir().unwrap();
    let sqlite = sqlite.path().join("delays.sqlite");
    let sqlite = sqlite.to_str().unwrap();
    assert_eq!(say(&["--data", data.to_str().unwrap()]), expected);
    let server = server_at(data, ([127, 0, 0, 1], 0).into());
    let address = server.address().to_string();
    assert_eq!(say(&["--server", &address]), expected);
    for _ in 0..2 {
        assert_eq!(say(&["--server", &address, "--sqlite", sqlite]), expected);
    }
    server.stop();
}

#[test]
fn delays_of_the_whole_file_are_those_of_the_file() {
    match std::env::var_os("ANNALS_FLIGHTS").map(PathBuf::from) {
        Some(file) => compare(&file),
        None => println!(
            "SKIPPED delays::delays_of_the_whole_file_are_those_of_the_file: ANNALS_FLIGHTS does not name the file of all flights"
        ),
    }
}
