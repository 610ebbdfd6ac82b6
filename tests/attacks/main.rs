//! Rows A to D of the list of attacks in docs/codex/requirements.md: clients and backends that break the rules, or keep to
//! their letter and ask too much. Whoever does that pays for it, and nobody else. No client here is made of quiche.
//!
//! ```text
//! validation.rs   who has not shown that it can receive: bytes out, Retry, floods of Initials      A01 to A03
//! datagrams.rs    datagrams of no connection: odd ones, other versions, stateless resets             A04, A15
//! paths.rs        source addresses that are not the client's, or not for long                        A10, A17
//! early_data.rs   first flights that are sent again                                                  A16
//! forgery.rs      somebody on the path who writes as well                                            A21
//! transport.rs    frames that RFC 9000 forbids, floods of those that it allows  A05 to A09, A14, A18 to A20
//! limits.rs       clients that keep to the letter of HTTP/3 and ask too much                       B, A11
//! malformed.rs    messages that break the rules, noise                                             C01
//! allowance.rs    what one connection may have, at its limit
//! messages.rs     messages in every spelling, seen at a real backend                               C02 to C09
//! windows.rs      upload rates, and memory that gaps take, by flow control window               A11
//! hostile.rs      backends that break HTTP/2                                                       D01 to D05
//! backends.rs     backends that give little, lie about bodies, answer early              D06, D07, D09
//! backend_tls.rs  backends that are not who they should be                                         D08
//! isolation.rs    clients that share a connection to a backend                                     D11 to D13
//! retries.rs      what is sent to a backend a second time                                          C11
//! ```

mod allowance;
mod backend_tls;
mod backends;
mod datagrams;
mod early_data;
mod forgery;
mod hostile;
mod isolation;
mod limits;
mod malformed;
mod messages;
mod paths;
mod retries;
mod transport;
mod validation;
mod windows;
