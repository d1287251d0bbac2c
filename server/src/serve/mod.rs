//! The server: a TCP protocol over the stores of a directory.
//!
//! Two runtimes. Connections live on the first, where nothing waits for a disk: frames are taken apart, appends tried, answers
//! written. Whatever may wait or touch what is not in memory runs on the second: reading, following, members of durable
//! subscriptions, and all that is asked for seldom.

mod access;
mod admin;
mod connection;
mod handler;
mod listen;
mod metrics;
mod network;
mod outgoing;
mod pace;
mod stores;
mod streaming;
mod task;
pub(crate) mod tls;

use self::metrics::Metrics;
use self::network::Network;
use self::pace::{Looks, Pace};
use self::stores::Stores;
use crate::tokens::Tokens;
use annals::{Settings, Store};
use annals_protocol::frame::BODY_BYTES_MAX;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// What a server serves, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// A store, or a directory of stores.
    pub data: PathBuf,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it tells of its health and its metrics, over HTTP; `None`: nowhere.
    pub admin: Option<SocketAddr>,
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
    /// How long a store stays open that nobody uses.
    pub store_idle: Duration,
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
            store_idle: Duration::from_secs(600),
        }
    }
}

/// What all connections share.
struct Context {
    stores: Arc<Stores>,
    limits: Limits,
    /// Who may do what; `None`: anybody anything.
    tokens: Option<Arc<Tokens>>,
    /// What encrypts connections; `None`: nothing does.
    tls: Option<TlsAcceptor>,
    metrics: Arc<Metrics>,
    /// Of all who follow.
    pace: Pace,
    /// Of all who ask for something else than to append, and of new connections.
    looks: Looks,
    /// Stores that may be checked at a time.
    verifications: Arc<Semaphore>,
    /// Where waiting is done.
    waiting: tokio::runtime::Handle,
    /// Whether the server is shutting down.
    stopping: watch::Receiver<bool>,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("stores", &self.stores).finish_non_exhaustive()
    }
}

/// A server that runs, until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    admin: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    stores: Arc<Stores>,
    /// Given up last to first: what connections ask for ends before they do.
    runtimes: Option<(Arc<Network>, Runtime)>,
    listening: tokio::task::JoinHandle<()>,
}

/// Threads that wait for the disk at a time; what else would wait for it waits without one.
const BLOCKED_THREADS_MAX: usize = 32;
/// How far reading, following and all that is asked for stand back behind appending.
const NICENESS: i32 = 10;
/// Stores that are checked at a time: it takes all of the disk, and a thread.
const VERIFICATIONS_MAX: usize = 2;
/// How often it is looked for stores that nobody uses.
const IDLE_LOOK_PERIOD: Duration = Duration::from_secs(5);
/// How long connections have to end once they are told to.
const DRAIN_TIME: Duration = Duration::from_secs(10);

impl Server {
    /// Binds the address and begins to accept.
    ///
    /// # Errors
    /// The address cannot be bound, or threads cannot be started.
    pub fn start(options: Options) -> io::Result<Self> {
        Self::start_with(options, None, None, None)
    }

    /// The same, asking clients for a token, where there are any, encrypted, where that is set up, and with the default
    /// store, if that is open already.
    pub(crate) fn start_with(
        options: Options,
        tokens: Option<Tokens>,
        tls: Option<TlsAcceptor>,
        default: Option<Store>,
    ) -> io::Result<Self> {
        let network = Network::start()?;
        let waiting = Builder::new_multi_thread()
            .thread_name("annals-wait")
            .worker_threads(2)
            .max_blocking_threads(BLOCKED_THREADS_MAX)
            .on_thread_start(stand_back)
            .enable_io()
            .enable_time()
            .build()?;
        let listener = waiting.block_on(TcpListener::bind(options.listen))?;
        let address = listener.local_addr()?;
        let admin = options.admin.map(|admin| waiting.block_on(TcpListener::bind(admin))).transpose()?;
        let admin_address = admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let stores = Arc::new(Stores::new(options.data, options.settings, default, waiting.handle().clone()));
        let (stop, stopping) = watch::channel(false);
        let context = Arc::new(Context {
            stores: Arc::clone(&stores),
            limits: options.limits,
            tokens: tokens.map(Arc::new),
            tls,
            metrics: Arc::new(Metrics::new(&stores)),
            pace: Pace::default(),
            looks: Looks::new(),
            verifications: Arc::new(Semaphore::new(VERIFICATIONS_MAX)),
            waiting: waiting.handle().clone(),
            stopping,
        });
        waiting.spawn(close_idle(Arc::clone(&context)));
        if let Some(admin) = admin {
            waiting.spawn(admin::listen(admin, Arc::clone(&context)));
        }
        let network = Arc::new(network);
        let listening = waiting.spawn(listen::listen(listener, Arc::clone(&network), context));
        Ok(Self {
            address,
            admin: admin_address,
            stop,
            stores,
            runtimes: Some((network, waiting)),
            listening,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it tells of its health and its metrics.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Accepts nothing more, lets what is under way end, and closes the stores.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some((network, waiting)) = self.runtimes.take() else { return };
        let _ = self.stop.send(true);
        let drained = async { tokio::time::timeout(DRAIN_TIME, &mut self.listening).await };
        let _ = waiting.block_on(drained);
        self.listening.abort();
        // Closing makes durable what is on its way, and ends whoever follows.
        self.stores.close();
        waiting.shutdown_timeout(DRAIN_TIME);
        drop(network);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// Has the thread leave the processor to those that append, where there is not enough of it for all.
fn stand_back() {
    // It is a matter of speed alone.
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
}

/// Closes stores that nobody uses, until the server stops.
async fn close_idle(context: Arc<Context>) {
    let mut stopping = context.stopping.clone();
    let idle = context.limits.store_idle;
    loop {
        tokio::select! {
            () = tokio::time::sleep(IDLE_LOOK_PERIOD.min(idle)) => {}
            _ = stopping.wait_for(|stop| *stop) => return,
        }
        context.stores.close_idle(idle).await;
    }
}

fn now() -> Instant {
    Instant::now()
}
