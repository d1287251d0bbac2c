//! An async client of Annals: one connection, any number of requests under way. [`blocking`] has the same without async.
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
//!
//! A [`Client`] is an [`EventStore`](annals_types::EventStore), as the embedded store is: code that is written to that trait
//! runs on either.

mod admin;
mod append;
mod asking;
pub mod blocking;
mod error;
mod link;
mod requests;
mod socket;
mod store;
mod streams;
mod tls;

pub use append::{PendingAppend, Pipeline};
pub use error::ClientError;
pub use requests::Client;
pub use streams::{Deliveries, Events, Following, Heads};
pub use tls::Tls;

pub use annals_protocol::Failure;
pub use annals_types::Loaded;
use std::fmt;
use std::time::Duration;

/// How to reach a server.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Its host and port.
    pub address: String,
    /// The store that requests are about.
    pub store: String,
    /// Who the client is, where the server asks for that.
    pub token: Option<String>,
    /// How the server is recognised; `None`: it is not, and what is said can be read on its way.
    pub tls: Option<Tls>,
    /// What the client calls itself, for the server's logs.
    pub name: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a request may take, reconnecting included; streams end when they end.
    pub request_timeout: Duration,
    /// Bytes of events that a stream may have on their way and not taken yet; at least 64 KiB.
    pub stream_bytes: u64,
}

impl Options {
    /// The default store of a server, without token or encryption.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            store: "default".to_owned(),
            token: None,
            tls: None,
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

    /// Says who the client is.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Encrypts what is said, and recognises the server.
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }
}

impl fmt::Debug for Options {
    /// Without the token: what is printed may be kept.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("address", &self.address)
            .field("store", &self.store)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
