//! Every file that a configuration names and a reload reads again. May import: schema.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::controlplane::config::schema;

/// Each once, the configuration itself first.
pub(super) fn named(path: &Path, file: &schema::File) -> Vec<PathBuf> {
    let listeners = file.listeners.iter().flat_map(|listener| {
        let certificates = &listener.tls.certificates;
        let certificates = certificates.iter().flat_map(|it| [it.cert.clone(), it.key.clone()]);
        certificates.chain(listener.quic.cid.key_file.clone())
    });
    let authorities =
        file.upstreams.0.iter().filter_map(|(_, it)| it.tls.as_ref()?.ca_file.clone());
    let lists = file.access.allow_files.iter().chain(&file.access.deny_files).cloned();
    let all = [path.to_owned()].into_iter().chain(listeners).chain(authorities).chain(lists);
    let mut seen = HashSet::new();
    all.filter(|path| !path.as_os_str().is_empty() && seen.insert(path.clone())).collect()
}
