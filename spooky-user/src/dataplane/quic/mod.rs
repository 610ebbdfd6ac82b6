//! The sans-IO transport around quiche: octets and time in, octets and time out.
//!
//! `endpoint` finds or makes the connection of a datagram, `connection` is one of them, `cid` issues their IDs, `reset`
//! answers for those that are gone, `tls` picks certificates. May import: packet (types, no socket), spooky-common, id,
//! telemetry. The HTTP side of a connection stays an opaque `S`; nothing here reads a clock.

pub mod buffers;
pub mod cid;
pub mod reset;
pub mod settings;
pub mod tls;
