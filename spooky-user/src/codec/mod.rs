//! Pure bytes to values and back: no IO, no clock, nothing of the crate.
//!
//! Everything here takes bytes from outside. No function panics, and each is bounded by the size of its input.

pub mod authority;
pub mod field;
pub mod forwarded;
pub mod path;
