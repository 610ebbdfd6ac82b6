//! Field sections: RFC 9110 §5 and RFC 9114 §4.2-4.3, for every protocol spooky speaks. Imports codec only.
//!
//! The transport library checks none of this: what passes here goes to a backend, what does not never reaches one. Pure, no
//! panics, one pass; cost is linear in the size of the section, which the caller's [`Limits`] bound.

mod content;
mod malformed;
mod section;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderMap, Method, StatusCode};

pub use self::content::Content;
pub use self::malformed::{Answer, Malformed};
use self::section::{Collected, Meter, Sender, is_token, parse_content_length};
use super::authority::Authority;
use super::forwarded;
use super::path::Target;

/// Bounds of one field section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Field lines, pseudo-header fields included. Each cookie crumb counts.
    pub max_fields: usize,
    /// Bytes: names, values and 32 a field (RFC 9114 §4.2.2), what SETTINGS_MAX_FIELD_SECTION_SIZE announces.
    pub max_section_size: usize,
    /// Bytes of one name.
    pub max_name: usize,
    /// Bytes of one value.
    pub max_value: usize,
}

/// A request's field section, checked. `host` is folded into `authority` and is not among `headers`.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Any token but CONNECT.
    pub method: Method,
    /// The only one served.
    pub scheme: Scheme,
    /// From `:authority`, or `host` without it; in normal form.
    pub authority: Authority,
    /// From `:path`; in normal form, the same for routing and forwarding.
    pub target: Target,
    /// The regular fields but `host`, in order; `content-length` and `te` at most once; cookie crumbs as received.
    pub headers: HeaderMap,
    /// What `content-length` promises.
    pub content_length: Option<u64>,
}

/// A response's field section, checked.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// 100..=599, not 101.
    pub status: StatusCode,
    /// The regular fields, in order.
    pub headers: HeaderMap,
    /// What `content-length` promises.
    pub content_length: Option<u64>,
}

/// The scheme of a request. RFC 9114 §4.3.1 allows any; a gateway that answers for `http` over TLS would mix two origins
/// (RFC 9110 §7.4), so only `https` is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `https`, default port 443.
    Https,
}

/// Pseudo-header fields of a request, as received.
#[derive(Default)]
struct RequestPseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    protocol: Option<&'a [u8]>,
}

// === impl Limits ===

impl Default for Limits {
    /// 100 fields, 32 KiB in all, 256 bytes a name, 16 KiB a value.
    fn default() -> Self {
        Self { max_fields: 100, max_section_size: 32 << 10, max_name: 256, max_value: 16 << 10 }
    }
}

// === impl Scheme ===

impl Scheme {
    /// As in a URI.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
        }
    }

    /// RFC 9110 §4.2.2.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
        }
    }
}

/// Reads a request's field section. `fields` are (name, value) in wire order, pseudo-header fields first.
///
/// # Errors
/// [`Malformed`]; [`Malformed::answer`] says what the client is told. [`Malformed::Connect`] is a valid request that spooky
/// does not serve.
pub fn request_head<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
) -> Result<RequestHead, Malformed> {
    let mut meter = Meter::new(limits);
    let mut pseudo = RequestPseudo::default();
    let mut collected = Collected::new(Sender::Client);
    let mut host = None;
    let mut regular_seen = false;
    for (name, value) in fields {
        meter.field(name, value)?;
        if name.first() == Some(&b':') {
            //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
            //# All pseudo-header fields MUST appear in the header section before
            //# regular header fields. Any request or response that contains a
            //# pseudo-header field that appears in a header section after a regular
            //# header field MUST be treated as malformed.
            if regular_seen {
                return Err(Malformed::PseudoLate);
            }
            pseudo.field(name, value)?;
            continue;
        }
        regular_seen = true;
        if name == b"host" {
            if host.replace(value).is_some() {
                return Err(Malformed::HostRepeated);
            }
            continue;
        }
        collected.field(name, value)?;
    }
    pseudo.finish(host, collected)
}

/// Reads a response's field section.
///
/// # Errors
/// [`Malformed`]: the peer that sent it broke the protocol.
pub fn response_head<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
) -> Result<ResponseHead, Malformed> {
    let mut meter = Meter::new(limits);
    let mut collected = Collected::new(Sender::Backend);
    let mut status = None;
    let mut regular_seen = false;
    for (name, value) in fields {
        meter.field(name, value)?;
        match name {
            b":status" if regular_seen => return Err(Malformed::PseudoLate),
            b":status" => {
                if status.replace(value).is_some() {
                    return Err(Malformed::PseudoRepeated);
                }
            }
            [b':', ..] => return Err(Malformed::PseudoUnknown),
            _ => {
                regular_seen = true;
                collected.field(name, value)?;
            }
        }
    }
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.2
    //# This pseudo-header field MUST be included in all responses; otherwise,
    //# the response is malformed (see Section 4.1.2).
    let status = parse_status(status.ok_or(Malformed::PseudoMissing)?)?;
    Ok(ResponseHead {
        status,
        headers: collected.headers,
        content_length: collected.content_length,
    })
}

/// Reads a request's trailer section. Fields that must not come in trailers (RFC 9110 §6.5.1: framing, routing,
/// authentication, and what [`forwarded`] sets) are left out, never merged.
///
/// # Errors
/// [`Malformed::Trailers`], or one of those over a limit.
pub fn trailers<'a>(
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    limits: &Limits,
) -> Result<HeaderMap, Malformed> {
    let mut meter = Meter::new(limits);
    let mut collected = Collected::new(Sender::Client);
    for (name, value) in fields {
        meter.field(name, value)?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
        //# On a given stream, receipt of multiple requests or receipt of an
        //# additional HTTP response following a final HTTP response MUST be treated
        //# as malformed.
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
        //# Pseudo-header fields MUST NOT appear in trailer sections.
        // A name that begins with a colon is no token: pseudo-header fields are refused here too.
        collected
            .field(name, value)
            .map_err(|error| if error.is_too_large() { error } else { Malformed::Trailers })?;
    }
    strip_trailers(&mut collected.headers);
    Ok(collected.headers)
}

/// Takes out of a trailer section, of either direction, what must not be there (RFC 9110 §6.5.1).
pub fn strip_trailers(trailers: &mut HeaderMap) {
    if trailers.is_empty() {
        return;
    }
    for name in NOT_IN_TRAILERS.into_iter().chain(forwarded::REPLACED) {
        trailers.remove(name);
    }
}

/// What a header section's `content-length` promises, for protocols whose library has parsed the fields already.
///
/// # Errors
/// [`Malformed::ContentLength`] for anything but one number, or several that are equal.
pub fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let this = parse_content_length(value.as_bytes()).ok_or(Malformed::ContentLength)?;
        if length.is_some_and(|known| known != this) {
            return Err(Malformed::ContentLength);
        }
        length = Some(this);
    }
    Ok(length)
}

// === impl RequestPseudo ===

impl<'a> RequestPseudo<'a> {
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
    //# Endpoints MUST treat a request or response that contains undefined or
    //# invalid pseudo-header fields as malformed.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
    //# Pseudo-header fields defined for requests MUST NOT appear in responses;
    //# pseudo-header fields defined for responses MUST NOT appear in requests.
    fn field(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Malformed> {
        let slot = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(Malformed::PseudoUnknown),
        };
        if slot.replace(value).is_some() { Err(Malformed::PseudoRepeated) } else { Ok(()) }
    }

    fn finish(
        self,
        host: Option<&'a [u8]>,
        collected: Collected,
    ) -> Result<RequestHead, Malformed> {
        let method = self.method.ok_or(Malformed::PseudoMissing)?;
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(Malformed::Method);
        }
        if method == b"CONNECT" {
            return Err(self.connect());
        }
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
        //# All HTTP/3 requests MUST include exactly one value for the :method,
        //# :scheme, and :path pseudo-header fields, unless the request is a
        //# CONNECT request
        let scheme = parse_scheme(self.scheme.ok_or(Malformed::PseudoMissing)?)?;
        let path = self.path.ok_or(Malformed::PseudoMissing)?;
        if self.protocol.is_some() {
            return Err(Malformed::PseudoProhibited);
        }
        let authority = parse_authority(self.authority, host, scheme)?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
        //# This pseudo-header field MUST NOT be empty for "http" or "https" URIs;
        //# "http" or "https" URIs that do not contain a path component MUST include
        //# a value of / (ASCII 0x2f).
        let target = match path {
            b"*" if method == b"OPTIONS" => Target::asterisk(),
            _ => Target::parse(path)?,
        };
        let method = Method::from_bytes(method).map_err(|_checked| Malformed::Method)?;
        let Collected { headers, content_length, .. } = collected;
        Ok(RequestHead { method, scheme, authority, target, headers, content_length })
    }

    /// CONNECT has `:authority` alone (RFC 9114 §4.4); with `:protocol` it has all of them (RFC 9220).
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.4
    //# A CONNECT request MUST be constructed as follows:
    fn connect(&self) -> Malformed {
        match (self.protocol, self.scheme, self.path, self.authority) {
            (None, None, None, Some(_)) | (Some(_), Some(_), Some(_), Some(_)) => {
                Malformed::Connect
            }
            (None, None, None, None) | (Some(_), ..) => Malformed::PseudoMissing,
            (None, ..) => Malformed::PseudoProhibited,
        }
    }
}

fn parse_scheme(value: &[u8]) -> Result<Scheme, Malformed> {
    // Schemes are case-insensitive (RFC 3986 §3.1).
    if value.eq_ignore_ascii_case(b"https") { Ok(Scheme::Https) } else { Err(Malformed::Scheme) }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//# If the :scheme pseudo-header field identifies a scheme that has a
//# mandatory authority component (including "http" and "https"), the
//# request MUST contain either an :authority pseudo-header field or a
//# Host header field. If these fields are present, they MUST NOT be
//# empty. If both fields are present, they MUST contain the same value.
fn parse_authority(
    authority: Option<&[u8]>,
    host: Option<&[u8]>,
    scheme: Scheme,
) -> Result<Authority, Malformed> {
    let parse = |value: &[u8]| Authority::parse(value, scheme.default_port());
    let (Some(value), other) = (authority.or(host), authority.and(host)) else {
        return Err(Malformed::PseudoMissing);
    };
    let value = parse(value)?;
    if let Some(other) = other
        && parse(other)? != value
    {
        return Err(Malformed::HostMismatch);
    }
    Ok(value)
}

fn parse_status(value: &[u8]) -> Result<StatusCode, Malformed> {
    match StatusCode::from_bytes(value) {
        Ok(StatusCode::SWITCHING_PROTOCOLS) | Err(_) => Err(Malformed::Status),
        Ok(status) if status.as_u16() >= 600 => Err(Malformed::Status),
        Ok(status) => Ok(status),
    }
}

/// Fields that frame, route, authenticate or condition a message, or that say how to read its content (RFC 9110 §6.5.1).
const NOT_IN_TRAILERS: [HeaderName; 26] = [
    http::header::AGE,
    http::header::AUTHORIZATION,
    http::header::CACHE_CONTROL,
    http::header::CONTENT_ENCODING,
    http::header::CONTENT_LENGTH,
    http::header::CONTENT_RANGE,
    http::header::CONTENT_TYPE,
    http::header::COOKIE,
    http::header::DATE,
    http::header::EXPECT,
    http::header::EXPIRES,
    http::header::HOST,
    http::header::IF_MATCH,
    http::header::IF_MODIFIED_SINCE,
    http::header::IF_NONE_MATCH,
    http::header::IF_RANGE,
    http::header::LOCATION,
    http::header::MAX_FORWARDS,
    http::header::PRAGMA,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
    http::header::RANGE,
    http::header::SET_COOKIE,
    http::header::TE,
    http::header::TRAILER,
    http::header::WWW_AUTHENTICATE,
];
