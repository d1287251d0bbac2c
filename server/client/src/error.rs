//! Why a request has no answer, or not the one that was hoped for.

use annals_protocol::Failure;
use annals_types::{AppendError, StoreError};

/// Why a request has no answer, or not the one that was hoped for.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server says no. Nothing was done, unless the failure itself says otherwise.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// What was given to reach the server makes no sense.
    #[error("{0}")]
    Options(String),
    /// There is no connection, and none can be made in time. Nothing was done.
    #[error("the server at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Where it was looked for.
        address: String,
        /// Why not.
        reason: String,
    },
    /// Client and server do not accept each other's certificates. Nothing was done.
    #[error("the server at {address} and this client do not trust each other: {reason}")]
    Untrusted {
        /// Where the server is.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The connection was lost before the answer came, and there is no other, or the request cannot be repeated safely: it may
    /// have been done, or not.
    #[error("the connection to the server was lost before it answered: {reason}")]
    Lost {
        /// What became of it.
        reason: String,
    },
    /// The answer did not come in time: it may have been done, or not.
    #[error("the server did not answer in time")]
    Late,
    /// The request is longer than the server takes. It was not sent.
    #[error("the request takes {bytes} bytes; the server takes {bytes_max}")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// More requests are under way than any connection can have. It was not sent.
    #[error("{max} requests are under way; wait for some of them")]
    TooManyUnderWay {
        /// The limit.
        max: usize,
    },
    /// The server has said something that makes no sense.
    #[error("the server's answer makes no sense: {0}")]
    Nonsense(String),
}

impl ClientError {
    /// Whether the same may do later, or over another connection.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::Unreachable { .. } => true,
            Self::Refused(failure) => is_going(failure),
            _ => false,
        }
    }
}

/// Whether it says that the server is going, and that nothing was done.
pub(crate) fn is_going(failure: &Failure) -> bool {
    matches!(failure, Failure::ShuttingDown)
}

/// Whether the server has judged an append against all that is there: then it was not done by an earlier attempt either, as it
/// would have been known by its ids.
pub(crate) fn is_judged(failure: &Failure) -> bool {
    let Failure::Append(error) = failure else { return false };
    !matches!(
        error,
        AppendError::DiskFull(_)
            | AppendError::Poisoned { .. }
            | AppendError::UnknownOutcome { .. }
            | AppendError::TooLateToRepeat { .. }
            | AppendError::ReadOnly
            | AppendError::Damage(_)
            | AppendError::Io(_)
    )
}

impl From<ClientError> for StoreError {
    fn from(error: ClientError) -> Self {
        let is_passing = error.is_passing() || matches!(error, ClientError::TooManyUnderWay { .. });
        match error {
            ClientError::Refused(Failure::Append(error)) => Self::Append(error),
            ClientError::Refused(Failure::Read(error)) => Self::Read(error),
            ClientError::Refused(Failure::Subscription(error)) => Self::Subscription(error),
            ClientError::Lost { .. } | ClientError::Late | ClientError::Nonsense(_) => {
                Self::Unknown { reason: error.to_string() }
            }
            other => Self::Unavailable { reason: other.to_string(), is_passing },
        }
    }
}
