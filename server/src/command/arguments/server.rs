//! What is for a server's own machine, and for its administration: serving, tokens, certificates, stores.

use super::{Directory, Tuning};
use crate::command::values::LogLevel;
use crate::tokens::Right;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Options of `token`.
#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// The file of tokens [default: DIR.tokens, beside the directory of the stores]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) tokens: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) action: TokenAction,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenAction {
    /// Make one, and print it: it is shown this once
    #[command(
        after_help = "Example:\n  annals token create billing --right read --right append --prefix order-"
    )]
    Create {
        /// Whose it is
        name: String,
        /// What it allows; may be given several times
        #[arg(long, value_enum, required = true)]
        right: Vec<Right>,
        /// In this store alone
        #[arg(long = "in-store", value_name = "NAME")]
        store: Option<String>,
        /// To streams alone whose names begin with this
        #[arg(long)]
        prefix: Option<String>,
    },
    /// List them, with what they allow
    #[command(after_help = "Example:\n  annals token list --json")]
    List,
    /// Have one allow nothing any more, within a second
    #[command(after_help = "Example:\n  annals token revoke billing")]
    Revoke {
        /// Whose it is
        name: String,
    },
}

/// Options of `tls`.
#[derive(Debug, Args)]
pub(crate) struct Tls {
    #[command(subcommand)]
    pub(crate) action: TlsAction,
}

/// What to do with certificates.
#[derive(Debug, Subcommand)]
pub(crate) enum TlsAction {
    /// Make an authority, and certificates of it for a server and for its clients. For development: whoever has the
    /// authority's key can be any server and any client
    #[command(after_help = "Example:\n  annals tls init --out ./tls --name store.example --name 10.0.0.7")]
    Init {
        /// Where to put them
        #[arg(long, value_name = "DIR", default_value = "tls")]
        out: PathBuf,
        /// A name or address of the server; may be given several times [default: localhost, 127.0.0.1, ::1]
        #[arg(long, value_name = "NAME")]
        name: Vec<String>,
    },
}

/// Options of `store`.
#[derive(Debug, Args)]
pub(crate) struct Store {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(subcommand)]
    pub(crate) action: StoreAction,
}

/// What to do with stores.
#[derive(Debug, Subcommand)]
pub(crate) enum StoreAction {
    /// Create one: a directory in the directory of stores
    #[command(after_help = "Example:\n  annals store create tenant-7 --server 127.0.0.1:4777")]
    Create {
        /// Its name
        name: String,
    },
    /// List their names
    #[command(after_help = "Example:\n  annals store list --server 127.0.0.1:4777 --json")]
    List,
    /// Drop one, with all its events, for good
    #[command(after_help = "Example:\n  annals store drop tenant-7 --server 127.0.0.1:4777 --yes")]
    Drop {
        /// Its name
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Options of `serve`. Those of [`Serving`] can be in the file of settings, too.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) directory: Directory,
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// Print the settings that result from flags, environment and file, as such a file, and end
    #[arg(long)]
    pub(crate) print_config: bool,
    #[command(flatten)]
    pub(crate) tuning: Tuning,
}

/// How stores are served.
#[derive(Clone, PartialEq, Eq, Debug, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Serving {
    /// Where to listen [default: 127.0.0.1:4777]
    #[arg(long, value_name = "ADDR", env = "ANNALS_LISTEN")]
    pub(crate) listen: Option<SocketAddr>,
    /// Where to tell of health and metrics, over HTTP: /health and /metrics
    #[arg(long, value_name = "ADDR", env = "ANNALS_ADMIN")]
    pub(crate) admin: Option<SocketAddr>,
    /// Ask for tokens, of which this file has the hashes; see annals token [default: DIR.tokens, if it is there]
    #[arg(long, value_name = "FILE", env = "ANNALS_TOKENS")]
    pub(crate) tokens: Option<PathBuf>,
    /// The server's certificate, with those between it and its authority behind it (PEM)
    #[arg(long, value_name = "FILE", env = "ANNALS_TLS_CERT")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, value_name = "FILE", env = "ANNALS_TLS_KEY")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let in only clients with a certificate that this authority has signed (PEM)
    #[arg(long, value_name = "FILE", env = "ANNALS_TLS_CLIENT_CA")]
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// How much of what happens is written to standard error; JSON with --json [default: info]
    #[arg(long, value_enum, env = "ANNALS_LOG")]
    pub(crate) log: Option<LogLevel>,
    /// Clients at a time; others wait [default: 10000]
    #[arg(long, value_name = "COUNT", env = "ANNALS_CONNECTIONS_MAX")]
    pub(crate) connections_max: Option<usize>,
    /// How long a client may be silent that waits for nothing [default: 600]
    #[arg(long, value_name = "SECONDS", env = "ANNALS_IDLE_SECONDS")]
    pub(crate) idle_seconds: Option<u64>,
    /// How long a store stays open that nobody uses [default: 600]
    #[arg(long, value_name = "SECONDS", env = "ANNALS_STORE_IDLE_SECONDS")]
    pub(crate) store_idle_seconds: Option<u64>,
    /// How long a store's writer looks for the next append before it sleeps: less is less work for the processor, and later answers
    /// to few clients; at most 1000 [default: 120]
    #[arg(long, value_name = "MICROSECONDS", env = "ANNALS_LINGER_MICROS")]
    pub(crate) linger_micros: Option<u64>,
    /// See [`Common`](super::Common).
    #[arg(skip)]
    #[serde(skip_serializing_if = "is_false")]
    pub(crate) insecure: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as its caller wants it")]
fn is_false(value: &bool) -> bool {
    !value
}

impl Serving {
    /// What is said here, else what is said there.
    pub(crate) fn or(self, other: &Self) -> Self {
        let other = other.clone();
        Self {
            listen: self.listen.or(other.listen),
            admin: self.admin.or(other.admin),
            tokens: self.tokens.or(other.tokens),
            tls_cert: self.tls_cert.or(other.tls_cert),
            tls_key: self.tls_key.or(other.tls_key),
            tls_client_ca: self.tls_client_ca.or(other.tls_client_ca),
            log: self.log.or(other.log),
            connections_max: self.connections_max.or(other.connections_max),
            idle_seconds: self.idle_seconds.or(other.idle_seconds),
            store_idle_seconds: self.store_idle_seconds.or(other.store_idle_seconds),
            linger_micros: self.linger_micros.or(other.linger_micros),
            insecure: self.insecure || other.insecure,
        }
    }
}
