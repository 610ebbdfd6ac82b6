//! What a backend is told about the client: X-Forwarded-For, -Proto, -Host, and Via (RFC 9110 §7.6.3). Imports codec only.
//!
//! spooky is the edge: it trusts nobody before it, so whatever a client sent of these fields is replaced, not appended to.

use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue, VIA};

use super::authority::Authority;
use super::field::Scheme;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The request's ID, for the backend's own log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Every field that says who the client is or what a trusted proxy found out: none is believed from a client.
pub const REPLACED: [HeaderName; 13] = [
    HeaderName::from_static("cdn-loop"),
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("client-cert-chain"),
    HeaderName::from_static("early-data"),
    http::header::FORWARDED,
    VIA,
    HeaderName::from_static("x-forwarded-client-cert"),
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    HeaderName::from_static("x-forwarded-port"),
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-real-ip"),
    X_REQUEST_ID,
];

/// Via of a request that came over HTTP/3.
const VIA_REQUEST: HeaderValue = HeaderValue::from_static("3 spooky");

/// X-Forwarded-For for a client at this address: its last *validated* one (RFC 9000 §9), never one that a packet merely
/// claims. An IPv4 client on a dual-stack socket is an IPv4 client.
#[must_use]
pub fn address(peer: IpAddr) -> HeaderValue {
    // The text of an address is a valid value.
    HeaderValue::try_from(peer.to_canonical().to_string())
        .unwrap_or_else(|_invalid| HeaderValue::from_static("unknown"))
}

/// Replaces in a request everything of [`REPLACED`]. `client` is what [`address`] made; `request_id` is visible ASCII.
pub fn replace_in_request(
    headers: &mut HeaderMap,
    client: HeaderValue,
    scheme: Scheme,
    authority: &Authority,
    request_id: &[u8],
) {
    // Usually there is none: one look at each name that came is less than a search for each of ours.
    if headers.keys().any(is_replaced) {
        for name in REPLACED {
            headers.remove(name);
        }
    }
    headers.insert(X_FORWARDED_FOR, client);
    // A checked authority and hexadecimal digits are valid values; were one not, it is left out.
    if let Ok(value) = HeaderValue::from_bytes(authority.as_str().as_bytes()) {
        headers.insert(X_FORWARDED_HOST, value);
    }
    if let Ok(mut value) = HeaderValue::from_bytes(request_id) {
        // No two are equal: in HPACK's table (RFC 7541 §7.1.3) each would only push out a field that comes again.
        value.set_sensitive(true);
        headers.insert(X_REQUEST_ID, value);
    }
    let proto = match scheme {
        Scheme::Https => HeaderValue::from_static("https"),
    };
    headers.insert(X_FORWARDED_PROTO, proto);
    headers.insert(VIA, VIA_REQUEST);
}

/// Is it one of [`REPLACED`]? By its first letter first, which most names do not share.
fn is_replaced(name: &HeaderName) -> bool {
    matches!(name.as_str().as_bytes().first(), Some(b'c' | b'e' | b'f' | b'v' | b'x'))
        && REPLACED.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(peer: &str, sent: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in sent {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let authority = Authority::parse(b"Example.com:8443", 443).unwrap();
        let client = address(peer.parse().unwrap());
        replace_in_request(&mut headers, client, Scheme::Https, &authority, b"0a1b");
        headers
    }

    fn all<'h>(headers: &'h HeaderMap, name: &str) -> Vec<&'h str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn a_backend_sees_exactly_the_validated_peer() {
        let headers = replaced(
            "192.0.2.7",
            &[
                ("x-forwarded-for", "10.0.0.1"),
                ("x-forwarded-for", "10.0.0.2, 10.0.0.3"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "evil.example"),
                ("x-forwarded-port", "1"),
                ("x-forwarded-client-cert", "Hash=0"),
                ("forwarded", "for=10.0.0.1"),
                ("x-real-ip", "10.0.0.1"),
                ("x-request-id", "mine"),
                ("early-data", "1"),
                ("via", "1.1 other"),
                ("accept", "*/*"),
            ],
        );
        assert_eq!(all(&headers, "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all(&headers, "x-forwarded-proto"), ["https"]);
        assert_eq!(all(&headers, "x-forwarded-host"), ["example.com:8443"]);
        assert_eq!(all(&headers, "x-request-id"), ["0a1b"]);
        assert_eq!(all(&headers, "via"), ["3 spooky"]);
        assert_eq!(all(&headers, "accept"), ["*/*"]);
        assert_eq!(headers.len(), 6, "{headers:?}");
    }

    #[test]
    fn every_name_that_is_replaced_is_found() {
        assert!(REPLACED.iter().all(is_replaced));
        assert!(!is_replaced(&http::header::COOKIE) && !is_replaced(&http::header::ACCEPT));
    }

    #[test]
    fn a_mapped_address_is_ipv4() {
        assert_eq!(all(&replaced("::ffff:192.0.2.7", &[]), "x-forwarded-for"), ["192.0.2.7"]);
        assert_eq!(all(&replaced("2001:db8::1", &[]), "x-forwarded-for"), ["2001:db8::1"]);
    }
}
