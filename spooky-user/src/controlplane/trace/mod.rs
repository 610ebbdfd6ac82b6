//! Packets recorded with the state of the kernel's maps, and the same decision over them again: what the kernel's object does
//! with each (`BPF_PROG_TEST_RUN`), what the same code does on the host, and what was seen when it happened.
//!
//! `file` is how a trace is written, `state` what the maps held, `session` a capture under
//! way, `bed` the kernel's object under test, `replay` the second run. May import: kernel, spooky-common.
//!
//! A trace holds no key of this host: the IDs in it are sealed anew under a key of its own (`state::Disguise`), so that whoever
//! is given one can repeat every verdict and forge nothing.

mod bed;
pub mod file;
mod hex;
pub mod replay;
pub mod session;
pub mod state;

pub use self::file::{Frame, Trace, TraceError};
pub use self::state::State;
