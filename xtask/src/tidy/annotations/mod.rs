//! RFC annotations in duvet's form: each MUST that `docs/codex/rfc` lists has code and a test that
//! quote it, or a reason why not; each quote is the RFC's own words. Imports its siblings and
//! `tidy`'s `Finding` and `Source`.

mod list;
mod quotes;

use super::Finding;
use super::source::Source;
use list::{Level, Requirement};
use quotes::{Annotation, Kind};
use std::collections::BTreeMap;

/// Where the lists stand.
pub(super) const LISTS: &str = "docs/codex/rfc/";

/// The requirements and what was found of them in the sources read so far.
#[derive(Debug, Default)]
pub(super) struct Annotations {
    requirements: Vec<Requirement>,
    annotations: Vec<Annotation>,
    findings: Vec<Finding>,
}

/// What became of the MUSTs of one document.
#[derive(Debug, Default)]
struct Count {
    both: usize,
    exceptions: usize,
    /// Exceptions that a test asserts all the same.
    tested: usize,
    open: usize,
}

/// How often a requirement is quoted.
#[derive(Clone, Copy, Debug, Default)]
struct Quoted {
    code: bool,
    test: bool,
}

// === impl Annotations ===

impl Annotations {
    /// Reads one list of requirements.
    pub(super) fn list(&mut self, path: &str, text: &str) {
        match list::parse(path, text) {
            Ok(requirements) => self.requirements.extend(requirements),
            Err(finding) => self.findings.push(finding),
        }
    }

    /// Reads one source file.
    pub(super) fn source(&mut self, source: &Source) {
        let (annotations, findings) = quotes::read(source);
        self.annotations.extend(annotations);
        self.findings.extend(findings);
    }

    /// Everything that is wrong, and one line for each document.
    pub(super) fn finish(mut self) -> (Vec<Finding>, Vec<String>) {
        let mut quoted = vec![Quoted::default(); self.requirements.len()];
        for annotation in &self.annotations {
            match self.meant(annotation) {
                Ok(meant) => {
                    for index in meant {
                        let place = &mut quoted[index];
                        match annotation.kind {
                            Kind::Code => place.code = true,
                            Kind::Test => place.test = true,
                        }
                    }
                }
                Err(message) => self.findings.push(Finding::error(&annotation.at, message)),
            }
        }
        let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
        for (requirement, quoted) in self.requirements.iter().zip(quoted) {
            let count = counts.entry(&requirement.target.document).or_default();
            if let Some(message) = count.add(requirement, quoted) {
                self.findings.push(Finding::error(&requirement.at, message));
            }
        }
        let lines = counts.iter().map(|(document, count)| count.line(document)).collect();
        (self.findings, lines)
    }

    /// The requirements that an annotation quotes, in part or several at once.
    fn meant(&self, annotation: &Annotation) -> Result<Vec<usize>, String> {
        let section = || {
            let all = self.requirements.iter().enumerate();
            all.filter(|(_, requirement)| requirement.target == annotation.target)
        };
        let (index, _): (Vec<usize>, Vec<_>) =
            section().filter(|(_, it)| annotation.quote.contains(&it.quote)).unzip();
        if !index.is_empty() {
            return Ok(index);
        }
        let (index, _): (Vec<usize>, Vec<_>) =
            section().filter(|(_, it)| it.quote.contains(&annotation.quote)).unzip();
        match index.len() {
            1 => Ok(index),
            0 => Err(format!("the quote is in no requirement of its section in {LISTS}")),
            _ => Err("the quote fits several requirements: quote more of it".to_owned()),
        }
    }
}

// === impl Count ===

impl Count {
    /// Counts one requirement; what is wrong with it.
    fn add(&mut self, requirement: &Requirement, quoted: Quoted) -> Option<String> {
        if requirement.reason.is_some() {
            self.exceptions += 1;
            self.tested += usize::from(quoted.test);
            return quoted.code.then(|| "is listed as an exception, and code quotes it".to_owned());
        }
        if requirement.level != Level::Must {
            let unused = !quoted.code && !quoted.test;
            return unused.then(|| "is no MUST and nothing quotes it".to_owned());
        }
        let missing = match (quoted.code, quoted.test) {
            (true, true) => {
                self.both += 1;
                return None;
            }
            (true, false) => "no test quotes it",
            (false, true) => "no code quotes it",
            (false, false) => "neither code nor test quotes it",
        };
        self.open += 1;
        Some(format!("{missing}, and no reason is given: {}", requirement.quote))
    }

    fn line(&self, document: &str) -> String {
        let Self { both, exceptions, tested, open } = self;
        let all = both + exceptions + open;
        let open = if *open > 0 { format!(", {open} open") } else { String::new() };
        format!(
            "{document}: {all} MUST: {both} with code and test, {exceptions} exceptions with a \
             reason ({tested} of them tested){open}"
        )
    }
}

/// Words with one space between them.
fn normal(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A section of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    /// The last part of its address, such as `rfc9114`.
    document: String,
    /// Such as `4.1.2`.
    section: String,
}

impl Target {
    fn parse(text: &str) -> Option<Self> {
        let (address, section) = text.split_once("#section-")?;
        let (_, document) = address.strip_prefix("https://")?.rsplit_once('/')?;
        let known = !document.is_empty()
            && !section.is_empty()
            && section.chars().all(|c| c.is_ascii_alphanumeric() || c == '.');
        known.then(|| Self { document: document.to_owned(), section: section.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://www.rfc-editor.org/rfc/rfc9999#section-1.2";

    fn check(list: &str, program: &str, test: &str) -> (Vec<String>, Vec<String>) {
        let mut annotations = Annotations::default();
        annotations.list("docs/codex/rfc/rfc9999-1.toml", &list.replace("URL", URL));
        annotations.source(&Source::new("spooky-user/src/a.rs", &program.replace("URL", URL)));
        annotations.source(&Source::new("tests/proxy/a.rs", &test.replace("URL", URL)));
        let (findings, lines) = annotations.finish();
        (findings.iter().map(ToString::to_string).collect(), lines)
    }

    const SPEC: &str = "[[spec]]\ntarget = \"URL\"\nlevel = \"MUST\"\nquote = '''\n\
                        A thing MUST be\ndone. '''\n";
    const CODE: &str = "//= URL\n//# A thing MUST be\n//# done.\nfn a() {}\n";
    const TEST: &str = "//= URL\n//= type=test\n//# MUST be done.\nfn a() {}\n";

    #[test]
    fn code_and_test_make_a_whole() {
        let (findings, lines) = check(SPEC, CODE, TEST);
        assert_eq!(findings, Vec::<String>::new());
        let line = "rfc9999: 1 MUST: 1 with code and test, 0 exceptions with a reason (0 of them \
                    tested)";
        assert_eq!(lines, [line]);
    }

    #[test]
    fn half_is_open() {
        for (program, test, missing) in
            [(CODE, "", "no test"), ("", TEST, "no code"), ("", "", "neither")]
        {
            let (findings, lines) = check(SPEC, program, test);
            assert!(findings.len() == 1 && findings[0].contains(missing), "{findings:?}");
            assert!(findings[0].contains("rfc9999-1.toml:1"), "{findings:?}");
            assert!(lines[0].ends_with(", 1 open"), "{lines:?}");
        }
    }

    #[test]
    fn a_wrong_word_or_section_is_found() {
        for wrong in [CODE.replace("MUST", "must"), CODE.replace("URL", "URL.3")] {
            let (findings, _) = check(SPEC, &wrong, TEST);
            assert_eq!(findings.len(), 2, "{findings:?}");
            assert!(findings[0].contains("spooky-user/src/a.rs:1"), "{findings:?}");
        }
    }

    #[test]
    fn an_exception_needs_a_reason_and_no_code() {
        let exception = SPEC.replace("spec", "exception").replace("level = \"MUST\"\n", "");
        let reasoned = format!("{exception}reason = \"Somebody else's.\"\n");
        let (findings, lines) = check(&reasoned, "", TEST);
        assert!(findings.is_empty(), "{findings:?}");
        assert!(lines[0].contains("0 with code and test, 1 exceptions"), "{lines:?}");
        assert!(lines[0].contains("1 of them tested"), "{lines:?}");
        let (findings, _) = check(&reasoned, CODE, "");
        assert!(findings[0].contains("exception"), "{findings:?}");
        let (findings, _) = check(&exception, "", "");
        assert!(findings[0].contains("reason"), "{findings:?}");
    }

    #[test]
    fn what_fits_several_is_refused_and_what_holds_several_counts_for_each() {
        let second = SPEC.replace("A thing", "Another thing");
        let list = format!("{SPEC}{second}");
        let (findings, _) = check(&list, "//= URL\n//# thing MUST be done.\nfn a() {}\n", "");
        assert!(findings[0].contains("several"), "{findings:?}");
        let both = "//= URL\n//# A thing MUST be done. Another thing MUST be done.\nfn a() {}\n";
        let test = both.replacen("URL\n", "URL\n//= type=test\n", 1);
        let (findings, lines) = check(&list, both, &test);
        assert!(findings.is_empty(), "{findings:?}");
        assert!(lines[0].contains("2 with code and test"), "{lines:?}");
    }

    #[test]
    fn tests_are_tests_and_code_is_code() {
        let (findings, _) = check(SPEC, &format!("{CODE}{TEST}"), "");
        assert!(findings.iter().any(|it| it.contains("a.rs:5")), "{findings:?}");
        let (findings, _) = check(SPEC, "", CODE);
        assert!(findings.iter().any(|it| it.contains("tests/proxy/a.rs:1")), "{findings:?}");
    }
}
