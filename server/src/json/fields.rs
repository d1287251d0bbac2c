//! The field names of an event and the pieces of text its values are made of, borrowed wherever
//! the text has no escapes.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A field of an event, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    /// `stream`.
    Stream,
    /// `type`.
    Type,
    /// `data`.
    Data,
    /// `data_base64`.
    DataBase64,
    /// `metadata`.
    Metadata,
    /// `metadata_base64`.
    MetadataBase64,
    /// `content`.
    Content,
    /// `tags`.
    Tags,
    /// `id`.
    Id,
    /// `correlation`.
    Correlation,
    /// `causation`.
    Causation,
    /// `time`.
    Time,
    /// `ts`.
    Ts,
    /// `position`, which only the store gives.
    Position,
    /// `version`, which only the store gives.
    Version,
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "stream" => Self::Stream,
            "type" => Self::Type,
            "data" => Self::Data,
            "data_base64" => Self::DataBase64,
            "metadata" => Self::Metadata,
            "metadata_base64" => Self::MetadataBase64,
            "content" => Self::Content,
            "tags" => Self::Tags,
            "id" => Self::Id,
            "correlation" => Self::Correlation,
            "causation" => Self::Causation,
            "time" => Self::Time,
            "ts" => Self::Ts,
            "position" => Self::Position,
            "version" => Self::Version,
            _ => return None,
        })
    }

    /// Its own bit in a set of fields.
    pub(super) fn bit(self) -> u16 {
        1 << (self as u16)
    }
}

/// A key: a field that is known, or the name of one that is not.
#[derive(Debug)]
pub(super) enum Key {
    /// A field of an event.
    Known(Field),
    /// Any other name.
    Unknown(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl Visitor<'_> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a field")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(Field::named(name).map_or_else(|| Key::Unknown(name.to_owned()), Key::Known))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// A string, borrowed unless it has escapes. (serde's own `Cow` always copies.)
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

/// The tags of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tags<'a>(pub(super) Vec<Cow<'a, str>>);

impl<'de> Deserialize<'de> for Tags<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// Room for the tags of nearly every event, so that the list is allocated once.
        const TAGS_USUAL: usize = 8;

        struct TagsVisitor;
        impl<'de> Visitor<'de> for TagsVisitor {
            type Value = Tags<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let Some(Text(first)) = list.next_element()? else { return Ok(Tags(Vec::new())) };
                let mut tags = Vec::with_capacity(TAGS_USUAL);
                tags.push(first);
                while let Some(Text(tag)) = list.next_element()? {
                    tags.push(tag);
                }
                Ok(Tags(tags))
            }
        }
        deserializer.deserialize_seq(TagsVisitor)
    }
}
