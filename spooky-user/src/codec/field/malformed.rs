//! Why a field section was refused, and what the peer is told. Imports only its siblings.

use std::fmt;

use http::StatusCode;

use crate::codec::authority::AuthorityError;
use crate::codec::path::PathError;

/// Why a message is malformed (RFC 9114 §4.1.2), over a limit, or of a kind that is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A mandatory pseudo-header field is missing.
    PseudoMissing,
    /// A pseudo-header field comes twice.
    PseudoRepeated,
    /// A pseudo-header field that this kind of message does not have.
    PseudoUnknown,
    /// A pseudo-header field after a regular one.
    PseudoLate,
    /// A pseudo-header field that the method forbids (`:path` or `:scheme` with CONNECT, `:protocol` without).
    PseudoProhibited,
    /// `:scheme` is not `https`.
    Scheme,
    /// `:method` is not a token.
    Method,
    /// A well-formed CONNECT or extended CONNECT, which spooky does not serve.
    Connect,
    /// A field name is empty, or not a lower-case token.
    FieldName,
    /// A field name has an underscore, which many backends take for a hyphen.
    FieldUnderscore,
    /// A field value has a control byte or surrounding whitespace.
    FieldValue,
    /// A field that speaks about the connection (RFC 9114 §4.2).
    ConnectionSpecific,
    /// `te` with a value other than `trailers`.
    Te,
    /// `:authority` or `host` is invalid.
    Authority(AuthorityError),
    /// `host` names another authority than `:authority`.
    HostMismatch,
    /// `host` comes twice.
    HostRepeated,
    /// `:path` has no safe normal form.
    Path(PathError),
    /// `content-length` is no number, or two that differ.
    ContentLength,
    /// The content is not as long as `content-length` promised.
    ContentMismatch,
    /// `:status` is not three digits from 100 to 599, or is 101 (RFC 9114 §4.5).
    Status,
    /// A trailer section with a pseudo-header field, or with any malformed field.
    Trailers,
    /// More fields than the limit.
    TooManyFields,
    /// Names and values and 32 bytes a field together are over the limit (RFC 9114 §4.2.2).
    SectionTooLarge,
    /// One name is over the limit.
    NameTooLong,
    /// One value is over the limit.
    ValueTooLong,
}

/// What the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP response with this status, then the stream is closed: its sender may be an honest client that erred.
    Status(StatusCode),
    /// The stream is reset with H3_MESSAGE_ERROR (0x10e): nothing that speaks HTTP/3 sends this.
    MessageError,
}

// === impl Malformed ===

impl Malformed {
    /// What the peer is told. RFC 9114 §4.1.2 allows a response before the stream error, for any malformed request.
    #[must_use]
    pub fn answer(self) -> Answer {
        match self {
            Self::PseudoMissing
            | Self::PseudoRepeated
            | Self::PseudoUnknown
            | Self::PseudoLate
            | Self::PseudoProhibited
            | Self::Method
            | Self::FieldName
            | Self::FieldValue
            | Self::ConnectionSpecific
            | Self::Te
            | Self::ContentMismatch
            | Self::Status
            | Self::Trailers => Answer::MessageError,
            Self::Scheme
            | Self::FieldUnderscore
            | Self::Authority(_)
            | Self::HostMismatch
            | Self::HostRepeated
            | Self::Path(_)
            | Self::ContentLength => Answer::Status(StatusCode::BAD_REQUEST),
            Self::Connect => Answer::Status(StatusCode::NOT_IMPLEMENTED),
            Self::TooManyFields
            | Self::SectionTooLarge
            | Self::NameTooLong
            | Self::ValueTooLong => Answer::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        }
    }

    /// Is it merely over a limit?
    #[must_use]
    pub fn is_too_large(self) -> bool {
        self.answer() == Answer::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PseudoMissing => "a mandatory pseudo-header field is missing",
            Self::PseudoRepeated => "a pseudo-header field comes twice",
            Self::PseudoUnknown => "unknown pseudo-header field",
            Self::PseudoLate => "a pseudo-header field comes after a regular field",
            Self::PseudoProhibited => "the method forbids a pseudo-header field",
            Self::Scheme => "the scheme is not https",
            Self::Method => "the method is not a token",
            Self::Connect => "CONNECT is not served",
            Self::FieldName => "a field name is not a lower-case token",
            Self::FieldUnderscore => "a field name has an underscore",
            Self::FieldValue => "a field value has a control byte or surrounding whitespace",
            Self::ConnectionSpecific => "a connection-specific field",
            Self::Te => "te has a value other than trailers",
            Self::Authority(error) => return error.fmt(f),
            Self::HostMismatch => "host and :authority differ",
            Self::HostRepeated => "host comes twice",
            Self::Path(error) => return error.fmt(f),
            Self::ContentLength => "content-length is no single number",
            Self::ContentMismatch => "the content is not as long as content-length promised",
            Self::Status => "the status is not one a response can have",
            Self::Trailers => "the trailer section is malformed",
            Self::TooManyFields => "too many fields",
            Self::SectionTooLarge => "the field section is too large",
            Self::NameTooLong => "a field name is too long",
            Self::ValueTooLong => "a field value is too long",
        })
    }
}

impl std::error::Error for Malformed {}

impl From<AuthorityError> for Malformed {
    fn from(error: AuthorityError) -> Self {
        Self::Authority(error)
    }
}

impl From<PathError> for Malformed {
    fn from(error: PathError) -> Self {
        Self::Path(error)
    }
}
