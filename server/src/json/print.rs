//! A stored event as one line of JSON, which `import` reads back to the same event.

use crate::time;
use annals::{ContentKind, Record, Uuid};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::IgnoredAny;
use std::io::{self, Write};

/// Writes an event as one line of JSON.
pub(crate) fn write_event(out: &mut impl Write, record: &Record) -> io::Result<()> {
    write_event_object(out, record)?;
    out.write_all(b"\n")
}

/// Writes an event as a JSON object, which may be part of another one.
pub(crate) fn write_event_object(out: &mut impl Write, record: &Record) -> io::Result<()> {
    write!(out, "{{\"position\":{},\"stream\":", record.position())?;
    write_text(out, record.stream())?;
    write!(out, ",\"version\":{},\"id\":", record.version())?;
    write_uuid(out, record.id())?;
    out.write_all(b",\"type\":")?;
    write_text(out, record.event_type())?;
    out.write_all(b",\"time\":\"")?;
    time::write_rfc3339(out, record.time())?;
    out.write_all(b"\"")?;
    write_tags(out, record.tags())?;
    if let Some(correlation) = record.correlation() {
        out.write_all(b",\"correlation\":")?;
        write_uuid(out, correlation)?;
    }
    if let Some(causation) = record.causation() {
        out.write_all(b",\"causation\":")?;
        write_uuid(out, causation)?;
    }
    write_contents(out, record.content(), record.data(), record.metadata())?;
    out.write_all(b"}")
}

/// Whether these bytes can stand in a line of JSON as they are, and are read back as they are.
///
/// Whitespace around a value belongs to the line and not to the value, so it would be lost.
pub(crate) fn is_plain_json(bytes: &[u8]) -> bool {
    let is_space = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    if is_space(bytes.first())
        || is_space(bytes.last())
        || bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r'))
    {
        return false;
    }
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn write_contents(
    out: &mut impl Write,
    content: ContentKind,
    data: &[u8],
    metadata: &[u8],
) -> io::Result<()> {
    let mut as_base64 = content == ContentKind::Binary;
    for (name, bytes) in [("data", data), ("metadata", metadata)] {
        if bytes.is_empty() {
            continue;
        }
        if content == ContentKind::Json && is_plain_json(bytes) {
            write!(out, ",\"{name}\":")?;
            out.write_all(bytes)?;
        } else {
            as_base64 = true;
            write!(out, ",\"{name}_base64\":\"{}\"", STANDARD.encode(bytes))?;
        }
    }
    match (as_base64, content) {
        (false, _) => Ok(()),
        (true, ContentKind::Json) => out.write_all(b",\"content\":\"json\""),
        (true, ContentKind::Binary) => out.write_all(b",\"content\":\"binary\""),
    }
}

fn write_tags<'a>(out: &mut impl Write, tags: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mut before: &[u8] = b",\"tags\":[";
    let mut any = false;
    for tag in tags {
        out.write_all(before)?;
        write_text(out, tag)?;
        before = b",";
        any = true;
    }
    if any { out.write_all(b"]") } else { Ok(()) }
}

/// Names, types and tags have no control characters, so nearly none of them has anything to escape.
fn write_text(out: &mut impl Write, text: &str) -> io::Result<()> {
    if text.bytes().any(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        return Ok(serde_json::to_writer(out, text)?);
    }
    out.write_all(b"\"")?;
    out.write_all(text.as_bytes())?;
    out.write_all(b"\"")
}

fn write_uuid(out: &mut impl Write, id: Uuid) -> io::Result<()> {
    const HYPHENATED_LEN: usize = 36;
    let mut quoted = [b'"'; HYPHENATED_LEN + 2];
    id.hyphenated().encode_lower(&mut quoted[1..=HYPHENATED_LEN]);
    out.write_all(&quoted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::parse_event;
    use annals::{NewEvent, Position, Timestamp, Version};
    use annals_types::RecordParts;
    use std::ops::Range;

    /// The record that an event becomes.
    fn record(event: &NewEvent<'_>) -> Record {
        fn put(buffer: &mut Vec<u8>, bytes: &[u8]) -> Range<u32> {
            let start = u32::try_from(buffer.len()).unwrap();
            buffer.extend_from_slice(bytes);
            start..u32::try_from(buffer.len()).unwrap()
        }
        let mut buffer = Vec::new();
        let mut tags = Vec::new();
        for tag in &event.tags {
            tags.extend_from_slice(&u16::try_from(tag.len()).unwrap().to_le_bytes());
            tags.extend_from_slice(tag.as_bytes());
        }
        let parts = RecordParts {
            position: Position::new(17),
            version: Version::new(3),
            time: event.time.unwrap_or_default(),
            id: event.id.unwrap_or_default(),
            correlation: event.correlation,
            causation: event.causation,
            content: event.content,
            stream: put(&mut buffer, event.stream.as_bytes()),
            event_type: put(&mut buffer, event.event_type.as_bytes()),
            tags: put(&mut buffer, &tags),
            data: put(&mut buffer, &event.data),
            metadata: put(&mut buffer, &event.metadata),
        };
        Record::new(buffer.into(), parts)
    }

    fn printed(event: &NewEvent<'_>) -> String {
        let mut out = Vec::new();
        write_event(&mut out, &record(event)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_event_prints_as_the_contract_shows_it() {
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001);
        let event = NewEvent::new("order-42", "OrderShipped")
            .id(id)
            .time(Timestamp::new(1_357_020_000_007_123_456))
            .tag("customer:7")
            .correlation(id)
            .json(r#"{"a": 1}"#);
        assert_eq!(
            printed(&event),
            concat!(
                r#"{"position":17,"stream":"order-42","version":3,"id":"01900000-0000-7000-8000-000000000001","#,
                r#""type":"OrderShipped","time":"2013-01-01T06:00:00.007123456Z","tags":["customer:7"],"#,
                r#""correlation":"01900000-0000-7000-8000-000000000001","data":{"a": 1}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let base = || NewEvent::new("s\"\\é", "T\u{2028}").id(Uuid::from_u128(7)).time(Timestamp::new(1));
        let mut binary_without_data = base();
        binary_without_data.content = ContentKind::Binary;
        let events = [
            base(),
            base().json("null"),
            base().json(" 1"),
            base().json("{\n}"),
            base().json("{\r}"),
            base().json("not json"),
            base().json(r#""\ud800""#).metadata(&br#"{"m":1}"#[..]),
            base().json("1").metadata(&b"\xff"[..]),
            base().binary(&b"1"[..]).metadata(&b"2"[..]),
            base().tag("a").tag("b\"c").causation(Uuid::from_u128(9)),
            binary_without_data,
        ];
        for event in events {
            let line = printed(&event);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let read = parse_event(line.trim_end_matches('\n').as_bytes()).unwrap();
            assert!(read.unknown().is_empty(), "{line}");
            assert_eq!(read.into_event().unwrap(), event, "{line}");
        }
    }

    #[test]
    fn only_json_on_one_line_is_plain() {
        for plain in ["1", "\"a\"", "{\"a\":[1,2.50e1,null]}", "{ }", "\"\u{2028}\""] {
            assert!(is_plain_json(plain.as_bytes()), "{plain}");
        }
        for other in ["", " 1", "1 ", "{\n}", "{", "1 2", "nul", "\"\u{1}\"", "01", "\u{feff}1"] {
            assert!(!is_plain_json(other.as_bytes()), "{other}");
        }
        assert!(!is_plain_json(b"\"\xff\""));
    }
}
