//! Stateless resets (RFC 9000 §10.3): how a client learns that its connection is gone, from a worker that never had it.

use std::time::Instant;

use super::cid::Issuer;

/// A reset must look like a short-header packet: 5 octets before the token at least (RFC 9000 §10.3).
const SIZE_MIN: usize = 21;
/// Long enough that it cannot be told from a small packet, short enough to be cheap.
const SIZE_MAX: usize = 42;

/// A token bucket: bounds what junk can make a worker send.
#[derive(Debug)]
pub(super) struct Limiter {
    per_second: u32,
    tokens: f64,
    refilled: Instant,
}

// === impl Limiter ===

impl Limiter {
    /// At most `per_second` on average and at once.
    #[must_use]
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, tokens: f64::from(per_second), refilled: now }
    }

    /// Takes one if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let rate = f64::from(self.per_second);
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * rate).min(rate);
        self.refilled = now;
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
        }
        granted
    }
}

/// Writes a reset for the connection ID that `trigger` carried into `out`; the number of octets, or `None` when the
/// trigger is too small to be answered.
//= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.3
//# An endpoint MUST ensure that every Stateless Reset that it sends is
//# smaller than the packet that triggered it, unless it maintains state
//# sufficient to prevent looping.
pub(super) fn write(
    issuer: &Issuer,
    cid: &[u8],
    trigger_size: usize,
    out: &mut [u8],
) -> Option<usize> {
    let size = SIZE_MAX.min(trigger_size.checked_sub(1)?);
    if size < SIZE_MIN {
        return None;
    }
    let out = out.get_mut(..size)?;
    issuer.fill_random(out);
    let (head, tail) = out.split_at_mut(size - 16);
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

    #[test]
    fn a_burst_is_bounded_and_refills() {
        let start = Instant::now();
        let mut limiter = Limiter::new(10, start);
        assert_eq!((0..100).filter(|_| limiter.take(start)).count(), 10);
        let later = start + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| limiter.take(later)).count(), 5);
    }
}
