//! Every raw system call that no library wraps, a man-page link each. May import nothing of the crate.
//!
//! `rustix` wraps nearly all that is needed; the one call that it does not is `memory::give_back`.

pub mod affinity;
pub mod memory;
pub mod privilege;
pub mod process;
pub mod sandbox;
