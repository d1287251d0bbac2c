//! What clients that keep to the protocol feel of those who do not: their latency without and during each attack.

use crate::report::{Failure, histogram, microseconds, print_line};
use crate::workload::{Producer, stopwatch};
use annals_client::{Client, Options};
use annals_protocol::frame::{self, Header};
use annals_protocol::{Consistency, Hello, PREFACE, Request, VERSION};
use bytes::BytesMut;
use hdrhistogram::Histogram;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// See `--help`.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// The server; its store is best a new one.
    #[arg(long, value_name = "HOST:PORT")]
    server: String,
    /// How long each attack lasts, each time.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// How often each is measured, and, in turn with it, the same without; medians are compared.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only this attack.
    #[arg(long)]
    only: Option<String>,
    /// Print for machines: one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Those whose latency is measured, and what they append together.
const CLIENTS: u32 = 8;
const APPENDS_PER_SECOND: u32 = 5_000;
/// A moment between two steps of an attack that has many, so that it is the server that works and not its attacker.
const PACE: Duration = Duration::from_micros(500);

/// What is done to the server, until it is over.
type Attack = fn(&str, &AtomicBool) -> std::io::Result<u64>;

const ATTACKS: [(&str, Attack); 11] = [
    ("oversize_frames", oversize),
    ("malformed_frames", malformed),
    ("unknown_requests", unknown),
    ("half_open", half_open),
    ("slow", slow),
    ("idle", idle),
    ("never_reading", never_reading),
    ("connection_flood", flood),
    ("request_flood", requests),
    ("strange_names", names),
    ("subscribers", subscribers),
];

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let names = ATTACKS.map(|(name, _)| name);
    if let Some(only) = &arguments.only
        && !names.contains(&only.as_str())
    {
        return Err(format!("there is no attack {only}; there are {}", names.join(", ")).into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let measure = |name: &str, attack: Option<Attack>| -> Result<Histogram<u64>, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let attacking = attack.map(|attack| {
            let (server, over) = (arguments.server.clone(), Arc::clone(&over));
            // An attack leaves the processors to others: it would come from other machines.
            std::thread::spawn(move || {
                annals::testing::run_when_idle();
                attack(&server, &over)
            })
        });
        // The attack is under way before anything is measured.
        std::thread::sleep(Duration::from_millis(500));
        let latency = runtime.block_on(clients(&arguments.server, Duration::from_secs(arguments.seconds)));
        over.store(true, Ordering::Release);
        let steps = match attacking {
            Some(attacking) => attacking.join().expect("an attack does not panic")?,
            None => 0,
        };
        let latency = latency?;
        print_line(
            arguments.json,
            &json!({"work": "abuse", "attack": name, "steps": steps, "appends": latency.len(),
                "p50_us": microseconds(&latency, 0.5), "p99_us": microseconds(&latency, 0.99),
                "most_us": microseconds(&latency, 1.0)}),
        );
        Ok(latency)
    };
    let mut worst: Option<(&str, f64)> = None;
    for (name, attack) in ATTACKS {
        if arguments.only.as_deref().is_some_and(|only| only != name) {
            continue;
        }
        // In turn: machines have phases, and disks their moments.
        let (mut without, mut during) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds.max(1) {
            without.push(microseconds(&measure("none", None)?, 0.99));
            during.push(microseconds(&measure(name, Some(attack))?, 0.99));
        }
        let (without, during) = (median(without), median(during));
        let ratio = during / without;
        print_line(
            arguments.json,
            &json!({"work": "abuse_ratio", "attack": name, "p99_us_without": without, "p99_us": during,
                "p99_ratio": (ratio * 100.0).round() / 100.0}),
        );
        worst = worst.filter(|(_, worst)| *worst > ratio).or(Some((name, ratio)));
    }
    if let Some((name, ratio)) = worst {
        let ratio = (ratio * 100.0).round() / 100.0;
        print_line(arguments.json, &json!({"work": "abuse_worst", "attack": name, "p99_ratio": ratio}));
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Clients that append at their own pace, whatever the server does: latencies are measured from when an append was due.
async fn clients(server: &str, time: Duration) -> Result<Histogram<u64>, Failure> {
    let run: u32 = rand::random();
    let mut tasks = Vec::new();
    for index in 0..CLIENTS {
        let client = Client::connect(Options::new(server)).await?.pipeline().await?;
        let producer = Producer::of_run(run, index, CLIENTS);
        tasks.push(tokio::spawn(crate::load::at_a_rate(
            client,
            producer,
            APPENDS_PER_SECOND / CLIENTS,
            time,
        )));
    }
    let mut latency = histogram();
    for task in tasks {
        latency.add(task.await??)?;
    }
    Ok(latency)
}

fn put(buffer: &mut BytesMut, number: u64, kind: u16, body: impl FnOnce(&mut BytesMut)) {
    let start = frame::begin(buffer, Header { request: number, kind, ..Header::default() });
    body(buffer);
    // What is put here is short.
    let _ = frame::finish(buffer, start);
}

fn ask(buffer: &mut BytesMut, number: u64, request: &Request<'_>) {
    put(buffer, number, request.kind(), |buffer| request.encode(buffer));
}

fn hello(store: &str) -> BytesMut {
    let mut said = BytesMut::from(&PREFACE[..]);
    let hello = Hello {
        version_min: VERSION,
        version_max: VERSION,
        features: 0,
        client: "abuse".into(),
        store: store.to_owned().into(),
        token: None,
    };
    ask(&mut said, 1, &Request::Hello(hello));
    said
}

/// A connection that is welcomed.
fn connect(server: &str) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.set_write_timeout(Some(Duration::from_millis(200)))?;
    socket.write_all(&hello("default"))?;
    let mut welcome = [0; 256];
    let _ = socket.read(&mut welcome)?;
    Ok(socket)
}

/// Goes on until it is over; how often. What the server refuses is what it is meant to refuse.
fn until(over: &AtomicBool, mut step: impl FnMut() -> std::io::Result<()>) -> std::io::Result<u64> {
    let mut steps = 0;
    while !over.load(Ordering::Acquire) {
        let _ = step();
        steps += 1;
        std::thread::sleep(PACE);
    }
    Ok(steps)
}

fn oversize(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    until(over, || {
        let mut socket = connect(server)?;
        socket.write_all(&u32::MAX.to_le_bytes())?;
        socket.read(&mut [0; 64]).map(drop)
    })
}

fn malformed(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let mut turn = 0_u64;
    until(over, || {
        let mut socket = connect(server)?;
        let mut said = BytesMut::new();
        put(&mut said, 2, 10, |buffer| buffer.extend_from_slice(&[0xff; 4_096]));
        turn += 1;
        // Every other one has a checksum that does not match.
        if turn.is_multiple_of(2) {
            said[30] ^= 1;
        }
        socket.write_all(&said)?;
        socket.read(&mut [0; 256]).map(drop)
    })
}

fn unknown(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let mut socket = connect(server)?;
    let mut said = BytesMut::new();
    (0..64).for_each(|number| put(&mut said, number + 2, 999, |buffer| buffer.extend_from_slice(&[7; 100])));
    let mut answers = vec![0; 64 << 10];
    until(over, || {
        socket.write_all(&said)?;
        socket.read(&mut answers).map(drop)
    })
}

/// Keeps connections until it is over; how many.
fn hold(sockets: &[TcpStream], over: &AtomicBool) -> std::io::Result<u64> {
    while !over.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(sockets.len() as u64)
}

fn many(server: &str, over: &AtomicBool, count: usize, said: &[u8]) -> std::io::Result<u64> {
    let mut sockets: Vec<TcpStream> = Vec::new();
    for _ in 0..count {
        let mut socket = TcpStream::connect(server)?;
        socket.write_all(said)?;
        sockets.push(socket);
    }
    hold(&sockets, over)
}

fn half_open(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    many(server, over, 1_000, &hello("default")[..20])
}

fn idle(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    many(server, over, 1_000, &hello("default"))
}

/// A hundred that say a byte a second, of a frame that is not long.
fn slow(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let mut said = hello("default");
    ask(&mut said, 2, &Request::Append(annals::NewEvent::new("slow", "T").binary(vec![0; 4_096]).into()));
    let begun = hello("default").len();
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let mut socket = TcpStream::connect(server)?;
        socket.write_all(&said[..begun])?;
        sockets.push(socket);
    }
    let (mut at, mut due) = (begun, stopwatch());
    until(over, || {
        std::thread::sleep(Duration::from_millis(10));
        if due.elapsed() >= Duration::from_secs(1) {
            due = stopwatch();
            sockets.iter_mut().for_each(|socket| drop(socket.write_all(&said[at..=at])));
            at += 1;
        }
        Ok(())
    })
}

/// Twenty that ask for everything, again and again, and read nothing of it.
fn never_reading(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let mut sockets = Vec::new();
    for _ in 0..20 {
        let mut socket = connect(server)?;
        let mut said = BytesMut::new();
        for number in 0..16 {
            let read = Request::Read(annals::Read::all(), Consistency::default(), u64::MAX);
            ask(&mut said, number + 2, &read);
        }
        let _ = socket.write_all(&said);
        sockets.push(socket);
    }
    hold(&sockets, over)
}

fn flood(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    until(over, || TcpStream::connect(server).map(drop))
}

/// More requests than may be under way, of each sort.
fn requests(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let mut sockets = Vec::new();
    for _ in 0..8 {
        let socket = connect(server)?;
        socket.set_write_timeout(Some(Duration::from_millis(5)))?;
        sockets.push(socket);
    }
    let mut said = BytesMut::new();
    for number in 0..200 {
        ask(&mut said, number * 3 + 2, &Request::Follow(annals::Follow::all(), 0));
        ask(&mut said, number * 3 + 3, &Request::Head("nobody".into()));
        ask(&mut said, number * 3 + 4, &Request::Ping);
    }
    let mut turn = 0;
    until(over, || {
        turn += 1;
        let socket = &mut sockets[turn % 8];
        // Where the server takes no more of it, a part of a request is left behind, and the connection is of no use.
        if socket.write_all(&said).is_err() {
            *socket = connect(server)?;
            socket.set_write_timeout(Some(Duration::from_millis(5)))?;
        }
        Ok(())
    })
}

fn names(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let long = "x".repeat(60_000);
    let strange = ["../../etc", "a\0b", &long, ".", "..", "/etc/passwd", "a/b", "\u{202e}", ""];
    let mut turn = 0;
    until(over, || {
        let mut said = hello(strange[turn % strange.len()]);
        if turn.is_multiple_of(5) {
            // The name is no UTF-8.
            let at = said.len() - 3;
            said[at] = 0xff;
        }
        turn += 1;
        let mut socket = TcpStream::connect(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.write_all(&said)?;
        socket.read(&mut [0; 512]).map(drop)
    })
}

/// A hundred that follow everything, ten of which read nothing.
fn subscribers(server: &str, over: &AtomicBool) -> std::io::Result<u64> {
    let mut sockets = Vec::new();
    for _ in 0..100 {
        let mut socket = connect(server)?;
        let mut said = BytesMut::new();
        ask(&mut said, 2, &Request::Follow(annals::Follow::all().from_end(), 1 << 20));
        socket.write_all(&said)?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    let read = AtomicU64::new(0);
    let mut buffer = vec![0; 256 << 10];
    until(over, || {
        for some in sockets[10..].chunks_mut(10) {
            for socket in some {
                if let Ok(count) = socket.read(&mut buffer) {
                    read.fetch_add(count as u64, Ordering::Relaxed);
                    let mut said = BytesMut::new();
                    ask(&mut said, 0, &Request::Credit(2, count as u64));
                    let _ = socket.write_all(&said);
                }
            }
            // A processor that is theirs for long is no other machine's.
            std::thread::sleep(PACE);
        }
        Ok(())
    })?;
    Ok(read.into_inner() >> 20)
}
