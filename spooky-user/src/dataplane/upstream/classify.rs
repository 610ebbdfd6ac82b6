//! What an HTTP/2 failure means for the exchange it hit. Imports only exchange.

use h2::Reason;

use crate::dataplane::exchange::error::{Kind, ProxyError};

/// The error of an exchange whose stream failed with `error`, from whichever half it was told.
///
/// | h2 says | kind |
/// |---|---|
/// | RST_STREAM REFUSED_STREAM received (RFC 9113 §8.7) | `StreamRefused` |
/// | RST_STREAM ENHANCE_YOUR_CALM received (§7) | `Overloaded` |
/// | any other RST_STREAM received | `StreamReset` |
/// | GOAWAY received: h2 gives it only to streams above its last stream identifier (§6.8) | `GoingAway` |
/// | the response was malformed (stream error found by h2, §8.1.1) | `UpstreamProtocol` |
/// | the connection was (connection error found by h2, §5.4.1), or it broke | `ConnectionLost` |
/// | we reset the stream ourselves | `ClientGone` |
/// | the stream had ended before the call | `StreamReset` |
///
/// A connection error is `ConnectionLost` because it hits exchanges that have no part in it and may be tried elsewhere; the
/// pool logs the reason once.
#[must_use]
pub fn classify(error: &h2::Error) -> ProxyError {
    let kind = match error.reason() {
        Some(Reason::REFUSED_STREAM) if error.is_remote() => Kind::StreamRefused,
        Some(Reason::ENHANCE_YOUR_CALM) if error.is_reset() && error.is_remote() => {
            Kind::Overloaded
        }
        _ if error.is_go_away() && error.is_remote() => Kind::GoingAway,
        _ if error.is_go_away() || error.is_io() => Kind::ConnectionLost,
        _ if error.is_reset() && error.is_remote() => Kind::StreamReset,
        _ if error.is_reset() && error.is_library() => Kind::UpstreamProtocol,
        _ if error.is_reset() => Kind::ClientGone,
        _ => Kind::StreamReset,
    };
    ProxyError::new(kind)
}

/// The error of an exchange whose request half was told `reason` by `SendStream::poll_reset`.
///
/// `None` for NO_ERROR: the backend has answered in full and does not want the rest of the request (RFC 9113 §8.1), which
/// is no failure.
#[must_use]
pub fn classify_reset(reason: Reason) -> Option<ProxyError> {
    let kind = match reason {
        Reason::NO_ERROR => return None,
        Reason::REFUSED_STREAM => Kind::StreamRefused,
        Reason::ENHANCE_YOUR_CALM => Kind::Overloaded,
        _ => Kind::StreamReset,
    };
    Some(ProxyError::new(kind))
}
