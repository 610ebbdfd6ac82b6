//! The configuration's part of the lists, its files included: immutable, made anew as a whole. May import: config, the data
//! plane's lists.

use std::sync::Arc;

use ipnet::IpNet;
use spooky_common::map::{ALLOW_CAPACITY, DENY_CAPACITY};

use super::files::Change;
use super::table::{List, Origin};
use crate::controlplane::config::{self, Access, AccessSource};
use crate::dataplane::filter::ip_access::AccessList;

/// Why a list is as it is: the configuration's part.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) sources: Vec<AccessSource>,
    pub(super) allow: Arc<[IpNet]>,
    pub(super) deny: Arc<[IpNet]>,
    pub(super) default_deny: bool,
    /// Without dynamic entries.
    pub(super) compiled: AccessList,
}

// === impl Fixed ===

impl Fixed {
    pub(super) fn new(access: &Access, compiled: &AccessList) -> Self {
        Self {
            sources: access.sources.clone(),
            allow: access.allow.as_slice().into(),
            deny: access.deny.as_slice().into(),
            default_deny: access.default_deny,
            compiled: compiled.clone(),
        }
    }

    /// The same with other files; `None` when nothing is different, or they do not fit.
    pub(super) fn changed(&self, changes: &[Change]) -> Option<Self> {
        let mut sources = self.sources.clone();
        let mut different = false;
        for (file, networks) in changes {
            let Ok(networks) = networks else { continue };
            for source in sources.iter_mut().filter(|it| it.file.as_ref() == Some(file)) {
                let next = config::source(source.deny, source.file.clone(), networks.clone());
                different |= next.networks != source.networks;
                *source = next;
            }
        }
        if !different {
            return None;
        }
        let union = |deny: bool| config::union(sources.iter().filter(|it| it.deny == deny));
        let (allow, deny) = (union(false), union(true));
        let fit = config::fits(&allow, ALLOW_CAPACITY).and(config::fits(&deny, DENY_CAPACITY));
        if let Err(message) = fit {
            tracing::error!("access: list files not taken, the old entries stay: {message}");
            return None;
        }
        let compiled = AccessList::new(self.default_deny, &allow, &deny);
        let (allow, deny) = (allow.into(), deny.into());
        Some(Self { sources, allow, deny, default_deny: self.default_deny, compiled })
    }

    pub(super) fn has(&self, list: List, net: &IpNet) -> bool {
        let networks = match list {
            List::Allow => &self.allow,
            List::Deny => &self.deny,
        };
        networks.binary_search(net).is_ok()
    }

    /// Where a network comes from.
    pub(super) fn origin(&self, list: List, net: &IpNet) -> Option<(Origin, &AccessSource)> {
        let deny = list == List::Deny;
        let mut sources = self.sources.iter().filter(|source| source.deny == deny);
        let source = sources.find(|source| source.networks.binary_search(net).is_ok())?;
        Some((if source.file.is_some() { Origin::File } else { Origin::Config }, source))
    }
}
