//! Rows E of the list of attacks and conditions in docs/codex/requirements.md: the proxy with clients that are not quiche,
//! over good paths and bad ones. `SPOOKY_SOAK=1` runs all sizes and seeds; an ordinary run takes what shows the same.
//!
//! ```text
//! cases.rs        tests/clients/cases.yaml, and how one of its cases is run and judged
//! matrix.rs       every client: handshake, transfers, multiplexing                        E02
//! impaired.rs     loss and corruption, twenty seeds; goodput                              E03, E09
//! moving.rs       new ports, new addresses, new connection IDs                            E04
//! conditions.rs   long ways, darkness, IPv6, ciphers, keys, Retry, resumption             E05
//! browser.rs      Chromium, which takes HTTP/3 or nothing                                 E07
//! ```

mod browser;
mod cases;
mod conditions;
mod impaired;
mod matrix;
mod moving;
