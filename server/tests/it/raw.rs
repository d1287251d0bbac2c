//! The server, as one meets it who does not keep to the protocol.

use crate::serve::options;
use annals::{Append, AppendError, NewEvent, Position, Settings, Uuid};
use annals_protocol::frame::{self, BODY_BYTES_MAX, HEADER_BYTES, Header};
use annals_protocol::{Answer, Failure, Hello, PREFACE, Request};
use annals_server::serve::{self, Limits, Server};
use bytes::BytesMut;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A connection without a client.
struct Raw {
    socket: TcpStream,
    received: BytesMut,
}

impl Raw {
    fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, received: BytesMut::new() }
    }

    /// One that has said who it is.
    fn greeted(server: &Server) -> Self {
        let mut raw = Self::connect(server);
        raw.say(PREFACE);
        raw.ask(1, &hello("default", 1));
        assert!(matches!(raw.answer(), Some((_, Answer::Welcome(_)))));
        raw
    }

    /// Says it, whether or not anybody listens.
    fn say(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    fn ask(&mut self, request: u64, asked: &Request<'_>) {
        let frame = framed(request, asked.kind(), |to| asked.encode(to));
        self.say(&frame);
    }

    /// The next answer. `None`: the connection has ended.
    fn answer(&mut self) -> Option<(Header, Answer)> {
        loop {
            if let Some((header, body)) = frame::take(&mut self.received, BODY_BYTES_MAX).unwrap() {
                return Some((header, Answer::decode(header.kind, &body).unwrap()));
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What it is told as it is sent away.
    fn sent_away(&mut self) -> Failure {
        let told = self.answer();
        let Some((Header { request: 0, .. }, Answer::Failed(failure))) = told else { panic!("{told:?}") };
        assert!(self.answer().is_none(), "the connection has ended");
        failure
    }
}

pub(crate) fn hello(store: &'static str, version: u16) -> Request<'static> {
    Request::Hello(Hello {
        version_min: version,
        version_max: version,
        features: 0,
        client: "raw".into(),
        store: store.into(),
        token: None,
    })
}

pub(crate) fn framed(request: u64, kind: u16, encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut frame = BytesMut::new();
    let start = frame::begin(&mut frame, Header { request, kind, ..Header::default() });
    encode(&mut frame);
    frame::finish(&mut frame, start).unwrap();
    frame
}

fn with_server(limits: Limits, test: impl FnOnce(&Server)) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(serve::Options { limits, ..options(&dir.path().join("data")) }).unwrap();
    test(&server);
    // Whatever came before, it serves others.
    let mut other = Raw::greeted(&server);
    other.ask(2, &Request::Ping);
    assert!(matches!(other.answer(), Some((_, Answer::Done))));
    server.stop();
}

#[test]
fn what_is_sent_again_too_late_for_its_ids_is_not_appended_twice() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { id_window: 100, ..Settings::default() };
    let server = Server::start(serve::Options { settings, ..options(&dir.path().join("data")) }).unwrap();
    let mut raw = Raw::greeted(&server);
    let id = Uuid::from_u128(7);
    let again = |raw: &mut Raw, since: u64| {
        let append = Append::from(NewEvent::new("s", "T").id(id).json("1"));
        raw.ask(2, &Request::AppendAgain(append, Position::new(since)));
        raw.answer().unwrap().1
    };
    for repeated in [false, true] {
        let answer = again(&mut raw, 0);
        assert!(matches!(&answer, Answer::Appended(appended) if appended.repeated == repeated), "{answer:?}");
    }
    let others = |raw: &mut Raw, count| {
        for number in 0..count {
            raw.ask(3 + number, &Request::Append(NewEvent::new("other", "T").json("1").into()));
            assert!(matches!(raw.answer(), Some((_, Answer::Appended(_)))));
        }
    };
    others(&mut raw, 99);
    // It is among the last hundred still.
    assert!(matches!(again(&mut raw, 0), Answer::Appended(appended) if appended.repeated));
    others(&mut raw, 1);
    let answer = again(&mut raw, 0);
    let Answer::Failed(Failure::Append(AppendError::TooLateToRepeat { since, next })) = &answer else {
        panic!("{answer:?}")
    };
    assert_eq!((since.get(), next.get()), (0, 101));
    // Of a store that was another one then, nothing is known either.
    assert!(matches!(
        again(&mut raw, 102),
        Answer::Failed(Failure::Append(AppendError::TooLateToRepeat { .. }))
    ));
    // It came later than everything that is forgotten: it is not there.
    assert!(matches!(again(&mut raw, 1), Answer::Appended(appended) if !appended.repeated));
    raw.ask(2, &Request::AppendAgain(NewEvent::new("s", "T").into(), Position::new(0)));
    assert!(matches!(raw.answer(), Some((_, Answer::Failed(Failure::Malformed(_))))), "it has no id");
    let mut later = Raw::connect(&server);
    later.say(PREFACE);
    later.ask(1, &hello("default", 1));
    let Some((_, Answer::Welcome(welcome))) = later.answer() else { panic!("welcome") };
    assert_eq!(welcome.next_position, Position::new(102));
    server.stop();
}

#[test]
fn who_does_not_begin_as_a_client_is_sent_away() {
    with_server(Limits::default(), |server| {
        for first in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01", b"ANNALS\r\t"] {
            let mut raw = Raw::connect(server);
            raw.say(first);
            assert!(matches!(raw.sent_away(), Failure::Malformed(_)));
        }
        let mut raw = Raw::connect(server);
        raw.say(PREFACE);
        raw.ask(1, &Request::Ping);
        assert!(matches!(raw.sent_away(), Failure::Malformed(_)), "nothing is answered before a hello");
        let mut raw = Raw::connect(server);
        raw.say(PREFACE);
        raw.ask(1, &hello("default", 99));
        assert!(matches!(raw.sent_away(), Failure::UnsupportedVersion { min: 1, max: 1 }));
        for name in ["other", "../default", "a/b", "..", ".hidden"] {
            let mut raw = Raw::connect(server);
            raw.say(PREFACE);
            raw.ask(1, &hello(name, 1));
            assert!(matches!(raw.sent_away(), Failure::NoStore { .. }), "{name}");
        }
    });
}

#[test]
fn frames_that_are_none_end_a_connection_and_requests_that_are_none_do_not() {
    with_server(Limits::default(), |server| {
        let mut raw = Raw::greeted(server);
        let mut damaged = framed(2, 2, |_| {});
        damaged[16] ^= 1;
        raw.say(&damaged);
        assert!(matches!(raw.sent_away(), Failure::Malformed(_)));
        let mut raw = Raw::greeted(server);
        raw.say(&u32::try_from(BODY_BYTES_MAX + 1).unwrap().to_le_bytes());
        assert!(matches!(raw.sent_away(), Failure::Malformed(_)), "it is refused by its length alone");
        let mut raw = Raw::greeted(server);
        for (request, kind) in [(2, 999), (3, 10), (4, 0x8001)] {
            raw.say(&framed(request, kind, |to| to.extend_from_slice(&[1, 2, 3])));
            let (header, answer) = raw.answer().unwrap();
            let is_right = match kind {
                10 => matches!(answer, Answer::Failed(Failure::Malformed(_))),
                _ => matches!(answer, Answer::Failed(Failure::UnknownRequest { kind: told }) if told == kind),
            };
            assert!(header.request == request && is_right, "{answer:?}");
        }
        // A handle that nobody was given; a request of nobody; a member that is none.
        let mut elsewhere = BytesMut::new();
        let start = frame::begin(
            &mut elsewhere,
            Header { request: 5, kind: Request::Cursors.kind(), has_more: false, store: 9 },
        );
        frame::finish(&mut elsewhere, start).unwrap();
        raw.say(&elsewhere);
        assert!(matches!(raw.answer(), Some((_, Answer::Failed(Failure::NoStore { .. })))));
        raw.ask(6, &Request::Cancel(77));
        raw.ask(7, &Request::Credit(77, u64::MAX));
        raw.ask(8, &Request::Ack(77, Vec::new()));
        let (header, answer) = raw.answer().unwrap();
        assert!(
            header.request == 8 && matches!(answer, Answer::Failed(Failure::Subscription(_))),
            "{answer:?}"
        );
    });
}

#[test]
fn what_is_refused_behind_an_append_that_waits_is_answered_once() {
    with_server(Limits::default(), |server| {
        let mut raw = Raw::greeted(server);
        // One with a snapshot always waits; then one that is none, and one that need not wait.
        let waits = annals::Append::from(annals::NewEvent::new("s", "T"))
            .snapshot(annals::NewSnapshot::new("s", 1, b"state"));
        let mut said = BytesMut::new();
        for round in 0..20 {
            let number = 10 * round;
            said.extend_from_slice(&framed(number + 2, 10, |to| Request::Append(waits.clone()).encode(to)));
            said.extend_from_slice(&framed(number + 3, 10, |to| to.extend_from_slice(&[9; 7])));
            let last = Request::Append(annals::NewEvent::new("s", "T").into());
            said.extend_from_slice(&framed(number + 4, 10, |to| last.encode(to)));
        }
        raw.say(&said);
        let mut answered = Vec::new();
        for _ in 0..60 {
            let (header, answer) = raw.answer().unwrap();
            let is_right = match header.request % 10 {
                3 => matches!(answer, Answer::Failed(Failure::Malformed(_))),
                _ => matches!(answer, Answer::Appended(_)),
            };
            assert!(is_right, "{header:?} {answer:?}");
            answered.push(header.request);
        }
        answered.sort_unstable();
        assert!(answered.iter().copied().eq((0..20).flat_map(|round| (2..5).map(move |at| 10 * round + at))));
        // It goes on, and nothing more was said.
        raw.ask(1_000, &Request::Ping);
        assert!(matches!(raw.answer(), Some((Header { request: 1_000, .. }, Answer::Done))));
    });
}

#[test]
fn what_is_appended_behind_a_follow_from_the_end_is_followed() {
    with_server(Limits::default(), |server| {
        for _ in 0..50 {
            let mut raw = Raw::greeted(server);
            let follow = Request::Follow(annals::Follow::all().from_end(), 1 << 20);
            let append = Request::Append(annals::NewEvent::new("s", "T").into());
            let mut said = BytesMut::new();
            said.extend_from_slice(&framed(2, follow.kind(), |to| follow.encode(to)));
            said.extend_from_slice(&framed(3, append.kind(), |to| append.encode(to)));
            raw.say(&said);
            let (mut appended, mut followed) = (None, None);
            while appended.is_none() || followed.is_none() {
                match raw.answer().unwrap().1 {
                    Answer::Appended(at) => appended = Some(at.first_position()),
                    Answer::Events(events) => followed = Some(events[0].position()),
                    _ => {}
                }
            }
            assert_eq!(appended, followed);
        }
    });
}

#[test]
fn who_is_slow_or_silent_is_sent_away_in_time() {
    let limits = Limits {
        handshake: Duration::from_millis(300),
        frame: Duration::from_millis(300),
        idle: Duration::from_millis(600),
        ..Limits::default()
    };
    with_server(limits, |server| {
        let mut silent = Raw::connect(server);
        assert!(matches!(silent.sent_away(), Failure::Late { .. }));
        let mut idle = Raw::greeted(server);
        assert!(matches!(idle.sent_away(), Failure::Late { .. }));
        // A byte now and then, of a frame that says it is the longest.
        let mut slow = Raw::greeted(server);
        let begun = Instant::now();
        slow.say(&u32::try_from(BODY_BYTES_MAX).unwrap().to_le_bytes());
        for _ in 0..8 {
            std::thread::sleep(Duration::from_millis(80));
            slow.say(&[0]);
        }
        assert!(matches!(slow.sent_away(), Failure::Late { .. }));
        assert!(begun.elapsed() < Duration::from_secs(5));
        // One who follows may be silent.
        let mut following = Raw::greeted(server);
        following.ask(2, &Request::Follow(annals::Follow::all(), 1 << 20));
        assert!(matches!(following.answer(), Some((_, Answer::CaughtUp(_)))));
        std::thread::sleep(Duration::from_millis(1_500));
        following.ask(3, &Request::Ping);
        assert!(matches!(following.answer(), Some((Header { request: 3, .. }, Answer::Done))));
    });
}

#[test]
fn who_never_reads_gets_no_more_than_the_credit_and_slows_nobody() {
    with_server(Limits { requests: 64, ..Limits::default() }, |server| {
        let mut raw = Raw::greeted(server);
        let batch: annals::Append<'_> =
            (0..2_000).map(|_| annals::NewEvent::new("s", "T").binary(vec![7; 500])).collect();
        raw.ask(2, &Request::Append(batch));
        assert!(matches!(raw.answer(), Some((_, Answer::Appended(_)))));
        // A mebibyte of events, and credit for a part of it.
        raw.ask(3, &Request::Read(annals::Read::all(), annals_protocol::Consistency::default(), 100_000));
        raw.socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut bytes = 0;
        let mut buffer = vec![0; 1 << 20];
        while let Ok(count @ 1..) = raw.socket.read(&mut buffer) {
            bytes += count;
        }
        assert!((100_000..400_000).contains(&bytes), "{bytes} bytes with a credit of 100,000");
        // Requests beyond those that may be under way wait, in the client's own buffers.
        let mut flooding = Raw::greeted(server);
        flooding.socket.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut sent = 0_u64;
        let follow = Request::Follow(annals::Follow::all(), 0);
        let frame = framed(9, follow.kind(), |to| follow.encode(to));
        for _ in 0..1_000_000 {
            if flooding.socket.write_all(&frame).is_err() {
                break;
            }
            sent += frame.len() as u64;
        }
        assert!(sent < 20 << 20, "{sent} bytes of requests were taken");
    });
    const { assert!(HEADER_BYTES == 24) };
}
