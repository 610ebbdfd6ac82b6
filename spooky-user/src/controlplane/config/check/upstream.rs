//! Checks of upstreams: policies, addresses, TLS towards backends, probes. May import: checked, schema, the compiled types of
//! balance and upstream.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use http::HeaderName;

use super::{Checker, route};
use crate::controlplane::config::checked::{EndpointConfig, UpstreamConfig};
use crate::controlplane::config::load::{read_bounded, unreadable};
use crate::controlplane::config::read::Named;
use crate::controlplane::config::schema;
use crate::controlplane::config::units::ByteSize;
use crate::dataplane::balance::{HashOn, Policy};
use crate::dataplane::upstream::cluster::{
    HealthCheck, Keepalive, RetryBudget, Settings, TlsSettings, TlsVersion,
};
use crate::dataplane::upstream::tls::Connector;

/// A ring of so many endpoints takes 64 MB at most; beyond that an upstream should be several.
const ENDPOINTS_MAX: usize = 4096;

/// [`crate::id::ClusterId`] is a `u16`.
const UPSTREAMS_MAX: usize = 4096;

/// Bundles of authorities are a few hundred kilobytes.
const CA_FILE_SIZE_MAX: u64 = 16 << 20;

pub(super) fn check(
    checker: &mut Checker<'_>,
    upstreams: &Named<schema::Upstream>,
) -> Vec<UpstreamConfig> {
    if upstreams.0.is_empty() && !checker.is_faulty("upstreams") {
        checker.problem("upstreams", "needs at least one upstream");
    }
    if upstreams.0.len() > UPSTREAMS_MAX {
        checker.problem("upstreams", format!("at most {UPSTREAMS_MAX} upstreams"));
        return Vec::new();
    }
    upstreams.0.iter().filter_map(|(name, upstream)| one(checker, name, upstream)).collect()
}

fn one(
    checker: &mut Checker<'_>,
    name: &str,
    upstream: &schema::Upstream,
) -> Option<UpstreamConfig> {
    let path = format!("upstreams.{name}");
    checker.name(&path, name);
    let policy = match upstream.load_balancing.policy {
        schema::Policy::RoundRobin => Policy::RoundRobin,
        schema::Policy::WeightedRoundRobin => Policy::WeightedRoundRobin,
        schema::Policy::Random => Policy::Random,
        schema::Policy::RingHash => Policy::RingHash,
    };
    let hash_on = hash_on(checker, &format!("{path}.load_balancing"), &upstream.load_balancing);
    let endpoints = endpoints(checker, &path, upstream);
    let tls = match &upstream.tls {
        Some(tls) => connector(checker, &format!("{path}.tls"), tls, &upstream.endpoints),
        None => None,
    };
    let health_check = upstream
        .health_check
        .as_ref()
        .map(|check| health_check(checker, &format!("{path}.health_check"), check));
    Some(UpstreamConfig {
        name: name.into(),
        policy,
        hash_on: hash_on?,
        attempts: upstream.retry.attempts,
        retry_budget: RetryBudget {
            percent: upstream.retry.budget.percent.0,
            min_concurrency: upstream.retry.budget.min_concurrency,
        },
        settings: Arc::new(settings(checker, &path, upstream, tls)),
        health_check,
        endpoints,
    })
}

fn hash_on(
    checker: &mut Checker<'_>,
    path: &str,
    balancing: &schema::LoadBalancing,
) -> Option<HashOn> {
    let hashes = balancing.policy == schema::Policy::RingHash;
    let at = format!("{path}.hash_on");
    if balancing.hash_on.is_some() && !hashes && !checker.is_faulty(&format!("{path}.policy")) {
        let policy = balancing.policy.word();
        let message = format!(
            "policy {policy} hashes nothing; leave hash_on out, or write policy: ring_hash"
        );
        checker.problem(&at, message);
    }
    match balancing.hash_on.clone().unwrap_or_default() {
        schema::HashOn::SourceIp => Some(HashOn::SourceIp),
        schema::HashOn::Path => Some(HashOn::Path),
        schema::HashOn::Header(name) => match HeaderName::from_bytes(name.as_bytes()) {
            Ok(name) => Some(HashOn::Header(name)),
            Err(_) => {
                let shown = name.escape_debug();
                checker.problem(&at, format!("\"{shown}\" is not a field name (RFC 9110 §5.1)"));
                None
            }
        },
        schema::HashOn::Cookie(name) => {
            // A cookie name is a token, as a field name is (RFC 6265 §4.1.1), but with upper and lower case.
            if HeaderName::from_bytes(name.as_bytes()).is_err() {
                let shown = name.escape_debug();
                checker.problem(&at, format!("\"{shown}\" is not a cookie name (RFC 6265 §4.1.1)"));
            }
            Some(HashOn::Cookie(name))
        }
    }
}

fn endpoints(
    checker: &mut Checker<'_>,
    path: &str,
    upstream: &schema::Upstream,
) -> Vec<EndpointConfig> {
    let path = format!("{path}.{}", endpoints_key(checker, path));
    let list = &upstream.endpoints;
    if list.is_empty() && !checker.is_faulty(&path) {
        checker.problem(&path, "needs at least one endpoint");
    }
    if list.len() > ENDPOINTS_MAX {
        checker.problem(&path, format!("at most {ENDPOINTS_MAX} endpoints"));
        return Vec::new();
    }
    let names: Vec<(String, &str)> = list
        .iter()
        .enumerate()
        .map(|(index, endpoint)| (format!("{path}[{index}]"), endpoint_name(endpoint)))
        .collect();
    checker.unique("endpoint", names.iter().map(|(path, name)| (path.clone(), *name)));
    let checked = list.iter().zip(&names).filter_map(|(endpoint, (path, name))| {
        if endpoint.name.is_some() {
            checker.name(&format!("{path}.name"), name);
        }
        weight(checker, path, endpoint, upstream.load_balancing.policy);
        let address = address(checker, &format!("{path}.address"), &endpoint.address)?;
        let weight = endpoint.weight.unwrap_or(100);
        Some(EndpointConfig { name: (*name).into(), address, weight })
    });
    checked.collect()
}

/// Messages name the spelling that the file has.
fn endpoints_key(checker: &Checker<'_>, path: &str) -> &'static str {
    let upstream = checker.places.of(path);
    let alias = checker.places.of(&format!("{path}.backends"));
    if alias == upstream { "endpoints" } else { "backends" }
}

fn endpoint_name(endpoint: &schema::Endpoint) -> &str {
    endpoint.name.as_deref().unwrap_or(&endpoint.address)
}

fn weight(
    checker: &mut Checker<'_>,
    path: &str,
    endpoint: &schema::Endpoint,
    policy: schema::Policy,
) {
    if endpoint.weight.is_some_and(|weight| weight != 100) && policy == schema::Policy::RoundRobin {
        checker.problem(
            &format!("{path}.weight"),
            "policy round_robin does not look at weights; leave it out, or write policy: \
             weighted_round_robin",
        );
    }
}

/// An IP address and port, or a host name and port, looked up now.
fn address(checker: &mut Checker<'_>, path: &str, text: &str) -> Option<SocketAddr> {
    if text.is_empty() {
        return None;
    }
    let shown = text.escape_debug();
    let resolved = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => {
            let Some(host) = host_part(text) else {
                let remedy = match text.parse::<IpAddr>() {
                    Ok(ip) => {
                        format!("has no port; write one such as \"{}\"", SocketAddr::new(ip, 8443))
                    }
                    Err(_) if text.contains("://") => {
                        "is a URL; write host and port such as backend.internal:8443".to_owned()
                    }
                    Err(_) => "is not an address and port; write one such as 10.0.0.1:8443, \
                               [2001:db8::1]:8443 or backend.internal:8443"
                        .to_owned(),
                };
                checker.problem(path, format!("\"{shown}\" {remedy}"));
                return None;
            };
            match text.to_socket_addrs().map(|mut addresses| addresses.next()) {
                Ok(Some(address)) => address,
                Ok(None) => {
                    checker.problem(path, format!("host name {host} has no address"));
                    return None;
                }
                Err(error) => {
                    checker.problem(path, format!("host name {host} is not found: {error}"));
                    return None;
                }
            }
        }
    };
    if resolved.port() == 0 {
        checker.problem(path, format!("\"{shown}\" has port 0; write the backend's port"));
    } else if resolved.ip().is_unspecified() {
        checker.problem(path, format!("\"{shown}\" is no address one can connect to"));
    }
    Some(resolved)
}

/// The host name of `name:port`; `None` for anything else.
fn host_part(text: &str) -> Option<&str> {
    let (host, port) = text.rsplit_once(':')?;
    let label = |label: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(plain)
    };
    let is_name = host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label);
    // Four numbers are an address with a slip of the pen, not a name to look up.
    let has_letter = host.chars().any(|c| c.is_ascii_alphabetic());
    (is_name && has_letter && port.parse::<u16>().is_ok()).then_some(host)
}

/// `None` only with the problem noted.
fn connector(
    checker: &mut Checker<'_>,
    path: &str,
    tls: &schema::UpstreamTls,
    endpoints: &[schema::Endpoint],
) -> Option<Connector> {
    if checker.is_faulty(path) {
        return None;
    }
    let mut sni = tls.sni.clone();
    if sni.is_none() {
        let mut hosts: Vec<Option<&str>> =
            endpoints.iter().map(|endpoint| host_part(&endpoint.address)).collect();
        hosts.dedup();
        sni = match hosts.as_slice() {
            [host] => host.map(|host| host.trim_end_matches('.').to_ascii_lowercase()),
            hosts if hosts.iter().all(Option::is_none) => None,
            _ => {
                let message =
                    "is missing; it must be given when endpoints have different host names";
                checker.problem(&format!("{path}.sni"), message);
                return None;
            }
        };
    }
    if let Some(file) = &tls.ca_file
        && let Err(error) = read_bounded(file, CA_FILE_SIZE_MAX)
    {
        let message = format!("{} {}", file.display(), unreadable(&error));
        checker.problem(&format!("{path}.ca_file"), message);
        return None;
    }
    let settings = TlsSettings {
        verify: tls.verify,
        sni,
        ca_file: tls.ca_file.clone(),
        min_version: match tls.min_version {
            schema::TlsVersion::Tls12 => TlsVersion::Tls12,
            schema::TlsVersion::Tls13 => TlsVersion::Tls13,
        },
    };
    match Connector::new(&settings) {
        Ok(connector) => Some(connector),
        Err(error) => {
            checker.problem(path, error.to_string());
            None
        }
    }
}

fn settings(
    checker: &mut Checker<'_>,
    path: &str,
    upstream: &schema::Upstream,
    tls: Option<Connector>,
) -> Settings {
    let schema::Upstream { http2, pool, timeouts, .. } = upstream;
    let streams = http2.stream_window.0.saturating_mul(u64::from(http2.max_streams));
    if streams > http2.connection_window.0 && !checker.is_faulty(path) {
        checker.problem(
            &format!("{path}.http2.connection_window"),
            format!(
                "{} is less than max_streams times stream_window ({} x {} = {}): streams whose clients do \
                 not read could take all of it from the others; raise it, or lower one of them",
                http2.connection_window,
                http2.max_streams,
                http2.stream_window,
                ByteSize(streams)
            ),
        );
    }
    let octets = |size: ByteSize| u32::try_from(size.0).unwrap_or(u32::MAX);
    Settings {
        tls,
        connect_timeout: timeouts.connect,
        response_header_timeout: timeouts.response_header,
        stream_idle_timeout: timeouts.stream_idle,
        max_connections: pool.max_connections,
        max_streams: http2.max_streams,
        max_pending: pool.max_pending,
        pending_timeout: pool.pending_timeout,
        idle_timeout: pool.idle_timeout,
        stream_window: octets(http2.stream_window),
        connection_window: octets(http2.connection_window),
        max_header_list_size: octets(http2.max_header_list_size),
        keepalive: http2.keepalive.as_ref().map(|keepalive| Keepalive {
            interval: keepalive.interval,
            timeout: keepalive.timeout,
        }),
    }
}

fn health_check(checker: &mut Checker<'_>, path: &str, check: &schema::HealthCheck) -> HealthCheck {
    route::request_target(checker, &format!("{path}.path"), &check.path);
    if check.timeout > check.interval && !checker.is_faulty(path) {
        let message = "is longer than the interval; probes of one endpoint would overlap";
        checker.problem(&format!("{path}.timeout"), message);
    }
    if let Some(host) = &check.host
        && http::uri::Authority::try_from(host.as_str()).is_err()
    {
        let shown = host.escape_debug();
        checker.problem(&format!("{path}.host"), format!("\"{shown}\" is not a host name"));
    }
    HealthCheck {
        path: check.path.clone(),
        host: check.host.clone(),
        interval: check.interval,
        timeout: check.timeout,
        unhealthy_after: check.unhealthy_after,
        healthy_after: check.healthy_after,
        jitter_percent: check.jitter.0,
    }
}
