//! Size and head of a file: so that each is one noun that fits into a reader's head.

use super::Finding;
use super::source::{Source, is_word};

const FILE_WARN: usize = 500;
const FILE_MAX: usize = 700;
const FUNCTION_WARN: usize = 70;
const FUNCTION_MAX: usize = 100;

pub(super) fn check(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !starts_with_module_doc(source) {
        findings.push(Finding::error(&source.path, "must begin with `//!`: what it is for"));
    }
    let program = source.program_lines().count();
    let is_test = source.is_test.iter().all(|test| *test);
    let lines = if is_test { source.lines.len() } else { program };
    let what = format!("{lines} lines without tests");
    findings.extend(too_long(&source.path, &what, lines, FILE_WARN, FILE_MAX));
    for function in functions(&source.code) {
        let at = source.at(function.line);
        let what = format!("`{}` has {} lines", function.name, function.lines);
        let finding = too_long(&at, &what, function.lines, FUNCTION_WARN, FUNCTION_MAX);
        // A test is a conversation and may be long; it is still shown.
        findings.extend(finding.map(|finding| match source.is_test.get(function.line) {
            Some(true) => Finding::warning(&at, finding.message),
            _ => finding,
        }));
    }
    findings
}

fn too_long(at: &str, what: &str, lines: usize, warn: usize, max: usize) -> Option<Finding> {
    if lines > max {
        Some(Finding::error(at, format!("{what}, more than {max}")))
    } else if lines > warn {
        Some(Finding::warning(at, format!("{what}, more than {warn}")))
    } else {
        None
    }
}

fn starts_with_module_doc(source: &Source) -> bool {
    let first = source.lines.iter().map(|line| line.trim()).find(|line| !line.is_empty());
    first.is_some_and(|line| line.starts_with("//!"))
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    /// Index of the line with `fn`.
    line: usize,
    /// From that line to the closing brace.
    lines: usize,
}

/// Every function with a body.
fn functions(code: &[String]) -> Vec<Function> {
    let mut functions = Vec::new();
    for (index, line) in code.iter().enumerate() {
        let Some((column, name)) = function_name(line) else { continue };
        let rest = code[index + 1..].iter().map(String::as_str);
        if let Some(end) = body_end(std::iter::once(&line[column..]).chain(rest)) {
            functions.push(Function { name, line: index, lines: end + 1 });
        }
    }
    functions
}

/// Where `fn` stands as a word of its own, and the name after it; `fn(` is a type.
fn function_name(line: &str) -> Option<(usize, String)> {
    let at = line
        .match_indices("fn ")
        .map(|(at, _)| at)
        .find(|at| !line[..*at].chars().next_back().is_some_and(is_word))?;
    let name: String = line[at + 3..].trim_start().chars().take_while(|c| is_word(*c)).collect();
    (!name.is_empty()).then_some((at, name))
}

/// How many lines on the body ends; `None` for a declaration.
fn body_end<'a>(code: impl Iterator<Item = &'a str>) -> Option<usize> {
    let mut braces = 0_usize;
    // `;` within the parentheses or brackets of a signature is an array length.
    let mut brackets = 0_usize;
    for (index, line) in code.enumerate() {
        for character in line.chars() {
            match character {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets = brackets.saturating_sub(1),
                '{' => braces += 1,
                '}' => {
                    braces = braces.saturating_sub(1);
                    if braces == 0 {
                        return Some(index);
                    }
                }
                ';' if braces == 0 && brackets == 0 => return None,
                _ => {}
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn functions_of(text: &str) -> Vec<(String, usize)> {
        let source = Source::new("spooky-user/src/a.rs", text);
        functions(&source.code).into_iter().map(|it| (it.name, it.lines)).collect()
    }

    #[test]
    fn functions_are_measured_to_their_last_brace() {
        let text = "fn a(x: [u8; 4]) -> u8 {\n    if x == y {\n    }\n}\n\
                    trait T { fn declared(&self); }\npub(crate) const fn b() {}\nlet f: fn(u8) = g;\n";
        let expected = [("a", 4), ("b", 1)].map(|(name, lines)| (name.to_owned(), lines));
        assert_eq!(functions_of(text), expected);
    }

    #[test]
    fn long_files_and_functions_are_found() {
        let body = "    x();\n".repeat(FUNCTION_MAX);
        let text = format!("//! Doc.\nfn long() {{\n{body}}}\n");
        let findings = check(&Source::new("spooky-user/src/a.rs", &text));
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].message.contains("`long` has 102 lines"), "{findings:?}");
        let text = format!("//! Doc.\n{}", "const A: u8 = 1;\n".repeat(FILE_MAX));
        let findings = check(&Source::new("spooky-user/src/a.rs", &text));
        assert!(findings[0].message.contains("701 lines"), "{findings:?}");
    }

    #[test]
    fn tests_in_a_file_do_not_count() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "    use a::b;\n".repeat(900));
        assert_eq!(check(&Source::new("spooky-user/src/a.rs", &format!("//! Doc.\n{tests}"))), []);
    }

    #[test]
    fn a_module_says_what_it_is_for() {
        let findings = check(&Source::new("spooky-user/src/a.rs", "use a::b;\n"));
        assert!(findings[0].message.contains("`//!`"), "{findings:?}");
    }
}
