//! Error codes of RFC 9114 §8.1 that spooky itself sends. The rest is quiche's.

use crate::dataplane::exchange::link::AbortCode;

/// H3_NO_ERROR
pub const NO_ERROR: u64 = 0x100;
/// H3_GENERAL_PROTOCOL_ERROR
pub const GENERAL_PROTOCOL_ERROR: u64 = 0x101;
/// H3_INTERNAL_ERROR
pub const INTERNAL_ERROR: u64 = 0x102;
/// H3_FRAME_UNEXPECTED
pub const FRAME_UNEXPECTED: u64 = 0x105;
/// H3_EXCESSIVE_LOAD
pub const EXCESSIVE_LOAD: u64 = 0x107;
/// H3_SETTINGS_ERROR
pub const SETTINGS_ERROR: u64 = 0x109;
/// H3_REQUEST_REJECTED
pub const REQUEST_REJECTED: u64 = 0x10b;
/// H3_REQUEST_CANCELLED
pub const REQUEST_CANCELLED: u64 = 0x10c;
/// H3_REQUEST_INCOMPLETE
pub const REQUEST_INCOMPLETE: u64 = 0x10d;
/// H3_MESSAGE_ERROR
pub const MESSAGE_ERROR: u64 = 0x10e;

/// The code that resets a response stream.
#[must_use]
pub const fn of_abort(code: AbortCode) -> u64 {
    match code {
        AbortCode::Internal => INTERNAL_ERROR,
        AbortCode::Rejected => REQUEST_REJECTED,
        AbortCode::Cancelled => REQUEST_CANCELLED,
        AbortCode::Message => MESSAGE_ERROR,
    }
}
