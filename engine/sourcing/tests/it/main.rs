//! The layer on the embedded store, as an application uses it.
#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::disallowed_methods, reason = "tests look at the clock")]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails it as the test itself would")]

mod background;
mod codec;
mod commands;
mod corners;
mod delays;
mod documents;
mod examples;
mod exchanged;
mod outages;
mod projection;
mod projects;
mod queue;
mod reactor;
mod repository;
mod sagas;
mod shipments;
mod timers;
mod trip;
mod upcasting;
mod workflow;

use annals::{Settings, Store};
use annals_client::{Client, Options};
use annals_server::serve::{self, Server};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use tempfile::TempDir;

/// A new store in a directory of its own.
struct Fresh {
    store: Store,
    directory: TempDir,
}

impl Fresh {
    fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { store: Store::open_with(directory.path(), settings).unwrap(), directory }
    }

    /// The same store, closed and opened again.
    fn again(self) -> Self {
        self.store.close().unwrap();
        Self { store: Store::open(self.directory.path()).unwrap(), directory: self.directory }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Waits until this is so, for a time in which it must be on any machine.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it is not so after half a minute");
}

/// Runs what never ends by itself until this is done.
async fn beside<T: std::fmt::Debug>(running: impl Future<Output = T>, done: impl Future<Output = ()>) {
    tokio::select! {
        ended = running => panic!("{ended:?}"),
        () = done => {}
    }
}

/// A server on a new directory, and how one becomes its client.
fn with_server(work: impl FnOnce(Pin<Box<dyn Future<Output = Client>>>)) {
    with_address(|address| {
        work(Box::pin(async move { Client::connect(Options::new(address)).await.unwrap() }))
    });
}

/// A server on a new directory of stores.
fn with_address(work: impl FnOnce(String)) {
    let directory = tempfile::tempdir().unwrap();
    // With one store in a directory of its own there may be others beside it.
    Store::open(directory.path().join("data/default")).unwrap().close().unwrap();
    let options = serve::Options {
        admin: None,
        data: directory.path().join("data"),
        listen: ([127, 0, 0, 1], 0).into(),
        settings: Settings::default(),
        limits: serve::Limits::default(),
    };
    let server = Server::start(options).unwrap();
    let address = server.address().to_string();
    work(address);
    server.stop();
}
