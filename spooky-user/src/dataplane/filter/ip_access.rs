//! Who may connect: allow and deny lists of networks. Imports nothing of the crate.
//!
//! The kernel drops the same addresses earlier when XDP runs; this is what enforces the lists without it, and the meaning the
//! kernel's maps are compared with.

use std::net::IpAddr;

use ipnet::IpNet;

/// Compiled lists. An address in an allowed network may connect; else one in a denied network may not; else the default
/// decides. How long a prefix is does not matter: allow wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessList {
    default_deny: bool,
    allow: Networks,
    deny: Networks,
}

/// A set of addresses: sorted ranges that neither touch nor overlap, so that a look-up is one binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Networks {
    v4: Box<[Range<u32>]>,
    v6: Box<[Range<u128>]>,
}

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Range<A> {
    first: A,
    last: A,
}

// === impl AccessList ===

impl AccessList {
    /// Compiles the lists; order and repetition do not matter.
    #[must_use]
    pub fn new(default_deny: bool, allow: &[IpNet], deny: &[IpNet]) -> Self {
        Self { default_deny, allow: Networks::new(allow), deny: Networks::new(deny) }
    }

    /// May this address connect? An IPv4 address in IPv6 form (`::ffff:192.0.2.1`) is looked up as IPv4.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allow.contains(address) || !(self.default_deny || self.deny.contains(address))
    }

    /// Is every address permitted? Lets a caller skip the look-up.
    #[must_use]
    pub fn permits_all(&self) -> bool {
        !self.default_deny && self.deny.v4.is_empty() && self.deny.v6.is_empty()
    }
}

// === impl Networks ===

impl Networks {
    fn new(networks: &[IpNet]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => {
                    v4.push(Range { first: net.network().into(), last: net.broadcast().into() });
                }
                IpNet::V6(net) => {
                    v6.push(Range { first: net.network().into(), last: net.broadcast().into() });
                }
            }
        }
        Self {
            v4: merge(v4, |last: u32| last.checked_add(1)),
            v6: merge(v6, |last: u128| last.checked_add(1)),
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => holds(&self.v4, address.into()),
            IpAddr::V6(address) => holds(&self.v6, address.into()),
        }
    }
}

/// Sorts, and joins ranges that overlap or touch. `next` is `None` after the last address there is.
fn merge<A: Copy + Ord>(mut ranges: Vec<Range<A>>, next: fn(A) -> Option<A>) -> Box<[Range<A>]> {
    ranges.sort_unstable();
    let mut merged: Vec<Range<A>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(open) if next(open.last).is_none_or(|after| range.first <= after) => {
                open.last = open.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged.into_boxed_slice()
}

fn holds<A: Copy + Ord>(ranges: &[Range<A>], address: A) -> bool {
    let after = ranges.partition_point(|range| range.first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| address <= range.last)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|net| net.parse().expect("a network")).collect()
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn allow_wins_over_deny_and_the_default_decides_the_rest() {
        let allow = nets(&["10.0.0.0/8", "2001:db8:1::/48"]);
        let deny = nets(&["10.1.2.3/32", "192.0.2.0/24", "2001:db8::/32", "0.0.0.0/1"]);
        let open = AccessList::new(false, &allow, &deny);
        let closed = AccessList::new(true, &allow, &deny);
        for (address, by_open, by_closed) in [
            ("10.1.2.3", true, true),
            ("192.0.2.255", false, false),
            ("192.0.3.0", true, false),
            ("127.255.255.255", false, false),
            ("128.0.0.0", true, false),
            ("2001:db8:1::5", true, true),
            ("2001:db8:2::5", false, false),
            ("2001:db9::", true, false),
            ("::ffff:192.0.2.1", false, false),
            ("::ffff:10.9.9.9", true, true),
        ] {
            assert_eq!(open.permits(ip(address)), by_open, "{address}");
            assert_eq!(closed.permits(ip(address)), by_closed, "{address}");
        }
        assert!(AccessList::default().permits(ip("::1")));
        assert!(AccessList::default().permits_all());
        assert!(!open.permits_all() && !closed.permits_all());
    }

    #[test]
    fn everything_and_the_last_address() {
        let none = AccessList::new(false, &[], &nets(&["0.0.0.0/0", "::/0"]));
        for address in ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff::ffff"] {
            assert!(!none.permits(ip(address)), "{address}");
        }
        let ends =
            AccessList::new(false, &[], &nets(&["255.255.255.255/32", "255.255.255.254/32"]));
        assert!(!ends.permits(ip("255.255.255.254")));
        assert!(ends.permits(ip("255.255.255.253")));
    }

    #[test]
    fn a_hundred_thousand_networks_are_looked_up_quickly() {
        // Every other /30 of 10.0.0.0/8, so that nothing can be joined.
        let deny: Vec<IpNet> = (0..100_000_u32)
            .map(|n| IpNet::new(IpAddr::V4((0x0a00_0000 + n * 8).into()), 30).expect("30 <= 32"))
            .collect();
        let list = AccessList::new(false, &[], &deny);
        let start = Instant::now();
        let denied = (0..100_000_u32)
            .filter(|n| !list.permits(IpAddr::V4((0x0a00_0000 + n * 8 + 1).into())))
            .count();
        assert_eq!(denied, 100_000);
        // About 2 ms optimised; a scan of the list would take a minute even so.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that networks overlap and touch.
        (0_u32..64, 26_u8..=32).prop_map(|(low, length)| {
            IpNet::new(IpAddr::V4(low.into()), length).expect("<= 32").trunc()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(
            default_deny: bool,
            allow in prop::collection::vec(network(), 0..6),
            deny in prop::collection::vec(network(), 0..12),
        ) {
            let list = AccessList::new(default_deny, &allow, &deny);
            for low in 0_u32..80 {
                let address = IpAddr::V4(low.into());
                let is_in = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
                let wanted = is_in(&allow) || !(default_deny || is_in(&deny));
                prop_assert_eq!(list.permits(address), wanted, "{}", address);
            }
        }
    }
}
