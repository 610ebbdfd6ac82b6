//! Which rule a request falls under.
//!
//! May import: exchange, codec, id, telemetry.
