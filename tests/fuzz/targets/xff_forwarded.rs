//! What a backend is told of the client: of each field that speaks about it exactly the one value that spooky knows, whatever
//! was sent; every other field as it came.
//!
//! Input: the client's address, then a line a field.

use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use spooky_user::codec::authority::Authority;
use spooky_user::codec::field::Scheme;
use spooky_user::codec::forwarded;

use crate::script;

/// Fields by which some proxy or framework tells who the client is; written from what these read, not from spooky's list.
const SPEAK_OF_THE_CLIENT: [&str; 11] = [
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-client-cert",
    "x-real-ip",
    "x-request-id",
    "early-data",
    "client-cert",
];

pub(super) fn run(input: &[u8]) {
    let mut lines = script::lines(input, 100);
    let peer = lines.next().map_or(IpAddr::V6(Ipv6Addr::LOCALHOST), |line| address(&line.word(0)));
    let mut sent = HeaderMap::new();
    for line in lines {
        let (name, value) =
            (HeaderName::from_bytes(&line.word(0)), HeaderValue::from_bytes(&line.rest()));
        if let (Ok(name), Ok(value)) = (name, value) {
            sent.append(name, value);
        }
    }
    let authority = Authority::parse(b"example.com:8443", 443).expect("an authority");
    let mut told = sent.clone();
    let client = forwarded::address(peer);
    forwarded::replace_in_request(&mut told, client, Scheme::Https, &authority, b"0123abcd");

    let values = |name: &str| -> Vec<&[u8]> {
        told.get_all(name).iter().map(HeaderValue::as_bytes).collect()
    };
    let text = match peer {
        IpAddr::V6(address) => match address.octets() {
            [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d] => format!("{a}.{b}.{c}.{d}"),
            _ => address.to_string(),
        },
        IpAddr::V4(address) => address.to_string(),
    };
    assert_eq!(values("x-forwarded-for"), [text.as_bytes()]);
    assert_eq!(values("x-forwarded-proto"), [b"https"]);
    assert_eq!(values("x-forwarded-host"), [b"example.com:8443"]);
    assert_eq!(values("x-request-id"), [b"0123abcd"]);
    assert_eq!(values("via"), [b"3 spooky"]);
    let set = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "via"];
    for name in SPEAK_OF_THE_CLIENT {
        assert!(set.contains(&name) || values(name).is_empty(), "{name} was believed");
    }
    for name in sent.keys() {
        let name = name.as_str();
        let speaks = SPEAK_OF_THE_CLIENT.contains(&name)
            || name.starts_with("client-cert")
            || name == "cdn-loop";
        if !speaks {
            let before: Vec<&[u8]> = sent.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            assert_eq!(values(name), before, "{name} was changed");
        }
    }
}

/// An address as written, or one made of the octets.
fn address(word: &[u8]) -> IpAddr {
    let text = std::str::from_utf8(word).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or_else(|| {
        let mut octets = [0; 16];
        for (octet, byte) in octets.iter_mut().rev().zip(word.iter().rev()) {
            *octet = *byte;
        }
        IpAddr::V6(octets.into())
    })
}
