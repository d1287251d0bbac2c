//! A read model of the flight records, against what a few lines make of the file.

#[path = "../../examples/delays/model.rs"]
mod model;

use crate::{Fresh, run};
use annals::{Append, NewEvent, Store};
use annals_sourcing::{InMemory, Projector, SqliteModel};
use flate2::read::GzDecoder;
use model::{Delays, Row};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
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

#[test]
fn delays_of_the_whole_file_are_those_of_the_file() {
    match std::env::var_os("ANNALS_FLIGHTS").map(PathBuf::from) {
        Some(file) => compare(&file),
        None => println!(
            "SKIPPED delays::delays_of_the_whole_file_are_those_of_the_file: ANNALS_FLIGHTS does not name the file of all flights"
        ),
    }
}
