//! Sockets: how a connection is made, and one that is read, and written to by several.

use crate::{ClientError, Options};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How long a connection may be silent before the system asks whether anybody is there, how often it asks, and how often in vain.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(15), Duration::from_secs(5), 3);

/// Connects.
pub(crate) async fn connect(address: &str) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    let _ = socket.set_nodelay(true);
    let (after, every, tries) = KEEPALIVE;
    let alive = socket2::TcpKeepalive::new().with_time(after).with_interval(every).with_retries(tries);
    let _ = socket2::SockRef::from(&socket).set_tcp_keepalive(&alive);
    Ok(socket)
}

/// What a failure before the welcome means: certificates that do not fit will not fit the next time.
pub(crate) fn lost(options: &Options, error: &io::Error) -> ClientError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(reason) => {
            let hint = match reason {
                rustls::Error::InvalidMessage(_) => "; perhaps the server does not encrypt",
                rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer) => {
                    "; its certificate was not signed by the authority that was given"
                }
                _ => "",
            };
            ClientError::Untrusted { address: options.address.clone(), reason: format!("{reason}{hint}") }
        }
        // Nothing was asked for yet, so that nothing can be lost.
        None => ClientError::Unreachable { address: options.address.clone(), reason: error.to_string() },
    }
}

/// A socket without encryption; all clones are the same.
#[derive(Clone)]
pub(crate) struct Plain(Arc<TcpStream>);

impl Plain {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self(Arc::new(socket))
    }

    /// Writes what can be written at once.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
}

impl AsyncRead for Plain {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read_buf(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|_| ())),
            }
        }
    }
}

impl AsyncWrite for Plain {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(context))?;
            match self.0.try_write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// It closes with its last clone.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
