//! The closed lists of reasons that metrics carry as the label `reason`. Each list is a bound on label cardinality.
//!
//! Imports `codec::field`, whose refusals are counted here.

use crate::codec::field::Malformed;

/// A closed list of label values.
pub trait Reason: Copy + Sized + 'static {
    /// Every value, in the order of [`Reason::index`].
    const ALL: &'static [Self];

    /// The place in [`Reason::ALL`].
    fn index(self) -> usize;

    /// The label value: lower case, words joined by `_`.
    fn label(self) -> &'static str;
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $( $(#[$value_doc:meta])* $value:ident = $label:literal, )+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$value_doc])* $value, )+
        }

        impl Reason for $name {
            const ALL: &'static [Self] = &[$( Self::$value, )+];

            fn index(self) -> usize {
                self as usize
            }

            fn label(self) -> &'static str {
                match self {
                    $( Self::$value => $label, )+
                }
            }
        }
    };
}

reasons! {
    /// Why an Initial that could have become a connection did not.
    RefusedReason {
        /// The listener has as many connections as it may have.
        Limit = "limit",
        /// All listeners together have as many connections as they may have.
        All = "all",
        /// The access list denies the source.
        Denied = "denied",
        /// So many handshakes are under way that no other is begun.
        HalfOpen = "half_open",
        /// The source has as many connections as one source may have.
        Source = "source",
        /// Memory is scarce.
        Memory = "memory",
        /// The worker is draining.
        Draining = "draining",
        /// The transport library refused to create the connection.
        Internal = "internal",
    }
}

reasons! {
    /// Which limit of a connection or request was reached.
    LimitReason {
        /// Too many requests were reset early: the connection was closed.
        EarlyResets = "early_resets",
        /// Too many resets a second: the connection was closed.
        ResetRate = "reset_rate",
        /// A connection has had so many requests that its client was told to go away.
        Requests = "max_requests_per_connection",
        /// A request was refused unprocessed because too many before it were reset early.
        OpenRequests = "open_requests",
        /// A request's field section took too long.
        RequestHeader = "request_header_timeout",
        /// A request's body did not go on.
        RequestBody = "request_body_timeout",
        /// A request's body came too slowly.
        RequestBodyRate = "request_body_rate",
        /// A client did not take its response.
        ResponseDrain = "response_drain_timeout",
        /// A request had more content than its route admits.
        BodySize = "request_body_size",
        /// A request was one too many for its route.
        RateLimit = "rate_limit",
        /// Too much came that cannot be read because of gaps: the connection was closed.
        Unreadable = "unreadable",
        /// So much came on all connections: one that had much of it was closed at once.
        UnreadableTotal = "unreadable_total",
        /// Connections to backends ended under a client's requests: its connection was closed.
        BackendConnectionsLost = "backend_connections_lost",
    }
}

reasons! {
    /// What a panic ended.
    Panicked {
        /// One request; its stream was reset.
        Request = "request",
        /// One connection; it was dropped, and its client gets a stateless reset.
        Connection = "connection",
    }
}

reasons! {
    /// How a connection ended. `Peer` and `Local` say who closed; application and transport are the two code spaces of
    /// CONNECTION_CLOSE (RFC 9000 §19.19).
    CloseReason {
        /// No packet for `idle_timeout` (RFC 9000 §10.1).
        Idle = "idle",
        /// The client closed with an application (HTTP/3) code.
        PeerApplication = "peer_application",
        /// The client closed with a transport code.
        PeerTransport = "peer_transport",
        /// spooky closed with an application (HTTP/3) code.
        LocalApplication = "local_application",
        /// spooky closed with a transport code.
        LocalTransport = "local_transport",
        /// Closed by us without error: at the end of a drain, or after `max_requests_per_connection`.
        Drained = "drained",
    }
}

reasons! {
    /// Why a handshake did not complete.
    HandshakeFailure {
        /// Not complete within `handshake_timeout`.
        Timeout = "timeout",
        /// A TLS alert other than for ALPN (RFC 9001 §4.8).
        Tls = "tls",
        /// No common application protocol (RFC 9001 §8.1).
        Alpn = "alpn",
        /// A transport error, transport parameters included.
        Transport = "transport",
        /// The client closed first.
        PeerClosed = "peer_closed",
    }
}

reasons! {
    /// Why a datagram was dropped without touching a connection.
    DropReason {
        /// No payload.
        Empty = "empty",
        /// Its QUIC invariants cannot be read (RFC 8999).
        Malformed = "malformed",
        /// A long header of an unknown connection that is not an Initial.
        NotInitial = "not_initial",
        /// It asks for a connection and comes from the port of a service that answers whoever asks.
        SourcePort = "source_port",
        /// An Initial in less than 1,200 bytes (RFC 9000 §14.1).
        TooShort = "too_short",
        /// The access list denies the source.
        Denied = "denied",
        /// A short header whose connection ID names no connection.
        UnknownConnection = "unknown_connection",
        /// What follows in a datagram under another connection ID than its first packet (RFC 9000 §12.2); counted once a
        /// datagram.
        ForeignCoalesced = "foreign_coalesced",
        /// A Retry token that is too old, changed, or used from another address.
        Token = "token",
        /// An Initial of a connection that has sent more of them than a handshake needs.
        Initials = "initials",
        /// From a new address of a connection that tries too many of them.
        Paths = "paths",
    }
}

reasons! {
    /// What was wrong with a malformed request (RFC 9114 §4.1.2).
    MalformedReason {
        /// Missing, repeated, unknown, late or prohibited pseudo-header field.
        PseudoHeader = "pseudo_header",
        /// A field name that is not a lower-case token, or contains `_`.
        FieldName = "field_name",
        /// A field value with a forbidden byte or surrounding whitespace.
        FieldValue = "field_value",
        /// A connection-specific field, or `te` other than `trailers`.
        ConnectionSpecific = "connection_specific",
        /// `:authority` or `host` is invalid, or they disagree.
        Authority = "authority",
        /// `content-length` is invalid, repeated with another value, or not the size of the content.
        ContentLength = "content_length",
        /// `:path` is invalid or has no safe normal form.
        Path = "path",
        /// `:method` is not a token.
        Method = "method",
        /// The trailer section is malformed.
        Trailers = "trailers",
        /// Its host is not the name of its connection's handshake.
        Misdirected = "misdirected",
        /// A field section over a limit.
        TooLarge = "too_large",
    }
}

impl From<Malformed> for MalformedReason {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::PseudoMissing
            | Malformed::PseudoRepeated
            | Malformed::PseudoUnknown
            | Malformed::PseudoLate
            | Malformed::PseudoProhibited
            | Malformed::Scheme
            | Malformed::Status => Self::PseudoHeader,
            Malformed::Method | Malformed::Connect => Self::Method,
            Malformed::FieldName | Malformed::FieldUnderscore => Self::FieldName,
            Malformed::FieldValue => Self::FieldValue,
            Malformed::ConnectionSpecific | Malformed::Te => Self::ConnectionSpecific,
            Malformed::Authority(_) | Malformed::HostMismatch | Malformed::HostRepeated => {
                Self::Authority
            }
            Malformed::Path(_) => Self::Path,
            Malformed::ContentLength | Malformed::ContentMismatch => Self::ContentLength,
            Malformed::Trailers => Self::Trailers,
            Malformed::TooManyFields
            | Malformed::SectionTooLarge
            | Malformed::NameTooLong
            | Malformed::ValueTooLong => Self::TooLarge,
        }
    }
}
