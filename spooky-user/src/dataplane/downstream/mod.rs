//! Client protocols: transport on one side, exchanges on the other.
//!
//! May import: quic, exchange, codec, id, telemetry. Must not import upstream or proxy.

pub mod h3;
