//! Checks of the access lists and the files they name. May import: checked, schema, load.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use spooky_common::map::{ALLOW_CAPACITY, DENY_CAPACITY};

use super::Checker;
use crate::controlplane::config::checked::{Access, AccessSource};
use crate::controlplane::config::load::{read_bounded, unreadable};
use crate::controlplane::config::problem::Place;
use crate::controlplane::config::schema::{self, AccessDefault};

/// 131072 networks of both versions with comments fit in far less.
const LIST_FILE_SIZE_MAX: u64 = 64 << 20;

pub(super) fn check(checker: &mut Checker<'_>, access: &schema::Access) -> Access {
    let mut sources = Vec::new();
    let mut lists = [
        ("allow", &access.allow, &access.allow_files, ALLOW_CAPACITY),
        ("deny", &access.deny, &access.deny_files, DENY_CAPACITY),
    ]
    .map(|(key, written, files, capacity)| {
        let of_list = list(checker, key, written, files);
        let networks = union(of_list.iter());
        if let Err(message) = fits(&networks, capacity) {
            checker.problem(&format!("access.{key}"), message);
        }
        sources.extend(of_list);
        networks
    })
    .into_iter();
    if let Some(file) = &access.state_file {
        state_file(checker, file);
    }
    Access {
        default_deny: access.default == AccessDefault::Deny,
        allow: lists.next().unwrap_or_default(),
        deny: lists.next().unwrap_or_default(),
        sources,
        dynamic_max: usize::try_from(access.max_dynamic_entries).unwrap_or(usize::MAX),
        state_file: access.state_file.clone(),
        dry_run: access.dry_run,
    }
}

fn state_file(checker: &mut Checker<'_>, file: &Path) {
    let path = "access.state_file";
    if checker.is_faulty(path) {
        return;
    }
    match file.parent() {
        Some(folder) if file.is_absolute() && !folder.is_dir() => {
            checker.problem(path, format!("there is no directory {}", folder.display()));
        }
        Some(_) if file.is_absolute() && !file.is_dir() => {}
        _ => checker.problem(path, "write the whole path of a file, from / on"),
    }
}

/// The networks of all sources, sorted, each once.
#[must_use]
pub fn union<'a>(sources: impl Iterator<Item = &'a AccessSource>) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> =
        sources.flat_map(|source| source.networks.iter()).copied().collect();
    networks.sort_unstable();
    networks.dedup();
    networks
}

/// Whether the kernel has room for this list.
///
/// # Errors
/// What is wrong.
pub fn fits(networks: &[IpNet], capacity: u32) -> Result<(), String> {
    let v4 = networks.iter().filter(|network| network.addr().is_ipv4()).count();
    for (version, count) in [("IPv4", v4), ("IPv6", networks.len() - v4)] {
        if count > capacity as usize {
            return Err(format!(
                "{count} {version} networks, with those of files; at most {capacity}"
            ));
        }
    }
    Ok(())
}

fn list(
    checker: &mut Checker<'_>,
    key: &str,
    written: &[String],
    files: &[PathBuf],
) -> Vec<AccessSource> {
    let deny = key == "deny";
    let mut networks = Vec::new();
    for (index, text) in written.iter().enumerate() {
        let path = format!("access.{key}[{index}]");
        match network(text) {
            Ok(network) => networks.push(network),
            Err(_) if checker.is_faulty(&path) => {}
            Err(message) => checker.problem(&path, message),
        }
    }
    let mut sources = vec![source(deny, None, networks)];
    for (index, file) in files.iter().enumerate() {
        let path = format!("access.{key}_files[{index}]");
        if checker.is_faulty(&path) {
            continue;
        }
        match list_file(file) {
            Ok(networks) => sources.push(source(deny, Some(file.clone()), networks)),
            Err(wrong) => {
                for (line, message) in wrong {
                    match line {
                        None => checker.problem(&path, format!("{} {message}", file.display())),
                        Some(line) => {
                            let place = Place { line, column: 1 };
                            checker.problems.add_in(file.clone(), place, &path, message);
                        }
                    }
                }
            }
        }
    }
    sources
}

/// Networks from one place, sorted, each once.
#[must_use]
pub fn source(deny: bool, file: Option<PathBuf>, mut networks: Vec<IpNet>) -> AccessSource {
    networks.sort_unstable();
    networks.dedup();
    AccessSource { deny, file, networks: networks.into() }
}

/// The networks in a list file, in its order. Blocks.
///
/// # Errors
/// All that is wrong with it: lines, or what keeps it from being read.
pub fn list_file(file: &Path) -> Result<Vec<IpNet>, Vec<(Option<usize>, String)>> {
    let text =
        read_bounded(file, LIST_FILE_SIZE_MAX).map_err(|error| vec![(None, unreadable(&error))])?;
    let (mut networks, mut wrong) = (Vec::new(), Vec::new());
    for (number, line) in (1..).zip(text.split(|octet| *octet == b'\n')) {
        let line = String::from_utf8_lossy(line);
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        match network(text) {
            Ok(network) => networks.push(network),
            Err(message) => wrong.push((Some(number), message)),
        }
    }
    if wrong.is_empty() { Ok(networks) } else { Err(wrong) }
}

/// A network, or one address; host bits must be clear, for they mean that somebody thought of another length.
///
/// # Errors
/// What is wrong with it.
pub fn network(text: &str) -> Result<IpNet, String> {
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
