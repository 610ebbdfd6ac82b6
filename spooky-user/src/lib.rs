//! spooky: an HTTP/3 edge proxy whose packets are steered in the kernel.
//!
//! `dataplane` is one worker's life, `controlplane` everything that may block, `snapshot` the only value both hold.

#![deny(unsafe_code)]

pub mod codec;
pub mod controlplane;
pub mod dataplane;
pub mod id;
pub mod snapshot;
#[expect(unsafe_code, reason = "raw system calls live here and nowhere else")]
pub mod sys;
pub mod telemetry;
