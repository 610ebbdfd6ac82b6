//! The one value both planes hold: what the configuration says, compiled, immutable, numbered.
//!
//! Made by `controlplane::config::compile` alone; stored by `controlplane::publish`; read by workers. May name the compiled
//! types of quic (TLS), route, balance and upstream.

use std::sync::Arc;

use crate::dataplane::upstream::cluster::Cluster;

/// Everything a request needs to know of the configuration. A request keeps the snapshot it began with.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts up with each publication, from 1.
    pub version: u64,
    /// Upstreams by [`crate::id::ClusterId`].
    pub clusters: Vec<Arc<Cluster>>,
}
