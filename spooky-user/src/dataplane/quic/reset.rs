//! Stateless resets (RFC 9000 §10.3): how a client learns that its connection is gone, from a worker that never had it, and
//! how many of them are sent. Imports siblings alone.

use std::hash::{BuildHasher, RandomState};
use std::time::Instant;

use super::bucket::Bucket;
use super::cid::Issuer;
use super::settings::ResetRate;
use super::sources::Source;

/// A reset must look like a short-header packet: 5 octets before the token at least (RFC 9000 §10.3).
const SIZE_MIN: usize = 21;
/// Long enough that it cannot be told from a small packet, short enough to be cheap.
const SIZE_MAX: usize = 42;
/// Sources are told apart by a secret hash in so many places: nothing grows with their number, and two that meet in one place
/// share what one may have.
const PLACES: usize = 512;

/// How many resets a worker sends for a listener, in all and to each source: what junk can make of us.
#[derive(Debug)]
pub(super) struct Budget {
    all: Bucket,
    sources: Box<[Bucket]>,
    hasher: RandomState,
}

// === impl Budget ===

impl Budget {
    /// One worker's share of `rate`, to be had at once or over a second. A share of 0 is none.
    #[must_use]
    pub(super) fn new(rate: ResetRate, workers: usize, now: Instant) -> Self {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let source = Bucket::new(rate.per_source.div_ceil(workers), now);
        Self {
            all: Bucket::new(rate.per_second.div_ceil(workers), now),
            sources: vec![source; PLACES].into_boxed_slice(),
            hasher: RandomState::new(),
        }
    }

    /// Takes one for this source, if it and all together have one left.
    pub(super) fn take(&mut self, source: Source, now: Instant) -> bool {
        let place = self.hasher.hash_one(source) % self.sources.len().max(1) as u64;
        let bucket = usize::try_from(place).ok().and_then(|place| self.sources.get_mut(place));
        bucket.is_some_and(|bucket| bucket.take(now)) && self.all.take(now)
    }
}

/// Whether there is a reset smaller than a packet of this size.
pub(super) const fn may_answer(trigger_size: usize) -> bool {
    trigger_size > SIZE_MIN
}

/// Writes a reset for the connection ID that `trigger` carried into `out`; the number of octets, or `None` when the
/// trigger is too small to be answered.
//= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.3
//# An endpoint MUST ensure that every Stateless Reset that it sends is
//# smaller than the packet that triggered it, unless it maintains state
//# sufficient to prevent looping.
//= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
//# An endpoint MUST NOT send a Stateless Reset that is three times or more
//# larger than the packet it receives to avoid being used for
//# amplification.
pub(super) fn write(
    issuer: &Issuer,
    cid: &[u8],
    trigger_size: usize,
    out: &mut [u8],
) -> Option<usize> {
    if !may_answer(trigger_size) {
        return None;
    }
    let size = SIZE_MAX.min(trigger_size.checked_sub(1)?);
    let out = out.get_mut(..size)?;
    issuer.fill_random(out);
    let (head, tail) = out.split_at_mut(size - 16);
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
    //# Endpoints MUST send Stateless Resets formatted as a packet with a short
    //# header.
    // Header form 0, fixed bit 1: a short header.
    if let Some(first) = head.first_mut() {
        *first = 0x40 | (*first & 0x3f);
    }
    tail.copy_from_slice(&issuer.reset_token(cid));
    Some(size)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spooky_common::cid::Owner;

    use super::*;
    use crate::dataplane::quic::cid::Secrets;

    fn issuer() -> Issuer {
        Issuer::new(&Secrets::random(0, [0; 3]), Owner { worker: 1, generation: 2 })
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
    //= type=test
    //# An endpoint MUST NOT send a Stateless Reset that is three times or more
    //# larger than the packet it receives to avoid being used for
    //# amplification.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3
    //= type=test
    //# Endpoints MUST send Stateless Resets formatted as a packet with a short
    //# header.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.3
    //= type=test
    //# An endpoint MUST ensure that every Stateless Reset that it sends is
    //# smaller than the packet that triggered it, unless it maintains state
    //# sufficient to prevent looping.
    #[test]
    fn a_reset_is_smaller_than_its_trigger_and_ends_in_the_token() {
        let issuer = issuer();
        let cid = issuer.issue();
        let mut out = [0; 64];
        for trigger in 0..200 {
            match write(&issuer, &cid, trigger, &mut out) {
                None => assert!(trigger <= SIZE_MIN),
                Some(size) => {
                    assert!(size < trigger && size >= SIZE_MIN);
                    assert_eq!(out[0] & 0xc0, 0x40);
                    assert_eq!(out[size - 16..size], issuer.reset_token(&cid));
                }
            }
        }
    }

    fn source(n: u32) -> Source {
        Source::of(std::net::IpAddr::from(n.to_be_bytes()))
    }

    #[test]
    fn a_burst_is_bounded_for_a_source_and_for_all_and_refills() {
        let start = Instant::now();
        let rate = ResetRate { per_second: 1000, per_source: 100 };
        let mut budget = Budget::new(rate, 2, start);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..500).filter(|_| budget.take(source(1), start)).count(), 50);
        assert_eq!((0..500).filter(|_| budget.take(source(1), later)).count(), 25);
        let all = (0..5000).filter(|n| budget.take(source(n % 1000), later)).count();
        // What the first source has taken is missing, and half a second has given half of a share.
        assert_eq!(all, 500 - 25);
    }

    #[test]
    fn nothing_is_nothing() {
        let now = Instant::now();
        for (per_second, per_source) in [(0, 100), (100, 0)] {
            let mut budget = Budget::new(ResetRate { per_second, per_source }, 4, now);
            assert!(!budget.take(source(1), now + Duration::from_secs(10)));
        }
    }
}
