//! Every raw system call that no library wraps, a man-page link each. May import nothing of the crate.
//!
//! `rustix` wraps nearly all that is needed; what it does not are `memory::give_back`, and the memory that `xsk` shares with
//! the kernel.

pub mod affinity;
pub mod link;
pub mod memory;
pub mod privilege;
pub mod process;
pub mod sandbox;
#[expect(unsafe_code, reason = "the kernel writes the memory that these sockets share with it")]
pub mod xsk;
