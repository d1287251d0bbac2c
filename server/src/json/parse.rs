//! JSON text of one event, as `import` and `append --batch` read it. Names, tags, data and metadata
//! are borrowed from the text; nothing is parsed that is stored as text anyway.

use super::fields::{Field, Key, Tags, Text};
use crate::time::{self, TimeError};
use annals::{ContentKind, InputError, NewEvent, Timestamp, Uuid};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Why text is no event.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BadEvent {
    /// Bytes that are not text.
    #[error("it is not UTF-8 (from byte {0} on)")]
    NotUtf8(usize),
    /// Not JSON, or not the JSON of an event.
    #[error("{message} (column {column})")]
    Json {
        /// What is wrong.
        message: String,
        /// Where, from 1.
        column: usize,
    },
    /// A field that every event has is not there.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    /// Two fields that say the same thing.
    #[error("it has both `{0}` and `{1}`; leave one out")]
    Both(&'static str, &'static str),
    /// An id that is no UUID.
    #[error("its `{field}` \"{text}\" is not a UUID")]
    NotUuid {
        /// The field.
        field: &'static str,
        /// Its value, escaped.
        text: String,
    },
    /// Bytes that are not base64.
    #[error("its `{0}` is not base64 (standard alphabet, with padding)")]
    NotBase64(&'static str),
    /// A kind of content that does not exist.
    #[error("its `content` is \"{0}\"; it must be \"json\" or \"binary\"")]
    Content(String),
    /// A time that is none.
    #[error(transparent)]
    Time(#[from] TimeError),
    /// A part that is over a limit or malformed.
    #[error(transparent)]
    Input(#[from] InputError),
}

/// Reads the text of one event.
pub(crate) fn parse_event(text: &[u8]) -> Result<EventText<'_>, BadEvent> {
    let text = std::str::from_utf8(text).map_err(|error| BadEvent::NotUtf8(error.valid_up_to()))?;
    serde_json::from_str(text).map_err(|error| BadEvent::Json {
        message: without_place(&error.to_string()).to_owned(),
        column: error.column(),
    })
}

/// The message without the line that serde_json counts within the text: there is only one.
fn without_place(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

/// The fields of an event as they were given, borrowed from its text.
#[derive(Debug, Default)]
pub(crate) struct EventText<'a> {
    stream: Option<Cow<'a, str>>,
    event_type: Option<Cow<'a, str>>,
    data: Option<&'a RawValue>,
    data_base64: Option<Cow<'a, str>>,
    metadata: Option<&'a RawValue>,
    metadata_base64: Option<Cow<'a, str>>,
    content: Option<Cow<'a, str>>,
    tags: Vec<Cow<'a, str>>,
    id: Option<Cow<'a, str>>,
    correlation: Option<Cow<'a, str>>,
    causation: Option<Cow<'a, str>>,
    time: Option<Cow<'a, str>>,
    ts: Option<&'a RawValue>,
    seen: u16,
    unknown: Vec<String>,
}

impl<'a> EventText<'a> {
    /// Names of the fields that no event has.
    pub(crate) fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The same names, taken out.
    pub(crate) fn take_unknown(&mut self) -> Vec<String> {
        std::mem::take(&mut self.unknown)
    }

    /// The event, checked against every limit.
    pub(crate) fn into_event(self) -> Result<NewEvent<'a>, BadEvent> {
        let has_base64 = self.data_base64.is_some() || self.metadata_base64.is_some();
        let event = NewEvent {
            time: self.time()?,
            id: uuid("id", self.id.as_deref())?,
            correlation: uuid("correlation", self.correlation.as_deref())?,
            causation: uuid("causation", self.causation.as_deref())?,
            content: content(self.content.as_deref(), has_base64)?,
            data: bytes(("data", self.data), ("data_base64", self.data_base64))?,
            metadata: bytes(("metadata", self.metadata), ("metadata_base64", self.metadata_base64))?,
            stream: self.stream.ok_or(BadEvent::Missing("stream"))?,
            event_type: self.event_type.ok_or(BadEvent::Missing("type"))?,
            tags: self.tags,
        };
        event.validate()?;
        Ok(event)
    }

    fn time(&self) -> Result<Option<Timestamp>, BadEvent> {
        match (&self.time, self.ts) {
            (Some(_), Some(_)) => Err(BadEvent::Both("time", "ts")),
            (Some(time), None) => Ok(Some(time::parse_rfc3339(time)?)),
            (None, Some(ts)) => Ok(Some(seconds_or_text(ts.get())?)),
            (None, None) => Ok(None),
        }
    }

    /// Takes the value of one field. A second value for it is an error: which one was meant is
    /// anybody's guess.
    fn take<M: MapAccess<'a>>(&mut self, field: Field, map: &mut M) -> Result<(), M::Error> {
        if self.seen & field.bit() != 0 {
            return Err(M::Error::custom(format_args!("the field `{}` is there twice", name_of(field))));
        }
        self.seen |= field.bit();
        match field {
            Field::Stream => self.stream = Some(map.next_value::<Text<'a>>()?.0),
            Field::Type => self.event_type = Some(map.next_value::<Text<'a>>()?.0),
            Field::Data => self.data = Some(map.next_value()?),
            Field::Metadata => self.metadata = Some(map.next_value()?),
            Field::DataBase64 => self.data_base64 = optional(map)?,
            Field::MetadataBase64 => self.metadata_base64 = optional(map)?,
            Field::Content => self.content = optional(map)?,
            Field::Tags => {
                self.tags = map.next_value::<Option<Tags<'a>>>()?.map_or_else(Vec::new, |tags| tags.0);
            }
            Field::Id => self.id = optional(map)?,
            Field::Correlation => self.correlation = optional(map)?,
            Field::Causation => self.causation = optional(map)?,
            Field::Time => self.time = optional(map)?,
            Field::Ts => self.ts = Some(map.next_value::<&RawValue>()?).filter(|ts| ts.get() != "null"),
            Field::Position | Field::Version => {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for EventText<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EventVisitor;
        impl<'de> Visitor<'de> for EventVisitor {
            type Value = EventText<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event: a JSON object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut event = EventText::default();
                while let Some(key) = map.next_key()? {
                    match key {
                        Key::Known(field) => event.take(field, &mut map)?,
                        Key::Unknown(name) => {
                            map.next_value::<IgnoredAny>()?;
                            event.unknown.push(name);
                        }
                    }
                }
                Ok(event)
            }
        }
        deserializer.deserialize_map(EventVisitor)
    }
}

/// A string, or nothing where the value is `null`.
fn optional<'a, M: MapAccess<'a>>(map: &mut M) -> Result<Option<Cow<'a, str>>, M::Error> {
    Ok(map.next_value::<Option<Text<'a>>>()?.map(|text| text.0))
}

/// Names for the message about a field that is there twice.
fn name_of(field: Field) -> &'static str {
    match field {
        Field::Stream => "stream",
        Field::Type => "type",
        Field::Data => "data",
        Field::DataBase64 => "data_base64",
        Field::Metadata => "metadata",
        Field::MetadataBase64 => "metadata_base64",
        Field::Content => "content",
        Field::Tags => "tags",
        Field::Id => "id",
        Field::Correlation => "correlation",
        Field::Causation => "causation",
        Field::Time => "time",
        Field::Ts => "ts",
        Field::Position => "position",
        Field::Version => "version",
    }
}

fn seconds_or_text(ts: &str) -> Result<Timestamp, BadEvent> {
    if !ts.starts_with('"') {
        return Ok(time::parse_seconds(ts)?);
    }
    let Ok(Text(text)) = serde_json::from_str(ts) else {
        return Err(TimeError::NotRfc3339(ts.escape_debug().to_string()).into());
    };
    Ok(time::parse_rfc3339(&text)?)
}

fn uuid(field: &'static str, text: Option<&str>) -> Result<Option<Uuid>, BadEvent> {
    let Some(text) = text else { return Ok(None) };
    match Uuid::try_parse(text) {
        Ok(id) => Ok(Some(id)),
        Err(_) => Err(BadEvent::NotUuid { field, text: text.escape_debug().to_string() }),
    }
}

/// What data and metadata are, as the text says; base64 without a word about it is binary.
fn content(text: Option<&str>, has_base64: bool) -> Result<ContentKind, BadEvent> {
    match text {
        Some("json") => Ok(ContentKind::Json),
        Some("binary") => Ok(ContentKind::Binary),
        Some(other) => Err(BadEvent::Content(other.escape_debug().to_string())),
        None if has_base64 => Ok(ContentKind::Binary),
        None => Ok(ContentKind::Json),
    }
}

/// The bytes of one of two fields, of which at most one may be there.
fn bytes<'a>(
    (json_name, json): (&'static str, Option<&'a RawValue>),
    (base64_name, base64): (&'static str, Option<Cow<'a, str>>),
) -> Result<Cow<'a, [u8]>, BadEvent> {
    match (json, base64) {
        (Some(_), Some(_)) => Err(BadEvent::Both(json_name, base64_name)),
        (Some(json), None) => Ok(Cow::Borrowed(json.get().as_bytes())),
        (None, Some(base64)) => match STANDARD.decode(base64.as_bytes()) {
            Ok(bytes) => Ok(Cow::Owned(bytes)),
            Err(_) => Err(BadEvent::NotBase64(base64_name)),
        },
        (None, None) => Ok(Cow::Borrowed(&[])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Result<NewEvent<'_>, BadEvent> {
        parse_event(text.as_bytes())?.into_event()
    }

    #[test]
    fn an_event_borrows_its_text() {
        let event = event(concat!(
            r#"{"ts":1357020000,"stream":"weather-EWR","type":"WeatherObserved","#,
            r#""tags":["airport:EWR","b"],"data":{ "temp" : 39.020, "temp":1 }}"#
        ))
        .unwrap();
        assert!(matches!(event.stream, Cow::Borrowed("weather-EWR")));
        assert!(matches!(event.data, Cow::Borrowed(br#"{ "temp" : 39.020, "temp":1 }"#)));
        assert_eq!(event.tags, ["airport:EWR", "b"]);
        assert_eq!(event.time, Some(Timestamp::new(1_357_020_000_000_000_000)));
        assert_eq!((event.id, event.content), (None, ContentKind::Json));
    }

    #[test]
    fn every_field_is_read() {
        let id = "01908a5c-3f1e-7cc0-8000-000000000001";
        let text = format!(
            r#"{{"position":17,"stream":"a\u002db","version":3,"id":"{id}","type":"T","time":"1970-01-01T00:00:01Z",
                "tags":["x\"y"],"correlation":"{id}","causation":"{id}","content":"binary",
                "data_base64":"AAEC","metadata_base64":"/w=="}}"#
        );
        let event = event(&text).unwrap();
        assert_eq!((&*event.stream, &*event.tags[0]), ("a-b", "x\"y"));
        assert_eq!((&*event.data, &*event.metadata), (&[0, 1, 2][..], &[255][..]));
        assert_eq!(event.content, ContentKind::Binary);
        assert_eq!(event.time, Some(Timestamp::new(1_000_000_000)));
        let id = Uuid::try_parse(id).unwrap();
        assert_eq!((event.id, event.correlation, event.causation), (Some(id), Some(id), Some(id)));
    }

    #[test]
    fn null_is_data_and_otherwise_nothing() {
        let event = event(
            r#"{"stream":"a","type":"T","data":null,"id":null,"ts":null,"time":null,"tags":null,"correlation":null}"#,
        )
        .unwrap();
        assert_eq!(&*event.data, b"null");
        assert_eq!((event.id, event.time, event.tags.len()), (None, None, 0));
        assert!(matches!(parse_event(br#"{"stream":null,"type":"T"}"#), Err(BadEvent::Json { .. })));
    }

    #[test]
    fn unknown_fields_are_named() {
        let parsed = parse_event(br#"{"stream":"a","x":{"deep":[1]},"type":"T","y":1}"#).unwrap();
        assert_eq!(parsed.unknown(), ["x", "y"]);
    }

    #[test]
    fn bad_events_are_refused() {
        let bad = |text| event(text).unwrap_err();
        assert!(bad(r#"{"stream":"a","type":"T","type":"U"}"#).to_string().contains("`type` is there twice"));
        assert!(bad(r#"{"stream":"a","type":"T","data":1,"data":1}"#).to_string().contains("twice"));
        assert_eq!(bad(r#"{"type":"T"}"#), BadEvent::Missing("stream"));
        assert_eq!(bad(r#"{"stream":"a"}"#), BadEvent::Missing("type"));
        assert_eq!(bad(r#"{"stream":"a","type":"T","ts":1,"time":"x"}"#), BadEvent::Both("time", "ts"));
        assert!(matches!(bad(r#"{"stream":"a","type":"T","data":1,"data_base64":""}"#), BadEvent::Both(..)));
        assert!(matches!(bad(r#"{"stream":"a","type":"T","data_base64":"?"}"#), BadEvent::NotBase64(_)));
        assert!(matches!(bad(r#"{"stream":"a","type":"T","content":"xml"}"#), BadEvent::Content(_)));
        assert!(matches!(bad(r#"{"stream":"a","type":"T","id":"7"}"#), BadEvent::NotUuid { .. }));
        assert!(matches!(bad(r#"{"stream":"a","type":"T","ts":-1}"#), BadEvent::Time(_)));
        assert!(matches!(bad(r#"{"stream":"a","type":"T","ts":[1]}"#), BadEvent::Time(_)));
        assert!(matches!(bad(r#"{"stream":"a\n","type":"T"}"#), BadEvent::Input(_)));
        assert!(matches!(bad(r#"{"stream":"","type":"T"}"#), BadEvent::Input(_)));
        for text in
            ["", "[]", "7", "{", r#"{"stream":"a","type":"T"} x"#, r#"{"stream":"a","type":"T","data":{]}"#]
        {
            assert!(matches!(bad(text), BadEvent::Json { .. }), "{text}");
        }
        assert_eq!(parse_event(b"{\xff}").unwrap_err(), BadEvent::NotUtf8(1));
    }

    #[test]
    fn messages_say_the_column_and_no_line() {
        let message = parse_event(br#"{"stream":7}"#).unwrap_err().to_string();
        assert!(message.contains("(column 11)") && !message.contains("at line"), "{message}");
    }
}
