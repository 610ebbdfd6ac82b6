//! The sans-IO transport around quiche: octets and time in, octets and time out.
//!
//! `endpoint` finds or makes the connection of a datagram, `connection` is one of them, `migration` where
//! its client is and was, `transmit` turns what they have to
//! send into trains, `cid` issues their IDs, `reset` answers for those that are gone, `version` for versions we do not
//! speak, `tls` picks certificates, `parameters` hands `settings` to quiche. May import: packet (types, no socket),
//! spooky-common, id, telemetry. The HTTP side of a connection stays an opaque `S`; nothing here reads a
//! clock.

pub mod buffers;
pub mod cid;
pub mod connection;
pub mod endpoint;
mod migration;
mod parameters;
pub mod reset;
pub mod settings;
pub mod tls;
pub mod transmit;
mod version;
