//! The kernel programs, run by the kernel: shape of the object, verifier, verdicts frame by frame, the same decision
//! on the host, real sockets, lists, attaching. What needs privilege says SKIPPED without it, and fails under
//! `SPOOKY_REQUIRE_KERNEL=1`.

mod attach;
mod cost;
mod differential;
mod early;
mod fixtures;
mod floods;
mod frames;
mod group;
mod guard;
mod ids;
mod lists;
mod netns;
mod object;
mod prefixes;
mod queues;
mod reuseport;
mod rig;
mod trace;
mod traffic;
mod xdp_verdicts;
