//! Whole-program tests of spooky: what the test binaries share.

#[path = "../origin/mod.rs"]
pub mod origin;
