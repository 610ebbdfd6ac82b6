//! A reload: the new file is taken or refused as a whole. What is refused leaves what was compiled as it was; what differs in
//! nothing is never refused; what only a restart can change is found whichever way round; health follows an endpoint that stays.
//!
//! Input: two files, parted by a line of `=====`.

use std::sync::Arc;

use spooky_user::controlplane::config::{self, Config};
use spooky_user::telemetry::metrics::Registry;

use super::config_load::{refused, with_folder};

pub(super) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (old, new) = text.split_once("\n=====\n").unwrap_or((&text, &text));
    with_folder(|folder| {
        let (Some(old), Some(new)) = (folder.text(old.as_bytes()), folder.text(new.as_bytes()))
        else {
            return;
        };
        let Ok(running) = folder.load("old.yaml", &old) else { return };
        assert_eq!(config::restart_only_changes(&running, &running), [] as [String; 0]);
        let registry = Registry::new(1);
        let before = config::compile(&running, names(&running), None, &registry);
        let shown = format!("{before:?}");
        let candidate = match folder.load("new.yaml", &new) {
            Ok(candidate) => candidate,
            Err(errors) => {
                refused(&errors, new.len());
                assert_eq!(format!("{before:?}"), shown, "a refusal changes nothing");
                return;
            }
        };
        let changes = config::restart_only_changes(&running, &candidate);
        assert_eq!(changes, config::restart_only_changes(&candidate, &running), "both ways");
        if !changes.is_empty() {
            return;
        }
        // Somebody is unwell, and stays so if it stays.
        for endpoint in before.clusters.iter().flat_map(|cluster| &cluster.endpoints) {
            endpoint.health.set(false);
        }
        let after = config::compile(&candidate, names(&candidate), Some(&before), &registry);
        assert_eq!(after.version, before.version + 1);
        for cluster in &after.clusters {
            for endpoint in &cluster.endpoints {
                let known =
                    before.clusters.iter().filter(|old| old.name == cluster.name).any(|old| {
                        let mut old = old.endpoints.iter();
                        old.any(|old| old.name == endpoint.name && old.address == endpoint.address)
                    });
                assert_eq!(endpoint.health.is_healthy(), !known, "{}", endpoint.name);
            }
        }
    });
}

fn names(config: &Config) -> Vec<Option<Arc<str>>> {
    config.listeners.iter().map(|listener| Some(Arc::clone(&listener.name))).collect()
}
