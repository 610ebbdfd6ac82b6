//! From a tree of values to the types of the schema: unknown keys refused, defaults filled in, every problem collected.
//! May import: problem, source, suggest.
//!
//! [`section!`] declares a part of the file once: its keys, their defaults, ranges, what a reload does with them, and the
//! manual. Reading, the printed reference and the test of `config/spooky.yaml` all come from that declaration.

use super::problem::Problems;
use super::source::{Places, Value, child_path};
use super::suggest::nearest;

/// A value and where it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'a> {
    pub(super) value: &'a Value,
    pub(super) path: &'a str,
    pub(super) places: &'a Places,
}

/// Smallest and largest accepted value, as they would be written in the file.
pub(crate) type Limits = Option<(&'static str, &'static str)>;

/// One key of a section, as declared.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// Another spelling that is accepted.
    pub alias: Option<&'static str>,
    /// The manual, a line each.
    pub docs: &'static [&'static str],
    /// As it would be written in the file; `None` when the key must be given.
    pub default: Option<&'static str>,
    /// Smallest and largest, as they would be written.
    pub limits: Option<(&'static str, &'static str)>,
    /// What a reload does with a change; `None` for sections.
    pub reload: Option<Reload>,
    /// What stands there.
    pub shape: fn() -> Shape,
}

/// When a changed key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// On reload, for the next request or probe.
    Live,
    /// Only when spooky is started again; a reload that changes it is refused.
    Restart,
}

/// What a key may hold.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One value, or a list of plain values; the text says which.
    Leaf(String),
    /// Keys of its own.
    Section(&'static [Field]),
    /// A list of sections.
    List(&'static [Field]),
    /// Names chosen by the operator, each with a section.
    Map(&'static [Field]),
}

/// A type of the schema.
pub(crate) trait Read: Sized {
    /// For messages and the manual, such as "a duration such as 30s".
    fn shape() -> Shape;
    /// `None` when there is a problem, which is then in `problems`.
    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self>;
}

/// A mapping with names chosen by the operator, in file order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named<T>(pub Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

// === impl Node ===

impl Node<'_> {
    pub(super) fn problem(&self, problems: &mut Problems, message: impl Into<String>) {
        problems.add(self.places.of(self.path), self.path, message);
    }

    pub(super) fn refuse<T>(
        &self,
        problems: &mut Problems,
        message: impl Into<String>,
    ) -> Option<T> {
        self.problem(problems, message);
        None
    }

    /// "X is not a Y".
    pub(super) fn expected<T>(&self, wanted: &str, problems: &mut Problems) -> Option<T> {
        self.refuse(problems, format!("{} is not {wanted}", self.value.shown()))
    }
}

// === sections ===

/// The keys of a mapping that a section declares.
pub(crate) struct Entries<'a> {
    node: Node<'a>,
    fields: &'static [Field],
    entries: &'a [(String, Value)],
}

const EMPTY: &[(String, Value)] = &[];

impl<'a> Entries<'a> {
    /// Refuses everything that is no mapping, and each key that is not declared.
    pub(crate) fn open(
        node: Node<'a>,
        fields: &'static [Field],
        problems: &mut Problems,
    ) -> Option<Self> {
        let entries = match node.value {
            Value::Map(entries) => entries.as_slice(),
            // `quic:` with nothing below it: all defaults.
            Value::Null => EMPTY,
            _ => return node.expected("a mapping of keys to values", problems),
        };
        for (key, _) in entries {
            if !fields.iter().any(|field| field.name == key || field.alias == Some(key)) {
                let path = child_path(node.path, key);
                problems.add(node.places.of(&path), &path, unknown_key(key, fields));
            }
        }
        Some(Self { node, fields, entries })
    }

    /// The value of the key, else its default; `T::default()` when neither can be had, with the problem noted.
    pub(crate) fn field<T: Read + Default>(&self, index: usize, problems: &mut Problems) -> T {
        let Some(field) = self.fields.get(index) else { return T::default() };
        let mut given = self
            .entries
            .iter()
            .filter(|(key, _)| key == field.name || Some(key.as_str()) == field.alias);
        let first = given.next();
        // The same key twice is found by `source`; this is a key beside its other spelling.
        if let Some((key, _)) = given.find(|(key, _)| first.is_some_and(|(name, _)| key != name)) {
            let path = child_path(self.node.path, key);
            let message = match field.alias {
                Some(alias) => format!("`{}` and `{alias}` are the same key; keep one", field.name),
                None => "given twice; keep one".to_owned(),
            };
            problems.add(self.node.places.of(&path), &path, message);
        }
        match first {
            Some((key, value)) => {
                let path = child_path(self.node.path, key);
                let node = Node { value, path: &path, places: self.node.places };
                let read = T::read(node, field.limits, problems);
                read.unwrap_or_else(|| default(field))
            }
            None if field.default.is_none() => {
                let accepted = match (field.shape)() {
                    Shape::Leaf(accepted) if accepted != "a text" => format!("; it is {accepted}"),
                    _ => String::new(),
                };
                let path = child_path(self.node.path, field.name);
                let message = format!("is missing{accepted}");
                problems.add(self.node.places.of(&path), &path, message);
                T::default()
            }
            None => default(field),
        }
    }
}

/// What a section's key has when it is not given. `T::default()` for a key without a default.
#[expect(clippy::expect_used, reason = "a constant of the schema, each read by a test")]
pub(crate) fn default<T: Read + Default>(field: &Field) -> T {
    let Some(text) = field.default else { return T::default() };
    let value: Value = serde_yaml::from_str(text).expect("defaults are YAML: a test reads each");
    let mut problems = Problems::new("a default".as_ref());
    let node = Node { value: &value, path: field.name, places: &Places::default() };
    let read = T::read(node, field.limits, &mut problems);
    read.expect("defaults are of their own type: a test reads each")
}

/// A key whose Rust name needs `r#`.
pub(crate) const fn key(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

/// Declares a section of the file.
///
/// `name: Type = "default as YAML", "smallest" ..= "largest", reload class;` The default `required` is none. The doc comment
/// of each key is its entry in the manual.
macro_rules! section {
    (
        $(#[doc = $section_doc:literal])*
        pub struct $section:ident {
            $(
                $(#[doc = $doc:literal])*
                $field:ident $(| $alias:literal)? : $type:ty = $default:tt
                    $(, $min:literal ..= $max:literal)? $(, $reload:ident)? ;
            )*
        }
    ) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $section {
            $( $(#[doc = $doc])* pub $field: $type, )*
        }

        impl $section {
            /// Its keys, in the order of the manual.
            pub const FIELDS: &'static [$crate::controlplane::config::read::Field] = &[$(
                $crate::controlplane::config::read::Field {
                    name: $crate::controlplane::config::read::key(stringify!($field)),
                    alias: section!(@option $($alias)?),
                    docs: &[$($doc),*],
                    default: section!(@default $default),
                    limits: section!(@limits $($min, $max)?),
                    reload: section!(@reload $($reload)?),
                    shape: <$type as $crate::controlplane::config::read::Read>::shape,
                },
            )*];
        }

        impl Default for $section {
            fn default() -> Self {
                let mut fields = Self::FIELDS.iter();
                Self { $( $field: fields
                    .next()
                    .map(|field| $crate::controlplane::config::read::default::<$type>(field))
                    .unwrap_or_default(), )* }
            }
        }

        impl $crate::controlplane::config::read::Read for $section {
            fn shape() -> $crate::controlplane::config::read::Shape {
                $crate::controlplane::config::read::Shape::Section(Self::FIELDS)
            }

            fn read(
                node: $crate::controlplane::config::read::Node<'_>,
                _limits: $crate::controlplane::config::read::Limits,
                problems: &mut $crate::controlplane::config::problem::Problems,
            ) -> Option<Self> {
                let entries =
                    $crate::controlplane::config::read::Entries::open(node, Self::FIELDS, problems)?;
                let mut index = 0..;
                Some(Self { $( $field: {
                    entries.field::<$type>(index.next().unwrap_or(usize::MAX), problems)
                }, )* })
            }
        }
    };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
    (@default required) => { None };
    (@default $text:literal) => { Some($text) };
    (@limits) => { None };
    (@limits $min:literal, $max:literal) => { Some(($min, $max)) };
    (@reload) => { None };
    (@reload live) => { Some($crate::controlplane::config::read::Reload::Live) };
    (@reload restart) => { Some($crate::controlplane::config::read::Reload::Restart) };
}
pub(crate) use section;

/// Declares a value that is one of a few words. The first is its default where a default is needed at all; a word after `|`
/// is an accepted other spelling.
macro_rules! choice {
    (
        $(#[doc = $choice_doc:literal])*
        pub enum $choice:ident {
            $( $(#[doc = $doc:literal])* $variant:ident = $word:literal $(| $alias:literal)?, )*
        }
    ) => {
        $(#[doc = $choice_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $choice { $( $(#[doc = $doc])* $variant, )* }

        impl Default for $choice {
            fn default() -> Self {
                [$( Self::$variant, )*][0]
            }
        }

        impl $choice {
            /// As it is written in the file.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl $crate::controlplane::config::read::Read for $choice {
            fn shape() -> $crate::controlplane::config::read::Shape {
                let words: &[&str] = &[$( $word, )*];
                $crate::controlplane::config::read::Shape::Leaf(
                    if words.len() == 1 { words.concat() } else { format!("one of {}", words.join(", ")) }
                )
            }

            fn read(
                node: $crate::controlplane::config::read::Node<'_>,
                _limits: $crate::controlplane::config::read::Limits,
                problems: &mut $crate::controlplane::config::problem::Problems,
            ) -> Option<Self> {
                let words = &[$( ($word, Self::$variant), $( ($alias, Self::$variant), )? )*];
                $crate::controlplane::config::read::one_of(node, words, &[$( $word, )*], problems)
            }
        }
    };
}
pub(crate) use choice;

/// The variant whose word stands there.
pub(crate) fn one_of<T: Copy>(
    node: Node<'_>,
    words: &[(&str, T)],
    listed: &[&str],
    problems: &mut Problems,
) -> Option<T> {
    let text = match node.value {
        Value::Text(text) => text.as_str(),
        // YAML 1.1 readers, and people, take a bare `off` for a boolean.
        Value::Bool(false) => "off",
        Value::Bool(true) => "on",
        _ => return node.expected(&format!("one of {}", listed.join(", ")), problems),
    };
    if let Some((_, variant)) = words.iter().find(|(word, _)| *word == text) {
        return Some(*variant);
    }
    let hint = nearest(text, words.iter().map(|(word, _)| *word))
        .map_or(String::new(), |word| format!("; did you mean `{word}`?"));
    let accepted = listed.join(", ");
    let shown = node.value.shown();
    node.refuse(problems, format!("{shown} is not known here{hint} (accepted: {accepted})"))
}

fn unknown_key(key: &str, fields: &[Field]) -> String {
    let names = fields.iter().map(|field| field.name);
    match nearest(key, names.clone().chain(fields.iter().filter_map(|field| field.alias))) {
        Some(name) => format!("unknown key; did you mean `{name}`?"),
        None => format!("unknown key (accepted here: {})", names.collect::<Vec<_>>().join(", ")),
    }
}

// === lists and options ===

impl<T: Read + Default> Read for Vec<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Section(fields) => Shape::List(fields),
            Shape::Leaf(accepted) => Shape::Leaf(format!("a list, each {accepted}")),
            other => other,
        }
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        let items = match node.value {
            Value::List(items) => items,
            Value::Null => return Some(Vec::new()),
            _ => return node.expected("a list", problems),
        };
        let mut list = Vec::with_capacity(items.len());
        for (index, value) in items.iter().enumerate() {
            let path = format!("{}[{index}]", node.path);
            // A stand-in keeps the places of the others, so that their problems are found, too.
            let node = Node { value, path: &path, places: node.places };
            list.push(T::read(node, limits, problems).unwrap_or_default());
        }
        Some(list)
    }
}

impl<T: Read> Read for Option<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Leaf(accepted) => Shape::Leaf(format!("{accepted}, or null for none")),
            other => other,
        }
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Null => Some(None),
            _ => T::read(node, limits, problems).map(Some),
        }
    }
}

impl<T: Read + Default> Read for Named<T> {
    fn shape() -> Shape {
        match T::shape() {
            Shape::Section(fields) => Shape::Map(fields),
            other => other,
        }
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        let entries = match node.value {
            Value::Map(entries) => entries,
            Value::Null => return Some(Self::default()),
            _ => return node.expected("a mapping of names to settings", problems),
        };
        let read = entries.iter().map(|(name, value)| {
            let path = child_path(node.path, name);
            let node = Node { value, path: &path, places: node.places };
            (name.clone(), T::read(node, limits, problems).unwrap_or_default())
        });
        Some(Self(read.collect()))
    }
}
