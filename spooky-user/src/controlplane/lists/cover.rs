//! Networks that overlap, and the outermost of them as a set of addresses: what the data plane looks up. One more or one less
//! costs as much as it changes. May import: the data plane's sets.

use std::collections::BTreeSet;
use std::ops::Bound;

use ipnet::IpNet;

use crate::dataplane::filter::ip_access::Networks;

/// Networks, each once, host bits cleared.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// By address, then length: what is inside of a network comes right behind it.
    all: BTreeSet<IpNet>,
    outermost: Networks,
}

impl Cover {
    pub(super) fn insert(&mut self, net: IpNet) {
        if self.all.insert(net) && !self.is_inside_another(net) {
            self.outermost.replace(net, &[net]);
        }
    }

    pub(super) fn remove(&mut self, net: IpNet) {
        if self.all.remove(&net) && !self.is_inside_another(net) {
            let mut left: Vec<IpNet> = Vec::new();
            for inner in self.inside(net) {
                if left.last().is_none_or(|outer| !outer.contains(&inner)) {
                    left.push(inner);
                }
            }
            self.outermost.replace(net, &left);
        }
    }

    pub(super) fn contains(&self, net: &IpNet) -> bool {
        self.all.contains(net)
    }

    /// The addresses; a copy costs next to nothing.
    pub(super) fn networks(&self) -> Networks {
        self.outermost.clone()
    }

    fn is_inside_another(&self, net: IpNet) -> bool {
        around(net).any(|outer| self.all.contains(&outer))
    }

    fn inside(&self, net: IpNet) -> impl Iterator<Item = IpNet> {
        let last = IpNet::from(net.broadcast());
        self.all.range((Bound::Excluded(net), Bound::Included(last))).copied()
    }
}

/// Every larger network that holds this one, the next larger first.
pub(super) fn around(net: IpNet) -> impl Iterator<Item = IpNet> {
    std::iter::successors(net.supernet(), IpNet::supernet)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    fn network() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that networks hold each other.
        (0_u32..256, 22_u8..=32, any::<bool>()).prop_map(|(low, length, six)| {
            let address: IpAddr = if six {
                std::net::Ipv6Addr::from(u128::from(low)).into()
            } else {
                std::net::Ipv4Addr::from(low).into()
            };
            let length = if six { length + 96 } else { length };
            IpNet::new(address, length).expect("a length of the family").trunc()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_network(
            steps in prop::collection::vec((network(), any::<bool>()), 1..60),
        ) {
            let mut cover = Cover::default();
            let mut model = BTreeSet::new();
            for (net, insert) in steps {
                if insert {
                    cover.insert(net);
                    model.insert(net);
                } else {
                    // One that is there, every other time.
                    let net = model.iter().find(|it| it.contains(&net)).copied().unwrap_or(net);
                    cover.remove(net);
                    model.remove(&net);
                }
            }
            for low in 0_u32..260 {
                for address in [
                    IpAddr::V4(low.into()),
                    IpAddr::V6(std::net::Ipv6Addr::from(u128::from(low))),
                ] {
                    let wanted = model.iter().any(|net| net.contains(&address));
                    prop_assert_eq!(cover.networks().contains(address), wanted, "{}", address);
                }
            }
            prop_assert_eq!(cover.all, model);
        }
    }

    #[test]
    fn thousands_come_and_go() {
        let mut cover = Cover::default();
        let net =
            |n: u32| IpNet::new(std::net::Ipv4Addr::from(n * 7919 * 16).into(), 28).expect("28");
        for n in 0..20_000 {
            cover.insert(net(n).trunc());
        }
        let full = cover.networks();
        for n in (0..20_000).step_by(2) {
            cover.remove(net(n).trunc());
        }
        for n in 0..20_000 {
            assert!(full.contains(net(n).addr()), "an older copy stays as it was");
            assert_eq!(cover.networks().contains(net(n).addr()), n % 2 == 1, "{n}");
        }
        cover.insert("0.0.0.0/0".parse().expect("a network"));
        assert!(cover.networks().contains(net(0).addr()));
        cover.remove("0.0.0.0/0".parse().expect("a network"));
        assert_eq!(
            (0..20_000).filter(|n| cover.networks().contains(net(*n).addr())).count(),
            10_000
        );
    }
}
