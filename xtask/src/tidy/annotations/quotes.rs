//! The annotations of one source file. Imports its siblings and `tidy`'s `Source`.
//!
//! ```text
//! //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1     which section
//! //= type=test                                              in a test
//! //# The words of the RFC,                                  the quote
//! //# in as many lines as it takes.
//! ```

use super::super::Finding;
use super::super::source::Source;
use super::{Target, normal};

/// A quote of a document.
#[derive(Debug)]
pub(super) struct Annotation {
    pub(super) target: Target,
    pub(super) kind: Kind,
    /// With single spaces.
    pub(super) quote: String,
    pub(super) at: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Here it is done.
    Code,
    /// Here it is shown.
    Test,
}

/// Every annotation, and what is wrong with those that are none.
pub(super) fn read(source: &Source) -> (Vec<Annotation>, Vec<Finding>) {
    let (mut annotations, mut findings) = (Vec::new(), Vec::new());
    let mut lines = source.comments.iter().map(|line| line.trim()).enumerate().peekable();
    while let Some((index, line)) = lines.next() {
        if line.starts_with("//#") {
            findings.push(Finding::error(source.at(index), "a quote of no section"));
        }
        let Some(target) = line.strip_prefix("//= ") else { continue };
        let mut kind = Kind::Code;
        let mut wrong = None;
        while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("//= type=")) {
            match line {
                "//= type=test" => kind = Kind::Test,
                _ => wrong = Some("of types there is `test`; exceptions stand in the lists"),
            }
        }
        let mut quote = String::new();
        while let Some((_, line)) = lines.next_if(|(_, line)| line.starts_with("//#")) {
            quote.push_str(line.trim_start_matches("//#"));
            quote.push(' ');
        }
        let quote = normal(&quote);
        let in_test = source.is_test.get(index).copied().unwrap_or_default();
        if quote.is_empty() {
            wrong = Some("a section without a quote");
        } else if in_test != (kind == Kind::Test) {
            wrong = Some("`type=test` stands in tests, and nothing else does");
        }
        match (Target::parse(target), wrong) {
            (Some(target), None) => {
                annotations.push(Annotation { target, kind, quote, at: source.at(index) });
            }
            (None, None) => {
                let message = "needs a target `https://…#section-…`";
                findings.push(Finding::error(source.at(index), message));
            }
            (_, Some(wrong)) => findings.push(Finding::error(source.at(index), wrong)),
        }
    }
    (annotations, findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_joined_and_strings_are_none() {
        let text = "fn a() {\n    //= https://x/rfc1#section-2\n    //# One  half\n    //# other.\n    \
                    b(\"//= https://x/rfc1#section-3\");\n}\n";
        let (annotations, findings) = read(&Source::new("spooky-user/src/a.rs", text));
        assert_eq!((annotations.len(), findings), (1, Vec::new()));
        assert_eq!(annotations[0].quote, "One half other.");
        assert_eq!(annotations[0].at, "spooky-user/src/a.rs:2");
    }

    #[test]
    fn what_is_no_annotation_is_found() {
        for text in [
            "//# no section",
            "//= https://x/rfc1#section-2\nfn a() {}",
            "//= rfc1, section 2\n//# x",
            "//= https://x/rfc1#section-2\n//= type=exception\n//# x",
            "//= https://x/rfc1#section-2\n//= type=test\n//# x",
        ] {
            let (annotations, findings) = read(&Source::new("spooky-user/src/a.rs", text));
            assert_eq!((annotations.len(), findings.len()), (0, 1), "{text}");
        }
    }
}
