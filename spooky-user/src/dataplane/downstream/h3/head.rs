//! Response heads and trailers as the field lines quiche encodes.

use http::{HeaderMap, StatusCode};
use quiche::h3::HeaderRef;

/// The field section of a response head: `:status`, then the fields (RFC 9114 §4.3.2).
///
/// Connection-specific fields are left out (RFC 9114 §4.2): the h2 crate refuses them from backends, spooky makes none,
/// so this is the last line only.
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

fn append<'a>(list: &mut Vec<HeaderRef<'a>>, fields: &'a HeaderMap) {
    for (name, value) in fields {
        if is_connection_specific(name.as_str()) {
            continue;
        }
        list.push(HeaderRef::new(name.as_str().as_bytes(), value.as_bytes()));
    }
}

fn is_connection_specific(name: &str) -> bool {
    matches!(
        name,
        "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade"
    )
}
