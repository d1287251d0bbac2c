//! Times as text and back: RFC 3339, and decimal seconds since 1970, both exact to the nanosecond.

use annals::Timestamp;
use jiff::fmt::StdIoWrite;
use jiff::fmt::temporal::DateTimePrinter;
use std::io::{self, Write};

/// Digits of a second that a time keeps; further ones are cut off.
const FRACTION_DIGITS: usize = 9;
/// Digits of the greatest time in nanoseconds. Text with more whole digits is out of range.
const NANOSECOND_DIGITS_MAX: usize = 20;

/// Prints a time in RFC 3339, in UTC, with all nine digits of the fraction.
const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));

/// Why text is not a time that an event can have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum TimeError {
    /// Before 1970.
    #[error("the time {0} is before 1970; an event's time cannot be")]
    Negative(String),
    /// Beyond what 64 bits of nanoseconds hold.
    #[error("the time {0} is beyond the year 2554; seconds since 1970 are expected, not milliseconds")]
    TooLate(String),
    /// Not RFC 3339.
    #[error("\"{0}\" is not a time; write it as in 2026-11-22T01:00:00Z (RFC 3339)")]
    NotRfc3339(String),
    /// Not a JSON number.
    #[error("{0} is not a number of seconds")]
    NotSeconds(String),
}

/// Reads RFC 3339, with any offset. Digits of a second beyond the ninth are cut off.
pub(crate) fn parse_rfc3339(text: &str) -> Result<Timestamp, TimeError> {
    let time: jiff::Timestamp =
        cut_fraction(text).parse().map_err(|_| TimeError::NotRfc3339(text.escape_debug().to_string()))?;
    match u64::try_from(time.as_nanosecond()) {
        Ok(nanoseconds) => Ok(Timestamp::new(nanoseconds)),
        Err(_) if time.as_nanosecond() < 0 => Err(TimeError::Negative(text.to_owned())),
        Err(_) => Err(TimeError::TooLate(text.to_owned())),
    }
}

/// The text without those digits of its fraction that are beyond the ninth.
fn cut_fraction(text: &str) -> std::borrow::Cow<'_, str> {
    let Some(point) = text.find('.') else { return text.into() };
    let digits = text[point + 1..].bytes().take_while(u8::is_ascii_digit).count();
    if digits <= FRACTION_DIGITS {
        return text.into();
    }
    let (kept, rest) = (&text[..=point + FRACTION_DIGITS], &text[point + 1 + digits..]);
    format!("{kept}{rest}").into()
}

/// Reads a JSON number of seconds since 1970 from its text, in decimal arithmetic: a binary fraction
/// would be off by hundreds of nanoseconds.
pub(crate) fn parse_seconds(text: &str) -> Result<Timestamp, TimeError> {
    let malformed = || TimeError::NotSeconds(text.to_owned());
    let (negative, magnitude) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match magnitude.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent).ok_or_else(malformed)?),
        None => (magnitude, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if whole.is_empty() || !digits().all(|digit| digit.is_ascii_digit()) {
        return Err(malformed());
    }
    if digits().all(|digit| digit == b'0') {
        return Ok(Timestamp::ZERO);
    }
    if negative {
        return Err(TimeError::Negative(text.to_owned()));
    }
    // How many of the digits, continued by zeros, are left of the point when counting nanoseconds.
    let places = exponent + i64::try_from(whole.len() + FRACTION_DIGITS).map_err(|_| malformed())?;
    nanoseconds(digits(), places).map(Timestamp::new).ok_or_else(|| TimeError::TooLate(text.to_owned()))
}

/// An exponent beyond any use is as good as the greatest: the number is 0 or out of range anyway.
fn parse_exponent(text: &str) -> Option<i64> {
    const EXPONENT_MAX: i64 = 1 << 40;
    let (sign, digits) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some(sign * digits.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX))
}

/// The number that the first `places` digits make, zeros appended where there are fewer.
fn nanoseconds(digits: impl Iterator<Item = u8>, places: i64) -> Option<u64> {
    let Ok(mut places) = usize::try_from(places) else { return Some(0) };
    let mut sum = 0_u64;
    for digit in digits {
        if places == 0 {
            return Some(sum);
        }
        sum = sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        places -= 1;
    }
    if sum == 0 {
        return Some(0);
    }
    if places > NANOSECOND_DIGITS_MAX {
        return None;
    }
    (0..places).try_fold(sum, |sum, _| sum.checked_mul(10))
}

/// Writes a time as RFC 3339 in UTC with nine digits of the second.
pub(crate) fn write_rfc3339(out: &mut impl Write, time: Timestamp) -> io::Result<()> {
    /// Room for a time with nine digits of the second, and some.
    const TEXT_BYTES: usize = 40;
    // Every 64-bit count of nanoseconds is a time before the year 2555, far within range.
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.get())).map_err(io::Error::other)?;
    // Not straight to `out`: the printer would hide what sort of error its writer had.
    let mut text = [0; TEXT_BYTES];
    let mut rest = &mut text[..];
    PRINTER.print_timestamp(&time, StdIoWrite(&mut rest)).map_err(io::Error::other)?;
    let len = TEXT_BYTES - rest.len();
    out.write_all(&text[..len])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(nanoseconds: u64) -> String {
        let mut out = Vec::new();
        write_rfc3339(&mut out, Timestamp::new(nanoseconds)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_are_exact() {
        let seconds = |text| parse_seconds(text).map(Timestamp::get);
        assert_eq!(seconds("1357020000"), Ok(1_357_020_000_000_000_000));
        assert_eq!(seconds("1357020000.1"), Ok(1_357_020_000_100_000_000));
        assert_eq!(seconds("1357020000.123456789"), Ok(1_357_020_000_123_456_789));
        assert_eq!(seconds("1357020000.1234567899999"), Ok(1_357_020_000_123_456_789));
        assert_eq!(seconds("1.35702e9"), Ok(1_357_020_000_000_000_000));
        assert_eq!(seconds("1357020000000E-3"), Ok(1_357_020_000_000_000_000));
        assert_eq!(seconds("0.000000001"), Ok(1));
        assert_eq!(seconds("1e-10"), Ok(0));
        assert_eq!(seconds("1e-99999999999999999999"), Ok(0));
        assert_eq!(seconds("-0.0"), Ok(0));
        assert_eq!(seconds("0e999"), Ok(0));
        assert_eq!(seconds("18446744073.709551615"), Ok(u64::MAX));
    }

    #[test]
    fn seconds_out_of_range_are_refused() {
        assert!(matches!(parse_seconds("-1"), Err(TimeError::Negative(_))));
        for late in ["18446744073.709551616", "1357020000000", "1e99", "1e99999999999999999999"] {
            assert!(matches!(parse_seconds(late), Err(TimeError::TooLate(_))), "{late}");
        }
        for text in ["", "-", "1e", "1x", ".5", "NaN", "0x10", "1e+"] {
            assert!(matches!(parse_seconds(text), Err(TimeError::NotSeconds(_))), "{text}");
        }
    }

    #[test]
    fn rfc3339_is_read_with_any_offset() {
        let time = |text| parse_rfc3339(text).map(Timestamp::get);
        assert_eq!(time("1970-01-01T00:00:00.000000001Z"), Ok(1));
        assert_eq!(time("2013-01-01T06:00:00Z"), Ok(1_357_020_000_000_000_000));
        assert_eq!(time("2013-01-01T01:00:00-05:00"), Ok(1_357_020_000_000_000_000));
        assert_eq!(time("2013-01-01T06:00:00.1234567891234Z"), Ok(1_357_020_000_123_456_789));
        assert!(matches!(time("1969-12-31T23:59:59Z"), Err(TimeError::Negative(_))));
        assert!(matches!(time("2600-01-01T00:00:00Z"), Err(TimeError::TooLate(_))));
        for text in ["", "yesterday", "2013-01-01", "2013-01-01T06:00:00", "2013-13-01T06:00:00Z"] {
            assert!(matches!(time(text), Err(TimeError::NotRfc3339(_))), "{text}");
        }
    }

    #[test]
    fn printed_times_are_read_back() {
        assert_eq!(printed(1_357_020_000_007_123_456), "2013-01-01T06:00:00.007123456Z");
        assert_eq!(printed(0), "1970-01-01T00:00:00.000000000Z");
        for nanoseconds in [0, 1, 999_999_999, 1_000_000_000, 1_357_020_000_007_123_456, u64::MAX] {
            assert_eq!(parse_rfc3339(&printed(nanoseconds)).map(Timestamp::get), Ok(nanoseconds));
        }
    }
}
