//! Values of options that are more than text or a number.

use crate::time;
use annals::{DeliveryOrder, DiskChoice, ExpectedVersion, Timestamp, Version};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How the log is written, by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DiskName {
    /// The first of the others that works where the store is
    Auto,
    /// io_uring, several durable writes in flight
    Ring,
    /// Direct, durable writes, one at a time
    Direct,
    /// Durable writes through the page cache, one at a time
    Buffered,
}

impl DiskName {
    /// The same, as the store's settings have it.
    pub(crate) fn choice(self) -> DiskChoice {
        match self {
            Self::Auto => DiskChoice::Auto,
            Self::Ring => DiskChoice::Ring,
            Self::Direct => DiskChoice::Direct,
            Self::Buffered => DiskChoice::Buffered,
        }
    }
}

/// How much of what happens is written to standard error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// Nothing
    Off,
    /// What went wrong, and needs somebody
    Error,
    /// What was refused or is suspicious, too
    Warn,
    /// What the server and its stores begin and end, too
    Info,
    /// Each connection, too
    Debug,
}

impl LogLevel {
    /// `None`: nothing is written.
    pub(crate) fn filter(self) -> Option<tracing::Level> {
        match self {
            Self::Off => None,
            Self::Error => Some(tracing::Level::ERROR),
            Self::Warn => Some(tracing::Level::WARN),
            Self::Info => Some(tracing::Level::INFO),
            Self::Debug => Some(tracing::Level::DEBUG),
        }
    }
}

/// One end of a read, as given: what a number counts depends on the selection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A position or a version.
    Number(u64),
    /// A time.
    Time(Timestamp),
}

/// Where following begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// With the first event.
    First,
    /// With the next event that is appended.
    Next,
    /// With this position or version.
    Number(u64),
}

/// Where a subscription begins again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ResetTo {
    /// At the start or end.
    Start(Start),
    /// At a position or time.
    Place(Place),
}

/// What an event of a subscription waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum OrderName {
    /// For the earlier ones of its stream.
    Stream,
    /// For all earlier ones.
    Total,
    /// For none.
    None,
}

impl OrderName {
    /// The order of that name.
    pub(crate) fn order(self) -> DeliveryOrder {
        match self {
            Self::Stream => DeliveryOrder::ByStream,
            Self::Total => DeliveryOrder::Total,
            Self::None => DeliveryOrder::Unordered,
        }
    }

    /// The name of that order.
    pub(crate) fn of(order: DeliveryOrder) -> &'static str {
        match order {
            DeliveryOrder::ByStream => "stream",
            DeliveryOrder::Total => "total",
            DeliveryOrder::Unordered => "none",
        }
    }
}

/// Reads where a subscription begins again.
pub(crate) fn parse_reset(text: &str) -> Result<ResetTo, String> {
    match text {
        "start" | "end" => parse_start(text).map(ResetTo::Start),
        _ => parse_place(text).map(ResetTo::Place),
    }
}

/// Reads a bound of a read.
pub(crate) fn parse_place(text: &str) -> Result<Place, String> {
    if is_number(text) {
        return parse_number(text).map(Place::Number);
    }
    time::parse_rfc3339(text).map(Place::Time).map_err(|error| error.to_string())
}

/// Reads where following begins.
pub(crate) fn parse_start(text: &str) -> Result<Start, String> {
    match text {
        "start" => Ok(Start::First),
        "end" => Ok(Start::Next),
        _ if is_number(text) => parse_number(text).map(Start::Number),
        _ => Err("it must be start, end or a number".to_owned()),
    }
}

/// Reads what is expected of a stream.
pub(crate) fn parse_expected(text: &str) -> Result<ExpectedVersion, String> {
    match text {
        _ if is_number(text) => {
            parse_number(text).map(|number| ExpectedVersion::Exactly(Version::new(number)))
        }
        _ => expected_word(text).ok_or_else(|| "it must be any, none, exists or a version".to_owned()),
    }
}

/// What a word says is expected of a stream.
pub(crate) fn expected_word(text: &str) -> Option<ExpectedVersion> {
    match text {
        "any" => Some(ExpectedVersion::Any),
        "none" => Some(ExpectedVersion::NoStream),
        "exists" => Some(ExpectedVersion::Exists),
        _ => None,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("it is greater than {}", u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_a_number_or_a_time() {
        assert_eq!(parse_place("17"), Ok(Place::Number(17)));
        assert_eq!(parse_place("1970-01-01T00:00:01Z"), Ok(Place::Time(Timestamp::new(1_000_000_000))));
        for text in ["", "-1", "+1", "1.5", "tomorrow", "99999999999999999999"] {
            assert!(parse_place(text).is_err(), "{text}");
        }
    }

    #[test]
    fn expectations_and_starts_are_words_or_numbers() {
        assert_eq!(parse_expected("none"), Ok(ExpectedVersion::NoStream));
        assert_eq!(parse_expected("7"), Ok(ExpectedVersion::Exactly(Version::new(7))));
        assert!(parse_expected("some").is_err() && parse_expected("-1").is_err());
        assert_eq!((parse_start("start"), parse_start("end")), (Ok(Start::First), Ok(Start::Next)));
        assert_eq!(parse_start("0"), Ok(Start::Number(0)));
        assert!(parse_start("middle").is_err());
    }
}
