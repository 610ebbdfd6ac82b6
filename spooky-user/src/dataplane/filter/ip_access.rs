//! Who may connect: allow and deny lists of networks. Imports its sibling `ranges` alone.
//!
//! The kernel drops the same addresses earlier when XDP runs; this is what enforces the lists without it, and the meaning the
//! kernel's maps are compared with.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::ranges::{Range, Ranges};

/// Compiled lists. An address in an allowed network may connect; else one in a denied network may not; else the default
/// decides. How long a prefix is does not matter: allow wins.
///
/// What the configuration and its files say is compiled as a whole; what comes and goes while spooky runs stands beside it, so
/// that a change of one network costs microseconds however long the lists are.
#[derive(Clone, Debug, Default)]
pub struct AccessList {
    version: u64,
    default_deny: bool,
    fixed: Arc<Fixed>,
    dynamic: Dynamic,
}

#[derive(Debug, Default)]
struct Fixed {
    allow: Networks,
    deny: Networks,
}

/// Networks that come and go while spooky runs.
#[derive(Clone, Debug, Default)]
pub struct Dynamic {
    /// May connect.
    pub allow: Networks,
    /// May not.
    pub deny: Networks,
    /// Would not be let in, if this were no dry run.
    pub dry: Networks,
}

/// A set of addresses. Copies share what they have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

// === impl AccessList ===

impl AccessList {
    /// Compiles the lists; order and repetition do not matter. Version 0, with nothing dynamic.
    #[must_use]
    pub fn new(default_deny: bool, allow: &[IpNet], deny: &[IpNet]) -> Self {
        let fixed = Fixed { allow: Networks::new(allow), deny: Networks::new(deny) };
        Self { default_deny, fixed: Arc::new(fixed), ..Self::default() }
    }

    /// The same fixed lists with other dynamic ones.
    #[must_use]
    pub fn with(&self, version: u64, dynamic: Dynamic) -> Self {
        Self { version, dynamic, fixed: Arc::clone(&self.fixed), ..*self }
    }

    /// Which lists these are; others have another number.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// May this address connect? An IPv4 address in IPv6 form (`::ffff:192.0.2.1`) is looked up as IPv4.
    #[must_use]
    pub fn permits(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.allows(address)
            || !(self.default_deny
                || self.dynamic.deny.contains(address)
                || self.fixed.deny.contains(address))
    }

    /// Is it let in only because an entry that refuses it is a dry run?
    #[must_use]
    pub fn is_spared(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.dynamic.dry.contains(address) && !self.allows(address) && self.permits(address)
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.dynamic.allow.contains(address) || self.fixed.allow.contains(address)
    }

    /// Is every address permitted? Lets a caller skip the look-up.
    #[must_use]
    pub fn permits_all(&self) -> bool {
        let denies = !self.fixed.deny.is_empty() || !self.dynamic.deny.is_empty();
        !self.default_deny && !denies
    }
}

// === impl Networks ===

impl Networks {
    /// The addresses of these networks.
    #[must_use]
    pub fn new(networks: &[IpNet]) -> Self {
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
            v4: Ranges::new(v4, |last: u32| last.checked_add(1)),
            v6: Ranges::new(v6, |last: u128| last.checked_add(1)),
        }
    }

    /// Takes out every network inside `place` and puts those of `with` there, which are inside as well, sorted, and do not
    /// overlap. To be used with sets that were made by this alone, of networks none of which holds `place`.
    pub fn replace(&mut self, place: IpNet, with: &[IpNet]) {
        match place {
            IpNet::V4(place) => {
                let range = |net: &ipnet::Ipv4Net| Range {
                    first: u32::from(net.network()),
                    last: u32::from(net.broadcast()),
                };
                let with = with.iter().filter_map(|net| match net {
                    IpNet::V4(net) => Some(range(net)),
                    IpNet::V6(_) => None,
                });
                self.v4.replace(range(&place), with);
            }
            IpNet::V6(place) => {
                let range = |net: &ipnet::Ipv6Net| Range {
                    first: u128::from(net.network()),
                    last: u128::from(net.broadcast()),
                };
                let with = with.iter().filter_map(|net| match net {
                    IpNet::V6(net) => Some(range(net)),
                    IpNet::V4(_) => None,
                });
                self.v6.replace(range(&place), with);
            }
        }
    }

    /// Whether it has this address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4.contains(address.into()),
            IpAddr::V6(address) => self.v6.contains(address.into()),
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
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
