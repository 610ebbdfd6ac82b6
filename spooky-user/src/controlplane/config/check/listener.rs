//! Checks of listeners: addresses that collide, certificates, windows, connection-ID keys. May import: checked, schema, load,
//! quic's settings and certificates.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use spooky_common::map::LISTENERS_CAPACITY;

use super::{Checker, route};
use crate::controlplane::config::checked::{CidKey, CidSettings, Listener};
use crate::controlplane::config::load::{read_bounded, unreadable};
use crate::controlplane::config::schema::{self, Protocol};
use crate::controlplane::config::units::ByteSize;
use crate::dataplane::quic::settings::{
    AddressValidation, Congestion, Http3Settings, PathLimits, QuicSettings, ResetBudget, ResetRate,
    ValidationMode, Window,
};
use crate::dataplane::quic::tls::{CertificateFiles, CertificateStore};

/// Modes that a file with a secret must not have: write for its group, anything for others.
const NOT_PRIVATE: u32 = 0o027;
/// Chains and keys are a few kilobytes.
const PEM_SIZE_MAX: u64 = 1 << 20;

pub(super) fn check(checker: &mut Checker<'_>, list: &[schema::Listener]) -> Vec<Listener> {
    if list.is_empty() && !checker.is_faulty("listeners") {
        checker.problem("listeners", "needs at least one listener");
    }
    if list.len() > LISTENERS_CAPACITY as usize {
        checker.problem("listeners", format!("at most {LISTENERS_CAPACITY} listeners"));
        return Vec::new();
    }
    let name = |(index, listener): (usize, &'_ schema::Listener)| {
        (format!("listeners[{index}].name"), listener.name.clone())
    };
    let names: Vec<(String, String)> = list.iter().enumerate().map(name).collect();
    checker.unique("listener", names.iter().map(|(path, name)| (path.clone(), name.as_str())));
    let mut listeners = Vec::with_capacity(list.len());
    for (index, listener) in list.iter().enumerate() {
        listeners.extend(one(checker, index, listener).map(|listener| (index, listener)));
    }
    collisions(checker, &listeners);
    shared_keys(checker, list);
    listeners.into_iter().map(|(_, listener)| listener).collect()
}

fn one(checker: &mut Checker<'_>, index: usize, listener: &schema::Listener) -> Option<Listener> {
    let path = format!("listeners[{index}]");
    checker.name(&format!("{path}.name"), &listener.name);
    let bind = checker.socket_address(&format!("{path}.bind"), &listener.bind);
    protocols(checker, &format!("{path}.protocols"), &listener.protocols);
    let certificates = certificates(checker, &format!("{path}.tls"), &listener.tls);
    let quic = quic(checker, &format!("{path}.quic"), &listener.quic);
    let cid = cid(checker, &format!("{path}.quic.cid"), &listener.quic.cid);
    Some(Listener {
        name: listener.name.as_str().into(),
        bind: bind?,
        certificates,
        quic,
        http3: http3(&listener.http3),
        cid: cid?,
    })
}

fn protocols(checker: &mut Checker<'_>, path: &str, protocols: &[Protocol]) {
    if protocols.is_empty() && !checker.is_faulty(path) {
        checker.problem(path, "is empty; write [h3]");
    }
    for (index, protocol) in protocols.iter().enumerate() {
        let path = format!("{path}[{index}]");
        if *protocol != Protocol::H3 {
            let word = protocol.word();
            let message = format!(
                "{word} is not served yet: h2 and h1 listeners come in a later release; write [h3]"
            );
            checker.problem(&path, message);
        } else if index > 0 && protocols.first() == Some(protocol) {
            checker.problem(&path, "h3 is given twice; write [h3]");
        }
    }
}

fn certificates(
    checker: &mut Checker<'_>,
    tls_path: &str,
    tls: &schema::Tls,
) -> Vec<CertificateFiles> {
    let path = format!("{tls_path}.certificates");
    if tls.certificates.is_empty() && !checker.is_faulty(&path) && !checker.is_faulty(tls_path) {
        checker.problem(&path, "needs at least one certificate; HTTP/3 has no cleartext form");
    }
    let mut files = Vec::with_capacity(tls.certificates.len());
    for (index, certificate) in tls.certificates.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let readable = [("cert", &certificate.cert), ("key", &certificate.key)]
            .map(|(key, file)| readable(checker, &format!("{path}.{key}"), file));
        let sni = sni(checker, &path, &certificate.sni);
        if readable != [true, true] {
            continue;
        }
        private(checker, &format!("{path}.key"), &certificate.key);
        let file =
            CertificateFiles { sni, cert: certificate.cert.clone(), key: certificate.key.clone() };
        if let Err(errors) = CertificateStore::load(std::slice::from_ref(&file)) {
            for (_, error) in errors {
                checker.problem(&path, error.to_string());
            }
        }
        files.push(file);
    }
    files
}

fn sni(checker: &mut Checker<'_>, path: &str, names: &[String]) -> Vec<String> {
    let names = names.iter().enumerate().filter_map(|(index, name)| {
        let path = format!("{path}.sni[{index}]");
        if name == "*" {
            checker.problem(&path, "\"*\" is not a host name; leave sni out to serve every name");
            return None;
        }
        route::host_name(checker, &path, name)
    });
    names.collect()
}

/// A file that can be read and is not a pipe, on which reading would wait for ever.
fn readable(checker: &mut Checker<'_>, path: &str, file: &Path) -> bool {
    if file.as_os_str().is_empty() {
        return false;
    }
    match read_bounded(file, PEM_SIZE_MAX) {
        Ok(_) => true,
        Err(error) => {
            checker.problem(path, format!("{} {}", file.display(), unreadable(&error)));
            false
        }
    }
}

/// A file with a secret is its owner's and its group's; the group reads at most. The group is how spooky reads root's files
/// when it is not root any more.
fn private(checker: &mut Checker<'_>, path: &str, file: &Path) {
    // One that is not there has been told about.
    let Ok(metadata) = fs::metadata(file) else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & NOT_PRIVATE != 0 {
        let file = file.display();
        let message = format!(
            "{file} holds a secret and is open to others (mode {mode:04o}); chmod 600 {file}, or 640 \
             for a group of spooky's own"
        );
        checker.problem(path, message);
    }
}

fn quic(checker: &mut Checker<'_>, path: &str, quic: &schema::Quic) -> QuicSettings {
    let (stream, connection) = (&quic.stream_window, &quic.connection_window);
    let stream_window =
        window(checker, &format!("{path}.stream_window"), stream.initial, stream.max);
    let connection_window =
        window(checker, &format!("{path}.connection_window"), connection.initial, connection.max);
    if stream.max > connection.max && !checker.is_faulty(path) {
        checker.problem(
            &format!("{path}.stream_window.max"),
            format!(
                "{} is more than the connection's {}; one stream cannot have more than all together",
                stream.max, connection.max
            ),
        );
    }
    QuicSettings {
        idle_timeout: quic.idle_timeout,
        handshake_timeout: quic.handshake_timeout,
        max_streams: quic.max_streams,
        stream_window,
        connection_window,
        congestion: match quic.congestion {
            schema::Congestion::Cubic => Congestion::Cubic,
            schema::Congestion::Reno => Congestion::Reno,
            schema::Congestion::Bbr2 => Congestion::Bbr2,
        },
        max_udp_payload: usize::try_from(quic.max_udp_payload).unwrap_or(usize::MAX),
        active_connection_id_limit: quic.active_connection_id_limit,
        max_connections: usize::try_from(quic.max_connections).unwrap_or(usize::MAX),
        max_connections_per_source: usize::try_from(quic.max_connections_per_source)
            .unwrap_or(usize::MAX),
        address_validation: address_validation(
            checker,
            &format!("{path}.address_validation"),
            &quic.address_validation,
        ),
        stateless_resets: ResetRate {
            per_second: quic.stateless_reset.per_second,
            per_source: quic.stateless_reset.per_source,
        },
        paths: PathLimits {
            per_second: quic.migration.paths_per_second,
            unvalidated: usize::try_from(quic.migration.max_unvalidated_paths)
                .unwrap_or(usize::MAX),
        },
    }
}

fn http3(http3: &schema::Http3) -> Http3Settings {
    let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    let schema::Resets { requests, percent, per_second } = http3.resets;
    Http3Settings {
        max_field_section_size: http3.max_field_section_size.0,
        max_fields: size(http3.max_fields),
        max_field_name_size: size(http3.max_field_name_size.0),
        max_field_value_size: size(http3.max_field_value_size.0),
        max_requests_per_connection: http3.max_requests_per_connection,
        authority_must_match_sni: http3.authority_must_match_sni,
        resets: ResetBudget { requests, percent, per_second },
        request_header_timeout: http3.request_header_timeout,
        request_body_timeout: http3.request_body_timeout,
        request_body_rate: http3.request_body_rate.0,
        response_drain_timeout: http3.response_drain_timeout,
        max_unreadable: http3.max_unreadable.0,
        max_unreadable_total: http3.max_unreadable_total.0,
        max_backend_connections_lost: http3.max_backend_connections_lost,
    }
}

fn address_validation(
    checker: &mut Checker<'_>,
    path: &str,
    validation: &schema::AddressValidation,
) -> AddressValidation {
    let count = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
    if validation.half_open_threshold > validation.max_half_open && !checker.is_faulty(path) {
        let most = validation.max_half_open;
        let message = format!("is more than max_half_open, {most}, so that nobody would be asked");
        checker.problem(&format!("{path}.half_open_threshold"), message);
    }
    AddressValidation {
        mode: match validation.mode {
            schema::ValidationMode::Off => ValidationMode::Off,
            schema::ValidationMode::Adaptive => ValidationMode::Adaptive,
            schema::ValidationMode::Always => ValidationMode::Always,
        },
        half_open_threshold: count(validation.half_open_threshold),
        max_half_open: count(validation.max_half_open),
        token_ttl: validation.token_ttl,
    }
}

fn window(checker: &mut Checker<'_>, path: &str, initial: ByteSize, max: ByteSize) -> Window {
    if initial > max && !checker.is_faulty(path) {
        checker.problem(
            &format!("{path}.initial"),
            format!("{initial} is more than max, {max}; raise max or lower initial"),
        );
    }
    Window { initial: initial.0, max: max.0 }
}

fn cid(checker: &mut Checker<'_>, path: &str, cid: &schema::CidSection) -> Option<CidSettings> {
    let server_id = hex::<3>(cid.server_id.strip_prefix("0x").unwrap_or_default());
    if server_id.is_none() && !checker.is_faulty(&format!("{path}.server_id")) {
        checker.problem(
            &format!("{path}.server_id"),
            format!(
                "\"{}\" is not three octets in hexadecimal; write one such as \"0x00002a\"",
                cid.server_id.escape_debug()
            ),
        );
    }
    let key = match &cid.key_file {
        Some(file) => Some(key_file(checker, &format!("{path}.key_file"), file)?),
        None => None,
    };
    Some(CidSettings { config_id: cid.config_id, server_id: server_id?, key })
}

fn key_file(checker: &mut Checker<'_>, path: &str, file: &Path) -> Option<CidKey> {
    let octets = match read_bounded(file, PEM_SIZE_MAX) {
        Ok(octets) => octets,
        Err(error) => {
            checker.problem(path, format!("{} {}", file.display(), unreadable(&error)));
            return None;
        }
    };
    private(checker, path, file);
    // What the file holds never comes into a message: it may be a key with a slip of the pen.
    let text = String::from_utf8_lossy(&octets);
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut lines = lines.filter(|line| !line.is_empty());
    let key = lines.next().and_then(hex::<32>);
    match (key, lines.next()) {
        (Some(key), None) => Some(CidKey(key)),
        _ => {
            let wanted = "64 hexadecimal digits (make one with: openssl rand -hex 32)";
            checker.problem(path, format!("{} is not one line of {wanted}", file.display()));
            None
        }
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 || !text.bytes().all(|octet| octet.is_ascii_hexdigit()) {
        return None;
    }
    let mut octets = [0; N];
    for (index, octet) in octets.iter_mut().enumerate() {
        let digits = text.get(index * 2..index * 2 + 2)?;
        *octet = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(octets)
}

/// Two listeners may not want the same datagrams. `[::]` takes IPv4, too.
fn collisions(checker: &mut Checker<'_>, listeners: &[(usize, Listener)]) {
    for (count, (index, later)) in listeners.iter().enumerate() {
        let mut before = listeners.iter().take(count);
        if let Some((at, earlier)) = before.find(|(_, it)| collide(it.bind, later.bind)) {
            let path = format!("listeners[{index}].bind");
            let message = format!(
                "{} is taken by listener \"{}\" ({}) on line {}",
                later.bind,
                earlier.name,
                earlier.bind,
                checker.places.of(&format!("listeners[{at}].bind")).line
            );
            checker.problem(&path, message);
        }
    }
}

fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let (ip_a, ip_b) = (a.ip().to_canonical(), b.ip().to_canonical());
    let covers = |wide: SocketAddr, narrow: SocketAddr| {
        wide.ip().is_unspecified() && (wide.is_ipv6() || narrow.is_ipv4())
    };
    a.port() != 0 && a.port() == b.port() && (ip_a == ip_b || covers(a, b) || covers(b, a))
}

/// The kernel has one key for each config_id, whatever the listener.
fn shared_keys(checker: &mut Checker<'_>, list: &[schema::Listener]) {
    let mut first: HashMap<u8, (usize, &schema::CidSection)> = HashMap::new();
    for (index, listener) in list.iter().enumerate() {
        let cid = &listener.quic.cid;
        let (at, earlier) = *first.entry(cid.config_id).or_insert((index, cid));
        if (&earlier.key_file, &earlier.server_id) != (&cid.key_file, &cid.server_id) {
            let message = format!(
                "listeners[{at}] has config_id {}, too, but another key_file or server_id; \
                 give them different numbers or the same key",
                cid.config_id
            );
            checker.problem(&format!("listeners[{index}].quic.cid"), message);
        }
    }
}
