//! The proxy, whole: a real daemon between real HTTP/3 clients and real HTTP/2 backends.
//!
//! ```text
//! scene.rs         one daemon, its backends, a client's target      request.rs   one request and its answer
//! body.rs          gigabytes, slow readers, slow backends           routing.rs   host, path, policy
//! cancellation.rs  resets in both directions                        crosstalk.rs no answer belongs to another request
//! malformed.rs     messages and frames that break the rules         backends.rs  death, ejection, return, limits
//! drain.rs         SIGTERM                                          refusal.rs   what a bad configuration gets
//! tls.rs           certificates by name, verified backends          path.rs      loss, and clients that change ports
//! steering.rs      XDP and reuseport in namespaces, four workers         reload.rs    SIGHUP
//! limits.rs        clients that ask too much                      messages.rs  messages in every spelling
//! load.rs          the load generator and the floor it is measured against, in small numbers
//! ```
//!
//! Each test asserts what the client saw, and where the way of a packet or request matters, the metrics that prove it.

mod backends;
mod body;
mod cancellation;
mod crosstalk;
mod drain;
mod faults;
mod hostile;
mod isolation;
mod limits;
mod listeners;
mod load;
mod malformed;
mod memory;
mod messages;
mod path;
mod refusal;
mod reload;
mod request;
mod routing;
mod scene;
mod steering;
mod tls;
mod transport;
mod validation;
