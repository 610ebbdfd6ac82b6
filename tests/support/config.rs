//! Configurations as values. They are written as JSON, which is YAML (YAML 1.2 §1.3), so that a test changes one key and
//! not a text. Imports `certs` alone.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::certs::Leaf;

/// A configuration that starts as a working one with nothing behind it.
#[derive(Debug, Clone)]
pub struct Config {
    value: Value,
}

impl Config {
    /// One listener with one certificate, two workers, no kernel programs, nothing routed.
    pub fn new(edge: SocketAddr, admin: SocketAddr, leaf: &Leaf) -> Self {
        let value = json!({
            "version": 1,
            "log": { "level": "info", "format": "text" },
            "access_log": { "path": "off" },
            "workers": { "count": 2, "pin": false },
            "listeners": [{
                "name": "edge",
                "bind": edge.to_string(),
                "protocols": ["h3"],
                "tls": { "certificates": [certificate(&["localhost"], leaf)] },
            }],
            "ebpf": { "mode": "off" },
            "upstreams": {},
            "routes": [],
            "admin": { "bind": admin.to_string() },
            "shutdown": { "drain_timeout": "10s" },
        });
        let config = Self { value };
        if crate::SANITIZED {
            // A report is a file of its own and the work of another program, and the watch itself makes calls of its own.
            config.set("/privileges/sandbox", json!("off"))
        } else {
            config
        }
    }

    /// Sets what a JSON pointer (RFC 6901) names; objects on the way are made.
    ///
    /// # Panics
    /// When the pointer leads through something that is neither object nor array.
    #[must_use]
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut place = &mut self.value;
        for step in pointer.trim_start_matches('/').split('/') {
            place = match place {
                Value::Array(items) => {
                    let index: usize = step.parse().expect("an array is indexed by a number");
                    items.get_mut(index).expect("the array is that long")
                }
                Value::Object(map) => map.entry(step.to_owned()).or_insert_with(|| json!({})),
                other => panic!("{pointer}: {step} is inside {other}"),
            };
        }
        *place = value;
        self
    }

    /// An upstream of cleartext HTTP/2 backends named `b1`, `b2`, ..., probed often.
    #[must_use]
    pub fn upstream(self, name: &str, backends: &[SocketAddr]) -> Self {
        let endpoint = |(index, address): (usize, &SocketAddr)| json!({ "name": format!("b{}", index + 1), "address": address.to_string() });
        let endpoints: Vec<Value> = backends.iter().enumerate().map(endpoint).collect();
        let upstream = json!({
            "load_balancing": { "policy": "round_robin" },
            "endpoints": endpoints,
            "health_check": {
                "path": "/healthz", "interval": "1s", "timeout": "1s",
                "unhealthy_after": 3, "healthy_after": 2,
            },
        });
        self.set(&format!("/upstreams/{name}"), upstream)
    }

    /// The first listener, to make another one from.
    pub fn listener(&self) -> Value {
        self.value["listeners"][0].clone()
    }

    /// A further listener.
    #[must_use]
    pub fn add_listener(mut self, listener: Value) -> Self {
        if let Some(Value::Array(listeners)) = self.value.get_mut("listeners") {
            listeners.push(listener);
        }
        self
    }

    /// A route; later ones come after earlier ones.
    #[must_use]
    pub fn route(mut self, name: &str, matching: Value, upstream: &str) -> Self {
        let route = json!({ "name": name, "match": matching, "upstream": upstream });
        if let Some(Value::Array(routes)) = self.value.get_mut("routes") {
            routes.push(route);
        }
        self
    }

    /// The usual case: everything goes to these backends.
    #[must_use]
    pub fn forward(self, backends: &[SocketAddr]) -> Self {
        self.upstream("app", backends).route("all", json!({ "path_prefix": "/" }), "app")
    }

    /// The file's text.
    pub fn text(&self) -> String {
        format!("{:#}\n", self.value)
    }
}

/// An entry of `tls.certificates`.
pub fn certificate(names: &[&str], leaf: &Leaf) -> Value {
    let path = |path: &Path| Value::String(path.display().to_string());
    let mut entry = Map::new();
    if !names.is_empty() {
        entry.insert("sni".into(), json!(names));
    }
    entry.insert("cert".into(), path(&leaf.cert));
    entry.insert("key".into(), path(&leaf.key));
    Value::Object(entry)
}
