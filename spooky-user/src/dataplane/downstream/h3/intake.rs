//! What a connection sent that cannot be read: octets of streams behind a gap. Pure; imports nothing of the crate.
//!
//! quiche keeps each piece behind a gap by itself, some 160 octets of memory for one of data (CVE-2026-25800 is the same in
//! another library), and does not say how much there is. So it is reckoned: octets that came, less what packets cost, less
//! what was read or could be.

use std::time::{Duration, Instant};

/// A gap is filled within a few round trips; who leaves it open for so long does not mean to.
const PATIENCE: Duration = Duration::from_secs(5);
/// A client that has always something in flight behind some loss reads on all the same: who sends so many times what is missing
/// within [`PATIENCE`] is not holding it back.
const TURNOVER: u64 = 4;
/// What part of the usual may be missing when all connections together have too much.
const SCARCE: u64 = 8;
/// Octets of a received packet that are no stream's: headers, tag, acknowledgements.
const PACKET_COST: u64 = 96;
/// Further octets of acknowledgements, for each packet sent.
const ACK_COST: u64 = 64;
/// One octet in so many read may have come twice.
const DUPLICATES: u64 = 8;
/// What a client may have sent on a stream before it learns that nobody reads it any more.
const UNDER_WAY: u64 = 1 << 20;

/// Figures of the connection so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Received {
    pub octets: u64,
    pub packets: u64,
    pub packets_sent: u64,
}

/// The reckoning.
#[derive(Debug)]
pub(super) struct Intake {
    most: u64,
    seen: Received,
    /// What could be read at the end of the last turn.
    held: u64,
    /// What could be read when this turn began.
    readable: u64,
    /// What came and is neither read nor readable.
    missing: u64,
    over_since: Option<Instant>,
    /// What has become readable since then.
    since: u64,
}

impl Intake {
    pub(super) fn new(most: u64, so_far: Received) -> Self {
        Self { most, seen: so_far, held: 0, readable: 0, missing: 0, over_since: None, since: 0 }
    }

    /// A turn begins: `readable` octets can be read.
    pub(super) fn begin(&mut self, received: Received, readable: u64) {
        let came = received.octets.saturating_sub(self.seen.octets);
        let packets = received.packets.saturating_sub(self.seen.packets);
        let sent = received.packets_sent.saturating_sub(self.seen.packets_sent);
        let arrived = readable.saturating_sub(self.held);
        // What could be read and is gone was dropped with its stream.
        let cost = packets * PACKET_COST + sent * ACK_COST + arrived + arrived / DUPLICATES;
        self.missing = (self.missing + came).saturating_sub(cost);
        self.since = self.since.saturating_add(arrived);
        self.seen = received;
        self.readable = readable;
        self.held = readable;
    }

    /// A turn ends: `held` octets could be read and nobody wanted them yet.
    pub(super) fn end(&mut self, held: u64) {
        self.held = held;
    }

    /// A stream is not read any more although its client may be sending.
    pub(super) fn stopped(&mut self) {
        self.missing = self.missing.saturating_sub(UNDER_WAY);
    }

    /// Something is missing.
    pub(super) fn is_short(&self) -> bool {
        self.missing > self.most / SCARCE
    }

    /// More is missing than may be for long.
    pub(super) fn is_much(&self) -> bool {
        self.missing > self.most
    }

    /// What is missing, in octets.
    pub(super) fn missing(&self) -> u64 {
        self.missing
    }

    /// Whether there has been too much for too long; when all connections together have too much, less is too much.
    pub(super) fn is_over(&mut self, scarce: bool, now: Instant) -> bool {
        let most = if scarce { self.most / SCARCE } else { self.most };
        if self.missing <= most {
            self.over_since = None;
            return false;
        }
        let Some(since) = self.over_since else {
            self.over_since = Some(now);
            self.since = 0;
            return false;
        };
        if now.saturating_duration_since(since) < PATIENCE {
            return false;
        }
        let held_back = self.since < self.missing.saturating_mul(TURNOVER);
        if !held_back {
            self.over_since = Some(now);
            self.since = 0;
        }
        held_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1,200 octets, one sent for each two that came.
    fn after(packets: u64) -> Received {
        Received { octets: packets * 1200, packets, packets_sent: packets / 2 }
    }

    #[test]
    fn an_upload_leaves_nothing_over() {
        let now = Instant::now();
        let mut intake = Intake::new(64 << 10, Received::default());
        for turn in 1..1000 {
            // Ten packets a turn; half of what came is still unread at its end.
            intake.begin(after(turn * 10), if turn == 1 { 11_500 } else { 5_750 + 11_500 });
            intake.end(5_750);
            assert!(!intake.is_much() && !intake.is_over(false, now + PATIENCE * 2));
        }
    }

    #[test]
    fn a_gap_that_is_filled_in_time_is_none() {
        let now = Instant::now();
        let mut intake = Intake::new(64 << 10, Received::default());
        intake.begin(after(100), 0);
        assert!(intake.is_much() && !intake.is_over(false, now));
        assert!(!intake.is_over(false, now + PATIENCE / 2));
        intake.begin(after(101), 101 * 1150);
        intake.end(0);
        assert!(!intake.is_over(false, now + PATIENCE * 2));
    }

    #[test]
    fn an_upload_over_a_path_that_always_loses_something_goes_on() {
        let start = Instant::now();
        let mut intake = Intake::new(64 << 10, Received::default());
        // A mebibyte is always behind some gap, and as much becomes readable every quarter of a second.
        intake.begin(after(900), 0);
        for turn in 1..200 {
            intake.begin(after(900 + turn * 900), 900 * 1150);
            intake.end(0);
            assert!(
                !intake.is_over(false, start + Duration::from_millis(250) * turn as u32),
                "{turn}"
            );
        }
    }

    #[test]
    fn a_gap_that_stays_is_too_much() {
        let now = Instant::now();
        let mut intake = Intake::new(64 << 10, Received::default());
        for turn in 1..100 {
            // A little can be read all along.
            intake.begin(after(turn * 10), 500);
            intake.end(0);
        }
        assert!(!intake.is_over(false, now) && intake.is_over(false, now + PATIENCE));
    }

    #[test]
    fn less_is_too_much_when_all_have_too_much() {
        let now = Instant::now();
        let mut intake = Intake::new(64 << 10, Received::default());
        intake.begin(after(20), 0);
        assert!(intake.is_short() && !intake.is_much());
        assert!(!intake.is_over(false, now) && !intake.is_over(false, now + PATIENCE));
        assert!(!intake.is_over(true, now) && intake.is_over(true, now + PATIENCE));
    }

    #[test]
    fn what_was_under_way_to_a_stopped_stream_is_forgiven() {
        let now = Instant::now();
        let mut intake = Intake::new(64 << 10, Received::default());
        intake.begin(after(800), 0);
        assert!(intake.is_much() && !intake.is_over(false, now));
        intake.stopped();
        assert!(!intake.is_much() && !intake.is_over(false, now + PATIENCE));
    }
}
