//! Keys of routes. May import: read, units.

use std::time::Duration;

use crate::controlplane::config::problem::Problems;
use crate::controlplane::config::read::{Limits, Node, Read, Shape, choice, section};
use crate::controlplane::config::source::Value;
use crate::controlplane::config::units::ByteSize;

section! {
    /// Which requests go to an upstream.
    pub struct Route {
        /// Its name in logs and metrics, unique among routes.
        name: String = required, live;
        /// Which requests. Without keys: all of them.
        r#match: Match = "{}";
        /// The name of the upstream that serves them.
        upstream: String = required, live;
        /// Octets of content that a request may have, or `unlimited`. One with more gets 413, from its content-length before
        /// anything is sent to a backend, or as soon as so much has come; if the response has begun by then, both are cut
        /// short.
        max_request_body: BodyLimit = "256MiB", live;
        /// How many requests there may be in a time; those above get 429 with `retry-after`, and no backend sees them.
        /// Without it there is no limit.
        rate_limit: Option<RateLimit> = "null";
    }
}

section! {
    /// Which requests a route takes. Two routes may not match exactly the same.
    pub struct Match {
        /// Host names without port: exact, or `*.example.com` for one label or more before it. An exact host wins over a
        /// wildcard, a longer wildcard over a shorter one, and any of them over a route without hosts.
        hosts: Vec<String> = "[]", live;
        /// Exactly this path, without the query. Wins over a prefix. Requests are routed by a normal form of their path: no
        /// dot segments, no double slashes, `%61` decoded to `a`. Not together with `path_prefix`.
        path: Option<String> = "null", live;
        /// This path and everything below it: `/api` takes /api and /api/x, not /apix. The longest prefix wins. Without `path`
        /// and `path_prefix`: every path.
        path_prefix: Option<String> = "null", live;
    }
}

section! {
    /// How many requests there may be in a time. The same for all workers together; a reload that leaves it as it is forgives
    /// nobody.
    pub struct RateLimit {
        /// So many requests
        requests: u32 = "100", "1" ..= "10000000", live;
        /// in so long.
        per: Duration = "1s", "1s" ..= "1h", live;
        /// So many at once after a rest. Without it: as many as `requests`.
        burst: Option<u32> = "null", "1" ..= "10000000", live;
        /// Whose requests are counted together: those of a `client`, by its validated address, or by its network of 64 bits in
        /// IPv6; or those of the whole `route`.
        counted: Counted = "client", live;
        /// Clients that can be told apart at a time; 16 octets each. With more of them in debt at once, those that owe least
        /// are forgiven (`spooky_rate_limit_displaced_total`).
        clients: u32 = "65536", "1024" ..= "4194304", live;
    }
}

choice! {
    /// Whose requests a limit counts together.
    pub enum Counted {
        /// One client's.
        Client = "client",
        /// Everybody's.
        Route = "route",
    }
}

/// A size, or `unlimited`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyLimit(Option<ByteSize>);

impl BodyLimit {
    /// `u64::MAX` for `unlimited`.
    #[must_use]
    pub fn octets(self) -> u64 {
        self.0.map_or(u64::MAX, |size| size.0)
    }
}

impl Default for BodyLimit {
    fn default() -> Self {
        Self(Some(ByteSize(256 << 20)))
    }
}

impl Read for BodyLimit {
    fn shape() -> Shape {
        Shape::Leaf("a size such as 64KiB, 1MiB or 512B, or unlimited".to_owned())
    }

    fn read(node: Node<'_>, limits: Limits, problems: &mut Problems) -> Option<Self> {
        match node.value {
            Value::Text(text) if text == "unlimited" => Some(Self(None)),
            _ => ByteSize::read(node, limits, problems).map(|size| Self(Some(size))),
        }
    }
}
