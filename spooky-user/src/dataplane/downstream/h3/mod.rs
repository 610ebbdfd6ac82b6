//! HTTP/3 (RFC 9114) over one QUIC connection: request streams in, exchanges out, responses back.
//!
//! `session` owns the streams of a connection, `stream` is one request stream, `head` turns fields into heads and back,
//! `resets` and `intake` judge what a client does, `code` has the error codes. Framing and QPACK are quiche's; what a message may say is `codec::field`'s.

pub mod code;
pub mod head;
mod intake;
mod resets;
pub mod session;
pub mod stream;
