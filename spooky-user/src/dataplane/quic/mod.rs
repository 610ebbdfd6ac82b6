//! The sans-IO transport around quiche: octets and time in, octets and time out.
//!
//! `endpoint` finds or makes the connection of a datagram, `connection` is one of them, `migration` where
//! its client is and was, `transmit` turns what they have to
//! send into trains, `cid` issues their IDs, `reset` answers for those that are gone, `version` for versions we do not
//! speak, `retry` validates addresses before there is a connection and `validation` bounds what they get until then, `sources`
//! counts who has how many, `bucket` how many a second, `coalesced` finds what of a datagram is a connection's own,
//! `initial_close` tells a client why its handshake failed where quiche does not, `tls` picks certificates, `parameters` hands `settings` to quiche. May import: packet (types, no socket),
//! spooky-common, id, telemetry. The HTTP side of a connection stays an opaque `S`; nothing here reads a
//! clock.

mod bucket;
pub mod buffers;
pub mod cid;
mod coalesced;
pub mod connection;
pub mod endpoint;
mod initial_close;
mod migration;
mod parameters;
pub mod reset;
mod retry;
pub mod settings;
mod sources;
pub mod tls;
pub mod transmit;
mod validation;
mod version;
