//! One thread that may block: it reads the configuration, starts workers and writes the kernel's maps.
//! The only writer of [`crate::snapshot::Snapshot`] and of the eBPF maps.

pub mod admin;
pub mod config;
pub mod health;
pub mod kernel;
