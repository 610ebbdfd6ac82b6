//! The data plane: one worker's life. Imports nothing from `controlplane`.

pub mod balance;
pub mod exchange;
pub mod filter;
pub mod packet;
pub mod quic;
pub mod route;
pub mod upstream;
