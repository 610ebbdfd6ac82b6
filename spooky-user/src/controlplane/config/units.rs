//! Values with units as people write them: `30s`, `64KiB`, `15%`. Imports nothing of the crate.

use std::fmt;
use std::time::Duration;

/// A number of octets, written with a unit: `64KiB`, `1MiB`, `512B`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A share, written `15%`; whole numbers, 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(pub u8);

/// Why a text is not a value with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitError {
    /// Digits alone.
    NoUnit,
    /// A unit nobody knows, or one of another kind.
    UnknownUnit,
    /// Not a number with a unit at all.
    Malformed,
    /// A fraction, such as `1.5s`.
    Fraction,
    /// Above what 64 bits hold.
    TooLarge,
}

const DURATION_UNITS: [(&str, u64); 5] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads `5ms`, `30s`, `1m30s`: numbers with units, the larger unit first, nothing between them.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text;
    let mut milliseconds = 0_u64;
    let mut unit_before = u64::MAX;
    while !rest.is_empty() || unit_before == u64::MAX {
        let (number, unit, after) = number_and_unit(rest)?;
        let factor = factor(&DURATION_UNITS, unit)?;
        if factor >= unit_before {
            return Err(UnitError::Malformed);
        }
        milliseconds = number
            .checked_mul(factor)
            .and_then(|part| milliseconds.checked_add(part))
            .ok_or(UnitError::TooLarge)?;
        unit_before = factor;
        rest = after;
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Reads `64KiB`: one number, one unit.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_size(text: &str) -> Result<ByteSize, UnitError> {
    let (number, unit, rest) = number_and_unit(text)?;
    if !rest.is_empty() {
        return Err(UnitError::Malformed);
    }
    let factor = factor(&SIZE_UNITS, unit)?;
    number.checked_mul(factor).map(ByteSize).ok_or(UnitError::TooLarge)
}

/// Reads `15%`.
///
/// # Errors
/// See [`UnitError`].
pub fn parse_percent(text: &str) -> Result<Percent, UnitError> {
    match number_and_unit(text)? {
        (number, "%", "") => match u8::try_from(number) {
            Ok(number @ 0..=100) => Ok(Percent(number)),
            _ => Err(UnitError::TooLarge),
        },
        _ => Err(UnitError::UnknownUnit),
    }
}

/// `30s`, `1m30s`: what [`parse_duration`] reads back.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in DURATION_UNITS.iter().rev() {
        if rest >= *factor {
            text.push_str(&format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

fn number_and_unit(text: &str) -> Result<(u64, &str, &str), UnitError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Malformed);
    }
    if rest.starts_with(['.', ',']) {
        return Err(UnitError::Fraction);
    }
    let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit);
    if unit.is_empty() {
        return Err(UnitError::NoUnit);
    }
    Ok((number.parse().map_err(|_too_many_digits| UnitError::TooLarge)?, unit, rest))
}

fn factor(units: &[(&str, u64)], unit: &str) -> Result<u64, UnitError> {
    let known = units.iter().find(|(name, _)| *name == unit);
    known.map(|(_, factor)| *factor).ok_or(UnitError::UnknownUnit)
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: &u64| self.0 >= *factor && self.0.is_multiple_of(*factor);
        let unit = SIZE_UNITS.iter().rev().find(|(_, factor)| fits(factor));
        let (name, factor) = unit.unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("5ms", Ok(5)),
            ("30s", Ok(30_000)),
            ("1m30s", Ok(90_000)),
            ("1d1h1m1s1ms", Ok(90_061_001)),
            ("0s", Ok(0)),
            ("30", Err(UnitError::NoUnit)),
            ("1m30", Err(UnitError::NoUnit)),
            ("1.5s", Err(UnitError::Fraction)),
            ("30sec", Err(UnitError::UnknownUnit)),
            ("30 s", Err(UnitError::UnknownUnit)),
            ("30S", Err(UnitError::UnknownUnit)),
            ("64KiB", Err(UnitError::UnknownUnit)),
            ("1s1m", Err(UnitError::Malformed)),
            ("1s1s", Err(UnitError::Malformed)),
            ("-1s", Err(UnitError::Malformed)),
            ("", Err(UnitError::Malformed)),
            ("s", Err(UnitError::Malformed)),
            ("99999999999999999999s", Err(UnitError::TooLarge)),
            ("999999999999999999d", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_duration(text), wanted.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_and_percents() {
        for (text, wanted) in [
            ("64KiB", Ok(64 << 10)),
            ("0B", Ok(0)),
            ("4GiB", Ok(4 << 30)),
            ("64", Err(UnitError::NoUnit)),
            ("64KB", Err(UnitError::UnknownUnit)),
            ("1KiB1B", Err(UnitError::Malformed)),
            ("99999999999GiB", Err(UnitError::TooLarge)),
        ] {
            assert_eq!(parse_size(text), wanted.map(ByteSize), "{text}");
        }
        assert_eq!(parse_percent("15%"), Ok(Percent(15)));
        assert_eq!(parse_percent("101%"), Err(UnitError::TooLarge));
        assert_eq!(parse_percent("15"), Err(UnitError::NoUnit));
        assert_eq!(parse_percent("15s"), Err(UnitError::UnknownUnit));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(milliseconds in 0_u64..1 << 40, size in 0_u64..1 << 50) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            prop_assert_eq!(parse_size(&ByteSize(size).to_string()), Ok(ByteSize(size)));
        }

        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = (parse_duration(&text), parse_size(&text), parse_percent(&text));
        }
    }
}
