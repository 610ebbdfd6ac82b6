//! The sample backend: an HTTP/2 server whose conduct is chosen by the path of the request.
//!
//! It is the backend of the whole-program tests and of `cargo xtask run`. It speaks HTTP/2 by prior knowledge over
//! cleartext (RFC 9113 §3.3) or over TLS with ALPN `h2`, on one thread. It must not import anything of the proxy:
//! what it says about a request is an independent witness of what the proxy sent.
//!
//! ```text
//! server.rs      listen, accept, one task a connection, one a stream
//! behaviour.rs   path -> what is answered (the table is in its module doc)
//! body.rs        bytes with flow control: seeded content, paced reading
//! stats.rs       what was seen, as JSON under /control/stats
//! ```

mod behaviour;
pub mod body;
mod server;
mod stats;

pub use server::{Options, Origin, TlsFiles};
pub use stats::Stats;
