//! Heads on their way: what a backend is sent, what a client is sent when spooky answers itself, what a hash policy hashes.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, COOKIE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};

use crate::codec::forwarded;
use crate::dataplane::balance::{self, HashOn};
use crate::dataplane::exchange::Exchange;
use crate::dataplane::exchange::error::{Kind, ProxyError};
use crate::dataplane::upstream::cluster::{Cluster, Endpoint};
use crate::telemetry::request_id::RequestId;

/// Puts spooky's own in the place of the fields that speak about the client, once for all attempts.
pub(super) fn replace_fields(exchange: &mut Exchange, id: &RequestId) {
    let client = exchange.client.forwarded_for.clone();
    let head = &mut exchange.head;
    let (scheme, authority) = (head.scheme, &head.authority);
    forwarded::replace_in_request(&mut head.headers, client, scheme, authority, id.as_bytes());
}

/// The request as the backend gets it, after [`replace_fields`].
///
/// `:scheme` follows the connection to the backend, not the client's: servers that check it compare it with what they see.
/// The client's is in X-Forwarded-Proto.
pub(super) fn request(exchange: &Exchange, endpoint: &Endpoint) -> Result<Request<()>, ProxyError> {
    let head = &exchange.head;
    let mut parts = Request::new(()).into_parts().0;
    parts.method = head.method.clone();
    parts.version = Version::HTTP_2;
    parts.uri = uri(exchange, endpoint).ok_or(ProxyError::new(Kind::ClientMalformed))?;
    parts.headers = head.headers.clone();
    Ok(Request::from_parts(parts, ()))
}

fn uri(exchange: &Exchange, endpoint: &Endpoint) -> Option<Uri> {
    let head = &exchange.head;
    let mut parts = http::uri::Parts::default();
    let tls = endpoint.settings.tls.is_some();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(head.authority.as_str().parse().ok()?);
    parts.path_and_query = Some(PathAndQuery::try_from(head.target.as_str()).ok()?);
    Uri::from_parts(parts).ok()
}

/// The fields of a response without content that spooky makes.
///
/// With 503 and 429 it says when to come back (RFC 9110 §10.2.3), in whole seconds, one at least: endpoints are well again
/// within a few health checks.
pub(super) fn own_response(status: StatusCode, retry_after: Duration) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        let seconds = retry_after.as_millis().div_ceil(1000).max(1);
        let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
        headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    headers
}

/// What the hash policies hash for this request; 0 when the policy hashes nothing.
pub(super) fn hash_key(exchange: &Exchange, cluster: &Cluster) -> u64 {
    if !cluster.balancer.wants_key() {
        return 0;
    }
    let head = &exchange.head;
    let found = match &cluster.hash_on {
        HashOn::SourceIp => None,
        HashOn::Path => Some(head.target.path().as_bytes()),
        HashOn::Header(name) => head.headers.get(name).map(HeaderValue::as_bytes),
        HashOn::Cookie(name) => cookie(&head.headers, name),
    };
    match found {
        Some(bytes) => balance::hash(bytes),
        None => match exchange.client.address {
            std::net::IpAddr::V4(address) => balance::hash(&address.octets()),
            std::net::IpAddr::V6(address) => balance::hash(&address.octets()),
        },
    }
}

/// The value of a cookie, from crumbs or whole (RFC 6265 §5.4, RFC 9114 §4.2.1).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|octet| *octet == b';'))
        .map(<[u8]>::trim_ascii)
        .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_whole_or_in_crumbs() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; session=xyz; b=2"));
        headers.append(COOKIE, HeaderValue::from_static("other=7"));
        assert_eq!(cookie(&headers, "session"), Some(&b"xyz"[..]));
        assert_eq!(cookie(&headers, "other"), Some(&b"7"[..]));
        assert_eq!(cookie(&headers, "sess"), None);
        assert_eq!(cookie(&headers, "c"), None);
    }
}
