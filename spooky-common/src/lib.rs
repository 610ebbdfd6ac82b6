//! What spooky's kernel programs and its user space must agree on, and nothing else.
//!
//! Compiled twice: for the host (user space, tests) and for `bpfel-unknown-none` (spooky-ebpf). Imports `core` only;
//! no allocation, no panic on bytes from outside, no `unsafe` but in `pod`.
//!
//! Everything here is a contract with the committed kernel object. To change it: edit, bump [`LAYOUT_VERSION`] when a
//! map, a key, a value, a counter index or the connection-ID layout changes, run `cargo xtask build-ebpf`, and commit
//! source and object together (docs/codex/kernel-contract.md).
//!
//! | module | holds |
//! |---|---|
//! | [`cid`] | the connection-ID layout, its mask and its check |
//! | [`siphash`] | SipHash-2-4 over a few words |
//! | [`cursor`] | bounded forward reading |
//! | [`frame`] | Ethernet to UDP |
//! | [`invariant`] | the QUIC header of RFC 8999 |
//! | [`steer`] | which worker a datagram goes to |
//! | [`access`] | whether a source may speak to a listener |
//! | [`early`] | what a header alone proves against a datagram |
//! | [`pace`] | so many in a time, by prefix |
//! | [`answer`] | Version Negotiation out of the frame that asks for it |
//! | [`prefix`] | a list of prefixes compiled for look-up |
//! | [`verdict`] | what becomes of a frame, and the counter that says so |
//! | [`counter`] | every kernel counter: index, name, help, labels |
//! | [`map`] | map names, capacities, keys and values |
//! | [`sample`] | the record of a sampled drop |
//! | [`capture`] | the record of a captured frame |
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
    )
)]

pub mod access;
pub mod answer;
pub mod capture;
pub mod cid;
pub mod counter;
pub mod cursor;
pub mod early;
pub mod frame;
pub mod guard;
pub mod invariant;
pub mod map;
pub mod pace;
#[cfg(feature = "user")]
mod pod;
pub mod prefix;
pub mod sample;
pub mod siphash;
pub mod steer;
pub mod token;
pub mod verdict;

/// Version of everything the kernel object and user space share. The object carries the one it was built with;
/// user space refuses to load an object with another.
pub const LAYOUT_VERSION: u32 = 6;
