//! Pure bytes to values and back: no IO, no clock, nothing of the crate.
