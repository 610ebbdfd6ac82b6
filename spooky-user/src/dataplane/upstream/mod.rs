//! Backends as one worker sees them: pools of HTTP/2 connections, one set for each worker.
//!
//! May import: exchange, balance, codec, sys, id, telemetry.

pub mod cluster;
