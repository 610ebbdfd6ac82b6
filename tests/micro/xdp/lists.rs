//! Deny lists as operators have them: mostly single hosts and small networks, some large ones, spread over the address
//! space with dense places; and sources that such a list covers or does not.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// One list, and addresses to try it with.
#[derive(Debug)]
pub(crate) struct Sources {
    v4: Vec<(u32, u8)>,
    v6: Vec<(u128, u8)>,
    seed: u64,
}

impl Sources {
    /// `entries` distinct prefixes of each family.
    pub(crate) fn new(entries: usize, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut v4 = BTreeSet::new();
        while v4.len() < entries {
            let bits = match rng.u32(0..100) {
                0..70 => 32,
                70..95 => 24,
                _ => rng.u8(16..24),
            };
            // Half of them anywhere in 1.0.0.0 to 223.255.255.255, half in a hundredth of it.
            let anywhere = rng.u32(0x0100_0000..0xe000_0000);
            let dense = 0x2d00_0000 + rng.u32(0..0x0200_0000);
            let address = if rng.bool() { anywhere } else { dense };
            v4.insert((address & (u32::MAX << (32 - bits)), bits));
        }
        let mut v6 = BTreeSet::new();
        while v6.len() < entries {
            let bits = match rng.u32(0..100) {
                0..30 => 128,
                30..75 => 64,
                75..95 => 48,
                _ => rng.u8(32..48),
            };
            // 2000::/3, half of it as dense as provider's blocks are.
            let high = rng.u128(0x2000 << 112..0x4000 << 112);
            let block = 0x2a00_0000 + rng.u128(0..2000);
            let dense = block << 96 | rng.u128(0..1 << 96);
            let address = if rng.bool() { high } else { dense };
            v6.insert((address & (u128::MAX << (128 - bits)), bits));
        }
        Self { v4: v4.into_iter().collect(), v6: v6.into_iter().collect(), seed }
    }

    /// All prefixes.
    pub(crate) fn listed(&self) -> Vec<(IpAddr, u8)> {
        let v4 = self.v4.iter().map(|(address, bits)| (Ipv4Addr::from(*address).into(), *bits));
        let v6 = self.v6.iter().map(|(address, bits)| (Ipv6Addr::from(*address).into(), *bits));
        v4.chain(v6).collect()
    }

    /// The `nth` of the addresses that are listed.
    pub(crate) fn denied(&self, family: Family, nth: usize) -> IpAddr {
        let mut rng = self.rng(nth);
        match family {
            Family::V4 => {
                let (address, bits) = self.v4[rng.usize(0..self.v4.len())];
                let host = u32::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                Ipv4Addr::from(address | rng.u32(..) & host).into()
            }
            Family::V6 => {
                let (address, bits) = self.v6[rng.usize(0..self.v6.len())];
                let host = u128::MAX.checked_shr(u32::from(bits)).unwrap_or(0);
                Ipv6Addr::from(address | rng.u128(..) & host).into()
            }
        }
    }

    /// The `nth` of the addresses that are not listed, from the dense places of the list.
    pub(crate) fn clean(&self, family: Family, nth: usize) -> IpAddr {
        let mut rng = self.rng(nth);
        loop {
            let (address, listed): (IpAddr, bool) = match family {
                Family::V4 => {
                    let address = 0x2d00_0000 + rng.u32(0..0x0200_0000);
                    let covers =
                        |(prefix, bits): &(u32, u8)| (prefix ^ address) >> (32 - bits) == 0;
                    (Ipv4Addr::from(address).into(), self.v4.iter().any(covers))
                }
                Family::V6 => {
                    let address = (0x2a00_0000 + rng.u128(0..2000)) << 96 | rng.u128(0..1 << 96);
                    let covers =
                        |(prefix, bits): &(u128, u8)| (prefix ^ address) >> (128 - bits) == 0;
                    (Ipv6Addr::from(address).into(), self.v6.iter().any(covers))
                }
            };
            if !listed {
                return address;
            }
        }
    }

    fn rng(&self, nth: usize) -> fastrand::Rng {
        fastrand::Rng::with_seed(self.seed.wrapping_mul(0x9e37_79b9).wrapping_add(nth as u64))
    }
}
