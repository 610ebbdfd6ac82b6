//! `:path`: one normal form that is both routed and forwarded (RFC 9114 §4.3.1, RFC 3986 §6.2.2). Imports nothing of the crate.
//!
//! If routing saw another path than the backend does, a rule for `/admin` could be walked around. The rules and their reasons
//! are in docs/codex/decisions/0030-path-normal-form.md.

use std::fmt;

/// A request target in normal form: a path that starts with `/` and, perhaps, a query. Or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    text: String,
    path_length: usize,
}

/// Why a `:path` was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not start with `/` (and is not `*` with OPTIONS).
    NotAbsolute,
    /// It has a control, a space, `#`, a backslash in its path, or a byte outside ASCII.
    ForbiddenByte,
    /// A `%` in its path is not followed by two hexadecimal digits.
    PercentEncoding,
    /// Its path has a percent-encoded slash, backslash or control.
    ForbiddenEncoding,
    /// Its percent-encoded octets are not UTF-8 (overlong forms of `.` and `/` included).
    NotUtf8,
    /// It climbs above the root with `..`.
    AboveRoot,
    /// A segment `.` or `..` has parameters (`..;x`), which some servers cut off before they look at the dots.
    DotSegmentParameter,
}

// === impl Target ===

impl Target {
    /// Normalises a `:path`.
    ///
    /// # Errors
    /// [`PathError`], see there.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        let query_at = bytes.iter().position(|byte| *byte == b'?').unwrap_or(bytes.len());
        let (path, query) = bytes.split_at_checked(query_at).unwrap_or((bytes, &[]));
        if path.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        let mut text = String::with_capacity(bytes.len());
        push_segments(&decode(path)?, &mut text)?;
        let path_length = text.len();
        push_query(query, &mut text)?;
        Ok(Self { text, path_length })
    }

    /// The target `*` of `OPTIONS *` (RFC 9110 §7.1).
    #[must_use]
    pub fn asterisk() -> Self {
        Self { text: "*".to_owned(), path_length: 1 }
    }

    /// The path: what routes match.
    #[must_use]
    pub fn path(&self) -> &str {
        self.text.get(..self.path_length).unwrap_or(&self.text)
    }

    /// What follows `?`, if there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path_length..)?.strip_prefix('?')
    }

    /// The whole: what is forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Is it `*`?
    #[must_use]
    pub fn is_asterisk(&self) -> bool {
        self.text == "*"
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The path with unreserved octets decoded, hexadecimal digits in upper case, and visible bytes that RFC 3986 does not allow
/// encoded. ASCII only.
fn decode(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut encoded = Utf8Check::default();
    let mut rest = path.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            encoded.break_off()?;
            match byte {
                b'\\' | b'#' | 0..=b' ' | 0x7f..=u8::MAX => return Err(PathError::ForbiddenByte),
                b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                    push_encoded(byte, &mut out);
                }
                _ => out.push(byte),
            }
            continue;
        }
        let (Some(high), Some(low)) = (rest.next().and_then(hex), rest.next().and_then(hex)) else {
            return Err(PathError::PercentEncoding);
        };
        let octet = high << 4 | low;
        match octet {
            b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(PathError::ForbiddenEncoding),
            0x80..=u8::MAX => encoded.octet(octet),
            _ => encoded.break_off()?,
        }
        if is_unreserved(octet) { out.push(octet) } else { push_encoded(octet, &mut out) }
    }
    encoded.break_off()?;
    Ok(out)
}

/// Appends the segments of `path`, dot segments removed and empty segments merged. `path` is ASCII and starts with `/`.
fn push_segments(path: &[u8], text: &mut String) -> Result<(), PathError> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut ends_in_slash = true;
    for segment in path.split(|byte| *byte == b'/') {
        ends_in_slash = matches!(segment, b"" | b"." | b"..");
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop().ok_or(PathError::AboveRoot)?;
            }
            _ if is_dot_with_parameter(segment) => return Err(PathError::DotSegmentParameter),
            _ => segments.push(segment),
        }
    }
    for segment in &segments {
        text.push('/');
        text.extend(segment.iter().copied().map(char::from));
    }
    if ends_in_slash {
        text.push('/');
    }
    Ok(())
}

/// `.;x`, `..;x`, and the same with `;` encoded.
fn is_dot_with_parameter(segment: &[u8]) -> bool {
    let rest = match segment {
        [b'.', b'.', rest @ ..] | [b'.', rest @ ..] => rest,
        _ => return false,
    };
    rest.starts_with(b";") || rest.starts_with(b"%3B")
}

/// Appends `query` (with its `?`, or empty) as received; visible bytes that no URI may have raw are encoded.
fn push_query(query: &[u8], text: &mut String) -> Result<(), PathError> {
    let mut out = Vec::with_capacity(query.len());
    for byte in query {
        match byte {
            0..=b' ' | b'#' | 0x7f..=u8::MAX => return Err(PathError::ForbiddenByte),
            b'"' | b'<' | b'>' => push_encoded(*byte, &mut out),
            _ => out.push(*byte),
        }
    }
    text.extend(out.into_iter().map(char::from));
    Ok(())
}

fn push_encoded(octet: u8, out: &mut Vec<u8>) {
    out.extend([b'%', hex_digit(octet >> 4), hex_digit(octet & 15)]);
}

fn hex_digit(value: u8) -> u8 {
    match value {
        0..=9 => b'0' + value,
        _ => b'A' - 10 + value,
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// RFC 3986 §2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Checks that each run of encoded octets above 0x7f is whole UTF-8 characters.
#[derive(Default)]
struct Utf8Check {
    run: Vec<u8>,
}

impl Utf8Check {
    fn octet(&mut self, octet: u8) {
        self.run.push(octet);
    }

    fn break_off(&mut self) -> Result<(), PathError> {
        if self.run.is_empty() {
            return Ok(());
        }
        std::str::from_utf8(&self.run).map_err(|_where| PathError::NotUtf8)?;
        self.run.clear();
        Ok(())
    }
}

// === impl PathError ===

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not start with a slash",
            Self::ForbiddenByte => "the path has a byte that no URI may have",
            Self::PercentEncoding => "a percent sign is not followed by two hexadecimal digits",
            Self::ForbiddenEncoding => "the path has an encoded slash, backslash or control",
            Self::NotUtf8 => "the encoded octets of the path are not UTF-8",
            Self::AboveRoot => "the path climbs above the root",
            Self::DotSegmentParameter => "a dot segment of the path has parameters",
        })
    }
}

impl std::error::Error for PathError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> Result<String, PathError> {
        Target::parse(path.as_bytes()).map(|target| target.to_string())
    }

    #[test]
    fn normal_form() {
        for (given, want) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a/"),
            ("/a/../admin", "/admin"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/..", "/"),
            ("/./admin", "/admin"),
            ("//admin", "/admin"),
            ("/a//b///c", "/a/b/c"),
            ("/a//../b", "/b"),
            ("/%61dmin", "/admin"),
            ("/%61%64min", "/admin"),
            ("/a/%2e%2E/admin", "/admin"),
            ("/a/.%2e/admin", "/admin"),
            ("/%7Euser/%2D", "/~user/-"),
            ("/a%20b", "/a%20b"),
            ("/a%3fb", "/a%3Fb"),
            ("/%25%32%65", "/%252e"),
            ("/%e2%82%ac", "/%E2%82%AC"),
            ("/a|b[c]{d}", "/a%7Cb%5Bc%5D%7Bd%7D"),
            ("/a;b=1/c", "/a;b=1/c"),
            ("/...", "/..."),
            ("/..a", "/..a"),
            ("/.a/", "/.a/"),
            ("/a?", "/a?"),
            ("/a?b=/../c//d&e=%zz%", "/a?b=/../c//d&e=%zz%"),
            ("/a?b[]={1}|\\", "/a?b[]={1}|\\"),
            ("/a?<\">", "/a?%3C%22%3E"),
            ("/a?b?c", "/a?b?c"),
            ("/%2a", "/%2A"),
        ] {
            assert_eq!(normal(given).as_deref(), Ok(want), "{given}");
        }
    }

    #[test]
    fn refused() {
        use PathError::{
            AboveRoot, DotSegmentParameter, ForbiddenByte, ForbiddenEncoding, NotAbsolute, NotUtf8,
            PercentEncoding,
        };
        for (given, want) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("admin", NotAbsolute),
            ("?a", NotAbsolute),
            ("https://example.com/", NotAbsolute),
            ("%2fadmin", NotAbsolute),
            ("/a#b", ForbiddenByte),
            ("/a?b#c", ForbiddenByte),
            ("/a b", ForbiddenByte),
            ("/a?b c", ForbiddenByte),
            ("/a\\b", ForbiddenByte),
            ("/\\..\\admin", ForbiddenByte),
            ("/a\0", ForbiddenByte),
            ("/\u{fc}", ForbiddenByte),
            ("/a?\u{fc}", ForbiddenByte),
            ("/%", PercentEncoding),
            ("/%4", PercentEncoding),
            ("/%zz", PercentEncoding),
            ("/%u002f", PercentEncoding),
            ("/admin%2f", ForbiddenEncoding),
            ("/admin%2Fx", ForbiddenEncoding),
            ("/a%5c..%5cadmin", ForbiddenEncoding),
            ("/%00", ForbiddenEncoding),
            ("/a%0d%0ab", ForbiddenEncoding),
            ("/a%7f", ForbiddenEncoding),
            ("/%c0%ae%c0%ae/admin", NotUtf8),
            ("/%e0%80%af", NotUtf8),
            ("/%e2%82", NotUtf8),
            ("/%e2%82/%ac", NotUtf8),
            ("/%ed%a0%80", NotUtf8),
            ("/..", AboveRoot),
            ("/../admin", AboveRoot),
            ("/a/../../admin", AboveRoot),
            ("/%2e%2e/admin", AboveRoot),
            ("//..", AboveRoot),
            ("/x/..;p=1/admin", DotSegmentParameter),
            ("/x/.;/admin", DotSegmentParameter),
            ("/x/..%3bp/admin", DotSegmentParameter),
            ("/x/%2e%2e;/admin", DotSegmentParameter),
        ] {
            assert_eq!(normal(given), Err(want), "{given}");
        }
    }

    #[test]
    fn path_and_query_are_apart() {
        let target = Target::parse(b"/a/./b?c=d?e").unwrap();
        assert_eq!((target.path(), target.query()), ("/a/b", Some("c=d?e")));
        let target = Target::parse(b"/a").unwrap();
        assert_eq!((target.path(), target.query()), ("/a", None));
        let target = Target::parse(b"/a?").unwrap();
        assert_eq!((target.path(), target.query()), ("/a", Some("")));
    }

    /// Every byte in a path and in a query, raw and encoded.
    #[test]
    fn every_byte() {
        for byte in 0..=u8::MAX {
            let visible = (0x21..=0x7e).contains(&byte);
            let in_path = Target::parse(&[b'/', b'a', byte, b'b']).is_ok();
            assert_eq!(in_path, visible && !b"#\\%".contains(&byte), "path {byte:#04x}");
            let in_query = Target::parse(&[b'/', b'?', byte, b'b']).is_ok();
            assert_eq!(in_query, visible && byte != b'#', "query {byte:#04x}");
            let encoded = Target::parse(format!("/a%{byte:02x}b").as_bytes()).is_ok();
            let want = (0x20..=0x7e).contains(&byte) && !b"/\\".contains(&byte);
            assert_eq!(encoded, want, "encoded {byte:#04x}");
        }
    }

    fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
        let Ok(target) = Target::parse(bytes) else { return Ok(()) };
        let again = Target::parse(target.as_str().as_bytes());
        prop_assert_eq!(again.as_ref(), Ok(&target));
        prop_assert!(target.path().starts_with('/'));
        prop_assert!(!target.path().contains("//"));
        prop_assert!(target.path().split('/').all(|segment| segment != "." && segment != ".."));
        prop_assert!(target.as_str().parse::<http::uri::PathAndQuery>().is_ok(), "{target}");
        prop_assert_eq!(
            target.as_str().len(),
            target.path().len() + target.query().map_or(0, |query| query.len() + 1)
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn idempotent_on_any_bytes(mut bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            check(&bytes)?;
            bytes.insert(0, b'/');
            check(&bytes)?;
        }

        #[test]
        fn idempotent_on_hostile_paths(
            parts in prop::collection::vec(
                prop::sample::select(vec![
                    "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "\\", "a", "admin", ";", "%3b", "?", "%", "%25",
                    "2e", "%61", "%c3%a9", "%c0%ae", "|", "\"", "*", "~", "%7e", " ", "#",
                ]),
                0..16,
            ),
        ) {
            check(format!("/{}", parts.concat()).as_bytes())?;
        }

        /// Encoding any visible byte of a path changes nothing in what is routed, or is refused.
        #[test]
        fn stable_under_encoding(path in "(/[a-z0-9._~-]{1,6}){1,5}", at in any::<prop::sample::Index>()) {
            let Ok(plain) = Target::parse(path.as_bytes()) else { return Ok(()) };
            let at = at.index(path.len());
            let encoded = format!("{}%{:02X}{}", &path[..at], path.as_bytes()[at], &path[at + 1..]);
            if let Ok(encoded) = Target::parse(encoded.as_bytes()) {
                prop_assert_eq!(encoded, plain);
            } else {
                prop_assert_eq!(path.as_bytes()[at], b'/');
            }
        }
    }
}
