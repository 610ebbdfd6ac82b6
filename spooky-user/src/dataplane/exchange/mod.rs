//! One request and its response, free of any protocol version: heads, bodies, errors.
//!
//! An *exchange* is opened by a downstream session, served by `proxy`, and answered by an upstream or by spooky itself.
//! May import: codec, id, telemetry. Must not import any transport.

pub mod blame;
pub mod error;
pub mod link;
pub mod mailbox;

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Instant;

use http::HeaderValue;

use crate::codec::field::RequestHead;
use crate::id::ListenerId;
use blame::Blame;
use link::Link;

/// A request whose head was accepted, on its way to `proxy::serve`.
#[derive(Debug)]
pub struct Exchange {
    /// What the client asked for.
    pub head: RequestHead,
    /// Bodies, trailers and the response, in both directions.
    pub link: Rc<Link>,
    /// Who asked, and how.
    pub client: Client,
    /// What its connection is blamed for.
    pub blame: Rc<Blame>,
    /// When the head was complete.
    pub opened: Instant,
    /// `true` when the request ended with its head.
    pub end_of_stream: bool,
}

/// What is known of the client for logs and forwarded fields.
#[derive(Clone, Debug)]
pub struct Client {
    /// Address of the last validated path, never one a packet merely claims.
    pub address: IpAddr,
    /// The same as backends are told it.
    pub forwarded_for: HeaderValue,
    /// Its port on that path.
    pub port: u16,
    /// The listener it came to.
    pub listener: ListenerId,
    /// The first connection ID its connection was given.
    pub cid: [u8; 20],
}
