//! What spooky tells about itself: metrics, access log, request IDs, diagnostic log.
//!
//! May import: codec, id. Must not import: dataplane, controlplane, sys. Recording never locks, never allocates once warm and
//! never blocks; everything that does (rendering, writing lines) runs on the control plane or on a thread of its own.

pub mod access_log;
pub mod logging;
pub mod metrics;
pub mod reason;
pub mod request_id;
