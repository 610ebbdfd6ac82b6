//! The one value both planes hold: what the configuration says, compiled, immutable, numbered.
//!
//! Made by `controlplane::config::compile` alone; stored by `controlplane::publish`; read by workers. May name the compiled
//! types of quic (TLS), route, filter, balance and upstream.

use std::sync::Arc;

use crate::dataplane::filter::admission::Admission;
use crate::dataplane::filter::ip_access::AccessList;
use crate::dataplane::route::Table;
use crate::dataplane::upstream::cluster::Cluster;
use crate::id::{ClusterId, ListenerId, RouteId};

/// Everything a request needs to know of the configuration. A request keeps the snapshot it began with.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts up with each configuration, from 1. Lists that change while one is in force have a version of their own.
    pub version: u64,
    /// Which route a request takes.
    pub routes: Arc<Table>,
    /// What each route admits, by [`crate::id::RouteId`].
    pub admissions: Vec<Admission>,
    /// Upstreams by [`crate::id::ClusterId`].
    pub clusters: Vec<Arc<Cluster>>,
    /// Names of listeners by [`crate::id::ListenerId`], closing ones included.
    pub listeners: Vec<Option<Arc<str>>>,
    /// Who may connect.
    pub access: AccessList,
}

impl Snapshot {
    /// The name of a listener; empty for one that is gone.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> &str {
        self.listeners.get(id.index()).and_then(Option::as_deref).unwrap_or_default()
    }

    /// What a route of this snapshot admits.
    #[must_use]
    pub fn admission(&self, id: RouteId) -> Option<&Admission> {
        self.admissions.get(usize::from(id.0))
    }

    /// The upstream of a route of this snapshot.
    #[must_use]
    pub fn cluster(&self, id: ClusterId) -> Option<&Arc<Cluster>> {
        self.clusters.get(id.index())
    }
}
