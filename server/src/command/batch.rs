//! The document of `append --batch`: events and conditions in one piece of JSON.

use super::values::expected_word;
use crate::failure::Failure;
use crate::json::EventText;
use annals::{Append, ExpectedVersion, Version};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, Visitor};
use std::fmt;

/// The whole document.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(borrow)]
    events: Vec<EventText<'a>>,
    #[serde(default)]
    conditions: Vec<ConditionText>,
}

/// One condition: on a stream, or a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionText {
    stream: Option<String>,
    expected: Option<Expected>,
    query: Option<IgnoredAny>,
    after: Option<IgnoredAny>,
}

/// Reads the document. Times that run backwards are raised, as in an import.
pub(super) fn parse(text: &[u8]) -> Result<Append<'_>, Failure> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Failure::Usage(format!("the batch is not UTF-8: {error}")))?;
    let document: Document<'_> = serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("the batch is not valid: {error}")))?;
    let mut append = Append::new().raise_times();
    for (index, event) in document.events.into_iter().enumerate() {
        let wrong = |reason| Failure::Usage(format!("event {index} of the batch (from 0): {reason}"));
        if let Some(name) = event.unknown().first() {
            // An import has lines from elsewhere; a batch is written for this very command.
            return Err(wrong(format!("the field \"{}\" is not part of an event", name.escape_debug())));
        }
        append.events.push(event.into_event().map_err(|reason| wrong(reason.to_string()))?);
    }
    for (index, condition) in document.conditions.into_iter().enumerate() {
        let (stream, expected) = condition.on_stream(index)?;
        append = append.expect(stream, expected);
    }
    Ok(append)
}

impl ConditionText {
    fn on_stream(self, index: usize) -> Result<(String, ExpectedVersion), Failure> {
        if self.query.is_some() || self.after.is_some() {
            return Err(Failure::NotYet("a condition with a query".to_owned()));
        }
        match (self.stream, self.expected) {
            (Some(stream), Some(Expected(expected))) => Ok((stream, expected)),
            _ => Err(Failure::Usage(format!(
                "condition {index} of the batch (from 0) needs `stream` and `expected`"
            ))),
        }
    }
}

/// `"any"`, `"none"`, `"exists"` or a version.
struct Expected(ExpectedVersion);

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ExpectedVisitor;
        impl Visitor<'_> for ExpectedVisitor {
            type Value = Expected;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"any\", \"none\", \"exists\" or a version")
            }

            fn visit_u64<E: Error>(self, version: u64) -> Result<Expected, E> {
                Ok(Expected(ExpectedVersion::Exactly(Version::new(version))))
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Expected, E> {
                let unknown = || E::invalid_value(serde::de::Unexpected::Str(word), &self);
                expected_word(word).map(Expected).ok_or_else(unknown)
            }
        }
        deserializer.deserialize_any(ExpectedVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals::Condition;

    fn parsed(text: &str) -> Result<Append<'_>, Failure> {
        parse(text.as_bytes())
    }

    fn expected_of(condition: &Condition<'_>) -> Option<ExpectedVersion> {
        if let Condition::Stream { expected, .. } = condition { Some(*expected) } else { None }
    }

    #[test]
    fn events_and_conditions_are_read() {
        let text = r#"{
            "conditions": [
                {"stream": "a", "expected": "none"}, {"stream": "b", "expected": 7},
                {"stream": "c", "expected": "any"}, {"stream": "d", "expected": "exists"}
            ],
            "events": [{"stream": "a", "type": "T", "data": {"x" :1}}, {"stream": "b", "type": "U"}]
        }"#;
        let append = parsed(text).unwrap();
        assert!(append.validate().is_ok());
        assert_eq!(append.events.len(), 2);
        assert_eq!(&*append.events[0].data, br#"{"x" :1}"#);
        let expected: Vec<ExpectedVersion> = append.conditions.iter().filter_map(expected_of).collect();
        let exactly = ExpectedVersion::Exactly(Version::new(7));
        assert_eq!(
            expected,
            [ExpectedVersion::NoStream, exactly, ExpectedVersion::Any, ExpectedVersion::Exists]
        );
    }

    #[test]
    fn queries_are_not_there_yet() {
        let text = r#"{"events":[{"stream":"a","type":"T"}],
            "conditions":[{"query":{"items":[{"types":["T"],"tags":["t"]}]},"after":7}]}"#;
        assert!(matches!(parsed(text), Err(Failure::NotYet(_))));
    }

    #[test]
    fn malformed_batches_are_wrong_usage() {
        for text in [
            "",
            "[]",
            "{}",
            r#"{"events":[],"condition":[]}"#,
            r#"{"events":[{"stream":"a"}]}"#,
            r#"{"events":[{"stream":"a","type":"T","dta":1}]}"#,
            r#"{"events":[{"stream":"a","type":"T","ts":-1}]}"#,
            r#"{"events":[],"conditions":[{"stream":"a"}]}"#,
            r#"{"events":[],"conditions":[{"stream":"a","expected":"some"}]}"#,
            r#"{"events":[],"conditions":[{"stream":"a","expected":-1}]}"#,
            r#"{"events":[],"conditions":[{"stream":"a","expected":1.5}]}"#,
            r#"{"events":[],"conditions":[{"stream":"a","expected":"any","versoin":1}]}"#,
        ] {
            assert!(matches!(parsed(text), Err(Failure::Usage(_))), "{text}");
        }
    }
}
