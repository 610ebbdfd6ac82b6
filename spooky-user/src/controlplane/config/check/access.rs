//! Checks of the access lists and the files they name. May import: checked, schema, load.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use spooky_common::map::{ALLOW_CAPACITY, DENY_CAPACITY};

use super::Checker;
use crate::controlplane::config::checked::Access;
use crate::controlplane::config::load::{read_bounded, unreadable};
use crate::controlplane::config::problem::Place;
use crate::controlplane::config::schema::{self, AccessDefault};

/// 131072 networks of both versions with comments fit in far less.
const LIST_FILE_SIZE_MAX: u64 = 64 << 20;

pub(super) fn check(checker: &mut Checker<'_>, access: &schema::Access) -> Access {
    let mut lists = [
        ("allow", &access.allow, &access.allow_files, ALLOW_CAPACITY),
        ("deny", &access.deny, &access.deny_files, DENY_CAPACITY),
    ]
    .map(|(key, written, files, capacity)| list(checker, key, written, files, capacity))
    .into_iter();
    Access {
        default_deny: access.default == AccessDefault::Deny,
        allow: lists.next().unwrap_or_default(),
        deny: lists.next().unwrap_or_default(),
    }
}

fn list(
    checker: &mut Checker<'_>,
    key: &str,
    written: &[String],
    files: &[PathBuf],
    capacity: u32,
) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let path = format!("access.{key}[{index}]");
        match network(text) {
            Ok(network) => networks.push(network),
            Err(_) if checker.is_faulty(&path) => {}
            Err(message) => checker.problem(&path, message),
        }
    }
    for (index, file) in files.iter().enumerate() {
        let path = format!("access.{key}_files[{index}]");
        if !checker.is_faulty(&path) {
            networks.extend(list_file(checker, &path, file));
        }
    }
    networks.sort_unstable();
    networks.dedup();
    let v4 = networks.iter().filter(|network| network.addr().is_ipv4()).count();
    for (version, count) in [("IPv4", v4), ("IPv6", networks.len() - v4)] {
        if count > capacity as usize {
            checker.problem(
                &format!("access.{key}"),
                format!("{count} {version} networks, with those of files; at most {capacity}"),
            );
        }
    }
    networks
}

fn list_file(checker: &mut Checker<'_>, path: &str, file: &Path) -> Vec<IpNet> {
    let text = match read_bounded(file, LIST_FILE_SIZE_MAX) {
        Ok(octets) => octets,
        Err(error) => {
            checker.problem(path, format!("{} {}", file.display(), unreadable(&error)));
            return Vec::new();
        }
    };
    let mut networks = Vec::new();
    for (number, line) in (1..).zip(text.split(|octet| *octet == b'\n')) {
        let line = String::from_utf8_lossy(line);
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        match network(text) {
            Ok(network) => networks.push(network),
            Err(message) => {
                let place = Place { line: number, column: 1 };
                checker.problems.add_in(file.to_owned(), place, path, message);
            }
        }
    }
    networks
}

/// A network, or one address; host bits must be clear, for they mean that somebody thought of another length.
pub(super) fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address.to_canonical()));
    }
    let shown = text.escape_debug();
    let network = text.parse::<IpNet>().map_err(|_syntax| {
        format!("\"{shown}\" is not a network; write one such as 192.0.2.0/24 or 2001:db8::/32")
    })?;
    if network.trunc() != network {
        return Err(format!(
            "\"{shown}\" has bits set behind the prefix; write {} or {}",
            network.trunc(),
            IpNet::from(network.addr())
        ));
    }
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 && v6.addr().to_ipv4_mapped().is_some() => {
            let (address, length) = (v6.addr().to_canonical(), v6.prefix_len() - 96);
            Err(format!("\"{shown}\" is an IPv4 network in IPv6 form; write {address}/{length}"))
        }
        network => Ok(network),
    }
}
