//! The document of `append --batch`: events and conditions in one piece of JSON.

use super::values::expected_word;
use crate::failure::Failure;
use crate::json::EventText;
use annals::{Append, Condition, ExpectedVersion, Position, Query, QueryItem, Uuid, Version};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
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

/// One condition: on a stream, or that nothing matches a query.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionText {
    stream: Option<String>,
    expected: Option<Expected>,
    query: Option<QueryText>,
    after: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryText {
    items: Vec<ItemText>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ItemText {
    #[serde(default)]
    types: Vec<String>,
    #[serde(default)]
    tags: Vec<String>,
    stream: Option<String>,
    category: Option<String>,
    #[serde(default, deserialize_with = "uuid")]
    correlation: Option<Uuid>,
    #[serde(default, deserialize_with = "uuid")]
    causation: Option<Uuid>,
}

fn uuid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Uuid>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Uuid::parse_str(&text).map(Some).map_err(D::Error::custom)
}

/// Reads the document. Times that run backwards are raised, as in an import.
pub(super) fn parse(text: &[u8]) -> Result<Append<'_>, Failure> {
    let text = std::str::from_utf8(text)
        .map_err(|error| Failure::Usage(format!("the batch is not UTF-8: {error}")))?;
    let document: Document<'_> = serde_json::from_str(text)
        .map_err(|error| Failure::Usage(format!("the batch is not valid: {error}")))?;
    let mut append: Append<'_> = Append::new().raise_times();
    for (index, event) in document.events.into_iter().enumerate() {
        let wrong = |reason| Failure::Usage(format!("event {index} of the batch (from 0): {reason}"));
        if let Some(name) = event.unknown().first() {
            // An import has lines from elsewhere; a batch is written for this very command.
            return Err(wrong(format!("the field \"{}\" is not part of an event", name.escape_debug())));
        }
        append.events.push(event.into_event().map_err(|reason| wrong(reason.to_string()))?);
    }
    for (index, condition) in document.conditions.into_iter().enumerate() {
        append.conditions.push(condition.into_condition(index)?);
    }
    Ok(append)
}

impl ConditionText {
    fn into_condition(self, index: usize) -> Result<Condition<'static>, Failure> {
        match (self.stream, self.expected, self.query, self.after) {
            (Some(stream), Some(Expected(expected)), None, None) => {
                Ok(Condition::Stream { stream: stream.into(), expected })
            }
            (None, None, Some(query), after) => {
                let items = query.items.into_iter().map(ItemText::into_item).collect();
                Ok(Condition::NoMatch { query: Query { items }, after: after.map(Position::new) })
            }
            _ => Err(Failure::Usage(format!(
                "condition {index} of the batch (from 0) needs `stream` and `expected`, or `query` and, unless there must \
                 be no such event at all, `after`"
            ))),
        }
    }
}

impl ItemText {
    fn into_item(self) -> QueryItem<'static> {
        let owned = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
        QueryItem {
            types: owned(self.types),
            tags: owned(self.tags),
            stream: self.stream.map(Into::into),
            category: self.category.map(Into::into),
            correlation: self.correlation,
            causation: self.causation,
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
    fn queries_are_read() {
        let text = r#"{"events":[{"stream":"a","type":"T"}],
            "conditions":[{"query":{"items":[{"types":["T","U"],"tags":["t"]},{"category":"c"}]},"after":7},
            {"query":{"items":[]}}]}"#;
        let append = parsed(text).unwrap();
        let item = QueryItem::new().of_type("T").of_type("U").tag("t");
        let expected = Append::new()
            .fail_if_matches(Query::from(item).or(QueryItem::new().category("c")), Some(Position::new(7)))
            .fail_if_matches(Query::all(), None);
        assert_eq!(append.conditions, expected.conditions);
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
            r#"{"events":[],"conditions":[{"query":{"items":[{"type":"T"}]}}]}"#,
            r#"{"events":[],"conditions":[{"query":{},"after":1}]}"#,
            r#"{"events":[],"conditions":[{"query":{"items":[]},"after":-1}]}"#,
            r#"{"events":[],"conditions":[{"query":{"items":[]},"stream":"a","expected":"any"}]}"#,
            r#"{"events":[],"conditions":[{"after":1}]}"#,
        ] {
            assert!(matches!(parsed(text), Err(Failure::Usage(_))), "{text}");
        }
    }
}
