//! The server, as a client meets it.

use crate::support::{Place, Served};
use annals::{
    Append, AppendError, ExpectedVersion, Follow, Followed, Nack, NewEvent, NewSnapshot, NewSubscription,
    ParkedChoice, Position, QueryItem, Read, Settings, Version,
};
use annals_client::{Client, ClientError, Options};
use annals_protocol::Failure;
use annals_server::serve::{self, Limits, Server};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) fn options(data: &Path) -> serve::Options {
    serve::Options {
        admin: None,
        data: data.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        settings: Settings::default(),
        limits: Limits::default(),
    }
}

/// Has a client do something with a server on an empty directory.
pub(crate) fn with_client<F: Future<Output = ()>>(work: impl FnOnce(Client) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(options(&dir.path().join("data"))).unwrap();
    let address = server.address().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::connect(Options::new(address)).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), work(client)).await.expect("it takes too long");
    });
    server.stop();
}

pub(crate) fn event(stream: &str) -> NewEvent<'_> {
    NewEvent::new(stream, "Happened").json(r#"{"n":1}"#).tag("t:1")
}

#[test]
fn what_is_appended_is_read_back() {
    with_client(|client| async move {
        let first =
            client.append(Append::from(event("s-1")).expect("s-1", ExpectedVersion::NoStream)).await.unwrap();
        assert_eq!((first.first_position(), first.last_version), (Position::ZERO, Version::ZERO));
        let several: Append<'_> = (0..500).map(|_| event("s-2")).collect();
        client.append(several).await.unwrap();
        let refused =
            client.append(Append::from(event("s-1")).expect("s-1", ExpectedVersion::NoStream)).await;
        let Err(ClientError::Refused(Failure::Append(AppendError::WrongVersion {
            actual: Some(head), ..
        }))) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(head.version, Version::ZERO);
        let mut events = client.read(&Read::all()).await.unwrap();
        let mut count = 0;
        while let Some(event) = events.next().await {
            let event = event.unwrap();
            assert_eq!(
                (event.position().get(), event.data(), event.event_type()),
                (count, &br#"{"n":1}"#[..], "Happened")
            );
            assert!(event.tags().eq(["t:1"]));
            count += 1;
        }
        assert_eq!(count, 501);
        let mut last = client.read(&Read::stream("s-2").backwards().limit(2)).await.unwrap();
        assert_eq!(last.next().await.unwrap().unwrap().version(), Version::new(499));
        assert_eq!(client.head("s-2").await.unwrap().unwrap().version, Version::new(499));
        assert_eq!(client.head("nobody").await.unwrap(), None);
        assert_eq!(client.stat().await.unwrap().events, 501);
        // By what a query selects, on the condition that there is nothing more.
        let boundary =
            Append::from(event("s-3")).fail_if_matches(QueryItem::new().tag("t:1"), Some(Position::new(500)));
        client.append(boundary.advance("handler", Some(Position::new(3)))).await.unwrap();
        assert_eq!(client.cursor("handler").await.unwrap().unwrap().position, Some(Position::new(3)));
        let state = Append::from(event("s-1")).snapshot(NewSnapshot::new("s-1", 1, "state"));
        client.append(state).await.unwrap();
    });
}

#[test]
fn many_requests_are_under_way_at_a_time() {
    with_client(|client| async move {
        let appends: Vec<_> = (0..2_000_u64)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let stream = format!("s-{number}");
                    client
                        .append(
                            Append::from(event(&stream)).expect(stream.clone(), ExpectedVersion::NoStream),
                        )
                        .await
                })
            })
            .collect();
        let mut positions = Vec::new();
        for append in appends {
            positions.push(append.await.unwrap().unwrap().first_position().get());
        }
        positions.sort_unstable();
        assert!(positions.into_iter().eq(0..2_000));
    });
}

#[test]
fn who_follows_over_the_network_gets_each_event_once() {
    with_client(|client| async move {
        for _ in 0..100 {
            client.append(event("a")).await.unwrap();
        }
        let mut following = client.follow(&Follow::stream("a").from(Version::new(10))).await.unwrap();
        let appending = {
            let client = client.clone();
            tokio::spawn(async move {
                for number in 0..400 {
                    client.append(event(if number % 2 == 0 { "a" } else { "b" })).await.unwrap();
                }
            })
        };
        let mut versions = Vec::new();
        while versions.len() < 290 {
            if let Followed::Event(record) = following.next().await.unwrap().unwrap() {
                versions.push(record.version().get());
            }
        }
        assert!(versions.into_iter().eq(10..300));
        appending.await.unwrap();
    });
}

#[test]
fn members_over_the_network_handle_each_event() {
    with_client(|client| async move {
        client.create_subscription(&NewSubscription::new("work").shared()).await.unwrap();
        assert!(!client.create_subscription(&NewSubscription::new("work").shared()).await.unwrap());
        for number in 0..60 {
            client.append(event(&format!("s-{}", number % 7))).await.unwrap();
        }
        let mut members = [client.join("work").await.unwrap(), client.join("work").await.unwrap()];
        let mut handled = Vec::new();
        while handled.len() < 59 {
            for member in &mut members {
                let Ok(delivery) = tokio::time::timeout(Duration::from_millis(50), member.next()).await
                else {
                    continue;
                };
                let delivery = delivery.unwrap().unwrap();
                if delivery.position().get() == 5 {
                    member.nack(delivery.id, &Nack::park("wrong")).await.unwrap();
                } else {
                    member.ack(delivery.id).await.unwrap();
                    handled.push(delivery.position().get());
                }
            }
        }
        handled.sort_unstable();
        assert!(handled.into_iter().eq((0..60).filter(|&position| position != 5)));
        assert_eq!(client.parked("work").await.unwrap()[0].reason, "wrong");
        assert_eq!(client.replay_parked("work", &ParkedChoice::All).await.unwrap(), 1);
        let (first, second) = {
            let [first, second] = &mut members;
            (first, second)
        };
        let delivery =
            tokio::select! { delivery = first.next() => delivery, delivery = second.next() => delivery };
        assert_eq!(delivery.unwrap().unwrap().position().get(), 5);
        // Gone with what it holds: somebody else is handed it.
        drop(members);
        let mut last = client.join("work").await.unwrap();
        let delivery = last.next().await.unwrap().unwrap();
        last.ack(delivery.id).await.unwrap();
        assert_eq!(client.subscription("work").await.unwrap().open, 0);
        let unknown = client.join("nobody").await.map(drop);
        assert!(matches!(unknown, Err(ClientError::Refused(Failure::Subscription(_)))), "{unknown:?}");
    });
}

#[test]
fn a_server_that_comes_back_is_found_again_and_nothing_is_appended_twice() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start(options(&data)).unwrap();
    let listen = server.address();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let client = runtime.block_on(Client::connect(Options::new(listen.to_string()))).unwrap();
    let (following, appending) = runtime.block_on(async {
        let mut following = client.follow(&Follow::all()).await.unwrap();
        let followed = tokio::spawn(async move {
            let mut positions = Vec::new();
            while positions.len() < 300 {
                if let Followed::Event(record) = following.next().await.unwrap().unwrap() {
                    positions.push(record.position().get());
                }
            }
            positions
        });
        let client = client.clone();
        let appending = tokio::spawn(async move {
            for number in 0..300 {
                client.append(event(&format!("s-{number}"))).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        (followed, appending)
    });
    let mut server = Some(server);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(120));
        server.take().unwrap().stop();
        std::thread::sleep(Duration::from_millis(50));
        server = Some(Server::start(serve::Options { listen, ..options(&data) }).unwrap());
    }
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), appending).await.expect("in time").unwrap();
        let followed =
            tokio::time::timeout(Duration::from_secs(60), following).await.expect("in time").unwrap();
        assert!(followed.into_iter().eq(0..300));
        assert_eq!(client.stat().await.unwrap().events, 300);
    });
    server.unwrap().stop();
}

#[test]
fn a_read_waits_for_what_its_client_knows_to_come() {
    with_client(|client| async move {
        client.append(event("s")).await.unwrap();
        let late = tokio::spawn({
            let client = client.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(300)).await;
                client.append(event("s")).await.unwrap();
            }
        });
        let mut events = client.read_at_least(&Read::all(), Position::new(1)).await.unwrap();
        let mut count = 0;
        while let Some(event) = events.next().await {
            event.unwrap();
            count += 1;
        }
        assert_eq!(count, 2);
        late.await.unwrap();
    });
}

#[test]
fn a_signal_ends_serving_in_order() {
    let place = Place::new();
    for signal in ["-INT", "-TERM"] {
        let served = Served::start(&place.data(), "127.0.0.1:0");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(Options::new(served.address.clone())).await.unwrap();
            client.append(event("s")).await.unwrap();
        });
        // Others read beside it, and nobody else writes.
        place.run(&["append", "s", "--type", "T"]).expect_code(5);
        place.run(&["read", "--stream", "s"]).expect_code(0);
        assert_eq!(served.signal(signal), Some(0));
    }
    assert_eq!(place.run(&["--json", "stat"]).expect_code(0).json()["events"], 2);
    let refused = place.run(&["--json", "serve", "--listen", "0.0.0.0:0"]).expect_code(2);
    assert_eq!(refused.error()["error"], "usage");
    place.run(&["serve", "--listen", "nowhere"]).expect_code(2);
}

/// Follows everything until the last event, and misses nothing; how many there were.
async fn followed_to_the_last(client: Client) -> u64 {
    let (mut following, mut next) = (client.follow(&Follow::all()).await.unwrap(), 0);
    loop {
        if let Followed::Event(event) = following.next().await.unwrap().unwrap() {
            assert_eq!(event.position().get(), next);
            next += 1;
            if event.event_type() == "Last" {
                return next;
            }
        }
    }
}

#[test]
fn what_a_killed_server_acknowledged_is_there_once_and_so_is_what_was_sent_again() {
    const WRITERS: u64 = 12;
    const KILLS: usize = 20;
    let place = Place::new();
    let mut served = Served::start(&place.data(), "127.0.0.1:0");
    let address = served.address.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let client = runtime.block_on(Client::connect(Options::new(address.clone()))).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (client, is_over) = (client.clone(), Arc::clone(&is_over));
            runtime.spawn(async move {
                let mut count = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    let stream = format!("s-{writer}");
                    let numbered = NewEvent::new(stream, "Numbered").json(count.to_string());
                    client.append(numbered).await.unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    // Who follows goes on where it was, and misses nothing.
    let following = runtime.spawn(followed_to_the_last(client.clone()));
    for round in 0..KILLS {
        std::thread::sleep(Duration::from_millis(60 + (round as u64 * 37) % 200));
        assert_eq!(served.signal("-KILL"), None);
        served = Served::start(&place.data(), &address);
    }
    std::thread::sleep(Duration::from_millis(100));
    is_over.store(true, Ordering::Relaxed);
    let counts: Vec<u64> = runtime.block_on(async {
        let mut counts = Vec::new();
        for writer in writers {
            counts.push(writer.await.unwrap());
        }
        counts
    });
    let followed = runtime.block_on(async {
        client.append(NewEvent::new("last", "Last")).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), following).await.expect("it comes").unwrap()
    });
    assert_eq!(followed, counts.iter().sum::<u64>() + 1);
    assert_eq!(served.signal("-TERM"), Some(0));
    let store = annals::Store::open_read_only(place.data()).unwrap();
    for (writer, count) in counts.iter().enumerate() {
        let events = store.read(Read::stream(format!("s-{writer}"))).unwrap();
        let numbers: Vec<u64> =
            events.map(|event| String::from_utf8_lossy(event.unwrap().data()).parse().unwrap()).collect();
        assert!(
            numbers.iter().copied().eq(0..*count),
            "writer {writer}: {count} acknowledged, {} there",
            numbers.len()
        );
    }
    assert!(counts.iter().sum::<u64>() > 1_000, "{counts:?}");
}

#[test]
fn a_token_allows_what_it_says_until_it_is_revoked() {
    let place = Place::new();
    let tokens = place.path("tokens");
    let tokens = tokens.to_str().unwrap();
    let create = |arguments: &[&str]| {
        let created = place.run(&[&["--json", "token", "--tokens", tokens, "create"], arguments].concat());
        created.expect_code(0).json()["token"].as_str().unwrap().to_owned()
    };
    let writer = create(&["writer", "--right", "append", "--right", "read", "--prefix", "order-"]);
    let reader = create(&["reader", "--right", "read"]);
    let elsewhere = create(&["elsewhere", "--right", "admin", "--in-store", "other"]);
    let admin = create(&["admin", "--right", "admin"]);
    place.run(&["token", "--tokens", tokens, "create", "reader", "--right", "read"]).expect_code(2);
    assert_eq!(
        place.run(&["--json", "token", "--tokens", tokens, "list"]).expect_code(0).json_lines().len(),
        4
    );
    let served = Served::start_with(&place.data(), &["--listen", "127.0.0.1:0", "--tokens", tokens]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let connect = |token: Option<&str>| {
        let mut options = Options::new(served.address.clone());
        options.token = token.map(str::to_owned);
        runtime.block_on(Client::connect(options))
    };
    for wrong in [None, Some("annals_nobody"), Some(&writer[..writer.len() - 1])] {
        let refused = connect(wrong);
        assert!(matches!(refused, Err(ClientError::Refused(Failure::Unauthenticated))), "{refused:?}");
    }
    let refused = connect(Some(&elsewhere));
    assert!(matches!(refused, Err(ClientError::Refused(Failure::Forbidden { .. }))), "{refused:?}");
    let (writer, reader, admin) =
        (connect(Some(&writer)).unwrap(), connect(Some(&reader)).unwrap(), connect(Some(&admin)).unwrap());
    let is_forbidden = |result: Result<(), ClientError>| {
        assert!(matches!(result, Err(ClientError::Refused(Failure::Forbidden { .. }))), "{result:?}");
    };
    runtime.block_on(async {
        writer.append(event("order-1")).await.unwrap();
        is_forbidden(writer.append(event("user-1")).await.map(drop));
        is_forbidden(writer.append([event("order-1"), event("user-1")]).await.map(drop));
        is_forbidden(
            writer
                .append(Append::from(event("order-1")).fail_if_matches(QueryItem::new().tag("t"), None))
                .await
                .map(drop),
        );
        is_forbidden(writer.append(Append::from(event("order-1")).advance("c", None)).await.map(drop));
        is_forbidden(writer.head("user-1").await.map(drop));
        assert!(writer.head("order-1").await.unwrap().is_some());
        is_forbidden(writer.stat().await.map(drop));
        let mut all = writer.read(&Read::all()).await.unwrap();
        is_forbidden(all.next().await.unwrap().map(drop));
        let mut own = writer.read(&Read::stream("order-1")).await.unwrap();
        own.next().await.unwrap().unwrap();
        is_forbidden(reader.append(event("order-1")).await.map(drop));
        is_forbidden(reader.create_subscription(&NewSubscription::new("work")).await.map(drop));
        admin.create_subscription(&NewSubscription::new("work")).await.unwrap();
        reader.join("work").await.unwrap();
        assert_eq!(reader.stat().await.unwrap().events, 1);
    });
    place.run(&["token", "--tokens", tokens, "revoke", "reader"]).expect_code(0);
    let error =
        place.run(&["--json", "token", "--tokens", tokens, "revoke", "reader"]).expect_code(1).error();
    assert_eq!(error["error"], "no_token");
    std::thread::sleep(Duration::from_millis(1_300));
    runtime.block_on(async {
        let revoked = reader.stat().await;
        assert!(matches!(revoked, Err(ClientError::Refused(Failure::Unauthenticated))), "{revoked:?}");
        assert_eq!(admin.stat().await.unwrap().events, 1);
    });
    assert_eq!(served.signal("-TERM"), Some(0));
    place.run(&["serve", "--tokens", place.path("none").to_str().unwrap()]).expect_code(1);
}

#[test]
fn what_is_wrong_with_a_store_is_said_before_anything_is_served() {
    let place = Place::new();
    let store = annals::Store::open(place.data()).unwrap();
    let error = place.run(&["--json", "serve", "--listen", "127.0.0.1:0"]).expect_code(5).error();
    assert_eq!(error["error"], "in_use");
    store.close().unwrap();
    std::fs::create_dir(place.path("other")).unwrap();
    std::fs::write(place.path("other/file"), "x").unwrap();
    let other = place.path("other");
    place.run(&["serve", "--listen", "127.0.0.1:0", "--data", other.to_str().unwrap()]).expect_code(1);
}

#[test]
fn stores_of_a_directory_are_created_and_served_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["default", "tenant-1"] {
        annals::Store::open(dir.path().join(name)).unwrap().close().unwrap();
    }
    let server = Server::start(options(dir.path())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let address = server.address().to_string();
        let tenant = Client::connect(Options::new(address.clone()).store("tenant-1")).await.unwrap();
        let default = Client::connect(Options::new(address.clone())).await.unwrap();
        tenant.append(event("s")).await.unwrap();
        assert_eq!((tenant.stat().await.unwrap().events, default.stat().await.unwrap().events), (1, 0));
        for name in ["tenant-2", "../tenant-1", "a/b", "\u{0}"] {
            let nobody = Client::connect(Options::new(address.clone()).store(name)).await;
            assert!(
                matches!(nobody, Err(ClientError::Refused(Failure::NoStore { .. }))),
                "{name}: {nobody:?}"
            );
        }
    });
    server.stop();
    assert!(!dir.path().join("tenant-2").exists());
}
