//! `:authority` and `host`: one host, at most one port (RFC 9110 §4.2.2, RFC 3986 §3.2). Imports nothing of the crate.
//!
//! Stricter than the generic syntax, because the value chooses a route and is forwarded: no userinfo, no percent-encoding and
//! no sub-delims in names, no zone identifiers.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in the DNS (RFC 1035 §2.3.4), in its written form without the last dot.
const NAME_MAX: usize = 253;

/// Longest label (RFC 1035 §2.3.4).
const LABEL_MAX: usize = 63;

/// A host and port in normal form: lower case, no trailing dot, canonical IPv6 text, the default port left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// `host` or `host:port`.
    text: String,
    host_length: usize,
    port: Option<u16>,
}

/// Why an authority was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    /// It is empty, or has a port only.
    Empty,
    /// It has userinfo (`@`), forbidden by RFC 9114 §4.3.1.
    Userinfo,
    /// Its host is no name, IPv4 address or bracketed IPv6 address.
    Host,
    /// Its port is not 1 to 5 digits of at most 65535.
    Port,
}

// === impl Authority ===

impl Authority {
    /// Reads `host [":" port]`. A port equal to `default_port` (443 for https) is dropped, so that two spellings of one
    /// authority are equal.
    ///
    /// # Errors
    /// [`AuthorityError`], see there.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
    //# The authority MUST NOT include the deprecated userinfo subcomponent for
    //# URIs of scheme "http" or "https".
    pub fn parse(bytes: &[u8], default_port: u16) -> Result<Self, AuthorityError> {
        if bytes.contains(&b'@') {
            return Err(AuthorityError::Userinfo);
        }
        let (host, port) = split_port(bytes)?;
        let port = port.map(parse_port).transpose()?.filter(|port| *port != default_port);
        let mut text = match host.strip_prefix(b"[") {
            Some(rest) => parse_ipv6(rest)?,
            None => parse_name(host)?,
        };
        let host_length = text.len();
        if let Some(port) = port {
            text.push(':');
            text.push_str(&port.to_string());
        }
        Ok(Self { text, host_length, port })
    }

    /// The host: what routes match. An IPv6 address keeps its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.text.get(..self.host_length).unwrap_or(&self.text)
    }

    /// Whether this is the host's name, without regard to case and a final dot.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        name.strip_suffix('.').unwrap_or(name).eq_ignore_ascii_case(self.host())
    }

    /// The port, unless it is the scheme's default.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The whole: what is forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// `[v6]:port`, `host:port` or either without port.
fn split_port(bytes: &[u8]) -> Result<(&[u8], Option<&[u8]>), AuthorityError> {
    let host_end = match bytes.first() {
        None => return Err(AuthorityError::Empty),
        Some(b'[') => {
            1 + bytes.iter().position(|byte| *byte == b']').ok_or(AuthorityError::Host)?
        }
        Some(_) => bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len()),
    };
    let (host, rest) = bytes.split_at_checked(host_end).ok_or(AuthorityError::Host)?;
    match rest.split_first() {
        _ if host.is_empty() => Err(AuthorityError::Empty),
        None => Ok((host, None)),
        Some((b':', port)) => Ok((host, Some(port))),
        Some(_) => Err(AuthorityError::Host),
    }
}

fn parse_port(digits: &[u8]) -> Result<u16, AuthorityError> {
    if digits.is_empty() || digits.len() > 5 {
        return Err(AuthorityError::Port);
    }
    let value = digits.iter().try_fold(0_u32, |value, digit| match digit {
        b'0'..=b'9' => Ok(value * 10 + u32::from(digit - b'0')),
        _ => Err(AuthorityError::Port),
    })?;
    u16::try_from(value).map_err(|_over_65535| AuthorityError::Port)
}

/// `rest` is what follows `[`, up to and with `]`.
fn parse_ipv6(rest: &[u8]) -> Result<String, AuthorityError> {
    let text = rest.strip_suffix(b"]").ok_or(AuthorityError::Host)?;
    let text = std::str::from_utf8(text).map_err(|_not_ascii| AuthorityError::Host)?;
    let address: Ipv6Addr = text.parse().map_err(|_not_ipv6| AuthorityError::Host)?;
    Ok(format!("[{address}]"))
}

fn parse_name(host: &[u8]) -> Result<String, AuthorityError> {
    // A trailing dot marks a fully qualified name; with and without, it is one host.
    let host = host.strip_suffix(b".").unwrap_or(host);
    if host.is_empty() || host.len() > NAME_MAX {
        return Err(AuthorityError::Host);
    }
    let mut last: &[u8] = host;
    for label in host.split(|byte| *byte == b'.') {
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if label.is_empty() || label.len() > LABEL_MAX || !label.iter().all(valid) {
            return Err(AuthorityError::Host);
        }
        last = label;
    }
    let name: String = host.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect();
    // Some parsers take 0x7f.1 or 127.1 for an address: what ends in a number must be a whole IPv4 address.
    if ends_in_number(last) && name.parse::<Ipv4Addr>().is_err() {
        return Err(AuthorityError::Host);
    }
    Ok(name)
}

/// The rule of the WHATWG URL standard, §3.5 "ends in a number".
fn ends_in_number(label: &[u8]) -> bool {
    match label.strip_prefix(b"0x").or_else(|| label.strip_prefix(b"0X")) {
        Some(hex) => hex.iter().all(u8::is_ascii_hexdigit),
        None => label.iter().all(u8::is_ascii_digit),
    }
}

// === impl AuthorityError ===

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the authority is empty",
            Self::Userinfo => "the authority has userinfo",
            Self::Host => "the host is no name, IPv4 address or bracketed IPv6 address",
            Self::Port => "the port is not a number from 0 to 65535",
        })
    }
}

impl std::error::Error for AuthorityError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, AuthorityError> {
        Authority::parse(text.as_bytes(), 443).map(|authority| authority.to_string())
    }

    #[test]
    fn normal_form() {
        for (given, want) in [
            ("example.com", "example.com"),
            ("EXAMPLE.Com", "example.com"),
            ("example.com.", "example.com"),
            ("example.com:443", "example.com"),
            ("example.com:00443", "example.com"),
            ("example.com.:8443", "example.com:8443"),
            ("example.com:0", "example.com:0"),
            ("a_b.internal", "a_b.internal"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]:443", "[::1]"),
            ("[2001:DB8::A]:65535", "[2001:db8::a]:65535"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(parse(given).as_deref(), Ok(want), "{given}");
        }
    }

    #[test]
    fn refused() {
        use AuthorityError::{Empty, Host, Port, Userinfo};
        for (given, want) in [
            ("", Empty),
            (":443", Empty),
            ("user@example.com", Userinfo),
            ("@", Userinfo),
            (".", Host),
            ("..", Host),
            (".example.com", Host),
            ("example..com", Host),
            ("example.com..", Host),
            ("a,b", Host),
            ("a b", Host),
            ("a#b", Host),
            ("a/b", Host),
            ("a?b", Host),
            ("a%41", Host),
            ("a\\b", Host),
            ("b\u{fc}cher.example", Host),
            ("1.2.3", Host),
            ("1.2.3.256", Host),
            ("0x7f.1", Host),
            ("127.0.0.0x1", Host),
            ("4294967295", Host),
            ("[::1", Host),
            ("[::1]x", Host),
            ("[fe80::1%25eth0]", Host),
            ("[v1.a]", Host),
            ("[]", Host),
            ("::1", Empty),
            ("a:", Port),
            ("a:+1", Port),
            ("a:65536", Port),
            ("a:000080", Port),
            ("a:80:80", Port),
            ("[::1]:", Port),
        ] {
            assert_eq!(parse(given), Err(want), "{given}");
        }
        assert_eq!(parse(&"a".repeat(64)), Err(Host));
        assert_eq!(parse(&format!("{}.com", "a.".repeat(125))), Err(Host));
    }

    #[test]
    fn names_are_compared_without_case_port_and_final_dot() {
        let authority = Authority::parse(b"Example.com:8443", 443).unwrap();
        assert!(authority.is_named("example.com") && authority.is_named("EXAMPLE.COM."));
        assert!(!authority.is_named("example.com:8443") && !authority.is_named("www.example.com"));
    }

    /// Every byte as the middle of a name: only what names are made of, and the colon (which begins a port), may pass.
    #[test]
    fn every_byte_in_a_name() {
        for byte in 0..=u8::MAX {
            let accepted = Authority::parse(&[b'a', byte, b'b'], 443).is_ok();
            let want = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert_eq!(accepted, want, "byte {byte:#04x}");
        }
    }

    proptest! {
        #[test]
        fn normal_form_is_idempotent_and_clean(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(authority) = Authority::parse(&bytes, 443) {
                let again = Authority::parse(authority.as_str().as_bytes(), 443);
                prop_assert_eq!(again.as_ref(), Ok(&authority));
                prop_assert_eq!(authority.as_str(), authority.as_str().to_ascii_lowercase());
                prop_assert!(authority.as_str().starts_with(authority.host()));
                prop_assert_ne!(authority.port(), Some(443));
            }
        }

        #[test]
        fn likely_authorities_are_idempotent(text in "[a-zA-Z0-9.:\\[\\]_-]{1,24}") {
            if let Ok(authority) = Authority::parse(text.as_bytes(), 443) {
                let again = Authority::parse(authority.as_str().as_bytes(), 443);
                prop_assert_eq!(again, Ok(authority));
            }
        }
    }
}
