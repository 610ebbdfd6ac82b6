//! The configuration: a YAML file to checked values, and those to a snapshot. Nothing after this module can find it wrong.
//!
//! [`load()`] reads, checks and gives a [`Config`] or everything that is wrong; [`compile()`] makes the [`Snapshot`] that workers
//! hold. May import: snapshot and the compiled types of quic, route, filter, balance and upstream; telemetry, id.
//!
//! ```text
//! file -- source (tree, places) -- read (schema: keys, units, ranges) -- check (against each other) -> Config -- compile -> Snapshot
//! ```
//!
//! [`Snapshot`]: crate::snapshot::Snapshot

mod check;
mod checked;
mod compile;
mod difference;
mod leaf;
mod load;
pub mod manual;
mod problem;
mod read;
pub mod schema;
mod source;
mod suggest;
pub mod units;

pub use check::{fits, list_file, network, source, union};
pub use checked::{
    Access, AccessLog, AccessSource, Admin, AfXdp, CidKey, CidSettings, Config, Ebpf,
    EndpointConfig, Flood, Listener, Log, LogDestination, Overload, Privileges, RouteConfig,
    Shutdown, UpstreamConfig, Workers,
};
pub use compile::compile;
pub use difference::restart_only_changes;
pub use load::{FILE_SIZE_MAX, load};
pub use problem::{ConfigErrors, Place, Problem};
pub use read::{Field, Named, Reload, Shape};
