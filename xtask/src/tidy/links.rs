//! Relative links of Markdown files: the file they name exists, and the heading too.

use super::Finding;
use std::path::Path;

pub(super) fn check(root: &Path, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in prose(text) {
        for target in targets(line) {
            if let Some(message) = broken(root, path, target) {
                findings.push(Finding::error(format_args!("{path}:{}", index + 1), message));
            }
        }
    }
    findings
}

/// Lines outside of code fences.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// What stands in `](…)`, without a title.
fn targets(line: &str) -> Vec<&str> {
    let after = line.match_indices("](").map(|(at, found)| &line[at + found.len()..]);
    let inside = after.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    inside.map(|target| target.split_whitespace().next().unwrap_or("")).collect()
}

/// Why the link does not resolve, or `None`.
fn broken(root: &Path, from: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    };
    let path = if file.is_empty() {
        root.join(from)
    } else {
        root.join(from).parent().unwrap_or(root).join(file)
    };
    if !path.exists() {
        return Some(format!("link to `{target}`: there is no such file"));
    }
    let anchor = anchor.filter(|_| path.extension().is_some_and(|extension| extension == "md"))?;
    let text = std::fs::read_to_string(&path).ok()?;
    let found = prose(&text).filter_map(|(_, line)| slug(line)).any(|slug| slug == anchor);
    (!found).then(|| format!("link to `{target}`: there is no such heading"))
}

/// The anchor that a heading gets when it is shown; `None` for other lines.
fn slug(line: &str) -> Option<String> {
    let heading = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::root;

    #[test]
    fn links_are_read_out_of_prose_only() {
        let text = "[a](b.md) and [c](d.md \"title\")\n```\n[e](f.md)\n```\n[g](h.md)\n";
        let all: Vec<&str> = prose(text).flat_map(|(_, line)| targets(line)).collect();
        assert_eq!(all, ["b.md", "d.md", "h.md"]);
    }

    #[test]
    fn broken_links_are_told() {
        assert_eq!(broken(root(), "README.md", "https://example.com/x"), None);
        assert_eq!(broken(root(), "README.md", "docs/README.md"), None);
        assert!(broken(root(), "docs/README.md", "../nowhere.md").is_some());
        assert!(broken(root(), "README.md", "docs/README.md#no-such-heading").is_some());
    }

    #[test]
    fn headings_become_anchors() {
        assert_eq!(slug("## Who may import whom?").as_deref(), Some("who-may-import-whom"));
        assert_eq!(slug("text"), None);
        assert_eq!(slug("#hashtag"), None);
    }
}
