//! The data plane: one worker's life. Imports nothing from `controlplane`.

pub mod balance;
pub mod exchange;
pub mod filter;
pub mod route;
pub mod upstream;
