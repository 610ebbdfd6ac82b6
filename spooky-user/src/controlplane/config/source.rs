//! The file as a tree of values and the place of each: `serde_yaml` says what the values are, `saphyr-parser` where they
//! stand and which keys are given twice. May import: problem.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use saphyr_parser::{Event, Parser, ScanError, Span};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::problem::{Place, Problems};

/// One value of a YAML file. Unlike `serde_yaml::Value` it keeps keys that are given twice, so that reading can go on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// Where each YAML path begins.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: HashMap<String, Place>,
    /// Octets of all paths together.
    size: usize,
}

/// Mappings and lists in each other; the language needs 7.
const DEPTH_MAX: usize = 32;

/// Beyond so many octets of paths, values have the place of what they stand in.
const PATHS_SIZE_MAX: usize = 64 << 20;

/// Reads the text. Syntax errors end reading, for no value after them can be trusted; a key given twice does not.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<(Value, Places)> {
    let places = match locate(text, problems) {
        Ok(places) => places,
        Err(error) => {
            let place = Place { line: error.marker().line(), column: error.marker().col() + 1 };
            problems.add(place, "", format!("cannot be read as YAML: {}", error.info()));
            return None;
        }
    };
    match serde_yaml::from_str(text) {
        Ok(value) => Some((value, places)),
        Err(error) => {
            let place = error.location().map_or(Place::default(), |location| Place {
                line: location.line(),
                column: location.column(),
            });
            problems.add(place, "", format!("cannot be read as YAML: {error}"));
            None
        }
    }
}

// === impl Places ===

impl Places {
    /// The place of the path, or of what it would stand in.
    pub(super) fn of(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return Place { line: 1, column: 1 },
            }
        }
    }
}

pub(super) fn child_path(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// What is open while events are read.
enum Open {
    List {
        path: String,
        next: usize,
    },
    /// `key` is set between a key and its value.
    Map {
        path: String,
        key: Option<(String, Place)>,
    },
}

fn locate(text: &str, problems: &mut Problems) -> Result<Places, ScanError> {
    let mut places = Places::default();
    let mut stack: Vec<Open> = Vec::new();
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event?;
        let refused = match &event {
            Event::Scalar(.., Some(_))
            | Event::SequenceStart(_, Some(_))
            | Event::MappingStart(_, Some(_)) => Some("tags such as !name mean nothing here"),
            Event::DocumentStart(_) if documents > 0 => Some("a second document begins; keep one"),
            _ => None,
        };
        if let Some(message) = refused {
            return Err(ScanError::new_str(span.start, message));
        }
        documents += usize::from(matches!(event, Event::DocumentStart(_)));
        if stack.len() > DEPTH_MAX {
            let message = format!("lists and mappings more than {DEPTH_MAX} deep in each other");
            return Err(ScanError::new(span.start, message));
        }
        match event {
            Event::MappingStart(..) => {
                let path = enter(&mut stack, &mut places, problems, span);
                stack.push(Open::Map { path, key: None });
            }
            Event::SequenceStart(..) => {
                let path = enter(&mut stack, &mut places, problems, span);
                stack.push(Open::List { path, next: 0 });
            }
            Event::MappingEnd | Event::SequenceEnd => {
                stack.pop();
            }
            Event::Scalar(text, ..) => scalar(text, span, &mut stack, &mut places, problems),
            Event::Alias(_) => scalar("*".into(), span, &mut stack, &mut places, problems),
            _ => {}
        }
    }
    Ok(places)
}

fn scalar(
    text: Cow<'_, str>,
    span: Span,
    stack: &mut [Open],
    places: &mut Places,
    problems: &mut Problems,
) {
    if let Some(Open::Map { key: key @ None, .. }) = stack.last_mut() {
        *key = Some((text.into_owned(), place(span)));
    } else {
        enter(stack, places, problems, span);
    }
}

/// A value begins: notes its place and gives its path. A key's value is placed at its key.
fn enter(stack: &mut [Open], places: &mut Places, problems: &mut Problems, span: Span) -> String {
    let (path, place) = match stack.last_mut() {
        None => (String::new(), place(span)),
        Some(Open::List { path, next }) => {
            *next += 1;
            (format!("{path}[{}]", *next - 1), place(span))
        }
        Some(Open::Map { path, key }) => match key.take() {
            Some((key, place)) => (child_path(path, &key), place),
            // A mapping or list as a key; refused when values are read.
            None => {
                *key = Some(("?".to_owned(), place(span)));
                (child_path(path, "?"), place(span))
            }
        },
    };
    if let Some(first) = places.places.get(&path).filter(|_| !path.ends_with('?')) {
        let line = first.line;
        problems.add(place, &path, format!("given twice, the first time on line {line}; keep one"));
        // What stands below it is not given twice as well.
        return format!("{path} again");
    } else if places.size < PATHS_SIZE_MAX {
        places.size += path.len();
        places.places.insert(path.clone(), place);
    }
    path
}

fn place(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}

// === impl Value ===

impl Value {
    /// As it may stand in a message: short, with its kind where that is the mistake.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Text(text) if text.chars().count() > 60 => {
                format!("\"{}…\"", text.chars().take(60).collect::<String>().escape_debug())
            }
            Self::Text(text) => format!("\"{}\"", text.escape_debug()),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a tag")
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        Value::deserialize(deserializer)
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
        Ok(Value::Integer(i128::try_from(value).unwrap_or(i128::MAX)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, value)) = map.next_entry::<Value, Value>()? {
            let key = match key {
                Value::Text(text) => text,
                Value::List(_) | Value::Map(_) => "?".to_owned(),
                Value::Null => "null".to_owned(),
                other => other.shown(),
            };
            entries.push((key, value));
        }
        Ok(Value::Map(entries))
    }
}
