//! Keys of upstreams. May import: read, units.

use std::path::PathBuf;
use std::time::Duration;

use crate::controlplane::config::problem::Problems;
use crate::controlplane::config::read::{Limits, Node, Read, Shape, choice, section};
use crate::controlplane::config::source::Value;
use crate::controlplane::config::suggest::nearest;
use crate::controlplane::config::units::{ByteSize, Percent};

section! {
    /// A group of backends that serve the same thing. They are spoken to in HTTP/2.
    pub struct Upstream {
        /// Which endpoint a request goes to.
        load_balancing: LoadBalancing = "{}";
        /// TLS towards the backends. Without it they are spoken to in cleartext HTTP/2 with prior knowledge.
        tls: Option<UpstreamTls> = "null";
        /// Limits of the HTTP/2 connections.
        http2: Http2 = "{}";
        /// How many connections there are and how requests wait for them.
        pool: Pool = "{}";
        /// How long things may take.
        timeouts: Timeouts = "{}";
        /// What happens when an endpoint did not take a request.
        retry: Retry = "{}";
        /// The backends; at least one. `backends` is accepted, too.
        endpoints | "backends": Vec<Endpoint> = required;
        /// Asks each endpoint at intervals whether it is well, over connections of its own. Without it all endpoints are
        /// always taken for healthy. When no endpoint is healthy, requests get 503.
        health_check: Option<HealthCheck> = "null";
    }
}

section! {
    /// Which endpoint a request goes to.
    pub struct LoadBalancing {
        /// `round_robin`: each in turn. `weighted_round_robin`: in turn, as often as the weight says. `random`: by chance, as
        /// likely as the weight says. `ring_hash` (or `consistent_hash`): the same key to the same endpoint; when an endpoint
        /// leaves, only its keys move.
        policy: Policy = "round_robin", live;
        /// The key of `ring_hash`: `source_ip`, `path`, `{header: NAME}` or `{cookie: NAME}`; the client's address when a
        /// request lacks that field or cookie. Refused with other policies. Without it `ring_hash` takes source_ip.
        hash_on: Option<HashOn> = "null", live;
    }
}

choice! {
    /// A load balancing algorithm.
    pub enum Policy {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// In turn, by weight.
        WeightedRoundRobin = "weighted_round_robin",
        /// By chance and weight.
        Random = "random",
        /// By a key.
        RingHash = "ring_hash" | "consistent_hash",
    }
}

/// The key of `ring_hash`, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address.
    #[default]
    SourceIp,
    /// The path without the query.
    Path,
    /// The first value of a field.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
}

impl Read for HashOn {
    fn shape() -> Shape {
        Shape::Leaf("source_ip, path, {header: NAME} or {cookie: NAME}".to_owned())
    }

    fn read(node: Node<'_>, _limits: Limits, problems: &mut Problems) -> Option<Self> {
        let message = match node.value {
            Value::Text(text) => match text.as_str() {
                "source_ip" => return Some(Self::SourceIp),
                "path" => return Some(Self::Path),
                other => {
                    let known = ["source_ip", "path", "header", "cookie"];
                    match nearest(other, known.into_iter()) {
                        Some(word @ ("header" | "cookie")) => {
                            format!("\"{other}\" needs a name; write {{{word}: NAME}}")
                        }
                        Some(word) => format!("\"{other}\" is not known; did you mean `{word}`?"),
                        None => format!("\"{other}\" is not known"),
                    }
                }
            },
            Value::Map(entries) => match entries.as_slice() {
                [(key, Value::Text(name))] if key == "header" && !name.is_empty() => {
                    return Some(Self::Header(name.clone()));
                }
                [(key, Value::Text(name))] if key == "cookie" && !name.is_empty() => {
                    return Some(Self::Cookie(name.clone()));
                }
                _ => "is a mapping with other keys than one header or one cookie".to_owned(),
            },
            other => format!("{} is not a key to hash", other.shown()),
        };
        let accepted = "(accepted: source_ip, path, {header: NAME}, {cookie: NAME})";
        node.problem(problems, format!("{message} {accepted}"));
        None
    }
}

section! {
    /// TLS towards the backends.
    pub struct UpstreamTls {
        /// Check the backend's certificate against `ca_file` and `sni`. Danger: with false, whoever answers at the address is
        /// believed; spooky warns of it at each start.
        verify: bool = "true", live;
        /// Name asked for and checked in the certificate. Without it: the host name of the endpoints, when they have one, else
        /// each endpoint's IP address.
        sni: Option<String> = "null", live;
        /// PEM file with the authorities to trust instead of the system's.
        ca_file: Option<PathBuf> = "null", live;
        /// The oldest version that is spoken: `tls1.3` or `tls1.2`. A backend that has older ones only gets no request: 502.
        min_version: TlsVersion = "tls1.3", live;
    }
}

choice! {
    /// A version of TLS.
    pub enum TlsVersion {
        /// RFC 5246.
        Tls12 = "tls1.2",
        /// RFC 8446.
        Tls13 = "tls1.3",
    }
}

section! {
    /// Limits of the HTTP/2 connections to backends (RFC 9113).
    pub struct Http2 {
        /// Requests on one connection at once; the backend may allow fewer.
        max_streams: u32 = "100", "1" ..= "10000", live;
        /// Response body octets that may be on their way on one stream before the client has taken them.
        stream_window: ByteSize = "256KiB", "64KiB" ..= "16MiB", live;
        /// The same for all streams of a connection together: at least `max_streams` times `stream_window`, or streams whose
        /// clients do not read could take all of it from the others. Bounds the memory that a connection to a backend can take.
        connection_window: ByteSize = "32MiB", "64KiB" ..= "1GiB", live;
        /// Largest field section of a response. Above it the client gets 502.
        max_header_list_size: ByteSize = "64KiB", "4KiB" ..= "1MiB", live;
        /// PING frames that notice a dead connection early. Without it the next request notices.
        keepalive: Option<Keepalive> = "null";
    }
}

section! {
    /// PING frames towards backends.
    pub struct Keepalive {
        /// How long nothing has been received when one is sent.
        interval: Duration = "10s", "1s" ..= "1h", live;
        /// How long its answer may take before the connection is given up.
        timeout: Duration = "2s", "100ms" ..= "1m", live;
    }
}

section! {
    /// How many connections there are and how requests wait for them.
    pub struct Pool {
        /// Connections one worker opens to one endpoint at most.
        max_connections: u16 = "4", "1" ..= "1024", live;
        /// Requests that may wait for a place on a connection, for each worker and endpoint. Above it they get 503.
        max_pending: u32 = "1024", "0" ..= "1000000", live;
        /// Longest wait of such a request; then it gets 503.
        pending_timeout: Duration = "3s", "1ms" ..= "1m", live;
        /// A connection without requests is closed after this.
        idle_timeout: Duration = "1m", "1s" ..= "1h", live;
    }
}

section! {
    /// How long things may take.
    pub struct Timeouts {
        /// To connect, TLS handshake included.
        connect: Duration = "3s", "1ms" ..= "1m", live;
        /// From the end of a request to the head of its response; then the client gets 504.
        response_header: Duration = "30s", "1ms" ..= "1h", live;
        /// Without an octet of body in either direction; then the stream is reset.
        stream_idle: Duration = "1m", "1ms" ..= "1h", live;
    }
}

section! {
    /// What happens when an endpoint did not take a request.
    pub struct Retry {
        /// How often one request may be tried, the first time included; 1 is no retry. A request is tried again when no
        /// backend can have acted on it, or when its method is idempotent and nothing of an answer has come: at another
        /// endpoint, or over a new connection when its connection ended. What a closing connection gave back unprocessed
        /// (GOAWAY) is tried three times more.
        attempts: u8 = "2", "1" ..= "10", live;
        /// How many requests are tried again at once.
        budget: RetryBudget = "{}";
    }
}

section! {
    /// How many requests of the upstream one worker tries again at once. Those beyond it wait for a place, at most
    /// `pool.pending_timeout`; then the client gets the answer to the first try. What a closing connection gave back does not count.
    pub struct RetryBudget {
        /// Of a hundred requests that are being served.
        percent: Percent = "20%", "0%" ..= "100%", live;
        /// So many in any case. With `percent: 0%`, 0 is no retry.
        min_concurrency: u32 = "3", "0" ..= "1000000", live;
    }
}

section! {
    /// One backend.
    pub struct Endpoint {
        /// Its name in logs and metrics, unique in the upstream. Without it: its address.
        name: Option<String> = "null", live;
        /// IP address and port, such as `10.0.0.1:8443` or `[2001:db8::1]:8443`, or host name and port. Names are looked up at start
        /// and on reload; the first address is taken.
        address: String = required, live;
        /// Its share of the requests beside the others. Refused with policy round_robin.
        weight: Option<u16> = "null", "1" ..= "65535", live;
    }
}

section! {
    /// Asks each endpoint at intervals whether it is well.
    pub struct HealthCheck {
        /// What is asked for, with GET. A status of 200 to 299 is well.
        path: String = "/healthz", live;
        /// The `:authority` of the request. Without it: the endpoint's address.
        host: Option<String> = "null", live;
        /// Time between two probes of one endpoint.
        interval: Duration = "5s", "100ms" ..= "1h", live;
        /// For a whole probe, connecting included. Not longer than the interval.
        timeout: Duration = "2s", "10ms" ..= "1m", live;
        /// Failures in a row that take an endpoint out.
        unhealthy_after: u32 = "3", "1" ..= "100", live;
        /// Successes in a row that take it back.
        healthy_after: u32 = "2", "1" ..= "100", live;
        /// How much of the interval is added or taken away by chance, so that probes do not come all at once.
        jitter: Percent = "15%", "0%" ..= "50%", live;
    }
}
