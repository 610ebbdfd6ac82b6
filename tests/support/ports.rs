//! Free ports for what cannot be bound to port 0, such as a socket group. Below the kernel's ephemeral range, so that no
//! client of another test takes one in between.

use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// A port that nobody has bound on loopback, for UDP and TCP alike. Not given out twice by one process.
///
/// # Panics
/// When none is free.
pub fn free() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run side by side start at different places.
    let start = (std::process::id() as u16).wrapping_mul(97) % COUNT;
    for _attempt in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start.wrapping_add(step)) % COUNT;
        let address = (IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return port;
        }
    }
    panic!("no free port in {FIRST}..{}", FIRST + COUNT);
}
