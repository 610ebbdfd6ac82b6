//! What threads touch each other with at a worker's edges, in one place: `tests/models` puts types in their stead that try every
//! order of events. Imports nothing of the crate.

pub(super) use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};

pub(super) use crossbeam_queue::ArrayQueue;
pub(super) use futures_util::task::AtomicWaker;
