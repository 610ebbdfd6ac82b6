//! The proxy, whole: a real daemon between real HTTP/3 clients and real HTTP/2 backends.
//!
//! ```text
//! request.rs       one request and its answer                       routing.rs   host, path, policy
//! body.rs          gigabytes, slow readers, slow backends           crosstalk.rs no answer belongs to another request
//! cancellation.rs  resets in both directions                        backends.rs  death, ejection, return, limits
//! drain.rs         SIGTERM                                          refusal.rs   what a bad configuration gets
//! reload.rs        SIGHUP                                           listeners.rs ports that come, go and move
//! tls.rs           certificates by name, verified backends
//! steering.rs      XDP and reuseport in namespaces, four workers    faults.rs    panics, workers that end
//! memory.rs        what is given up when memory is scarce           admission.rs what a route admits
//! af_xdp.rs     the way past the network stack, and what happens when interfaces and queues change
//! interface.rs  an interface that is removed and made again under a daemon without rights
//! steering_at_scale.rs  the same with many connections and a killed daemon
//! flood.rs      packets that nobody wants, beside an honest client
//! versions.rs   versions that nobody speaks, answered by the interface
//! attack.rs     attack mode, by hand and by load
//! placement.rs     shares of new connections by load           abuse.rs     clients that do harm
//! trace.rs         packets recorded and judged again, and where they went
//! lists.rs         access lists that change while spooky runs
//! control.rs       the control socket and `spooky ctl`
//! confinement.rs   what rights are left: rows I01 to I04            secrets.rs   what nobody learns: row I05
//! load.rs          the load generator and the floor it is measured against, in small numbers
//! ```
//!
//! Each test asserts what the client saw, and where the way of a packet or request matters, the metrics that prove it.

mod abuse;
mod admission;
mod af_xdp;
mod attack;
mod backends;
mod body;
mod cancellation;
mod confinement;
mod control;
mod crosstalk;
mod drain;
mod faults;
mod flood;
mod interface;
mod listeners;
mod lists;
mod load;
mod memory;
mod placement;
mod refusal;
mod reload;
mod request;
mod routing;
mod secrets;
mod steering;
mod steering_at_scale;
mod tls;
mod trace;
mod versions;
