//! A Rust file as tidy sees it: the code with comments and literals blanked out, the comments by
//! themselves, and which lines are tests. A small lexer, not a parser: it knows where a string or a
//! comment ends and where a brace is closed, and nothing of the grammar.

/// All three texts have the same lines as the file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the repository.
    pub(super) path: String,
    /// Comments, strings and characters replaced by spaces.
    pub(super) code: Vec<String>,
    /// Comments alone.
    pub(super) comments: Vec<String>,
    /// Whether the line belongs to a test module or item.
    pub(super) is_test: Vec<bool>,
    /// Lines of the file as they are.
    pub(super) lines: Vec<String>,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let is_test =
            if is_test_file(path) { vec![true; code.lines().count()] } else { test_lines(&code) };
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Self {
            path: path.to_owned(),
            code: lines(&code),
            comments: lines(&comments),
            is_test,
            lines: lines(text),
        }
    }

    /// `path:line`, `index` counting from 0.
    pub(super) fn at(&self, index: usize) -> String {
        format!("{}:{}", self.path, index + 1)
    }

    /// The code without tests, lines kept.
    pub(super) fn code_without_tests(&self) -> String {
        let lines = self.code.iter().zip(&self.is_test);
        let kept = lines.map(|(line, is_test)| if *is_test { "" } else { line.as_str() });
        kept.collect::<Vec<_>>().join("\n")
    }

    /// Lines of code that belong to the program, not to its tests: index and text.
    pub(super) fn program_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.code.iter().zip(&self.is_test).enumerate();
        lines
            .filter(|(_, (_, is_test))| !**is_test)
            .map(|(index, (line, _))| (index, line.as_str()))
    }
}

/// Files that hold nothing but tests.
fn is_test_file(path: &str) -> bool {
    let program = ["tests/origin/", "tests/devcert/", "tests/relay/", "tests/support/"];
    let whole = path.starts_with("tests/") && !program.iter().any(|dir| path.starts_with(dir));
    whole || path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Code and comments of `text`, each with everything else replaced by spaces.
fn split(text: &str) -> (String, String) {
    let mut lexer = Lexer { rest: text, code: String::new(), comments: String::new() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    (lexer.code, lexer.comments)
}

struct Lexer<'a> {
    rest: &'a str,
    code: String,
    comments: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum To {
    Code,
    Comments,
    Nowhere,
}

impl Lexer<'_> {
    fn step(&mut self) {
        let rest = self.rest;
        if rest.starts_with("//") {
            self.take(rest.find('\n').unwrap_or(rest.len()), To::Comments);
        } else if rest.starts_with("/*") {
            self.take(block_comment(rest), To::Comments);
        } else if let Some(length) = raw_string(rest).filter(|_| !self.in_word()) {
            self.take(length, To::Nowhere);
        } else if rest.starts_with('"') {
            self.take(quoted(rest, '"'), To::Nowhere);
        } else if let Some(length) = character(rest) {
            self.take(length, To::Nowhere);
        } else {
            let length = rest.chars().next().map_or(1, char::len_utf8);
            self.take(length, To::Code);
        }
    }

    /// Whether the code so far ends inside an identifier, so that an `r` or `b` is part of it.
    fn in_word(&self) -> bool {
        self.code.chars().next_back().is_some_and(is_word)
    }

    fn take(&mut self, length: usize, to: To) {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        for character in taken.chars() {
            let (code, comment) = match (character, to) {
                ('\n', _) => ('\n', '\n'),
                (_, To::Code) => (character, ' '),
                (_, To::Comments) => (' ', character),
                (_, To::Nowhere) => (' ', ' '),
            };
            self.code.push(code);
            self.comments.push(comment);
        }
        self.rest = rest;
    }
}

pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Length of the block comment at the start, nested ones within.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(next) = text.get(at..at + 2) {
        match next {
            "/*" => {
                depth += 1;
                at += 2;
            }
            "*/" => {
                depth = depth.saturating_sub(1);
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
        while at < text.len() && !text.is_char_boundary(at) {
            at += 1;
        }
    }
    text.len()
}

/// Length of `r"…"`, `r#"…"#`, `br"…"` and so on at the start.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let body = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let close = body.find(&end).map_or(body.len(), |at| at + end.len());
    Some(prefix.len() + hashes + 1 + close)
}

/// Length of the quoted literal at the start, escapes within.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the character literal at the start; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let mut inner = text.strip_prefix('\'')?.chars();
    match inner.next()? {
        '\\' => Some(quoted(text, '\'')),
        first if inner.next() == Some('\'') => Some(2 + first.len_utf8()),
        _ => None,
    }
}

/// Which lines stand under a `#[cfg(test)]`, attribute included.
fn test_lines(code: &str) -> Vec<bool> {
    let mut is_test = vec![false; code.lines().count()];
    let line_of = |at: usize| code[..at].matches('\n').count();
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(code, start);
        for line in is_test.iter_mut().take(line_of(end) + 1).skip(line_of(start)) {
            *line = true;
        }
        from = end.max(start + 1);
    }
    is_test
}

/// Where the item that begins at `start` ends: its closing brace, or its semicolon before a brace.
fn item_end(code: &str, start: usize) -> usize {
    let mut depth = 0_usize;
    for (at, character) in code[start..].char_indices() {
        match character {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return start + at;
                }
            }
            ';' if depth == 0 => return start + at,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_comments_are_no_code() {
        let (code, comments) =
            split("let a = \"} // {\"; // note {\nlet b = '{'; /* x /* y */ */ b");
        assert!(!code.contains(['{', '}']), "{code}");
        assert!(code.contains("let b =") && code.ends_with(" b"), "{code}");
        assert!(comments.contains("note") && comments.contains("y */"), "{comments}");
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn raw_strings_end_where_they_should() {
        let (code, _) = split("f(r#\"a \"quoted\" {\"#); number(br\"{\"); 'a: loop {}");
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert!(code.contains("number(") && code.contains("'a: loop"), "{code}");
    }

    #[test]
    fn escapes_and_lifetimes_do_not_confuse() {
        let (code, _) = split(r#"let q = '\''; let s = "\"{"; fn f<'a>(x: &'a str) {}"#);
        assert_eq!(code.matches('{').count(), 1, "{code}");
        assert!(code.contains("fn f<'a>(x: &'a str) {}"), "{code}");
    }

    #[test]
    fn test_modules_and_items_are_marked() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\nfn c() {}\n\
                    #[cfg(test)]\nuse x::y;\nfn d() {}\n";
        let source = Source::new("spooky-user/src/a.rs", text);
        let tests: Vec<usize> =
            (1..).zip(&source.is_test).filter(|(_, test)| **test).map(|(line, _)| line).collect();
        assert_eq!(tests, [2, 3, 4, 5, 7, 8]);
        assert!(!source.code_without_tests().contains("fn b"));
        assert!(source.code_without_tests().contains("fn d"));
    }

    #[test]
    fn whole_test_files_are_tests() {
        assert!(Source::new("tests/proxy/main.rs", "fn a() {}").is_test[0]);
        assert!(Source::new("spooky-user/src/x/tests.rs", "fn a() {}").is_test[0]);
        assert!(Source::new("spooky-user/src/x/tests/y.rs", "fn a() {}").is_test[0]);
        assert!(!Source::new("tests/origin/main.rs", "fn a() {}").is_test[0]);
    }
}
