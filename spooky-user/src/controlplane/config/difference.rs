//! What a reload may not change, because it was settled when sockets were bound and programs attached. May import: checked.

use super::checked::{Config, Listener};

/// The keys that differ between `old` and `new` and only take effect at a start, as YAML paths. Empty: the reload may go on.
#[must_use]
pub fn restart_only_changes(old: &Config, new: &Config) -> Vec<String> {
    let mut changes = Vec::new();
    let mut note = |differs: bool, path: &str| {
        if differs {
            changes.push(path.to_owned());
        }
    };
    note(old.log.level != new.log.level, "log.level");
    note(old.log.format != new.log.format, "log.format");
    note(old.access_log != new.access_log, "access_log.path");
    note(old.workers.count != new.workers.count, "workers.count");
    note(old.workers.pin != new.workers.pin, "workers.pin");
    note(old.ebpf.mode != new.ebpf.mode, "ebpf.mode");
    note(old.ebpf.interface != new.ebpf.interface, "ebpf.interface");
    note(old.ebpf.attach != new.ebpf.attach, "ebpf.attach");
    note(old.ebpf.on_failure != new.ebpf.on_failure, "ebpf.on_failure");
    note(old.ebpf.sample_drops != new.ebpf.sample_drops, "ebpf.sample_drops");
    note(old.admin != new.admin, "admin.bind");
    note(old.shutdown != new.shutdown, "shutdown.drain_timeout");
    if old.listeners.len() != new.listeners.len() {
        changes.push("listeners (one was added or taken away)".to_owned());
        return changes;
    }
    for (index, (old, new)) in old.listeners.iter().zip(&new.listeners).enumerate() {
        let keys = listener_changes(old, new);
        changes.extend(keys.into_iter().map(|key| format!("listeners[{index}].{key}")));
    }
    changes
}

/// Everything but the certificates: those are read again.
fn listener_changes(old: &Listener, new: &Listener) -> Vec<&'static str> {
    let mut keys = Vec::new();
    let mut note = |differs: bool, key| {
        if differs {
            keys.push(key);
        }
    };
    note(old.name != new.name, "name");
    note(old.bind != new.bind, "bind");
    note(old.quic != new.quic, "quic");
    note(old.http3 != new.http3, "http3");
    note(old.cid != new.cid, "quic.cid");
    keys
}
