//! One thread that may block: it reads the configuration, starts workers and writes the kernel's maps.
//! The only writer of [`crate::snapshot::Snapshot`] and of the eBPF maps.
//!
//! `boot` brings everything up, `confine` gives up what that needed, `control` is the loop until the end, `workers` starts
//! and `supervise` watches the workers, `placement` shares new connections out among them, `listeners` knows where
//! clients connect, `queues` knows the interface and its AF_XDP sockets, `overload` watches memory, `abuse` clients that do
//! harm, `attack` is what holds while there are too many of them, `reload` takes a new configuration whole or not at all, `settings` puts it into the words of those who carry it out, `figures` are the numbers
//! of this plane, `trace` records packets and judges them again; `config`, `kernel`, `health` and `admin` do
//! what their names say.

pub mod abuse;
pub mod admin;
pub mod attack;
pub mod boot;
pub mod config;
pub mod confine;
pub mod control;
pub mod figures;
pub mod health;
pub mod kernel;
pub mod listeners;
pub mod lists;
pub mod overload;
pub mod placement;
pub mod queues;
pub mod reload;
pub mod settings;
pub mod supervise;
pub mod trace;
pub mod workers;
