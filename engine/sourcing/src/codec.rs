//! How facts become bytes.

use annals_types::ContentKind;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;

/// How facts become bytes, and come back.
pub trait Codec: Clone + Send + Sync + 'static {
    /// What the bytes are said to be in the store.
    const CONTENT: ContentKind;

    /// Writes a value.
    ///
    /// # Errors
    /// It cannot be written, as a map with keys that are no text in JSON.
    fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, CodecError>;

    /// Reads a value.
    ///
    /// # Errors
    /// The bytes are not of such a value.
    fn decode<T: DeserializeOwned>(&self, data: &[u8]) -> Result<T, CodecError>;
}

/// JSON, as everybody can read it for decades: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl Codec for Json {
    const CONTENT: ContentKind = ContentKind::Json;

    fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, CodecError> {
        serde_json::to_vec(value).map_err(CodecError::new)
    }

    fn decode<T: DeserializeOwned>(&self, data: &[u8]) -> Result<T, CodecError> {
        serde_json::from_slice(data).map_err(CodecError::new)
    }
}

/// Why something could not be written or read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CodecError(String);

impl CodecError {
    /// With what the codec says.
    pub fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CodecError {}
