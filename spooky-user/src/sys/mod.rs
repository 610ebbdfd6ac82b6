//! Every raw system call that no library wraps, a man-page link each. May import nothing of the crate.
//!
//! `rustix` wraps what is needed so far, so there is no `unsafe` here yet.

pub mod affinity;
pub mod memory;
pub mod process;
