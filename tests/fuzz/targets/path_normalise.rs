//! `:path`: what is accepted has one normal form that means what was sent, decoded as a careless backend would; the form is a
//! fixed point, has no dot segment, and no spelling of it leads to another. What is refused, the oracle refuses.
//!
//! Input: the path as it is.

use spooky_user::codec::path::Target;

use crate::oracle;

pub(super) fn run(input: &[u8]) {
    let expected = oracle::resolved(input);
    let target = match Target::parse(input) {
        Ok(target) => target,
        Err(error) => {
            assert_eq!(expected, None, "refused for {error:?}");
            return;
        }
    };
    let (text, path) = (target.as_str(), target.path());
    assert!(expected.is_some(), "accepted as {text}");
    assert_eq!(oracle::resolved(text.as_bytes()), expected, "{text} means something else");
    assert_eq!(Target::parse(text.as_bytes()).as_ref(), Ok(&target), "a fixed point");
    assert!(path.starts_with('/') && !path.contains("//"), "{path}");
    assert!(text.bytes().all(|octet| octet.is_ascii_graphic()), "{text}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path}");
    text.parse::<http::uri::PathAndQuery>().expect("a URI has it");
    assert_eq!(spelt_otherwise(path), path, "another spelling is another path");
    let query = input.iter().position(|octet| *octet == b'?').map(|at| &input[at + 1..]);
    assert_eq!(target.query().is_some(), query.is_some());
}

/// The normal form of the same path with every letter, digit and dot encoded, in lower case.
fn spelt_otherwise(path: &str) -> String {
    let mut spelt = String::new();
    let mut octets = path.bytes();
    while let Some(octet) = octets.next() {
        match octet {
            b'%' => {
                spelt.push('%');
                spelt.extend(
                    octets.by_ref().take(2).map(|digit| char::from(digit.to_ascii_lowercase())),
                );
            }
            b'a'..=b'z' | b'0'..=b'9' | b'.' => spelt.push_str(&format!("%{octet:02x}")),
            b'/' => spelt.push_str("/.//"),
            _ => spelt.push(char::from(octet)),
        }
    }
    // The slashes that were put in stand for none at the end, too.
    Target::parse(spelt.as_bytes()).expect("it is the same path").path().to_owned()
}
