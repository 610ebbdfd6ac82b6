//! A list of requirements: TOML as duvet has it, as far as it is needed here. Imports its siblings.
//!
//! ```toml
//! [[spec]]                # or [[exception]]
//! target = "https://www.rfc-editor.org/rfc/rfc9114#section-4.1"
//! level = "MUST"          # of a spec: MUST, SHOULD or MAY
//! quote = '''
//! The sentence as it stands.
//! '''
//! reason = "Why not."     # of an exception
//! ```

use super::super::Finding;
use super::{Target, normal};

/// One sentence of a document.
#[derive(Debug)]
pub(super) struct Requirement {
    pub(super) target: Target,
    pub(super) level: Level,
    /// With single spaces.
    pub(super) quote: String,
    /// Why spooky has neither code nor test for it.
    pub(super) reason: Option<String>,
    /// Where it is listed.
    pub(super) at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Must,
    /// Listed because something quotes it; nothing has to.
    Less,
}

/// A table while it is read.
#[derive(Debug, Default)]
struct Table {
    exception: bool,
    line: usize,
    values: Vec<(String, String)>,
}

/// Every requirement of a file, in its order.
pub(super) fn parse(path: &str, text: &str) -> Result<Vec<Requirement>, Finding> {
    let mut requirements = Vec::new();
    for table in tables(path, text)? {
        let at = format!("{path}:{}", table.line);
        let requirement = table.requirement(&at).map_err(|wrong| Finding::error(&at, wrong))?;
        let same = |known: &&Requirement| {
            known.target == requirement.target && known.quote == requirement.quote
        };
        if let Some(known) = requirements.iter().find(same) {
            return Err(Finding::error(&at, format!("stands at {} already", known.at)));
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

fn tables(path: &str, text: &str) -> Result<Vec<Table>, Finding> {
    let mut tables: Vec<Table> = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        let wrong = |what: &str| Finding::error(format!("{path}:{number}"), what);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let "[[spec]]" | "[[exception]]" = line {
            let exception = line == "[[exception]]";
            tables.push(Table { exception, line: number, values: Vec::new() });
            continue;
        }
        let (key, value) = line.split_once(" = ").ok_or_else(|| wrong("is no `key = value`"))?;
        let table = tables.last_mut().ok_or_else(|| wrong("belongs to no [[spec]]"))?;
        let value = if value == "'''" {
            let body = lines.by_ref().map(|(_, line)| line);
            // The end may stand behind the last line's words.
            let mut text = String::new();
            let mut ended = false;
            for line in body {
                ended = line.trim_end().ends_with("'''");
                text.push_str(line.trim_end().trim_end_matches("'''"));
                text.push('\n');
                if ended {
                    break;
                }
            }
            if !ended {
                return Err(wrong("has no end"));
            }
            text
        } else {
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
            let inner = inner.filter(|inner| !inner.contains(['"', '\\']));
            inner.ok_or_else(|| wrong("is no simple \"text\""))?.to_owned()
        };
        table.values.push((key.to_owned(), normal(&value)));
    }
    Ok(tables)
}

impl Table {
    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.values.iter().position(|(name, _)| name == key)?;
        Some(self.values.remove(at).1).filter(|value| !value.is_empty())
    }

    fn requirement(mut self, at: &str) -> Result<Requirement, String> {
        let target = self.take("target").and_then(|text| Target::parse(&text));
        let target = target.ok_or("needs a target `https://…#section-…`")?;
        let quote = self.take("quote").ok_or("needs a quote")?;
        let (level, reason) = if self.exception {
            (Level::Must, Some(self.take("reason").ok_or("an exception needs a reason")?))
        } else {
            let level = match self.take("level").as_deref() {
                Some("MUST") => Level::Must,
                Some("SHOULD" | "MAY") => Level::Less,
                _ => return Err("needs a level: MUST, SHOULD or MAY".to_owned()),
            };
            (level, None)
        };
        if let Some((key, _)) = self.values.first() {
            return Err(format!("`{key}` is no key of it, or stands there twice"));
        }
        Ok(Requirement { target, level, quote, reason, at: at.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "[[spec]]\ntarget = \"https://example/rfc1#section-2\"\n";

    fn error(text: &str) -> String {
        parse("list.toml", text).map(|_| ()).expect_err(text).to_string()
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        let whole = format!("{HEAD}level = \"MUST\"\nquote = \"It MUST.\"\n");
        assert_eq!(parse("list.toml", &whole).map(|all| all.len()), Ok(1));
        for (text, part) in [
            (format!("# note\nlevel = \"MUST\"\n{whole}"), "list.toml:2"),
            (format!("{whole}level\n"), "key = value"),
            (format!("{whole}lewel = \"MUST\"\n"), "lewel"),
            (format!("{whole}level = \"MUST\"\n"), "twice"),
            (format!("{whole}{whole}"), "list.toml:1 already"),
            (whole.replace("MUST\"\n", "PLEASE\"\n"), "level"),
            (whole.replace("#section", "/section"), "target"),
            (format!("{HEAD}level = \"MUST\"\nquote = '''\nIt MUST.\n"), "no end"),
            (format!("{HEAD}level = \"MUST\"\nquote = \"a \\\" b\"\n"), "simple"),
        ] {
            assert!(error(&text).contains(part), "{}", error(&text));
        }
    }
}
