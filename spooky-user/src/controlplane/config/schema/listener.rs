//! Keys of a listener: address, certificates, QUIC, HTTP/3. May import: read, units.

use std::path::PathBuf;
use std::time::Duration;

use crate::controlplane::config::read::{choice, section};
use crate::controlplane::config::units::ByteSize;

section! {
    /// Where clients connect.
    pub struct Listener {
        /// Its name in logs and metrics, unique among listeners.
        name: String = required, live;
        /// Address and UDP port, such as `0.0.0.0:443` or `[::]:443`. Two listeners may not share them. A listener whose
        /// address is gone after a reload accepts nothing new, tells its clients to go elsewhere and is closed when its
        /// last connection has ended, at the latest after `shutdown.drain_timeout`.
        bind: String = required, live;
        /// What is spoken there: h3 only. h2 and h1 listeners come in a later release.
        protocols: Vec<Protocol> = "[h3]", live;
        /// Certificates. HTTP/3 has no cleartext form.
        tls: Tls = required;
        /// Transport limits. A reload changes them for new connections.
        quic: Quic = "{}";
        /// Limits of HTTP/3. A reload changes them for new connections.
        http3: Http3 = "{}";
    }
}

choice! {
    /// A protocol of a listener.
    pub enum Protocol {
        /// HTTP/3.
        H3 = "h3",
        /// HTTP/2; refused for now.
        H2 = "h2",
        /// HTTP/1.1; refused for now.
        H1 = "h1",
    }
}

section! {
    /// Certificates of a listener.
    pub struct Tls {
        /// At least one. A name may have two, one RSA and one ECDSA; the client's abilities decide.
        certificates: Vec<Certificate> = required;
    }
}

section! {
    /// One certificate chain and its key.
    pub struct Certificate {
        /// Host names it serves, exact or `*.example.com` for one label more. Without names it serves every client whose name
        /// no other certificate has, and those that send none; when all have names, the first does that.
        sni: Vec<String> = "[]", live;
        /// PEM file: the certificate, then its intermediates.
        cert: PathBuf = required, live;
        /// PEM file: the private key, RSA of 2048 bits or more, or ECDSA on P-256, P-384 or P-521. Must belong to the
        /// certificate. Refused when others than its owner and its group can read it, or others than its owner change it.
        key: PathBuf = required, live;
    }
}

section! {
    /// Transport limits of a listener (RFC 9000).
    pub struct Quic {
        /// A connection without packets is dropped after this; also told to the client (`max_idle_timeout`, RFC 9000 §10.1).
        idle_timeout: Duration = "30s", "1s" ..= "10m", live;
        /// Longest time from a client's first packet to the end of its handshake; six times as long for a client that is heard
        /// again, because packets get lost, while fewer than `half_open_threshold` are under way or it has shown that it can
        /// receive.
        handshake_timeout: Duration = "5s", "500ms" ..= "1m", live;
        /// Requests a client may have open at once on a connection.
        max_streams: u64 = "100", "1" ..= "10000", live;
        /// Request body octets that may be on their way on one stream before the backend has taken them.
        stream_window: StreamWindow = "{}";
        /// The same for all streams of a connection together. Bounds the memory a client can take.
        connection_window: ConnectionWindow = "{}";
        /// Who decides how fast to send: `cubic` (RFC 9438), `reno` (RFC 9002) or `bbr2`.
        congestion: Congestion = "cubic", live;
        /// Largest UDP payload sent, in octets. 1200 passes every path that QUIC can use, 1452 fills an Ethernet
        /// frame with IPv6. Danger: where a tunnel makes paths narrower than this, clients behind it stall.
        max_udp_payload: u64 = "1350", "1200" ..= "1452", live;
        /// Connection IDs a client may hold, and we of it. With spare ones a client can change its network without being
        /// linked to the old one.
        active_connection_id_limit: u64 = "8", "2" ..= "8", live;
        /// Connections of this listener in all workers together; each worker has an equal share. Above it new clients are
        /// refused.
        max_connections: u64 = "10000", "1" ..= "10000000", live;
        /// The same for one source, an IPv4 address or an IPv6 /64. Raise it where many clients share an address.
        max_connections_per_source: u64 = "256", "1" ..= "10000000", live;
        /// Which clients have to prove their address before they get a connection.
        address_validation: AddressValidation = "{}";
        /// Clients that change their address.
        migration: MigrationSection = "{}";
        /// Answers to packets of connections that are gone.
        stateless_reset: StatelessReset = "{}";
        /// The connection IDs that we issue.
        cid: CidSection = "{}";
    }
}

section! {
    /// The flow control window of a stream.
    pub struct StreamWindow {
        /// At first. It grows as fast as the client sends.
        initial: ByteSize = "256KiB", "16KiB" ..= "16MiB", live;
        /// At most. Divided by the round trip it is the fastest an upload can be.
        max: ByteSize = "4MiB", "16KiB" ..= "16MiB", live;
    }
}

section! {
    /// The flow control window of a connection.
    pub struct ConnectionWindow {
        /// At first. It grows as fast as the client sends.
        initial: ByteSize = "1MiB", "64KiB" ..= "64MiB", live;
        /// At most.
        max: ByteSize = "8MiB", "64KiB" ..= "64MiB", live;
    }
}

choice! {
    /// A congestion controller.
    pub enum Congestion {
        /// RFC 9438.
        Cubic = "cubic",
        /// RFC 9002.
        Reno = "reno",
        /// draft-ietf-ccwg-bbr.
        Bbr2 = "bbr2",
    }
}

section! {
    /// Proof of a client's address by a Retry packet (RFC 9000 §8.1.2). It costs the client a round trip, and a flood of made-up
    /// addresses nothing but the answers.
    pub struct AddressValidation {
        /// `adaptive`: while many handshakes are under way; `always`; `off`: never.
        mode: ValidationMode = "adaptive", live;
        /// Handshakes under way from which on `adaptive` asks everybody; each worker has an equal share.
        half_open_threshold: u64 = "100", "1" ..= "1000000", live;
        /// Handshakes that may be under way; each worker has an equal share. Above it new clients are not answered.
        max_half_open: u64 = "10000", "1" ..= "10000000", live;
        /// How long a client may take to come back.
        token_ttl: Duration = "10s", "1s" ..= "1m", live;
    }
}

choice! {
    /// When a client has to prove its address.
    pub enum ValidationMode {
        /// Never.
        Off = "off",
        /// While many handshakes are under way.
        Adaptive = "adaptive",
        /// Always.
        Always = "always",
    }
}

section! {
    /// Clients that change their address (RFC 9000 §9). Until a client has shown that it can receive at a new one, that gets three
    /// times what came from there, and the old one stays its address in logs, forwarded fields, limits and lists.
    pub struct MigrationSection {
        /// New addresses a connection may try in a second. What comes from further ones is dropped, and tried again by the client.
        paths_per_second: u32 = "4", "1" ..= "100", live;
        /// Addresses a connection may be trying at once. All it has together are never more than `active_connection_id_limit`.
        max_unvalidated_paths: u64 = "8", "1" ..= "8", live;
    }
}

section! {
    /// Answers to packets of connections that are gone (RFC 9000 §10.3).
    pub struct StatelessReset {
        /// How many all workers together send in a second at most, each an equal share; 0 for none. They tell a client to connect
        /// again instead of waiting for its idle timeout.
        per_second: u32 = "1000", "0" ..= "100000", live;
        /// The same for one source, an IPv4 address or an IPv6 /64.
        per_source: u32 = "100", "0" ..= "100000", live;
    }
}

section! {
    /// The connection IDs that we issue. Their layout is in docs/codex/kernel-contract.md.
    pub struct CidSection {
        /// Which key the IDs are made with, in their first octet. Raise it when the key changes, so that a load balancer can
        /// tell old IDs from new ones. Listeners with the same number share the key.
        config_id: u8 = "0", "0" ..= "6", live;
        /// This machine among its neighbours, for a QUIC-LB load balancer in front: three octets in hexadecimal.
        server_id: String = "\"0x000000\"", live;
        /// A file with one line of 64 hexadecimal digits: the AES-128 key (32 digits) that a load balancer shares, then the
        /// SipHash key (32 digits) that only this machine knows. `#` begins a comment. Without it a key is made at start; then
        /// no load balancer can read the IDs. Refused when others than its owner and its group can read it. Danger: who knows
        /// it can link clients and aim at workers.
        key_file: Option<PathBuf> = "null", live;
    }
}

section! {
    /// Limits of HTTP/3 (RFC 9114).
    pub struct Http3 {
        /// Largest field section of a request, counted as in RFC 9114 §4.2.2; told to clients. Above it they get 431.
        max_field_section_size: ByteSize = "32KiB", "4KiB" ..= "1MiB", live;
        /// Fields of a request at most; pseudo-header fields and each part of a split cookie count.
        max_fields: u64 = "100", "16" ..= "1000", live;
        /// Longest field name; above it requests get 431.
        max_field_name_size: ByteSize = "256B", "32B" ..= "64KiB", live;
        /// Longest field value; above it requests get 431.
        max_field_value_size: ByteSize = "16KiB", "256B" ..= "1MiB", live;
        /// Requests after which a connection is told to go away (GOAWAY), so that clients spread anew.
        max_requests_per_connection: u64 = "10000", "1" ..= "1000000000", live;
        /// Whether a request's host has to be the name that its connection was opened with (SNI). Others get 421, and clients
        /// open another connection. Without it a client may send requests for every host over a connection to one of them,
        /// as browsers do when one certificate has several names. Turn it on where hosts belong to different tenants.
        authority_must_match_sni: bool = "false", live;
        /// How many requests may be given up. Above it the connection is closed with H3_EXCESSIVE_LOAD.
        resets: Resets = "{}";
        /// Longest time from the first octet of a request to the end of its field section; then 408.
        request_header_timeout: Duration = "10s", "1s" ..= "10m", live;
        /// Longest time without an octet of a request's body while there is room for one: 408 as long as the backend has not
        /// answered; afterwards, if the request had a `content-length`, a reset. Raise it where clients of streaming calls
        /// wait in silence for the first answer.
        request_body_timeout: Duration = "10s", "1s" ..= "1h", live;
        /// Octets of a request's body that have to come each second, on average over `request_body_timeout`, while there is
        /// room for them and in the same cases; 0B for no such limit. Lower it where clients of streaming calls send little
        /// and wait for the first answer.
        request_body_rate: ByteSize = "240B", "0B" ..= "16MiB", live;
        /// Longest time in which a client takes nothing of a response that is ready for it; then its stream is reset.
        response_drain_timeout: Duration = "30s", "1s" ..= "1h", live;
        /// Octets that may have been received and cannot be read for 5 s because earlier ones are missing; above it the
        /// connection is closed with H3_EXCESSIVE_LOAD. Each can take 160 octets of memory when it comes by itself. Danger:
        /// below what is in flight, connections with losses are closed.
        max_unreadable: ByteSize = "128KiB", "64KiB" ..= "64MiB", live;
        /// The same for all connections of the listener on one worker. Above it those with more than `max_unreadable` are closed at
        /// once, and an eighth of `max_unreadable` is what another may have for 5 s. Some 25 octets of memory for each. Danger:
        /// fast uploads with losses have a round trip's octets there, 4 MiB being 670 Mbit/s over 50 ms.
        max_unreadable_total: ByteSize = "4MiB", "64KiB" ..= "1GiB", live;
        /// Connections to backends that may end under a client's requests in a minute; then its own is closed with
        /// H3_EXCESSIVE_LOAD. One that clients shared counts as a part of one for each of them, until what they send again, each
        /// request on a connection of its own, has shown whose it was. 0 for no limit.
        max_backend_connections_lost: u32 = "3", "0" ..= "1000", live;
    }
}

section! {
    /// Requests that are reset, by the client or because of what it sent, soon after they began or before they were answered.
    pub struct Resets {
        /// Until there were so many requests, `percent` is a share of this number.
        requests: u64 = "500", "100" ..= "1000000", live;
        /// How many of a hundred requests may be reset early.
        percent: u64 = "50", "1" ..= "100", live;
        /// Resets a second on average over 5 s, early ones or not.
        per_second: u64 = "100", "1" ..= "1000000", live;
    }
}
