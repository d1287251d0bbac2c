//! Criterion benchmarks of the engine: codec, append, stream read, scan. `cargo bench -p annals-bench` measures;
//! `cargo test` runs each once.

use annals::{Append, ExpectedVersion, NewEvent, Read, Settings, Store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

const EVENTS: u64 = 20_000;
const STREAMS: u64 = 2_000;
const DATA: [u8; 256] = [7; 256];

fn event(number: u64) -> NewEvent<'static> {
    NewEvent::new(format!("stream-{}", number % STREAMS), "MeasurementTaken").binary(&DATA[..]).tag("bench:1")
}

fn batch(first: u64, count: u64) -> Append<'static> {
    (first..first + count).map(event).collect()
}

fn filled() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open_with(dir.path(), Settings::default()).expect("a new store");
    for first in (0..EVENTS).step_by(100) {
        store.append(batch(first, 100)).expect("an append").wait().expect("it is durable");
    }
    (dir, store)
}

fn codec(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codec");
    for count in [1, 100] {
        let append = batch(0, count);
        let segment = annals::testing::segment_of(std::slice::from_ref(&append));
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("encode_{count}"), |bencher| {
            bencher.iter(|| black_box(annals::testing::segment_of(black_box(std::slice::from_ref(&append)))));
        });
        group.bench_function(format!("decode_{count}"), |bencher| {
            bencher.iter(|| black_box(annals::testing::scan_bytes(black_box(&segment))));
        });
    }
    group.finish();
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new store");
    for count in [1, 100] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("durable_{count}"), |bencher| {
            let fresh = || batch(0, count).expect("elsewhere", ExpectedVersion::NoStream);
            bencher.iter_batched(
                fresh,
                |append| store.append(append).expect("an append").wait().expect("it is durable"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn read(criterion: &mut Criterion) {
    let (_dir, store) = filled();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(EVENTS / STREAMS));
    let mut number = 0;
    group.bench_function("stream_of_10", |bencher| {
        bencher.iter(|| {
            number = (number + 7) % STREAMS;
            let events = store.read(Read::stream(format!("stream-{number}"))).expect("a read");
            events.map(|event| event.expect("an intact event").data().len()).sum::<usize>()
        });
    });
    group.throughput(Throughput::Elements(EVENTS));
    group.sample_size(20);
    group.bench_function("scan", |bencher| {
        bencher.iter(|| {
            let events = store.read(Read::all()).expect("a read");
            events.map(|event| event.expect("an intact event").data().len()).sum::<usize>()
        });
    });
    group.finish();
}

criterion_group!(benches, codec, append, read);
criterion_main!(benches);
