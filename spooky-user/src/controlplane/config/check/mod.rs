//! The values of a file against each other and against the machine: names, addresses, files, what excludes what. Every problem
//! is noted and checking goes on; [`check`] gives a [`Config`] that is only good when there is none. May import: its parent's
//! modules and the compiled types of the data plane.

mod abuse;
mod access;
mod files;
mod host;
mod listener;
mod route;
mod upstream;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

pub use self::access::{fits, list_file, network, source, union};
use super::checked::Config;
use super::problem::Problems;
use super::schema::File;
use super::source::Places;

/// Where problems go while one file is checked.
struct Checker<'a> {
    places: &'a Places,
    problems: &'a mut Problems,
}

/// `None` only when there is a problem.
pub(super) fn check(
    path: &Path,
    file: File,
    places: &Places,
    problems: &mut Problems,
) -> Option<Config> {
    let mut checker = Checker { places, problems };
    let listeners = listener::check(&mut checker, &file.listeners);
    let access = access::check(&mut checker, &file.access);
    let abuse = abuse::check(&mut checker, &file.abuse);
    let upstreams = upstream::check(&mut checker, &file.upstreams);
    let names: Vec<&str> = file.upstreams.0.iter().map(|(name, _)| name.as_str()).collect();
    let routes = route::check(&mut checker, &file.routes, &names);
    let admin = host::admin(&mut checker, &file.admin);
    let ebpf = host::ebpf(&mut checker, &file.ebpf);
    let access_log = host::access_log(&mut checker, &file.access_log);
    let overload = host::overload(&mut checker, &file.overload);
    let workers = host::workers(&mut checker, &file.workers, ebpf.mode);
    Some(Config {
        path: path.to_owned(),
        files: files::named(path, &file),
        privileges: host::privileges(&file.privileges),
        log: host::log(&file.log),
        access_log: access_log?,
        workers,
        listeners,
        ebpf,
        access,
        abuse,
        upstreams,
        routes,
        admin: admin?,
        overload,
        shutdown: host::shutdown(&file.shutdown),
    })
}

// === impl Checker ===

impl Checker<'_> {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.add(self.places.of(path), path, message);
    }

    /// Was something already found wrong at this path? Then the value there is a stand-in.
    fn is_faulty(&self, path: &str) -> bool {
        self.problems.any_at(path)
    }

    /// A name that will be a metric label: short and plain.
    fn name(&mut self, path: &str, name: &str) {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() {
            // Missing; already noted, but for the empty key of a mapping.
            if !self.is_faulty(path) && path.starts_with("upstreams.") {
                self.problem(path, "a name is empty");
            }
        } else if name.len() > 64 || !name.chars().all(plain) {
            let message = "is not a name; use 1 to 64 letters, digits, '-', '_' and '.'";
            self.problem(path, format!("\"{}\" {message}", name.escape_debug()));
        }
    }

    /// Names of a list, each at most once.
    fn unique<'n>(&mut self, kind: &str, names: impl Iterator<Item = (String, &'n str)>) {
        let mut seen: HashMap<&str, String> = HashMap::new();
        for (path, name) in names.filter(|(_, name)| !name.is_empty()) {
            match seen.get(name) {
                Some(first) => {
                    let line = self.places.of(first).line;
                    let message = format!("another {kind} on line {line} is named \"{name}\", too");
                    self.problem(&path, message);
                }
                None => {
                    seen.insert(name, path);
                }
            }
        }
    }

    /// An IP address and a port that spooky binds. `None` with the problem noted, or when it was missing.
    fn socket_address(&mut self, path: &str, text: &str) -> Option<SocketAddr> {
        if text.is_empty() {
            return None;
        }
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let remedy = if let Ok(ip) = text.parse::<IpAddr>() {
            format!("has no port; write \"{}\"", SocketAddr::new(ip, 443))
        } else if text.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()) {
            format!("has no address; write \"[::]{text}\" for all of them, IPv4 included")
        } else if text.starts_with("localhost:") {
            format!("is a name; write \"{}\"", text.replace("localhost", "127.0.0.1"))
        } else {
            "is not an IP address and port; write one such as 0.0.0.0:443 or [::]:443".to_owned()
        };
        self.problem(path, format!("\"{}\" {remedy}", text.escape_debug()));
        None
    }
}
