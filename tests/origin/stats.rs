//! What the origin saw. Counters only grow, so that a test works with differences; `*_open` are gauges.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use serde_json::json;

/// Most distinct paths that are counted apart; further ones are counted under `other`.
const PATHS_MAX: usize = 1024;

/// Counters of one origin, shared by its connections.
#[derive(Debug)]
pub struct Stats {
    /// Connections whose HTTP/2 handshake (after TLS, where there is TLS) completed.
    pub connections_total: AtomicU64,
    pub connections_open: AtomicU64,
    /// Connections that ended before HTTP/2 was spoken: failed TLS, wrong preface.
    pub handshakes_failed: AtomicU64,
    pub streams_total: AtomicU64,
    pub streams_open: AtomicU64,
    pub streams_open_max: AtomicU64,
    /// Streams that were answered to the end.
    pub answered: AtomicU64,
    /// Streams that the peer reset, by RST_STREAM or by losing the connection.
    pub resets_received: AtomicU64,
    pub resets_sent: AtomicU64,
    pub body_bytes_received: AtomicU64,
    pub body_bytes_sent: AtomicU64,
    /// What `/healthz` answers: 200 when true, 500 when false.
    pub healthy: AtomicBool,
    paths: Mutex<BTreeMap<String, u64>>,
}

impl Default for Stats {
    fn default() -> Self {
        Self {
            connections_total: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            streams_total: AtomicU64::new(0),
            streams_open: AtomicU64::new(0),
            streams_open_max: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            resets_received: AtomicU64::new(0),
            resets_sent: AtomicU64::new(0),
            body_bytes_received: AtomicU64::new(0),
            body_bytes_sent: AtomicU64::new(0),
            healthy: AtomicBool::new(true),
            paths: Mutex::new(BTreeMap::new()),
        }
    }
}

impl Stats {
    pub(super) fn stream_opened(&self, path: &str) {
        self.streams_total.fetch_add(1, Relaxed);
        let open = self.streams_open.fetch_add(1, Relaxed) + 1;
        self.streams_open_max.fetch_max(open, Relaxed);
        let mut paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(count) = paths.get_mut(path) {
            *count += 1;
        } else {
            let key = if paths.len() < PATHS_MAX { path } else { "other" };
            *paths.entry(key.to_owned()).or_insert(0) += 1;
        }
    }

    pub(super) fn stream_ended(&self) {
        self.streams_open.fetch_sub(1, Relaxed);
    }

    /// Requests seen for exactly this path (without query).
    pub fn path_count(&self, path: &str) -> u64 {
        let paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        paths.get(path).copied().unwrap_or(0)
    }

    /// Everything as one JSON object, as `/control/stats` answers it.
    pub fn to_json(&self) -> serde_json::Value {
        let paths = self.paths.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        json!({
            "connections_total": self.connections_total.load(Relaxed),
            "connections_open": self.connections_open.load(Relaxed),
            "handshakes_failed": self.handshakes_failed.load(Relaxed),
            "streams_total": self.streams_total.load(Relaxed),
            "streams_open": self.streams_open.load(Relaxed),
            "streams_open_max": self.streams_open_max.load(Relaxed),
            "answered": self.answered.load(Relaxed),
            "resets_received": self.resets_received.load(Relaxed),
            "resets_sent": self.resets_sent.load(Relaxed),
            "body_bytes_received": self.body_bytes_received.load(Relaxed),
            "body_bytes_sent": self.body_bytes_sent.load(Relaxed),
            "healthy": self.healthy.load(Relaxed),
            "paths": *paths,
        })
    }
}
