//! Paces: so many in a time, some at once, kept in one number (the virtual scheduling algorithm of ITU-T I.371). Imports
//! [`crate::cid`], [`crate::frame`] and [`crate::siphash`] only.
//!
//! There is a fixed number of buckets, and a prefix has the one that a keyed hash gives it: nothing is allocated or
//! evicted, and nobody without the key can choose whose bucket to empty. Two CPUs that write one bucket in the same
//! instant may lose one of their writes: one packet more then passes.

use crate::{cid::LocalKey, frame::Address, siphash::siphash24};

/// Buckets of prefixes: the places of the lower 16 bits of a hash.
pub const PREFIX_BUCKETS: u32 = 1 << 16;
/// The bucket of Version Negotiation packets, behind those of prefixes.
pub const VERSION_BUCKET: u32 = PREFIX_BUCKETS;
/// The bucket of all strangers together.
pub const STRANGERS_BUCKET: u32 = PREFIX_BUCKETS + 1;
/// All buckets.
pub const BUCKETS: u32 = PREFIX_BUCKETS + 2;

/// A pace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pace {
    /// Nanoseconds from one to the next; 0 for no limit.
    pub step_ns: u64,
    /// How far ahead of its pace one may be, in nanoseconds: `step_ns` times those that may come at once, less one.
    pub slack_ns: u64,
}

impl Pace {
    /// So many a second on average, and so many at once. No limit for 0 a second.
    #[must_use]
    pub const fn new(per_second: u32, burst: u32) -> Self {
        if per_second == 0 {
            return Self { step_ns: 0, slack_ns: 0 };
        }
        let step_ns = 1_000_000_000 / per_second as u64;
        let step_ns = if step_ns == 0 { 1 } else { step_ns };
        Self { step_ns, slack_ns: step_ns * (burst as u64).saturating_sub(1) }
    }

    /// Whether one may pass now, and what its bucket holds then. `due` is what the bucket holds, the time at which the
    /// next one is due; 0 at first.
    #[inline(always)]
    #[must_use]
    pub const fn take(&self, due: u64, now: u64) -> Option<u64> {
        let due = if due < now { now } else { due };
        if due - now > self.slack_ns {
            return None;
        }
        Some(due + self.step_ns)
    }
}

/// The bucket of an address's prefix: IPv4 /24, IPv6 /48, the longest that networks announce to each other, so that all
/// of a prefix belongs to one of them.
#[inline(always)]
#[must_use]
pub fn bucket(source: &Address, key: &LocalKey) -> u32 {
    let prefix = match source {
        Address::V4(octets) => 4 << 48 | u64::from(u32::from_be_bytes(*octets) >> 8),
        Address::V6(octets) => 6 << 48 | (u128::from_be_bytes(*octets) >> 80) as u64,
    };
    siphash24(key.k0, key.k1, [prefix]) as u32 & (PREFIX_BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LocalKey = LocalKey { k0: 1, k1: 2 };

    #[test]
    fn a_burst_then_the_pace() {
        let pace = Pace::new(10, 4);
        let (mut due, mut passed) = (0, 0);
        let start = 5_000_000_000;
        let mut at = |now: u64| match pace.take(due, now) {
            Some(next) => {
                due = next;
                passed += 1;
                true
            }
            None => false,
        };
        assert!((0..4).all(|_| at(start)));
        assert!(!at(start) && !at(start + 99_999_999));
        assert!(at(start + 100_000_000) && !at(start + 100_000_000));
        // After a long silence there is a burst again, and no more than that.
        assert_eq!((0..10).filter(|_| at(start + 60_000_000_000)).count(), 4);
        assert_eq!(passed, 9);
    }

    #[test]
    fn in_the_long_run_it_is_the_pace() {
        for (per_second, burst) in [(1, 1), (100, 50), (20_000, 1), (3, 1000)] {
            let pace = Pace::new(per_second, burst);
            let (mut due, mut passed) = (0, 0_u64);
            for now in (0..10_000_000_000_u64).step_by(50_000) {
                for _ in 0..60 {
                    if let Some(next) = pace.take(due, now) {
                        due = next;
                        passed += 1;
                    }
                }
            }
            let most = u64::from(per_second) * 10 + u64::from(burst) + 1;
            assert!(
                passed <= most && passed + u64::from(burst) * 2 >= most * 9 / 10,
                "{passed} of {most}"
            );
        }
        assert_eq!(Pace::new(0, 9), Pace::default());
    }

    #[test]
    fn a_prefix_has_one_bucket() {
        let v4 = |octets| bucket(&Address::V4(octets), &KEY);
        assert_eq!(v4([192, 0, 2, 1]), v4([192, 0, 2, 255]));
        let v6 = |host: u8, site: u8| {
            let mut octets = [0x20, 1, 0x0d, 0xb8, 0, site, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            octets[15] = host;
            octets[6] = host;
            bucket(&Address::V6(octets), &KEY)
        };
        assert_eq!(v6(1, 7), v6(9, 7));
        // 256 prefixes over 65,536 buckets: a pair shares one with 0.4 of probability, five pairs never in practice.
        let mut places = [0; 256];
        for (site, place) in places.iter_mut().enumerate() {
            *place = v6(0, site as u8);
        }
        places.sort_unstable();
        assert!(places.windows(2).filter(|pair| pair[0] == pair[1]).count() < 5);
        assert_ne!(
            v4([192, 0, 2, 1]),
            bucket(&Address::V4([192, 0, 2, 1]), &LocalKey { k0: 3, k1: 4 })
        );
    }
}
