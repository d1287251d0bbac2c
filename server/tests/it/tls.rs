//! Encryption: whom clients trust, and whom the server lets in.

use crate::raw::{framed, hello};
use crate::support::{Place, Run, Served, bare};
use annals_client::{ClientError, Options, Tls, blocking::Client};
use annals_protocol::{Consistency, PREFACE, Request, frame};
use bytes::BytesMut;
use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Files that `annals tls init` makes, in a directory of this name.
fn certificates(place: &Place, name: &str) -> impl Fn(&str) -> String {
    let dir = place.path(name);
    let out = dir.to_str().unwrap();
    place.run(&["tls", "init", "--out", out]).expect_code(0);
    move |file| dir.join(file).to_str().unwrap().to_owned()
}

fn serve(place: &Place, file: &impl Fn(&str) -> String, more: &[&str]) -> Served {
    let (cert, key) = (file("server.pem"), file("server.key"));
    let options = ["--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
    Served::start_with(&place.data(), &[&options, more].concat())
}

fn code(arguments: &[&str]) -> Run {
    let output = bare(arguments).output().unwrap();
    Run {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_server_is_recognised_by_its_certificate() {
    let place = Place::new();
    let file = certificates(&place, "tls");
    let others = certificates(&place, "others");
    let served = serve(&place, &file, &[]);
    served.run(&["append", "s", "--type", "T", "--ca", &file("ca.pem")]).expect_code(0);
    assert_eq!(served.run(&["--json", "read", "--ca", &file("ca.pem")]).expect_code(0).json_lines().len(), 1);
    // Another authority; none; a name that is not in the certificate.
    let wrong = served.run(&["--json", "stat", "--ca", &others("ca.pem")]).expect_code(5).error();
    assert_eq!(wrong["error"], json!("untrusted"));
    let plain = served.run(&["--json", "stat"]).expect_code(5).error();
    assert!(plain["message"].as_str().unwrap().contains("encrypted"), "{plain}");
    let ca = std::fs::read(file("ca.pem")).unwrap();
    let elsewhere = Tls::from_pem(&ca, None).unwrap().server_name("elsewhere.example").unwrap();
    let refused = Client::connect(Options::new(served.address.clone()).tls(elsewhere));
    assert!(matches!(refused, Err(ClientError::Untrusted { .. })), "{refused:?}");
    // A client that encrypts does not talk to a server that does not.
    let open = Served::start(&place.path("open"), "127.0.0.1:0");
    open.run(&["stat", "--ca", &file("ca.pem")]).expect_code(5);
    // What was made once is not made anew over it.
    place.run(&["tls", "init", "--out", place.path("tls").to_str().unwrap()]).expect_code(2);
}

#[test]
fn clients_without_a_certificate_of_the_authority_are_not_let_in() {
    let place = Place::new();
    let file = certificates(&place, "tls");
    let others = certificates(&place, "others");
    let ca = file("ca.pem");
    let served = serve(&place, &file, &["--tls-client-ca", &ca]);
    let (cert, key) = (file("client.pem"), file("client.key"));
    served.run(&["append", "s", "--type", "T", "--ca", &ca, "--cert", &cert, "--key", &key]).expect_code(0);
    let none = served.run(&["--json", "stat", "--ca", &ca]).expect_code(5).error();
    assert_eq!(none["error"], json!("untrusted"), "{none}");
    let (cert, key) = (others("client.pem"), others("client.key"));
    let wrong =
        served.run(&["--json", "stat", "--ca", &ca, "--cert", &cert, "--key", &key]).expect_code(5).error();
    assert_eq!(wrong["error"], json!("untrusted"), "{wrong}");
    // The server's own certificate is none of a client.
    let (cert, key) = (file("server.pem"), file("server.key"));
    served.run(&["stat", "--ca", &ca, "--cert", &cert, "--key", &key]).expect_code(5);
    // A certificate and the key of another one.
    served.run(&["stat", "--ca", &ca, "--cert", &cert, "--key", &others("client.key")]).expect_code(2);
}

/// Asks for so many events over an encrypted connection, and reads nothing of the answer for a while; whether it is all there then.
fn is_answered_in_full(address: &str, ca: &str, events: u64) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "127.0.0.1".try_into().unwrap();
    let tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = rustls::StreamOwned::new(tls, TcpStream::connect(address).unwrap());
    let mut said = BytesMut::from(&PREFACE[..]);
    said.extend_from_slice(&framed(1, 1, |to| hello("default", 1).encode(to)));
    let read = Request::Read(annals::Read::all().limit(events), Consistency::default(), u64::MAX);
    said.extend_from_slice(&framed(2, read.kind(), |to| read.encode(to)));
    socket.write_all(&said).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    socket.sock.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let (mut received, mut buffer) = (BytesMut::new(), vec![0; 1 << 20]);
    loop {
        while let Some((header, _)) = frame::take(&mut received, frame::BODY_BYTES_MAX).unwrap() {
            if header.request == 2 && !header.has_more {
                return true;
            }
        }
        match socket.read(&mut buffer) {
            Ok(count @ 1..) => received.extend_from_slice(&buffer[..count]),
            _ => return false,
        }
    }
}

#[test]
fn who_takes_its_time_gets_all_of_what_was_encrypted() {
    let place = Place::new();
    let file = certificates(&place, "tls");
    let served = serve(&place, &file, &[]);
    let ca = file("ca.pem");
    let data = "x".repeat(20_000);
    let lines: String =
        (0..400).map(|_| format!("{{\"stream\":\"s\",\"type\":\"T\",\"data\":\"{data}\"}}\n")).collect();
    served.fed(&["import", "-", "--ca", &ca], lines.as_bytes()).expect_code(0);
    // However much fits into what lies between: the last of it must not be held back.
    std::thread::scope(|scope| {
        let ask = |events| {
            scope.spawn({
                let (address, ca) = (&*served.address, &*ca);
                move || assert!(is_answered_in_full(address, ca, events), "{events} events")
            })
        };
        (1..40)
            .map(|step| ask(10 * step))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|asked| asked.join().unwrap());
    });
}

/// A server's certificate that was good until a year ago, and its authority's.
fn expired(dir: &Path) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let certificate = params.signed_by(&key, &authority).unwrap();
    std::fs::create_dir(dir).unwrap();
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    std::fs::write(dir.join("server.pem"), certificate.pem()).unwrap();
    std::fs::write(dir.join("server.key"), key.serialize_pem()).unwrap();
}

#[test]
fn an_expired_certificate_is_not_trusted() {
    let place = Place::new();
    let dir = place.path("tls");
    expired(&dir);
    let file = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let served = serve(&place, &file, &[]);
    let refused = served.run(&["--json", "stat", "--ca", &file("ca.pem")]).expect_code(5).error();
    assert_eq!(refused["error"], json!("untrusted"));
    assert!(refused["reason"].as_str().unwrap().contains("expired"), "{refused}");
}

#[test]
fn who_can_be_reached_from_elsewhere_is_encrypted_and_asks_who_they_are() {
    let place = Place::new();
    let file = certificates(&place, "tls");
    let (cert, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
    let tokens = place.file("tokens", "");
    let data = place.data();
    let data = data.to_str().unwrap();
    let tls = ["--tls-cert", &cert, "--tls-key", &key];
    let serve = |more: &[&str]| code(&[&["serve", "--data", data, "--listen", "0.0.0.0:0"], more].concat());
    for more in [&[][..], &["--tokens", &tokens], &tls] {
        let refused = serve(more).expect_code(2);
        assert!(refused.err.contains("can be reached from other machines"), "{refused:?}");
    }
    let admin = code(&["serve", "--data", data, "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"]);
    assert!(admin.expect_code(2).err.contains("--admin"));
    for more in
        [&["--tls-cert", &*cert][..], &["--tls-client-ca", &ca], &["--tls-cert", &key, "--tls-key", &key]]
    {
        serve(more).expect_code(2);
    }
    let served = Served::start_with(
        Path::new(data),
        &[&["--listen", "0.0.0.0:0", "--tokens", &tokens][..], &tls].concat(),
    );
    let port = served.address.rsplit_once(':').unwrap().1;
    let refused = code(&["--json", "stat", "--server", &format!("localhost:{port}"), "--ca", &ca]);
    assert_eq!(refused.expect_code(1).error()["error"], json!("unauthenticated"));
}
