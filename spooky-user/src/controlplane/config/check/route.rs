//! Checks of routes: hosts, paths, upstreams that are there, no two alike. May import: checked, schema, route.

use std::net::Ipv6Addr;

use super::Checker;
use crate::codec::path::Target;
use crate::controlplane::config::checked::RouteConfig;
use crate::controlplane::config::schema;
use crate::controlplane::config::suggest::nearest;
use crate::dataplane::filter::rate_limit;
use crate::dataplane::route::{HostPattern, PathPattern, duplicates};
use crate::id::ClusterId;

/// [`crate::id::RouteId`] is a `u16`.
const ROUTES_MAX: usize = 65_535;

/// Longer than any path worth a rule of its own; bounds what a look-up walks.
const PATH_LEN_MAX: usize = 1024;

pub(super) fn check(
    checker: &mut Checker<'_>,
    list: &[schema::Route],
    upstreams: &[&str],
) -> Vec<RouteConfig> {
    if list.is_empty() && !checker.is_faulty("routes") {
        checker.problem("routes", "needs at least one route; nothing could be served");
    }
    if list.len() > ROUTES_MAX {
        checker.problem("routes", format!("at most {ROUTES_MAX} routes"));
        return Vec::new();
    }
    let names: Vec<(String, &str)> = list
        .iter()
        .enumerate()
        .map(|(index, route)| (format!("routes[{index}].name"), route.name.as_str()))
        .collect();
    checker.unique("route", names.iter().map(|(path, name)| (path.clone(), *name)));
    let routes: Vec<Option<RouteConfig>> = list
        .iter()
        .enumerate()
        .map(|(index, route)| one(checker, &format!("routes[{index}]"), route, upstreams))
        .collect();
    let matches = list.iter().enumerate().filter_map(|(index, route)| {
        if checker.is_faulty(&format!("routes[{index}].match")) {
            return None;
        }
        let path = path(&route.r#match)?;
        let hosts = route.r#match.hosts.iter().map(|host| pattern(host)).collect::<Vec<_>>();
        Some((index, hosts, path))
    });
    let matches: Vec<_> = matches.collect();
    alike(checker, list, &matches);
    routes.into_iter().flatten().collect()
}

fn one(
    checker: &mut Checker<'_>,
    at: &str,
    route: &schema::Route,
    upstreams: &[&str],
) -> Option<RouteConfig> {
    checker.name(&format!("{at}.name"), &route.name);
    let upstream = upstreams.iter().position(|name| *name == route.upstream);
    if upstream.is_none() && !route.upstream.is_empty() {
        let hint = match nearest(&route.upstream, upstreams.iter().copied()) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("there are: {}", upstreams.join(", ")),
        };
        let shown = route.upstream.escape_debug();
        checker.problem(&format!("{at}.upstream"), format!("no upstream \"{shown}\"; {hint}"));
    }
    let hosts = route.r#match.hosts.iter().enumerate();
    let hosts: Vec<HostPattern> = hosts
        .filter_map(|(index, host)| {
            let at = format!("{at}.match.hosts[{index}]");
            if host == "*" {
                return Some(HostPattern::Any);
            }
            host_name(checker, &at, host).map(|host| pattern(&host))
        })
        .collect();
    for (key, path) in [("path", &route.r#match.path), ("path_prefix", &route.r#match.path_prefix)]
    {
        if let Some(path) = path {
            request_path(checker, &format!("{at}.match.{key}"), path);
        }
    }
    let Some(path) = path(&route.r#match) else {
        checker.problem(
            &format!("{at}.match"),
            "`path` and `path_prefix` exclude each other; keep one",
        );
        return None;
    };
    let upstream = ClusterId(u16::try_from(upstream?).ok()?);
    Some(RouteConfig {
        name: route.name.as_str().into(),
        hosts,
        path,
        upstream,
        request_body_max: route.max_request_body.octets(),
        rate_limit: route.rate_limit.as_ref().map(rate_limit),
    })
}

fn rate_limit(limit: &schema::RateLimit) -> rate_limit::Settings {
    rate_limit::Settings {
        requests: limit.requests,
        per: limit.per,
        burst: limit.burst.unwrap_or(limit.requests),
        counted: match limit.counted {
            schema::Counted::Client => rate_limit::Counted::Client,
            schema::Counted::Route => rate_limit::Counted::Route,
        },
        clients: limit.clients,
    }
}

fn alike(
    checker: &mut Checker<'_>,
    list: &[schema::Route],
    matches: &[(usize, Vec<HostPattern>, PathPattern)],
) {
    let rules = matches.iter().map(|(_, hosts, path)| (hosts.as_slice(), path));
    for duplicate in duplicates(rules) {
        let (Some((later, hosts, path)), Some((earlier, ..))) =
            (matches.get(duplicate.rule), matches.get(duplicate.earlier))
        else {
            continue;
        };
        let at = match hosts.get(duplicate.host) {
            Some(_) => format!("routes[{later}].match.hosts[{}]", duplicate.host),
            None => format!("routes[{later}].match"),
        };
        let host = match hosts.get(duplicate.host) {
            Some(HostPattern::Exact(host)) => host.clone(),
            Some(HostPattern::Suffix(suffix)) => format!("*.{suffix}"),
            _ => "any host".to_owned(),
        };
        let path = match path {
            PathPattern::Exact(path) => format!("path {path}"),
            PathPattern::Prefix(path) => format!("path prefix {path}"),
        };
        let message = if later == earlier {
            format!("the route names {host} twice; keep one")
        } else {
            let name = list.get(*earlier).map_or("", |route| route.name.as_str());
            let line = checker.places.of(&format!("routes[{earlier}]")).line;
            format!("route \"{name}\" on line {line} takes {host} with {path}, too; change one")
        };
        checker.problem(&at, message);
    }
}

fn path(rule: &schema::Match) -> Option<PathPattern> {
    match (&rule.path, &rule.path_prefix) {
        (Some(_), Some(_)) => None,
        (Some(path), None) => Some(PathPattern::Exact(path.clone())),
        (None, Some(prefix)) => Some(PathPattern::Prefix(prefix.clone())),
        (None, None) => Some(PathPattern::Prefix("/".to_owned())),
    }
}

fn pattern(host: &str) -> HostPattern {
    let host = host.to_ascii_lowercase();
    match host.strip_prefix("*.") {
        _ if host == "*" => HostPattern::Any,
        Some(suffix) => HostPattern::Suffix(suffix.to_owned()),
        None => HostPattern::Exact(host),
    }
}

/// A host name, a `*.` wildcard or an IP address as it stands in `:authority`, in lower case.
pub(super) fn host_name(checker: &mut Checker<'_>, at: &str, host: &str) -> Option<String> {
    if checker.is_faulty(at) {
        return None;
    }
    let lower = host.to_ascii_lowercase();
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(plain)
    };
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    let bracketed = lower.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    if let Some(address) = bracketed.and_then(|inside| inside.parse::<Ipv6Addr>().ok()) {
        return Some(format!("[{address}]"));
    }
    if name.len() <= 253 && name.split('.').all(label) {
        return Some(lower);
    }
    let remedy = if lower.contains("://") {
        "is a URL; write the host name alone"
    } else if lower.parse::<Ipv6Addr>().is_ok() {
        "is an IPv6 address; write it in brackets"
    } else if name.contains('*') {
        "has a wildcard in another place than the first label; write one such as *.example.com"
    } else if lower.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        "has a port; write the host name alone"
    } else if !lower.is_ascii() {
        "has letters outside ASCII; write the name as it is in DNS (xn--...)"
    } else if lower.ends_with('.') {
        "ends with a dot; leave it out"
    } else {
        "is not a host name; write one such as example.com or *.example.com"
    };
    checker.problem(at, format!("\"{}\" {remedy}", host.escape_debug()));
    None
}

/// A path in the normal form in which requests are routed: another spelling would never match.
fn request_path(checker: &mut Checker<'_>, at: &str, path: &str) {
    let shown = path.escape_debug();
    let message = if path.contains('?') {
        format!("\"{shown}\" has a query; routes look at paths alone")
    } else if path.len() > PATH_LEN_MAX {
        format!("is longer than {PATH_LEN_MAX} octets")
    } else {
        match Target::parse(path.as_bytes()) {
            Ok(target) if target.path() == path => return,
            Ok(target) => {
                let normal = target.path();
                format!(
                    "\"{shown}\" never matches: requests for it are routed as \"{normal}\"; write that"
                )
            }
            Err(error) => format!("\"{shown}\" never matches: {error}"),
        }
    };
    checker.problem(at, message);
}

/// A path with or without a query (RFC 9112 §3.2.1).
pub(super) fn request_target(checker: &mut Checker<'_>, at: &str, target: &str) {
    let shown = target.escape_debug();
    if !target.starts_with('/') {
        checker.problem(at, format!("\"{shown}\" does not begin with a slash"));
    } else if !target.bytes().all(|octet| octet.is_ascii_graphic()) || target.contains('#') {
        let message = "has characters that no request has; write them percent-encoded";
        checker.problem(at, format!("\"{shown}\" {message}"));
    }
}
