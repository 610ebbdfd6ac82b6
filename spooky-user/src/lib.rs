//! spooky: an HTTP/3 edge proxy whose packets are steered in the kernel.
//!
//! `dataplane` is one worker's life, `controlplane` everything that may block, `snapshot` the only value both hold.

#![deny(unsafe_code)]
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

pub mod cli;
pub mod codec;
pub mod controlplane;
pub mod ctl;
pub mod dataplane;
pub mod id;
pub mod snapshot;
pub mod sys;
pub mod telemetry;
