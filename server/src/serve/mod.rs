//! The server: a TCP protocol over the stores of a directory.
//!
//! Two runtimes. Connections live on the first, where nothing waits for a disk: frames are taken apart, appends tried, answers
//! written. Whatever may wait or touch what is not in memory runs on the second: reading, following, members of durable
//! subscriptions, and all that is asked for seldom.

mod access;
mod connection;
mod handler;
mod outgoing;
mod stores;
mod streaming;

use self::stores::Stores;
use crate::tokens::Tokens;
use annals::{Settings, Store};
use annals_protocol::frame::BODY_BYTES_MAX;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};

/// What a server serves, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// A store, or a directory of stores.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// What the stores are opened with.
    pub settings: Settings,
    /// How much of everything there may be.
    pub limits: Limits,
}

/// How much of everything there may be. What is beyond waits, or is refused.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; others wait to be accepted.
    pub connections: usize,
    /// Requests that a connection may have under way.
    pub requests: u32,
    /// Bytes of requests that a connection may have under way.
    pub bytes: u64,
    /// Longest body of a frame.
    pub body_bytes: usize,
    /// How long a connection may take to say who it is.
    pub handshake: Duration,
    /// How long a frame may take to arrive.
    pub frame: Duration,
    /// How long a connection may say nothing, without anything under way.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            requests: 4_096,
            bytes: 128 << 20,
            body_bytes: BODY_BYTES_MAX,
            handshake: Duration::from_secs(10),
            frame: Duration::from_secs(30),
            idle: Duration::from_secs(600),
        }
    }
}

/// What all connections share.
#[derive(Debug)]
struct Context {
    stores: Arc<Stores>,
    limits: Limits,
    /// Who may do what; `None`: anybody anything.
    tokens: Option<Arc<Tokens>>,
    /// Where waiting is done.
    waiting: tokio::runtime::Handle,
    /// Whether the server is shutting down.
    stopping: watch::Receiver<bool>,
}

/// A server that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    stores: Arc<Stores>,
    /// Given up last to first: what connections ask for ends before they do.
    runtimes: Option<(Runtime, Runtime)>,
    listening: tokio::task::JoinHandle<()>,
}

/// How long connections have to end once they are told to.
const DRAIN_TIME: Duration = Duration::from_secs(10);

impl Server {
    /// Binds the address and begins to accept.
    ///
    /// # Errors
    /// The address cannot be bound, or threads cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        Self::start_with(options, None, None)
    }

    /// The same, asking clients for a token, where there are any, and with the default store, if that is open already.
    pub(crate) fn start_with(
        options: Options,
        tokens: Option<Tokens>,
        default: Option<Store>,
    ) -> io::Result<Self> {
        let network = runtime("annals-net", 1, 2)?;
        let waiting = runtime("annals-wait", 2, 32)?;
        let listener = network.block_on(TcpListener::bind(options.listen))?;
        let address = listener.local_addr()?;
        let stores = Arc::new(Stores::new(options.data, options.settings, default));
        let (stop, stopping) = watch::channel(false);
        let context = Arc::new(Context {
            stores: Arc::clone(&stores),
            limits: options.limits,
            tokens: tokens.map(Arc::new),
            waiting: waiting.handle().clone(),
            stopping,
        });
        let listening = network.spawn(listen(listener, context));
        Ok(Self { address, stop, stores, runtimes: Some((network, waiting)), listening })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nothing more, lets what is under way end, and closes the stores.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some((network, waiting)) = self.runtimes.take() else { return };
        let _ = self.stop.send(true);
        let drained = async { tokio::time::timeout(DRAIN_TIME, &mut self.listening).await };
        let _ = network.block_on(drained);
        // Closing makes durable what is on its way, and ends whoever follows.
        self.stores.close();
        waiting.shutdown_timeout(DRAIN_TIME);
        network.shutdown_timeout(Duration::from_secs(1));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn runtime(name: &str, threads: usize, blocking: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .thread_name(name)
        .worker_threads(threads)
        .max_blocking_threads(blocking)
        .enable_io()
        .enable_time()
        .build()
}

/// Accepts until the server stops, then waits for the connections.
async fn listen(listener: TcpListener, context: Arc<Context>) {
    let places = Arc::new(Semaphore::new(context.limits.connections));
    let mut stopping = context.stopping.clone();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, _)) => {
                let _ = socket.set_nodelay(true);
                let context = Arc::clone(&context);
                connections.spawn(async move {
                    connection::serve(socket, context).await;
                    drop(place);
                });
            }
            // Too many files are open, or the client has left: others may be luckier.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}
