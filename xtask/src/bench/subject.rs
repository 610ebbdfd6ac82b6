//! What is measured: the floors, spooky in its modes and shapes, the peers. Knows how each is configured; starts
//! nothing. Imports `command`, `lab`, `peers`, `place` and `recipe`.

use super::lab::Lab;
use super::options::Options;
use super::peers;
use super::place::Place;
use super::recipe::{Recipe, Values};
use crate::command::{Failure, root};
use std::fmt::Write as _;

/// Ports inside of a namespace, where nobody else is.
pub(crate) const PORT: u16 = 9443;
pub(crate) const BACKEND_PORT: u16 = 8080;

/// Names that the ratios ask for.
pub(crate) const FLOOR: &str = "floor";
/// The floor once more, at the end of a round.
pub(crate) const FLOOR_AGAIN: &str = "floor-again";
pub(crate) const BACKEND: &str = "backend";
pub(crate) const MODES: [&str; 3] = ["spooky-off", "spooky-reuseport", "spooky-xdp"];

/// Whether `name` is spooky in one of its shapes.
pub(crate) fn is_own(name: &str) -> bool {
    ["spooky", "routes-", "endpoints-", "tls-"].iter().any(|begin| name.starts_with(begin))
}

/// What a subject is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bare quiche, no backend.
    Floor,
    /// The bare backend, driven over HTTP/2.
    Backend,
    Spooky,
    Peer,
}

/// One program in one configuration.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) workers: usize,
    /// Its backend speaks TLS.
    pub(crate) tls_backend: bool,
    /// `None`: there is no proxy to start.
    pub(crate) recipe: Option<Recipe>,
    pub(crate) shape: Shape,
}

/// What a scenario changes about spooky.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) mode: &'static str,
    pub(crate) routes: usize,
    pub(crate) endpoints: usize,
    /// By the path, so that one endpoint gets all requests, instead of all in turn.
    pub(crate) hash: bool,
    /// What more stands in `ebpf`, each with a comma before it.
    pub(crate) ebpf: &'static str,
    /// Its interface cuts no trains into datagrams: the kernel does.
    pub(crate) single: bool,
    /// A prefix that nobody may come from.
    pub(crate) denied: Option<&'static str>,
}

impl Shape {
    pub(crate) const PLAIN: Self = Self {
        mode: "off",
        routes: 1,
        endpoints: 1,
        hash: false,
        ebpf: "",
        single: false,
        denied: None,
    };
}

impl Subject {
    fn of(name: &str, kind: Kind, recipe: Option<&str>) -> Result<Self, Failure> {
        let file = |recipe| root().join("tests/load/peers").join(format!("{recipe}.recipe"));
        let recipe = recipe.map(|recipe| Recipe::read(&file(recipe))).transpose()?;
        let name = name.to_owned();
        Ok(Self { name, kind, workers: 1, tls_backend: false, recipe, shape: Shape::PLAIN })
    }

    pub(crate) fn floor() -> Result<Self, Failure> {
        Self::of(FLOOR, Kind::Floor, Some("floor"))
    }

    pub(crate) fn backend() -> Result<Self, Failure> {
        Self::of(BACKEND, Kind::Backend, None)
    }

    pub(crate) fn spooky(name: &str, shape: Shape) -> Result<Self, Failure> {
        Ok(Self { shape, ..Self::of(name, Kind::Spooky, Some("spooky"))? })
    }

    /// spooky as it is by default, in each of its modes.
    pub(crate) fn modes() -> Result<Vec<Self>, Failure> {
        let mode = |name: &'static str| {
            let mode = name.strip_prefix("spooky-").unwrap_or(name);
            Self::spooky(name, Shape { mode, ..Shape::PLAIN })
        };
        MODES.into_iter().map(mode).collect()
    }

    /// The peers that are installed, and those that were asked for.
    pub(crate) fn peers(lab: &Lab, options: &Options) -> Result<Vec<Self>, Failure> {
        let mut peers = Vec::new();
        for (name, _) in &lab.peers.found {
            peers.push(Self::of(name, Kind::Peer, Some(name))?);
        }
        for (name, file) in &options.peers {
            let recipe = Some(Recipe::read(file)?);
            peers.push(Self { recipe, ..Self::of(name, Kind::Peer, None)? });
        }
        Ok(peers)
    }

    pub(crate) fn with_workers(self, workers: usize) -> Self {
        let name = format!("{}-{workers}-workers", self.name);
        Self { name, workers, ..self }
    }

    /// What the placeholders of its recipe stand for.
    pub(crate) fn values(&self, place: Place, lab: &Lab) -> Values {
        let certs = lab.certs().display().to_string();
        let tls = if self.tls_backend {
            format!("    tls: {{ca_file: \"{certs}/ca.pem\", sni: localhost}}")
        } else {
            String::new()
        };
        vec![
            ("ADDRESS", place.address().to_owned()),
            ("PORT", PORT.to_string()),
            ("BACKEND", BACKEND_PORT.to_string()),
            ("CERTS", certs),
            ("WORKERS", self.workers.to_string()),
            ("INTERFACE", place.interface().to_owned()),
            ("BIN", lab.bin.display().to_string()),
            ("PROGRAMS", peers::programs().display().to_string()),
            ("MODE", self.shape.mode.to_owned()),
            ("EBPF", self.shape.ebpf.to_owned()),
            (
                "ACCESS",
                self.shape
                    .denied
                    .map(|it| format!("access: {{deny: [\"{it}\"]}}"))
                    .unwrap_or_default(),
            ),
            ("TLS", tls),
            ("ENDPOINTS", endpoints(self.shape)),
            ("ROUTES", routes(self.shape.routes)),
        ]
    }
}

/// Distinct addresses of one backend that listens on all of 127.0.0.0/8.
fn endpoints(shape: Shape) -> String {
    let mut text = String::new();
    for number in 0..shape.endpoints {
        let (high, low) = (number / 250, number % 250 + 1);
        let end = if number + 1 == shape.endpoints { "" } else { "\n" };
        // Writing to a String does not fail.
        let _ = write!(
            text,
            "      - {{name: b{number}, address: \"127.0.{high}.{low}:{BACKEND_PORT}\"}}{end}"
        );
    }
    if shape.hash {
        text.push_str("\n    load_balancing: {policy: ring_hash, hash_on: path}");
    }
    text
}

/// The last one takes every request; the others ask for hosts and for paths that nobody asks for.
fn routes(count: usize) -> String {
    let mut text = String::new();
    for number in 1..count {
        let matches = match number % 2 {
            0 => format!("hosts: [host-{number}.example], path_prefix: /"),
            _ => format!("path_prefix: /service-{number}/"),
        };
        let _ = writeln!(text, "  - {{name: r{number}, match: {{{matches}}}, upstream: backend}}");
    }
    text.push_str("  - {name: all, match: {path_prefix: /}, upstream: backend}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_and_endpoints_are_as_many_as_asked_for() {
        assert_eq!(routes(1).lines().count(), 1);
        assert_eq!(routes(100).lines().count(), 100);
        let thousand = Shape { endpoints: 1000, ..Shape::PLAIN };
        assert_eq!(endpoints(thousand).lines().count(), 1000);
        assert!(endpoints(thousand).contains("127.0.3.250:8080"));
        let hashed = endpoints(Shape { hash: true, ..Shape::PLAIN });
        assert!(hashed.starts_with("      - {name: b0, address: \"127.0.0.1:8080\"}\n    load"));
    }
}
