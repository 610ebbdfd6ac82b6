//! Who may import whom, in spooky-user: every `crate::` and `super::` path of a file against the
//! table in docs/codex/architecture.md. A file belongs to the row with the longest matching module
//! path; paths within one's own row are free.

use super::Finding;
use super::source::{Source, is_word};

pub(super) const TABLE: &str = "docs/codex/architecture.md";
const CRATE: &str = "spooky-user/src/";
/// The heading that the table follows.
const HEADING: &str = "Who may import whom";

#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Row>,
}

#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// `dataplane::packet`.
    module: String,
    allowed: Vec<String>,
}

impl Table {
    /// Reads rows of `| layer | module | may import |`: names in backquotes count, words do not. A
    /// module cell may name several modules.
    ///
    /// # Errors
    /// The document has no such table.
    pub(super) fn parse(document: &str) -> Result<Self, String> {
        let after = document.lines().skip_while(|line| !is_heading(line)).skip(1);
        let lines = after.take_while(|line| !line.starts_with('#'));
        let mut rows = Vec::new();
        for line in lines.filter(|line| line.starts_with('|')) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
            let [_, modules, allowed, ..] = cells.as_slice() else { continue };
            let allowed = quoted(allowed);
            for module in quoted(modules) {
                rows.push(Row { module, allowed: allowed.clone() });
            }
        }
        if rows.is_empty() {
            return Err(format!("{TABLE} has no table under a heading `{HEADING}`"));
        }
        Ok(Self { rows })
    }

    /// The row of `module`, by the longest name that it begins with.
    fn row(&self, module: &str) -> Option<&Row> {
        let rows = self.rows.iter().filter(|row| is_within(module, &row.module));
        rows.max_by_key(|row| row.module.len())
    }

    /// Rows of modules that are not in the tree: the table is a map, not a plan.
    pub(super) fn unused(&self, files: &[String]) -> Vec<Finding> {
        let modules: Vec<String> = files.iter().filter_map(|path| module_of(path)).collect();
        let unused =
            self.rows.iter().filter(|row| !modules.iter().any(|it| is_within(it, &row.module)));
        unused
            .map(|row| Finding::error(TABLE, format!("row `{}`: no such module", row.module)))
            .collect()
    }
}

fn is_heading(line: &str) -> bool {
    line.starts_with('#') && line.trim_start_matches('#').trim() == HEADING
}

/// Every `name` in backquotes.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether `module` is `outer` or lies within it.
fn is_within(module: &str, outer: &str) -> bool {
    module.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `spooky-user/src/dataplane/packet/udp.rs` is `dataplane::packet::udp`; the crate root is not a module.
fn module_of(path: &str) -> Option<String> {
    let inner = path.strip_prefix(CRATE)?.strip_suffix(".rs")?;
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    (inner != "lib").then(|| inner.replace('/', "::"))
}

pub(super) fn check(table: &Table, source: &Source) -> Vec<Finding> {
    let Some(module) = module_of(&source.path) else { return Vec::new() };
    let Some(row) = table.row(&module) else {
        return vec![Finding::error(&source.path, format!("`{module}` has no row in {TABLE}"))];
    };
    let mut findings = Vec::new();
    for (line, target) in imports(&source.code_without_tests(), &module) {
        let own = is_within(&target, &row.module)
            && table.row(&target).is_some_and(|of_target| of_target.module == row.module);
        // `crate::dataplane::{…}` as a path to children is judged by the children.
        let allowed = row.allowed.iter().any(|allowed| is_within(&target, allowed));
        if !own && !allowed {
            let message = format!("`{}` may not import `{target}` ({TABLE})", row.module);
            findings.push(Finding::error(source.at(line), message));
        }
    }
    findings
}

/// Every module path of this crate that `code` names, absolute, with its line.
fn imports(code: &str, module: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, root) in roots(code) {
        let line = code[..at].matches('\n').count();
        let (base, rest) = match root {
            "super" => climb(module, &code[at..]),
            // `crate`, or the library as its own program names it.
            _ => (Vec::new(), &code[at + root.len() + "::".len()..]),
        };
        let mut paths = Vec::new();
        expand(rest, &base, &mut paths);
        found.extend(paths.into_iter().filter(|path| !path.is_empty()).map(|path| (line, path)));
    }
    found
}

/// Where a path into this crate begins.
fn roots(code: &str) -> Vec<(usize, &'static str)> {
    let mut roots = Vec::new();
    for root in ["crate", "super", "spooky_user"] {
        let path = format!("{root}::");
        for (at, _) in code.match_indices(&path) {
            let before = code[..at].trim_end_matches(' ').chars().next_back();
            let starts = !before.is_some_and(|c| is_word(c) || c == ':' || c == '$')
                || code[..at].ends_with(' ');
            if starts && !code[..at].ends_with("::") {
                roots.push((at, root));
            }
        }
    }
    roots
}

/// Resolves leading `super::`s: the module they lead to and what follows.
fn climb<'a>(module: &str, mut rest: &'a str) -> (Vec<String>, &'a str) {
    let mut base: Vec<String> = module.split("::").map(str::to_owned).collect();
    while let Some(after) = rest.strip_prefix("super::") {
        base.pop();
        rest = after;
    }
    (base, rest)
}

/// Adds every path of the use tree at the start of `text`, below `base`. Returns what follows it.
fn expand<'a>(text: &'a str, base: &[String], paths: &mut Vec<String>) -> &'a str {
    let mut path = base.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(mut group) = rest.strip_prefix('{') {
            loop {
                group = group.trim_start().trim_start_matches(',').trim_start();
                if let Some(after) = group.strip_prefix('}') {
                    return after;
                }
                let after = expand(group, &path, paths);
                // Anything that is not a use tree: no progress, so stop here.
                if after.len() == group.len() {
                    return after;
                }
                group =
                    after.split_once([',', '}']).map_or("", |(between, _)| &after[between.len()..]);
            }
        }
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        if word.is_empty() {
            // `*`, or the end of something that is no path.
            paths.push(path.join("::"));
            return after.strip_prefix('*').unwrap_or(after);
        }
        if word != "self" {
            path.push(word.to_owned());
        }
        match after.strip_prefix("::") {
            Some(after) => rest = after.trim_start(),
            None => {
                paths.push(path.join("::"));
                return after;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "\
# Architecture

## Who may import whom

| layer | module | may import |
|---|---|---|
| 1 | `sys`, `codec` | nothing of the crate |
| 2 | `dataplane::packet` | `sys`, and the `telemetry` of its own |
| 2 | `dataplane` | `dataplane` |
| 8 | `controlplane` | `snapshot`, `dataplane::worker` |

## Next
| x | `y` | `z` |
";

    fn refused(path: &str, code: &str) -> Vec<String> {
        let table = Table::parse(DOCUMENT).expect("a table");
        check(&table, &Source::new(path, code)).into_iter().map(|it| it.message).collect()
    }

    #[test]
    fn the_table_is_read_by_its_backquotes() {
        let table = Table::parse(DOCUMENT).expect("a table");
        let modules: Vec<&str> = table.rows.iter().map(|row| row.module.as_str()).collect();
        assert_eq!(modules, ["sys", "codec", "dataplane::packet", "dataplane", "controlplane"]);
        assert_eq!(table.rows[2].allowed, ["sys", "telemetry"]);
        assert!(Table::parse("# Nothing\n").is_err());
    }

    #[test]
    fn use_trees_are_expanded() {
        let code = "use crate::{a::b, c::{self, d::*}, e as f};\nlet x = crate::g::h();";
        let paths: Vec<String> = imports(code, "m").into_iter().map(|(_, path)| path).collect();
        assert_eq!(paths, ["a::b", "c", "c::d", "e", "g::h"]);
    }

    #[test]
    fn super_is_resolved() {
        let paths = imports("use super::super::sys::x;\nuse super::y;", "dataplane::packet::udp");
        let paths: Vec<&str> = paths.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(paths, ["dataplane::sys::x", "dataplane::packet::y"]);
    }

    #[test]
    fn allowed_imports_pass() {
        let code = "use crate::sys::x;\nuse crate::telemetry::Event;\nuse super::batch::Arena;\n";
        assert_eq!(refused("spooky-user/src/dataplane/packet/udp.rs", code), [""; 0]);
    }

    #[test]
    fn a_lower_layer_may_not_reach_up() {
        let code = "use crate::controlplane::admin;\n";
        let refused = refused("spooky-user/src/dataplane/packet/udp.rs", code);
        assert!(refused[0].contains("may not import `controlplane::admin`"), "{refused:?}");
    }

    #[test]
    fn only_the_named_part_of_a_module_is_allowed() {
        let path = "spooky-user/src/controlplane/boot.rs";
        assert_eq!(refused(path, "use crate::dataplane::worker::spawn;"), [""; 0]);
        assert_eq!(refused(path, "use crate::dataplane::packet::Udp;").len(), 1);
    }

    #[test]
    fn tests_and_other_crates_are_free() {
        let code =
            "use spooky_common::cid;\n#[cfg(test)]\nmod tests { use crate::controlplane; }\n";
        assert_eq!(refused("spooky-user/src/codec/field.rs", code), [""; 0]);
        assert_eq!(refused("xtask/src/main.rs", "use crate::anything;"), [""; 0]);
    }

    #[test]
    fn a_module_without_a_row_and_a_row_without_a_module_are_told() {
        assert!(refused("spooky-user/src/new/mod.rs", "")[0].contains("has no row"));
        let table = Table::parse(DOCUMENT).expect("a table");
        let files = ["spooky-user/src/sys/mod.rs", "spooky-user/src/dataplane/packet/mod.rs"];
        let unused = table.unused(&files.map(str::to_owned));
        assert_eq!(unused.len(), 2, "{unused:?}");
    }
}
