//! The data plane: one worker's life. Imports nothing from `controlplane`.

pub mod abuse;
pub mod balance;
pub mod downstream;
pub mod exchange;
pub mod fault;
pub mod filter;
pub mod packet;
pub mod pressure;
pub mod proxy;
pub mod quic;
pub mod route;
pub mod upstream;
pub mod worker;
