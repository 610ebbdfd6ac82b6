//! The table of all routes: a few look-ups by host, each a few look-ups by path, however many routes there are.
//! May import: id, telemetry.
//!
//! Among the rules that match both host and path, the most specific host wins (exact, then the longest `*.suffix`, then any)
//! and within it the most specific path (exact, then the longest prefix). A host that has rules but none for the path does
//! not hide the rules of a less specific host.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::hasher::Build;
use crate::id::{ClusterId, RouteId};
use crate::telemetry::metrics::RouteMetrics;

/// One configured route, as a request sees it.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its place in the file.
    pub id: RouteId,
    /// The name in the file; the metric label.
    pub name: Arc<str>,
    /// Who serves it.
    pub cluster: ClusterId,
    /// Its counters, one shard a worker.
    pub metrics: Arc<RouteMetrics>,
}

/// What a rule wants of the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host.
    Any,
    /// Exactly this one; lower case, no port.
    Exact(String),
    /// Any host that ends with a dot and this suffix, by one label or more. `example.com` for `*.example.com`.
    Suffix(String),
}

/// What a rule wants of the path, compared byte by byte: both in the normal form of `codec::path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// This path and everything below it: `/api` takes `/api` and `/api/x`, not `/apix`. A final slash means nothing.
    Prefix(String),
}

/// A route and what it matches: any of the hosts, and the path.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Where matching requests go.
    pub route: Route,
    /// Empty is any host.
    pub hosts: Vec<HostPattern>,
    /// Of the request target, without the query.
    pub path: PathPattern,
}

/// Two rules that match exactly the same, so that neither is more specific.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The later rule, and which of its hosts.
    pub rule: usize,
    /// Index in the later rule's `hosts`; 0 for an empty list.
    pub host: usize,
    /// The rule that was there before; may be the same one, when it names a host twice.
    pub earlier: usize,
}

/// All routes, compiled.
#[derive(Debug, Default)]
pub struct Table {
    routes: Box<[Route]>,
    exact: HashMap<Box<str>, Paths, Build>,
    suffix: HashMap<Box<str>, Paths, Build>,
    /// Labels of the longest suffix, so that a host of a thousand dots costs no thousand look-ups.
    suffix_labels_max: usize,
    any: Paths,
}

/// The rules of one host pattern; values are places in `Table::routes`.
#[derive(Debug, Default)]
struct Paths {
    exact: HashMap<Box<str>, usize, Build>,
    /// The prefix `/`. Not among the others as the empty string it would be there: to compare one costs 100 ns where the C
    /// library compares under a mask, as the pointer of an empty string leads nowhere and the masked fault is dealt with.
    root: Option<usize>,
    /// Without the final slash; never empty.
    prefix: HashMap<Box<str>, usize, Build>,
    /// Bytes of the longest prefix, so that a path of a thousand slashes costs no thousand look-ups.
    prefix_len_max: usize,
}

/// Every rule that matches exactly what an earlier one does: the errors of [`Table::build`], before there are routes.
pub fn duplicates<'a>(
    rules: impl Iterator<Item = (&'a [HostPattern], &'a PathPattern)>,
) -> Vec<Duplicate> {
    let mut table = Table::default();
    let mut duplicates = Vec::new();
    for (index, (hosts, path)) in rules.enumerate() {
        duplicates.extend(table.insert(index, hosts, path));
    }
    duplicates
}

// === impl Table ===

impl Table {
    /// Compiles the rules.
    ///
    /// # Errors
    /// Every pair of rules between which no request could choose; the table is not made then.
    pub fn build(rules: Vec<Rule>) -> Result<Self, Vec<Duplicate>> {
        let mut table = Self::default();
        let mut duplicates = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            duplicates.extend(table.insert(index, &rule.hosts, &rule.path));
        }
        table.routes = rules.into_iter().map(|rule| rule.route).collect();
        if duplicates.is_empty() { Ok(table) } else { Err(duplicates) }
    }

    /// The route of a request. `host` in lower case without port, `path` without query.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Route> {
        let exact = self.exact.get(host).and_then(|paths| paths.find(path));
        let index =
            exact.or_else(|| self.find_suffix(host, path)).or_else(|| self.any.find(path))?;
        self.routes.get(index)
    }

    /// All routes, in file order.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    fn insert(
        &mut self,
        index: usize,
        hosts: &[HostPattern],
        path: &PathPattern,
    ) -> Vec<Duplicate> {
        let any = [HostPattern::Any];
        let hosts = if hosts.is_empty() { &any[..] } else { hosts };
        let clash = |(host_index, host)| {
            let earlier = self.paths_of(host).insert(path, index).err()?;
            Some(Duplicate { rule: index, host: host_index, earlier })
        };
        hosts.iter().enumerate().filter_map(clash).collect()
    }

    fn find_suffix(&self, host: &str, path: &str) -> Option<usize> {
        if self.suffix.is_empty() {
            return None;
        }
        // From the right: the last `suffix_labels_max` dots are the only places where a configured suffix can begin.
        let mut begin = None;
        for (at, _) in host.rmatch_indices('.').take(self.suffix_labels_max) {
            begin = Some(at);
        }
        let mut begin = begin?;
        loop {
            let (label, suffix) = (host.get(..begin)?, host.get(begin + 1..)?);
            // A wildcard stands for at least one label, so ".example.com" is not a host of *.example.com.
            let found = self.suffix.get(suffix).filter(|_| !label.is_empty());
            if let Some(route) = found.and_then(|paths| paths.find(path)) {
                return Some(route);
            }
            begin += 1 + suffix.find('.')?;
        }
    }

    fn paths_of(&mut self, host: &HostPattern) -> &mut Paths {
        match host {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.exact.entry(host.as_str().into()).or_default(),
            HostPattern::Suffix(suffix) => {
                let labels = suffix.split('.').count();
                self.suffix_labels_max = self.suffix_labels_max.max(labels);
                self.suffix.entry(suffix.as_str().into()).or_default()
            }
        }
    }
}

// === impl Paths ===

impl Paths {
    fn insert(&mut self, path: &PathPattern, index: usize) -> Result<(), usize> {
        let entry = match path {
            PathPattern::Exact(path) => self.exact.entry(path.as_str().into()),
            PathPattern::Prefix(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                if prefix.is_empty() {
                    return match self.root {
                        Some(earlier) => Err(earlier),
                        None => {
                            self.root = Some(index);
                            Ok(())
                        }
                    };
                }
                self.prefix_len_max = self.prefix_len_max.max(prefix.len());
                self.prefix.entry(prefix.into())
            }
        };
        match entry {
            Entry::Occupied(earlier) => Err(*earlier.get()),
            Entry::Vacant(place) => {
                place.insert(index);
                Ok(())
            }
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        if let Some(index) = self.exact.get(path) {
            return Some(*index);
        }
        if self.prefix.is_empty() {
            return self.root;
        }
        // A prefix ends where the path ends or before a slash. The longest that can be there first, then segment by segment.
        let mut end = path.len();
        while end > self.prefix_len_max {
            let head = path.as_bytes().get(..end.min(self.prefix_len_max + 1))?;
            end = head.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        }
        while end > 0 {
            let prefix = path.get(..end)?;
            if let Some(index) = self.prefix.get(prefix) {
                return Some(*index);
            }
            end = prefix.rfind('/').unwrap_or(0);
        }
        self.root
    }
}
