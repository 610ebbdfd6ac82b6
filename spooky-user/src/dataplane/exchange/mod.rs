//! One request and its response, free of any protocol version: heads, bodies, errors.
//!
//! An *exchange* is opened by a downstream session, served by `proxy`, and answered by an upstream or by spooky itself.
//! May import: codec, id, telemetry. Must not import any transport.

pub mod error;
pub mod link;
pub mod mailbox;
