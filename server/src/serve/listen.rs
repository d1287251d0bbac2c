//! Accepting connections: no more than there may be, and what becomes of a socket before it is a connection.

use super::network::Network;
use super::{Context, connection};
use socket2::{SockRef, TcpKeepalive};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a connection may be silent before the system asks whether anybody is there, how often it asks, and how often in vain.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);
/// How long what was sent may go without the other system's word that it has arrived.
const UNHEARD: Duration = Duration::from_secs(30);
/// Pause where nothing can be accepted.
const PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the server stops, then waits for the connections.
pub(super) async fn listen(listener: TcpListener, network: Arc<Network>, context: Arc<Context>) {
    let places = Arc::new(Semaphore::new(context.limits.connections));
    let mut stopping = context.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => break,
        };
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((socket, peer)) => {
                // Hundreds that come at once are not all let in at once: whoever is there already goes on meanwhile.
                context.looks.connection().await;
                let context = Arc::clone(&context);
                let (reader, writer) = network.handles();
                let accepted = async move {
                    context.metrics.connections_accepted.inc();
                    context.metrics.connections.inc();
                    let _counted = Counted(&context);
                    // The thread that it lives on is to hear of it, and not the one that accepted it.
                    let moved = socket.into_std().and_then(TcpStream::from_std);
                    if let Ok(socket) = moved {
                        serve(socket, peer, Arc::clone(&context), &writer).await;
                    }
                    drop(place);
                };
                connections.spawn_on(accepted, &reader);
            }
            // Too many files are open, or the client has left: others may be luckier.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// A connection, as long as it is counted.
struct Counted<'a>(&'a Context);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.metrics.connections.dec();
    }
}

async fn serve(socket: TcpStream, peer: SocketAddr, context: Arc<Context>, writer: &Handle) {
    prepare(&socket);
    let Some(tls) = context.tls.clone() else {
        let (incoming, to) = socket.into_split();
        return connection::serve(incoming, to, peer, context, writer).await;
    };
    let mut stopping = context.stopping.clone();
    let encrypted = tokio::select! {
        encrypted = timeout(context.limits.handshake, tls.accept(socket)) => encrypted,
        _ = stopping.wait_for(|stop| *stop) => return,
    };
    match encrypted {
        Ok(Ok(encrypted)) => {
            let (incoming, to) = tokio::io::split(encrypted);
            connection::serve(incoming, to, peer, context, writer).await;
        }
        Ok(Err(error)) => {
            context.metrics.connections_refused.inc();
            tracing::warn!(%peer, %error, "no encrypted connection");
        }
        Err(_) => {
            context.metrics.connections_refused.inc();
        }
    }
}

/// Small answers leave at once; a machine that died is noticed.
fn prepare(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let (after, every, tries) = KEEPALIVE;
    let alive = TcpKeepalive::new().with_time(after).with_interval(every).with_retries(tries);
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_keepalive(&alive);
    let _ = socket.set_tcp_user_timeout(Some(UNHEARD));
}
