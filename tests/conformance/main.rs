//! What the RFCs leave no choice about, each rule as a case with one right end, played by a client that is not quiche against
//! the real daemon: rows A12, B09, E01 and E06 of docs/codex/requirements.md. The fifty cases of h3spec are among them.
//!
//! ```text
//! cases.rs        a suite of cases against waivers.yaml, and what is wrong with either
//! http3.rs        messages, frames and critical streams, with 16 cases of h3spec       B09, E01
//! parameters.rs   transport parameters in every wrong shape, and 8 cases of h3spec   A12, E01
//! quic.rs         26 cases of h3spec on frames, packets and TLS in QUIC                    E01
//! versions.rs     version negotiation, and what there is not: version 2, ECN               E06
//! waivers.yaml    cases that end otherwise: how, and why
//! ```
//!
//! The cases themselves are `tests/clients/conformance_*.py`: a name that begins with the section of the RFC, what it names,
//! and what is sent.

mod cases;
mod http3;
mod parameters;
mod quic;
mod versions;
