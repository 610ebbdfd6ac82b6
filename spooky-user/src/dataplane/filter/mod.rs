//! Policies a connection or request must pass.
//!
//! May import: exchange, codec, id, telemetry; never route or balance.

pub mod admission;
pub mod ip_access;
mod ranges;
pub mod rate_limit;
