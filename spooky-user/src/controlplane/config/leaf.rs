//! How single values are read: numbers, texts, and values with units, inside their limits. May import: read, problem, source,
//! units.

use std::path::PathBuf;
use std::time::Duration;

use super::problem::Problems;
use super::read::{Limits, Node, Read, Shape};
use super::source::Value;
use super::units::{ByteSize, Percent, UnitError, parse_duration, parse_percent, parse_size};

macro_rules! read_integer {
    ($($type:ty),*) => {$(
        impl Read for $type {
            fn shape() -> Shape {
                Shape::Leaf("a whole number".to_owned())
            }

            fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
                let Value::Integer(number) = node.value else {
                    return node.expected("a whole number", problems);
                };
                let parse = |text: &str| text.parse::<i128>().ok();
                within(node, *number, limits, parse, problems)?;
                match <$type>::try_from(*number) {
                    Ok(number) => Some(number),
                    Err(_) => node.refuse(problems, format!("{number} is out of range (accepted: 0 to {})", <$type>::MAX)),
                }
            }
        }
    )*};
}
read_integer!(u8, u16, u32, u64);

impl Read for bool {
    fn shape() -> Shape {
        Shape::Leaf("true or false".to_owned())
    }

    fn read(node: Node<'_>, _limits: Limits, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Bool(value) => Some(*value),
            _ => node.expected("true or false", problems),
        }
    }
}

impl Read for String {
    fn shape() -> Shape {
        Shape::Leaf("a text".to_owned())
    }

    fn read(node: Node<'_>, _limits: Limits, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Text(text) if text.is_empty() => node.refuse(problems, "is empty"),
            Value::Text(text) => Some(text.clone()),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) => {
                let shown = node.value.shown();
                node.refuse(problems, format!("{shown} is not a text; write \"{shown}\""))
            }
            _ => node.expected("a text", problems),
        }
    }
}

impl Read for PathBuf {
    fn shape() -> Shape {
        Shape::Leaf("a file name".to_owned())
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        String::read(node, limits, problems).map(PathBuf::from)
    }
}

impl Read for Duration {
    fn shape() -> Shape {
        Shape::Leaf("a duration such as 30s, 500ms or 1m30s".to_owned())
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        let kind = Unit {
            name: "a duration",
            units: "ms, s, m, h, d",
            example: |number| format!("{number}s"),
        };
        with_unit(node, limits, &kind, parse_duration, problems)
    }
}

impl Read for ByteSize {
    fn shape() -> Shape {
        Shape::Leaf("a size such as 64KiB or 1MiB".to_owned())
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        let kind = Unit {
            name: "a size",
            units: "B, KiB, MiB, GiB",
            example: |number| ByteSize(number.parse().unwrap_or(1024)).to_string(),
        };
        with_unit(node, limits, &kind, parse_size, problems)
    }
}

impl Read for Percent {
    fn shape() -> Shape {
        Shape::Leaf("a percentage such as 15%".to_owned())
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        let kind =
            Unit { name: "a percentage", units: "%", example: |number| format!("{number}%") };
        with_unit(node, limits, &kind, parse_percent, problems)
    }
}

struct Unit {
    name: &'static str,
    units: &'static str,
    /// What somebody who wrote a number alone may have meant.
    example: fn(&str) -> String,
}

fn with_unit<T: Copy + PartialOrd>(
    node: Node<'_>,
    limits: Limits,
    unit: &Unit,
    parse: fn(&str) -> Result<T, UnitError>,
    problems: &mut Problems,
) -> Option<T> {
    let Unit { name, units, .. } = unit;
    let accepted = accepted(limits);
    let shown = node.value.shown();
    let parsed = match node.value {
        Value::Text(text) => parse(text),
        Value::Integer(_) => Err(UnitError::NoUnit),
        Value::Float(_) => Err(UnitError::Fraction),
        _ => Err(UnitError::Malformed),
    };
    let message = match parsed {
        Ok(value) => return within(node, value, limits, |text| parse(text).ok(), problems),
        Err(UnitError::NoUnit) => {
            let number = shown.trim_matches('"');
            let example = (unit.example)(number);
            format!("{number} has no unit; write {name} such as {example}{accepted}")
        }
        Err(UnitError::UnknownUnit) => {
            format!("{shown} has an unknown unit; units are {units}, without a space{accepted}")
        }
        Err(UnitError::Fraction) => {
            format!("{shown} has a fraction; write a whole number of a smaller unit{accepted}")
        }
        Err(UnitError::TooLarge) => format!("{shown} is too large{accepted}"),
        Err(UnitError::Malformed) => {
            format!("{shown} is not {name}; write a number and a unit ({units}){accepted}")
        }
    };
    node.refuse(problems, message)
}

fn within<T: Copy + PartialOrd>(
    node: Node<'_>,
    value: T,
    limits: Limits,
    parse: impl Fn(&str) -> Option<T>,
    problems: &mut Problems,
) -> Option<T> {
    let inside = limits.is_none_or(|(min, max)| {
        parse(min).is_none_or(|min| value >= min) && parse(max).is_none_or(|max| value <= max)
    });
    if inside {
        return Some(value);
    }
    let shown = node.value.shown();
    node.refuse(
        problems,
        format!("{} is out of range{}", shown.trim_matches('"'), accepted(limits)),
    )
}

fn accepted(limits: Limits) -> String {
    limits.map_or(String::new(), |(min, max)| format!(" (accepted: {min} to {max})"))
}
