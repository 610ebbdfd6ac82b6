//! How many connections each source has (an IPv4 address, an IPv6 /64): one client must not take everybody's place. Imports
//! nothing of the crate.

use std::collections::HashMap;
use std::net::IpAddr;

/// An IPv4 address in its mapped form, or the first 64 bits of an IPv6 address: what one client usually has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Source([u8; 16]);

/// Connections by source. Addresses are the client's choice: hashed with a secret (std's SipHash).
#[derive(Debug, Default)]
pub(super) struct Sources {
    counts: HashMap<Source, u32>,
}

impl Source {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().octets()),
            IpAddr::V6(address) => {
                let mut octets = address.octets();
                for octet in octets.iter_mut().skip(8) {
                    *octet = 0;
                }
                Self(octets)
            }
        }
    }
}

impl Sources {
    /// Connections of this source.
    pub(super) fn count(&self, source: Source) -> u32 {
        self.counts.get(&source).copied().unwrap_or(0)
    }

    /// One more.
    pub(super) fn add(&mut self, source: Source) {
        *self.counts.entry(source).or_insert(0) += 1;
    }

    /// One less. Sources without connections are forgotten.
    pub(super) fn remove(&mut self, source: Source) {
        if let Some(count) = self.counts.get_mut(&source) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_network() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_eq!(source("2001:db8:0:1::1"), source("2001:db8:0:1:ffff::"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut sources = Sources::default();
        let source = Source::of("192.0.2.1".parse().unwrap());
        sources.add(source);
        sources.add(source);
        sources.remove(source);
        assert_eq!(sources.count(source), 1);
        sources.remove(source);
        sources.remove(source);
        assert_eq!((sources.count(source), sources.counts.len()), (0, 0));
    }
}
