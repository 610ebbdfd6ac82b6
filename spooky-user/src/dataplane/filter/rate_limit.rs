//! Requests a client, or all clients together, may make in a time: the generic cell rate algorithm (ITU-T I.371), which is a
//! token bucket that keeps one time instead of a number of tokens. Imports nothing of the crate.
//!
//! All workers share one table of fixed size, made of atomics: a client has the same allowance however its connections are
//! spread, and nothing is locked or allocated for a request. A bucket that is full again is the same as none, so its place is
//! free; only when a client comes whose places are all in use does the one that owes least lose its debt, which is told.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Places one client may have.
const WAYS: usize = 4;

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Those of one IPv4 address, or of one IPv6 network of 64 bits: a host has as many addresses of it as it likes.
    Client,
    /// All of the route.
    Route,
}

/// What a limit is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// So many requests, 1 or more,
    pub requests: u32,
    /// in so long.
    pub per: Duration,
    /// So many at once after a rest, 1 or more.
    pub burst: u32,
    /// Whose.
    pub counted: Counted,
    /// Clients that can be told apart at a time.
    pub clients: u32,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is served. `displaced`: for want of room another client's debt was forgotten.
    Admitted {
        /// See above.
        displaced: bool,
    },
    /// It is not; the next will be after this time.
    Refused(Duration),
}

/// One limit and the state of all whom it has met. Shared by workers and by snapshots, so that a reload forgives nobody.
#[derive(Debug)]
pub struct RateLimit {
    settings: Settings,
    /// Nanoseconds a request costs.
    cost: u64,
    /// Nanoseconds a client may be ahead.
    allowance: u64,
    since: Instant,
    hasher: RandomState,
    sets: Box<[[Bucket; WAYS]]>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Whose; 0 is nobody's.
    owner: AtomicU64,
    /// When all that it has used is earned again, in nanoseconds after `since`.
    due: AtomicU64,
}

impl RateLimit {
    /// With nobody in debt.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let per = u64::try_from(settings.per.as_nanos()).unwrap_or(u64::MAX);
        let cost = (per / u64::from(settings.requests.max(1))).max(1);
        let clients = match settings.counted {
            Counted::Client => settings.clients as usize,
            Counted::Route => 1,
        };
        let sets = clients.div_ceil(WAYS).next_power_of_two();
        Self {
            settings,
            cost,
            allowance: cost.saturating_mul(u64::from(settings.burst.max(1))),
            since: Instant::now(),
            hasher: RandomState::new(),
            sets: (0..sets).map(|_| Default::default()).collect(),
        }
    }

    /// What it was made of.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts a request of this client, whose address is a validated one. Times may come in any order.
    pub fn admit(&self, client: IpAddr, now: Instant) -> Verdict {
        let now = now.saturating_duration_since(self.since).as_nanos();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let owner = self.owner(client);
        let Some((bucket, displaced)) = self.bucket(owner, now) else {
            return Verdict::Admitted { displaced: false };
        };
        let next = |due: u64| due.max(now).saturating_add(self.cost);
        let paid = bucket.due.fetch_update(Relaxed, Relaxed, |due| {
            Some(next(due)).filter(|next| next - now <= self.allowance)
        });
        match paid {
            Ok(_) => Verdict::Admitted { displaced },
            Err(due) => Verdict::Refused(Duration::from_nanos(next(due) - now - self.allowance)),
        }
    }

    /// Never 0. Keyed by chance, so that nobody can choose addresses that fall together.
    fn owner(&self, client: IpAddr) -> u64 {
        let hash = match (self.settings.counted, client.to_canonical()) {
            (Counted::Route, _) => 1,
            (Counted::Client, IpAddr::V4(address)) => self.hasher.hash_one(address),
            (Counted::Client, IpAddr::V6(address)) => self.hasher.hash_one(network(address)),
        };
        hash.max(1)
    }

    /// The bucket of this owner, and whether somebody else had to lose it.
    fn bucket(&self, owner: u64, now: u64) -> Option<(&Bucket, bool)> {
        // The number of sets is a power of two, and a mask cannot lead past the end.
        let set = self.sets.get(owner as usize & (self.sets.len() - 1))?;
        if let Some(own) = set.iter().find(|bucket| bucket.owner.load(Relaxed) == owner) {
            return Some((own, false));
        }
        let bucket = set.iter().min_by_key(|bucket| bucket.due.load(Relaxed))?;
        let before = bucket.owner.swap(owner, Relaxed);
        let displaced = before != 0 && before != owner && bucket.due.load(Relaxed) > now;
        if displaced {
            bucket.due.store(0, Relaxed);
        }
        Some((bucket, displaced))
    }
}

/// The 64 bits that one host has to itself.
fn network(address: Ipv6Addr) -> u64 {
    (address.to_bits() >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    const ADMITTED: Verdict = Verdict::Admitted { displaced: false };

    fn limit(requests: u32, burst: u32, counted: Counted) -> RateLimit {
        let per = Duration::from_secs(1);
        RateLimit::new(Settings { requests, per, burst, counted, clients: 1024 })
    }

    #[test]
    fn a_burst_then_the_rate() {
        let limit = limit(10, 3, Counted::Client);
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(limit.admit(A, at(0)), ADMITTED);
        }
        let Verdict::Refused(wait) = limit.admit(A, at(0)) else { panic!("a fourth at once") };
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(limit.admit(A, at(100)), ADMITTED);
        assert!(matches!(limit.admit(A, at(150)), Verdict::Refused(_)), "what is refused is free");
        assert_eq!(limit.admit(A, at(200)), ADMITTED);
        assert_eq!(limit.admit(B, at(200)), ADMITTED, "another client");
    }

    #[test]
    fn twice_the_rate_is_half_refused() {
        let limit = limit(100, 10, Counted::Client);
        let start = Instant::now();
        let admitted = (0..2000_u64)
            .filter(|n| limit.admit(A, start + Duration::from_millis(n * 5)) == ADMITTED)
            .count();
        assert!((1000..=1010).contains(&admitted), "{admitted} in 10 s");
    }

    #[test]
    fn a_network_of_version_6_is_one_client() {
        let limit = limit(1, 1, Counted::Client);
        let now = Instant::now();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(limit.admit(address("2001:db8::1"), now), ADMITTED);
        assert!(matches!(limit.admit(address("2001:db8::ffff:2"), now), Verdict::Refused(_)));
        assert_eq!(limit.admit(address("2001:db8:0:1::1"), now), ADMITTED);
        assert_eq!(limit.admit(address("::ffff:192.0.2.1"), now), ADMITTED);
        assert!(matches!(limit.admit(A, now), Verdict::Refused(_)), "the same in version 4");
    }

    #[test]
    fn a_route_counts_everybody() {
        let limit = limit(1, 2, Counted::Route);
        let now = Instant::now();
        assert_eq!(limit.admit(A, now), ADMITTED);
        assert_eq!(limit.admit(B, now), ADMITTED);
        assert!(matches!(limit.admit(A, now), Verdict::Refused(_)));
    }

    #[test]
    fn a_full_table_forgets_the_smallest_debt_and_says_so() {
        let settings =
            Settings { clients: WAYS as u32, ..*limit(1, 2, Counted::Client).settings() };
        let limit = RateLimit::new(settings);
        let now = Instant::now();
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        // All but the last use up what they have.
        for n in [1, 1, 2, 2, 3, 3, 4] {
            assert_eq!(limit.admit(client(n), now), ADMITTED);
        }
        assert_eq!(limit.admit(client(5), now), Verdict::Admitted { displaced: true });
        assert!(matches!(limit.admit(client(1), now), Verdict::Refused(_)), "its debt stands");
        // Two seconds later all debts are paid, and no place is anybody's.
        let later = now + Duration::from_secs(2);
        assert_eq!(limit.admit(client(6), later), ADMITTED);
    }

    #[test]
    fn workers_share_what_a_client_has() {
        let limit = limit(1, 1000, Counted::Client);
        let now = Instant::now();
        let admitted: usize = std::thread::scope(|scope| {
            let worker = || (0..500).filter(|_| limit.admit(A, now) == ADMITTED).count();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(admitted, 1000);
    }
}
