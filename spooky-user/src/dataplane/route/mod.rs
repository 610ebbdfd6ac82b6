//! Which rule: host and path to a route, whose cluster serves the request. No prefix wins by its place in the file.
//!
//! May import: exchange, codec, id, telemetry.

mod hasher;
mod table;

pub use table::{Duplicate, HostPattern, PathPattern, Route, Rule, Table, duplicates};

#[cfg(test)]
mod tests;
