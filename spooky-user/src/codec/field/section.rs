//! One field line after another: limits, names, values, and the fields that no HTTP/3 message may have. Imports its siblings.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TE};

use super::{Limits, Malformed};

/// RFC 9114 §4.2.2: the size of a field is its name, its value and 32 bytes.
const FIELD_OVERHEAD: usize = 32;

/// RFC 9114 §4.2 and RFC 9110 §7.6.1.
const CONNECTION_SPECIFIC: [&[u8]; 5] =
    [b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"];

/// Room from the start for what a browser sends and what is added for the backend.
const FIELDS_USUAL: usize = 24;

/// Whose fields these are: what else may be in a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A client: names with `_` are refused, because CGI-like backends cannot tell them from `-`.
    Client,
    /// A backend: its own business.
    Backend,
}

/// Counts what a section has used of its limits.
#[derive(Debug)]
pub(super) struct Meter<'l> {
    limits: &'l Limits,
    fields: usize,
    size: usize,
}

/// Collects regular fields.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) headers: HeaderMap,
    pub(super) content_length: Option<u64>,
    sender: Sender,
}

// === impl Meter ===

impl<'l> Meter<'l> {
    pub(super) fn new(limits: &'l Limits) -> Self {
        Self { limits, fields: 0, size: 0 }
    }

    /// Counts one field line, pseudo-header fields included.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        self.fields += 1;
        self.size = self
            .size
            .saturating_add(name.len())
            .saturating_add(value.len())
            .saturating_add(FIELD_OVERHEAD);
        if self.fields > self.limits.max_fields {
            return Err(Malformed::TooManyFields);
        }
        if name.len() > self.limits.max_name {
            return Err(Malformed::NameTooLong);
        }
        if value.len() > self.limits.max_value {
            return Err(Malformed::ValueTooLong);
        }
        if self.size > self.limits.max_section_size {
            return Err(Malformed::SectionTooLarge);
        }
        Ok(())
    }
}

// === impl Collected ===

impl Collected {
    pub(super) fn new(sender: Sender) -> Self {
        let headers = match sender {
            Sender::Client => HeaderMap::with_capacity(FIELDS_USUAL),
            Sender::Backend => HeaderMap::new(),
        };
        Self { headers, content_length: None, sender }
    }

    /// Checks one regular field and keeps it.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        check_name(name, self.sender)?;
        check_value(value)?;
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
        //# any message containing connection-specific fields MUST be treated as
        //# malformed.
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
        //# the Transfer-Encoding header field MUST NOT be used.
        if CONNECTION_SPECIFIC.contains(&name) {
            return Err(Malformed::ConnectionSpecific);
        }
        //= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
        //# when it is, it MUST NOT contain any value other than "trailers".
        match name {
            b"te" if !value.eq_ignore_ascii_case(b"trailers") => return Err(Malformed::Te),
            b"te" => {
                // One line is enough, however many came.
                self.headers.insert(TE, HeaderValue::from_static("trailers"));
                return Ok(());
            }
            b"content-length" => return self.length(value),
            _ => {}
        }
        let name = HeaderName::from_lowercase(name).map_err(|_checked| Malformed::FieldName)?;
        let value = HeaderValue::from_bytes(value).map_err(|_checked| Malformed::FieldValue)?;
        self.headers.try_append(name, value).map_err(|_full| Malformed::TooManyFields)?;
        Ok(())
    }

    fn length(&mut self, value: &[u8]) -> Result<(), Malformed> {
        let length = parse_content_length(value).ok_or(Malformed::ContentLength)?;
        if self.content_length.is_some_and(|known| known != length) {
            return Err(Malformed::ContentLength);
        }
        self.content_length = Some(length);
        // Forwarded once, in canonical digits, so that no two readers can differ.
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        Ok(())
    }
}

/// `1*DIGIT` of at most 2^64 - 1 (RFC 9110 §8.6). `None` for anything else: signs, lists, spaces, nothing.
pub(super) fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}

/// A token (RFC 9110 §5.6.2) without upper-case letters (RFC 9114 §4.2).
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//# A request or response containing uppercase characters in field names
//# MUST be treated as malformed.
fn check_name(name: &[u8], sender: Sender) -> Result<(), Malformed> {
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte) && !byte.is_ascii_uppercase()) {
        return Err(Malformed::FieldName);
    }
    if sender == Sender::Client && name.contains(&b'_') {
        return Err(Malformed::FieldUnderscore);
    }
    Ok(())
}

/// `field-value` (RFC 9110 §5.5): visible bytes and obs-text, with spaces and tabs only inside.
fn check_value(value: &[u8]) -> Result<(), Malformed> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let allowed = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..=0xff);
    if blank(value.first()) || blank(value.last()) || !value.iter().all(allowed) {
        return Err(Malformed::FieldValue);
    }
    Ok(())
}

/// `tchar` (RFC 9110 §5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
