//! Which share of the new connections each worker gets: the configured weights, less for who is late, and less for who has more
//! connections than its share. Pure: looks and a time go in, slots of the placement table come out. Imports nothing of the crate.
//!
//! ```text
//!  configured weight ─┬─ x punctuality: 1 up to 40 ms behind the most punctual worker, then (40 ms / behind)⁴
//!                     ├─ x balance:     among the punctual, 1 at a fair number of connections, less above, more below
//!                     └─> largest remainder over 256 slots ─> a few slots a beat ─> the table
//! ```
//!
//! A slot that moves takes no connection with it: those carry an ID of ours from their second flight on. What it can cost is one
//! first flight that is under way in that moment: the client's next Initial with its own ID reaches the new worker, which
//! answers as well, and the client goes on with whichever answer came first (RFC 9000 §7.2); the other handshake runs into its
//! time-out. A ClientHello of two datagrams that is cut in two waits for a retransmission. So slots move `STEP` at a time,
//! except those of a worker that is late or gone: there the first flight waits anyway, and its repetition had better go elsewhere.

use std::time::{Duration, Instant};

/// Slots of the table.
const SLOTS: u16 = 256;
/// Slots that may leave workers that are neither late nor gone, in one beat: one in 16.
const STEP: u16 = 16;
/// Being later than the most punctual worker by this much is nothing: a debug build's handshakes, a neighbour on the same core.
const BEHIND: f64 = 0.040;
/// Slots of a worker whose punctuality is less than this leave at once.
const LATE: f64 = 0.5;
/// Lag is remembered, halving in this time: who stands still every second is not trusted in between.
const HALF_LIFE: Duration = Duration::from_millis(500);
/// No lag counts for more, so that everybody is forgiven in about two seconds.
const LAG_MAX: f64 = 0.5;
/// How much of a worker's fair number of connections it may be off before its share changes,
const TOLERATED: f64 = 0.02;
/// and how many connections at least.
const TOLERATED_MIN: f64 = 1.5;
/// By how much the share changes, for each part of the fair number that is too many or too few.
const PULL: f64 = 8.0;
/// Added to the fair number there, so that a few connections are no imbalance.
const DAMPING: f64 = 8.0;
/// The least and the most that the number of connections may make of a share.
const BALANCE: (f64, f64) = (0.25, 1.75);

/// One worker as it is seen at a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Configured; 0 also for a worker that takes no connection now.
    pub weight: u16,
    /// The longest that anything has waited for its turn since the last beat, or waits now.
    pub lag: Duration,
    /// Those that it has, handshakes included.
    pub connections: u64,
}

/// The shares, and what they follow from.
#[derive(Debug)]
pub struct Placement {
    follows_load: bool,
    beat: Option<Instant>,
    /// Lag as it is remembered, seconds, by worker.
    lags: Vec<f64>,
    /// Slots, by worker; 256 in all, or none when nobody takes connections.
    shares: Vec<u16>,
    moves: u64,
    /// The next beat goes all the way.
    at_once: bool,
}

impl Placement {
    /// No worker has a share before the first [`Self::beat`].
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            follows_load: true,
            beat: None,
            lags: vec![0.0; workers],
            shares: vec![0; workers],
            moves: 0,
            at_once: true,
        }
    }

    /// Whether shares follow load, or are the weights alone. What the operator changes is in force at the next beat, whole.
    pub fn configure(&mut self, follows_load: bool) {
        self.follows_load = follows_load;
        self.at_once = true;
    }

    /// Slots by worker from now on. `looks` has one for each worker, in their order.
    pub fn beat(&mut self, looks: &[Look], now: Instant) -> &[u16] {
        self.remember(looks, now);
        let effective: Vec<f64> = if self.follows_load {
            self.effective(looks)
        } else {
            looks.iter().map(|look| f64::from(look.weight)).collect()
        };
        let wanted = apportion(&effective);
        let before = self.shares.clone();
        let nobody = |shares: &[u16]| shares.iter().all(|share| *share == 0);
        if self.at_once || !self.follows_load || nobody(&self.shares) || nobody(&wanted) {
            self.at_once = false;
            self.shares = wanted;
        } else {
            self.approach(&wanted, looks);
        }
        let gained = |(before, after): (&u16, &u16)| u64::from(after.saturating_sub(*before));
        self.moves += before.iter().zip(&self.shares).map(gained).sum::<u64>();
        &self.shares
    }

    /// Slots that have gone from one worker to another so far, the first table included.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Lag as it is remembered.
    #[must_use]
    pub fn lag(&self, worker: usize) -> Duration {
        Duration::from_secs_f64(self.lags.get(worker).copied().unwrap_or(0.0))
    }

    fn remember(&mut self, looks: &[Look], now: Instant) {
        let passed = self.beat.map_or(Duration::ZERO, |beat| now.saturating_duration_since(beat));
        let kept = 0.5_f64.powf(passed.as_secs_f64() / HALF_LIFE.as_secs_f64());
        self.beat = Some(now);
        for (lag, look) in self.lags.iter_mut().zip(looks) {
            *lag = (*lag * kept).max(look.lag.as_secs_f64()).min(LAG_MAX);
        }
    }

    /// Shares that need not add up to 1. A late worker is no part of the balance: it would be owed what it does not get.
    fn effective(&self, looks: &[Look]) -> Vec<f64> {
        let punctual: Vec<f64> =
            (0..looks.len()).map(|worker| self.punctuality(worker, looks)).collect();
        let total: f64 = looks.iter().map(|look| f64::from(look.weight)).sum::<f64>().max(1.0);
        let timely = |(look, punctual): (&Look, &f64)| Look {
            weight: if *punctual < LATE { 0 } else { look.weight },
            ..*look
        };
        let pool: Vec<Look> = looks.iter().zip(&punctual).map(timely).collect();
        let pooled: f64 = pool.iter().map(|look| f64::from(look.weight)).sum();
        let shares = balance(&pool).into_iter().zip(looks.iter().zip(punctual));
        shares
            .map(|(balanced, (look, punctual))| match punctual < LATE {
                true => f64::from(look.weight) / total * punctual,
                false => balanced * pooled / total * punctual,
            })
            .collect()
    }

    /// What is left of a worker's share for its being late: lateness that all have in common is the machine's.
    fn punctuality(&self, worker: usize, looks: &[Look]) -> f64 {
        let serving = self.lags.iter().zip(looks).filter(|(_, look)| look.weight > 0);
        let least = serving.map(|(lag, _)| *lag).fold(LAG_MAX, f64::min);
        let behind = self.lags.get(worker).map_or(0.0, |lag| lag - least);
        if behind <= BEHIND { 1.0 } else { (BEHIND / behind).powi(4) }
    }

    /// A part of the way to `wanted`, see the head of this file. Being off by one slot is nothing.
    fn approach(&mut self, wanted: &[u16], looks: &[Look]) {
        let off = |(has, wants): (&u16, &u16)| has.abs_diff(*wants);
        let urgent: Vec<bool> = looks
            .iter()
            .enumerate()
            .map(|(worker, look)| look.weight == 0 || self.punctuality(worker, looks) < LATE)
            .collect();
        let leaves = |((has, wants), urgent): ((&u16, &u16), &bool)| *urgent && has > wants;
        let anybody_leaves = self.shares.iter().zip(wanted).zip(&urgent).any(leaves);
        let most_off = self.shares.iter().zip(wanted).map(off).max().unwrap_or(0);
        if most_off <= 1 && !anybody_leaves {
            return;
        }
        let mut moving = 0;
        let mut calm = STEP;
        for ((share, wants), urgent) in self.shares.iter_mut().zip(wanted).zip(urgent) {
            let surplus = share.saturating_sub(*wants);
            let leaving = if urgent { surplus } else { surplus.min(calm) };
            if !urgent {
                calm -= leaving;
            }
            *share -= leaving;
            moving += leaving;
        }
        // One by one to whoever lacks most: at most 256 slots, at most once a beat.
        for _ in 0..moving {
            let lacks = |(share, wants): (&u16, &u16)| wants.saturating_sub(*share);
            let neediest = self
                .shares
                .iter()
                .zip(wanted)
                .enumerate()
                .max_by_key(|(worker, pair)| (lacks(*pair), std::cmp::Reverse(*worker)));
            if let Some((worker, _)) = neediest
                && let Some(share) = self.shares.get_mut(worker)
            {
                *share += 1;
            }
        }
    }
}

/// Parts of 1 by weight and number of connections.
fn balance(looks: &[Look]) -> Vec<f64> {
    let serving = |look: &&Look| look.weight > 0;
    let weights: f64 = looks.iter().map(|look| f64::from(look.weight)).sum();
    let connections: u64 = looks.iter().filter(serving).map(|look| look.connections).sum();
    let parts: Vec<f64> =
        looks.iter().map(|look| f64::from(look.weight) / weights.max(1.0)).collect();
    let pulled: Vec<f64> = parts
        .iter()
        .zip(looks)
        .map(|(part, look)| part * pull(look.connections as f64, connections as f64 * part))
        .collect();
    // Nobody gets more than BALANCE allows because others get less: what is over goes to those others, by weight.
    let total: f64 = pulled.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    let (_, most) = BALANCE;
    let is_over = |pulled: f64, part: f64| pulled / total > most * part;
    let pairs = || pulled.iter().copied().zip(parts.iter().copied());
    let over = pairs().map(|(pulled, part)| (pulled / total - most * part).max(0.0)).sum::<f64>();
    let others: f64 = pairs().filter(|(a, b)| !is_over(*a, *b)).map(|(_, part)| part).sum();
    pairs()
        .map(|(pulled, part)| match is_over(pulled, part) {
            true => most * part,
            false => pulled / total + over * part / others.max(f64::MIN_POSITIVE),
        })
        .collect()
}

/// By how much a worker's share changes for the number of its connections.
fn pull(connections: f64, fair: f64) -> f64 {
    let tolerated = (fair * TOLERATED).max(TOLERATED_MIN);
    let lacking = fair - connections;
    let counts = lacking.signum() * (lacking.abs() - tolerated).max(0.0);
    let (least, most) = BALANCE;
    (1.0 + PULL * counts / (fair + DAMPING)).clamp(least, most)
}

/// Slots by largest remainder (Hamilton), ties to the lower number; none when all weights are 0.
fn apportion(weights: &[f64]) -> Vec<u16> {
    let total: f64 = weights.iter().sum();
    if total <= 0.0 {
        return vec![0; weights.len()];
    }
    let exact: Vec<f64> = weights.iter().map(|weight| weight * f64::from(SLOTS) / total).collect();
    // Never more than 256, for a weight is at most the total.
    let mut slots: Vec<u16> = exact.iter().map(|exact| exact.floor() as u16).collect();
    let mut by_remainder: Vec<usize> = (0..weights.len()).collect();
    let remainder = |worker: &usize| exact.get(*worker).map_or(0.0, |exact| exact.fract());
    by_remainder.sort_by(|a, b| remainder(b).total_cmp(&remainder(a)));
    let left = usize::from(SLOTS.saturating_sub(slots.iter().sum()));
    for worker in by_remainder.into_iter().take(left) {
        if let Some(slots) = slots.get_mut(worker) {
            *slots += 1;
        }
    }
    slots
}

#[cfg(test)]
mod tests;
