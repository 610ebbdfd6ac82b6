//! What a reload may not change, because it was settled when threads were started and programs attached. May import: checked.

use super::checked::Config;

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
    let af_xdp = |config: &Config| {
        let it = config.ebpf.af_xdp?;
        Some((it.transfer, it.frames, it.busy_poll, it.spare_sockets))
    };
    let (before, after) = (af_xdp(old), af_xdp(new));
    note(before.map(|it| it.0) != after.map(|it| it.0), "ebpf.af_xdp.mode");
    if before.is_some() && after.is_some() {
        note(before.map(|it| it.1) != after.map(|it| it.1), "ebpf.af_xdp.frames");
        note(before.map(|it| it.2) != after.map(|it| it.2), "ebpf.af_xdp.busy_poll");
        note(before.map(|it| it.3) != after.map(|it| it.3), "ebpf.af_xdp.spare_sockets");
    }
    note(old.access.state_file != new.access.state_file, "access.state_file");
    note(old.admin.bind != new.admin.bind, "admin.bind");
    note(old.admin.socket != new.admin.socket, "admin.socket");
    note(old.admin.socket_access != new.admin.socket_access, "admin.socket_access");
    note(old.privileges.user != new.privileges.user, "privileges.user");
    note(old.privileges.sandbox != new.privileges.sandbox, "privileges.sandbox");
    changes
}
