//! An async client of Annals: one connection, any number of requests under way.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use annals_client::{Client, Options};
//! use annals_types::{Append, ExpectedVersion, NewEvent, Read};
//!
//! let client = Client::connect(Options::new("127.0.0.1:4777")).await?;
//! let placed = NewEvent::new("order-42", "OrderPlaced").json(r#"{"total":12}"#);
//! let placed = Append::from(placed).expect("order-42", ExpectedVersion::NoStream);
//! let appended = client.append(placed).await?;
//! println!("position {}", appended.first_position());
//!
//! let mut events = client.read(&Read::stream("order-42")).await?;
//! while let Some(event) = events.next().await {
//!     println!("{}", event?.event_type());
//! }
//! # Ok(())
//! # }
//! ```

mod link;
mod requests;
mod streams;

pub use requests::Client;
pub use streams::{Deliveries, Events, Following};

use annals_protocol::Failure;
use std::time::Duration;

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its host and port.
    pub address: String,
    /// The store that requests are about.
    pub store: String,
    /// Who the client is, where the server asks for that.
    pub token: Option<String>,
    /// What the client calls itself, for the server's logs.
    pub name: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a request may take, reconnecting included; streams end when they end.
    pub request_timeout: Duration,
    /// Bytes of events that a stream may have on their way and not taken yet.
    pub stream_bytes: u64,
}

impl Options {
    /// The default store of a server.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            store: "default".to_owned(),
            token: None,
            name: concat!("annals-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            stream_bytes: 4 << 20,
        }
    }

    /// Another store of the server.
    #[must_use]
    pub fn store(mut self, name: impl Into<String>) -> Self {
        self.store = name.into();
        self
    }
}

/// Why a request has no answer, or not the one that was hoped for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server says no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// There is no connection, and none can be made in time. The request was not sent.
    #[error("the server at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The connection was lost before the answer came, and the request cannot be repeated safely.
    #[error("the connection to the server was lost before it answered: {reason}")]
    Lost {
        /// What became of it.
        reason: String,
    },
    /// The answer did not come in time.
    #[error("the server did not answer in time")]
    Late,
    /// The server has said something that makes no sense.
    #[error("the server's answer makes no sense: {0}")]
    Nonsense(String),
}
