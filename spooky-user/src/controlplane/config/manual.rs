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
         Durations and sizes have units (`30s`, `64KiB`); unknown keys are refused. Keys that take \
         effect at a start cannot be changed by a reload: one that tries is refused.\n",
    );
    section(&mut text, "", File::FIELDS);
    text
}

/// `config/spooky.yaml`, whole: every key at its default under its manual entry. Sections that are left out by default are
/// commented out, with `#` directly before the key.
#[must_use]
pub fn sample() -> String {
    let mut text = String::from(
        "# Every key of spooky's configuration, at its default. A file needs far less: see config/minimal.yaml.\n\
         # Durations and sizes have units; unknown keys are refused. Check a file with: spooky check FILE\n\
         # Keys that must be given, and names, hold examples here. \"#key\" is left out by default; \"# text\" explains.\n",
    );
    sample_section(&mut text, "", 0, false, File::FIELDS);
    text
}

/// For what has no default.
const EXAMPLES: &[(&str, &str)] = &[
    ("listeners[].name", "edge"),
    ("listeners[].bind", "\"0.0.0.0:443\""),
    ("listeners[].tls.certificates[].cert", "/etc/spooky/cert.pem"),
    ("listeners[].tls.certificates[].key", "/etc/spooky/key.pem"),
    ("upstreams.NAME", "app"),
    ("upstreams.NAME.endpoints[].address", "\"127.0.0.1:8080\""),
    ("routes[].name", "all"),
    ("routes[].upstream", "app"),
];

fn example(path: &str) -> &'static str {
    EXAMPLES.iter().find(|(key, _)| *key == path).map_or("", |(_, example)| example)
}

fn sample_section(text: &mut String, above: &str, indent: usize, off: bool, fields: &[Field]) {
    for field in fields {
        let path = join(above, field.name);
        let shape = (field.shape)();
        let margin = " ".repeat(indent);
        text.push('\n');
        for line in field.docs {
            let _ = writeln!(text, "{margin}#{line}");
        }
        if let Shape::Leaf(accepted) = &shape {
            let (accepted, reload) = (accepted_text(field, accepted), reload_text(field));
            let _ = writeln!(text, "{margin}# Accepted: {accepted}. Takes effect {reload}.");
            let mark = if off { "#" } else { "" };
            let value = field.default.unwrap_or_else(|| example(&path));
            let _ = writeln!(text, "{margin}{mark}{}: {value}", field.name);
            continue;
        }
        let off = off || field.default == Some("null");
        let mark = if off { "#" } else { "" };
        let _ = writeln!(text, "{margin}{mark}{}:", field.name);
        match shape {
            Shape::Leaf(_) => {}
            Shape::Section(fields) => sample_section(text, &path, indent + 2, off, fields),
            Shape::List(fields) => {
                let mut item = String::new();
                sample_section(&mut item, &format!("{path}[]"), indent + 4, off, fields);
                text.push_str(&dashed(&item, indent + 4));
            }
            Shape::Map(fields) => {
                let path = format!("{path}.NAME");
                let _ = writeln!(text, "{margin}  {}:", example(&path));
                sample_section(text, &path, indent + 4, off, fields);
            }
        }
    }
}

/// The first key of an item stands behind a dash; its comment goes before it.
fn dashed(item: &str, indent: usize) -> String {
    let margin = " ".repeat(indent);
    let mut is_first = true;
    let lines = item.lines().map(|line| {
        let key = line.strip_prefix(&margin);
        match key.filter(|key| !key.starts_with(['#', ' ']) && std::mem::take(&mut is_first)) {
            Some(key) => format!("{}- {key}\n", " ".repeat(indent - 2)),
            None => format!("{line}\n"),
        }
    });
    lines.collect()
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
    let default = match field.default {
        Some("null") => "default: none".to_owned(),
        Some(default) => format!("default: `{default}`"),
        None => "must be given".to_owned(),
    };
    let alias = field.alias.map_or(String::new(), |alias| format!(" · also spelt `{alias}`"));
    let mut accepted = accepted_text(field, accepted);
    if let Some(first) = accepted.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{accepted} · {default}{alias} · takes effect {}", reload_text(field))
}

fn accepted_text(field: &Field, accepted: &str) -> String {
    let range = field.limits.map_or(String::new(), |(min, max)| format!(", {min} to {max}"));
    format!("{accepted}{range}")
}

fn reload_text(field: &Field) -> &'static str {
    match field.reload {
        Some(Reload::Live) => "on reload",
        Some(Reload::Restart) => "at a start",
        None => "as its keys do",
    }
}

fn prose(docs: &[&str]) -> String {
    docs.iter().map(|line| line.trim()).collect::<Vec<_>>().join("\n")
}

fn join(above: &str, name: &str) -> String {
    if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }
}
