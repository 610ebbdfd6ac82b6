//! The reference of all keys, printed from the schema: the doc comments are its text. May import: read, schema.

use std::fmt::Write as _;

use super::read::{Field, Reload, Shape};
use super::schema::File;

/// `docs/configuration/reference.md`, whole. A test compares the file with it.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(
        "# Every key of the configuration\n\n\
         Printed from the schema (`spooky-user/src/controlplane/config/schema/`) by `SPOOKY_BLESS=1 cargo test -p \
         spooky-tests --test config`; change it there.\n\n\
         Durations and sizes have units (`30s`, `64KiB`); unknown keys are refused. *Live* keys follow a reload; the others \
         take effect at a start, and a reload that changes them is refused.\n",
    );
    section(&mut text, "", File::FIELDS);
    text
}

/// Every key that holds a value, as a path with `[]` for items and `NAME` for names, with its declaration.
#[must_use]
pub fn leaves() -> Vec<(String, Field)> {
    let mut found = Vec::new();
    collect(&mut found, "", File::FIELDS);
    found
}

fn collect(found: &mut Vec<(String, Field)>, above: &str, fields: &[Field]) {
    for field in fields {
        let path = join(above, field.name);
        match (field.shape)() {
            Shape::Leaf(_) => found.push((path, *field)),
            Shape::Section(fields) => collect(found, &path, fields),
            Shape::List(fields) => collect(found, &format!("{path}[]"), fields),
            Shape::Map(fields) => collect(found, &format!("{path}.NAME"), fields),
        }
    }
}

fn section(text: &mut String, above: &str, fields: &[Field]) {
    for field in fields {
        let path = join(above, field.name);
        let shape = (field.shape)();
        let is_leaf = matches!(shape, Shape::Leaf(_));
        let level = if is_leaf { "####" } else { "##" };
        let _ = write!(text, "\n{level} `{path}`\n\n{}\n", prose(field.docs));
        if let Shape::Leaf(accepted) = &shape {
            let _ = write!(text, "\n{}\n", facts(field, accepted));
        } else if field.default.is_none() {
            text.push_str("\nMust be given.\n");
        } else if field.default == Some("null") {
            text.push_str("\nLeft out by default.\n");
        }
        match shape {
            Shape::Leaf(_) => {}
            Shape::Section(fields) => section(text, &path, fields),
            Shape::List(fields) => section(text, &format!("{path}[]"), fields),
            Shape::Map(fields) => section(text, &format!("{path}.NAME"), fields),
        }
    }
}

fn facts(field: &Field, accepted: &str) -> String {
    let range = field.limits.map_or(String::new(), |(min, max)| format!(", {min} to {max}"));
    let default = match field.default {
        Some("null") => "default: none".to_owned(),
        Some(default) => format!("default: `{default}`"),
        None => "must be given".to_owned(),
    };
    let alias = field.alias.map_or(String::new(), |alias| format!(" · also spelt `{alias}`"));
    let reload = match field.reload {
        Some(Reload::Live) => "live",
        Some(Reload::Restart) => "at a start",
        None => "see its keys",
    };
    let mut accepted = accepted.to_owned();
    if let Some(first) = accepted.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{accepted}{range} · {default}{alias} · {reload}")
}

fn prose(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
