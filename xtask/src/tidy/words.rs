//! Words that may not stand where they stand: marks of unfinished work anywhere, panics where bytes
//! come from the network, `unsafe` outside of its rooms or without its reason.

use super::Finding;
use super::source::{Source, is_word};

/// Never in the tree. Split so that this file does not find itself.
const MARKS_IN_COMMENTS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
const MARKS_IN_CODE: &[&str] = &["todo!", "unimplemented!", "dbg!", "#[ignore"];

/// Where a panic would be somebody else's to cause.
const NO_PANIC: &[&str] =
    &["spooky-user/src/dataplane/", "spooky-user/src/codec/", "spooky-common/src/"];
const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!("];
/// In a comment on the line or the one above it, with the reason after it.
const ALLOW_PANIC: &str = "tidy: allow(panic):";

const UNSAFE_ALLOWED: &[&str] =
    &["spooky-user/src/sys/", "spooky-common/src/pod.rs", "spooky-ebpf/", "tests/"];
/// How far above an `unsafe` its reason may begin.
const SAFETY_DISTANCE: usize = 8;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = marks(source);
    findings.extend(panics(source));
    findings.extend(unsafety(source));
    findings
}

fn marks(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, (code, comment)) in source.code.iter().zip(&source.comments).enumerate() {
        let in_comment = MARKS_IN_COMMENTS.iter().filter(|mark| has_word(comment, mark));
        let in_code = MARKS_IN_CODE.iter().filter(|mark| has_word(code, mark));
        for mark in in_comment.chain(in_code) {
            let message = format!("`{mark}`: finish it, or write it down in docs/codex");
            findings.push(Finding::error(source.at(index), message));
        }
    }
    findings
}

fn panics(source: &Source) -> Vec<Finding> {
    if !NO_PANIC.iter().any(|dir| source.path.starts_with(dir)) {
        return Vec::new();
    }
    let found = source.program_lines().filter_map(|(index, code)| {
        let panic = PANICS.iter().find(|panic| code.contains(**panic))?;
        let message = format!("`{panic}` where bytes come from the network");
        (!allows_panic(source, index)).then(|| Finding::error(source.at(index), message))
    });
    found.collect()
}

fn allows_panic(source: &Source, index: usize) -> bool {
    let above = index.checked_sub(1).and_then(|above| source.comments.get(above));
    [source.comments.get(index), above].into_iter().flatten().any(|comment| {
        comment.split_once(ALLOW_PANIC).is_some_and(|(_, reason)| !reason.trim().is_empty())
    })
}

fn unsafety(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let allowed = UNSAFE_ALLOWED.iter().any(|place| source.path.starts_with(place));
    for (index, code) in source.code.iter().enumerate() {
        if !has_word(code, "unsafe") {
            continue;
        }
        if !allowed {
            let message = format!("`unsafe` is allowed in {} only", UNSAFE_ALLOWED.join(", "));
            findings.push(Finding::error(source.at(index), message));
        } else if needs_reason(code) && !has_reason(source, index) {
            let message = "`unsafe` without `// SAFETY:` naming the invariant and who keeps it";
            findings.push(Finding::error(source.at(index), message));
        }
    }
    findings
}

/// `unsafe extern` blocks, `unsafe(no_mangle)` attributes and function types carry no promise.
fn needs_reason(code: &str) -> bool {
    let after = code.split_once("unsafe").map_or("", |(_, after)| after.trim_start());
    !after.starts_with("extern") && !after.starts_with('(')
}

fn has_reason(source: &Source, index: usize) -> bool {
    let from = index.saturating_sub(SAFETY_DISTANCE);
    let comments = source.comments.get(from..=index).unwrap_or_default();
    comments.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}

/// `word` not as a part of a longer word.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let starts = !word.starts_with(is_word) || !before.is_some_and(is_word);
        let ends = !word.ends_with(is_word) || !after.is_some_and(is_word);
        starts && ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&Source::new(path, text)).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn marks_are_found_in_comments_and_macros_in_code() {
        let text = format!("// {}: later\nfn a() {{ todo!() }}\n", MARKS_IN_COMMENTS[0]);
        assert_eq!(messages("xtask/src/a.rs", &text).len(), 2);
        assert_eq!(messages("xtask/src/a.rs", "let a = \"todo!\"; // mastodon!\n").len(), 0);
    }

    #[test]
    fn panics_are_found_where_the_network_speaks() {
        let text = "fn a() { b.unwrap(); }\n#[cfg(test)]\nmod tests { fn t() { c.unwrap(); } }\n";
        assert_eq!(messages("spooky-user/src/dataplane/a.rs", text).len(), 1);
        assert_eq!(messages("spooky-user/src/controlplane/a.rs", text).len(), 0);
        assert_eq!(messages("spooky-common/src/a.rs", "a.unwrap_or(0)").len(), 0);
    }

    #[test]
    fn an_allowed_panic_needs_a_reason() {
        let allowed = format!("// {ALLOW_PANIC} the table is never empty\na.unwrap();\n");
        assert_eq!(messages("spooky-common/src/a.rs", &allowed).len(), 0);
        let bare = format!("// {ALLOW_PANIC}\na.unwrap();\n");
        assert_eq!(messages("spooky-common/src/a.rs", &bare).len(), 1);
    }

    #[test]
    fn unsafe_has_its_rooms_and_its_reasons() {
        let block = "unsafe { f() }\n";
        assert!(messages("xtask/src/a.rs", block)[0].contains("is allowed in"));
        assert!(messages("spooky-user/src/sys/a.rs", block)[0].contains("SAFETY"));
        let reasoned = format!("// SAFETY: f has no precondition.\n{block}");
        assert_eq!(messages("spooky-user/src/sys/a.rs", &reasoned).len(), 0);
        assert_eq!(messages("xtask/src/a.rs", "#![deny(unsafe_code)]\n").len(), 0);
        assert_eq!(messages("spooky-ebpf/src/main.rs", "#[unsafe(no_mangle)]\n").len(), 0);
    }
}
