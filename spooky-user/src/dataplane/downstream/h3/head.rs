//! Response heads and trailers as the field lines quiche encodes.

use http::{HeaderMap, StatusCode};
use quiche::h3::HeaderRef;

/// The field section of a response head: `:status`, then the fields (RFC 9114 §4.3.2).
///
/// Connection-specific fields are left out (RFC 9114 §4.2): the h2 crate refuses them from backends, spooky makes none,
/// so this is the last line only.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
//# Endpoints MUST NOT generate pseudo-header fields other than those
//# defined in this document.
#[must_use]
pub fn response<'a>(status: &'a StatusCode, fields: &'a HeaderMap) -> Vec<HeaderRef<'a>> {
    let mut list = Vec::with_capacity(fields.len() + 1);
    list.push(HeaderRef::new(b":status", status.as_str().as_bytes()));
    append(&mut list, fields);
    list
}

/// The field section of a trailer.
#[must_use]
pub fn trailers(fields: &HeaderMap) -> Vec<HeaderRef<'_>> {
    let mut list = Vec::with_capacity(fields.len());
    append(&mut list, fields);
    list
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//# Characters in field names MUST be converted to lowercase prior to their
//# encoding.
fn append<'a>(list: &mut Vec<HeaderRef<'a>>, fields: &'a HeaderMap) {
    for (name, value) in fields {
        if is_connection_specific(name.as_str()) {
            continue;
        }
        list.push(HeaderRef::new(name.as_str().as_bytes(), value.as_bytes()));
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//# An endpoint MUST NOT generate an HTTP/3 field section containing
//# connection-specific fields;
fn is_connection_specific(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};
    use quiche::h3::NameValue;

    use super::*;

    /// What a backend could have sent, hop-by-hop fields included.
    fn fields() -> HeaderMap {
        let names = ["Server", "CONNECTION", "keep-alive", "Transfer-Encoding", "X-Own", "upgrade"];
        let names = names.map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
        names.into_iter().map(|name| (name, HeaderValue::from_static("v"))).collect()
    }

    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
    //= type=test
    //# Characters in field names MUST be converted to lowercase prior to their
    //# encoding.
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
    //= type=test
    //# An endpoint MUST NOT generate an HTTP/3 field section containing
    //# connection-specific fields;
    //= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
    //= type=test
    //# Endpoints MUST NOT generate pseudo-header fields other than those
    //# defined in this document.
    #[test]
    fn a_response_has_one_pseudo_field_and_nothing_of_the_connection() {
        let (status, fields) = (StatusCode::IM_A_TEAPOT, fields());
        let list = response(&status, &fields);
        assert_eq!((list[0].name(), list[0].value()), (&b":status"[..], &b"418"[..]));
        let names: Vec<&[u8]> = list.iter().skip(1).map(NameValue::name).collect();
        assert_eq!(names, [&b"server"[..], b"x-own"]);
    }

    #[test]
    fn a_trailer_section_has_no_pseudo_field() {
        let fields = fields();
        let list = trailers(&fields);
        let names: Vec<&[u8]> = list.iter().map(NameValue::name).collect();
        assert_eq!(names, [&b"server"[..], b"x-own"]);
    }
}
