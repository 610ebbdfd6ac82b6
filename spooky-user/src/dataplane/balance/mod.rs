//! Which endpoint, as pure algorithms. Built once per change of membership; a pick allocates nothing.
//!
//! May import: exchange, codec, id, telemetry. Health and load are told to it, never looked up by it.
//!
//! A [`Balancer`] is immutable and shared by all workers; what moves (a queue, due times, a generator) is a worker's own
//! [`Turn`]. A retry calls [`Balancer::pick`] again with an `eligible` that also refuses the endpoints already tried.

mod random;
mod ring_hash;
mod round_robin;
mod weighted_round_robin;

use self::random::AliasTable;
use self::ring_hash::Ring;

/// What the hash policies hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// The validated client address.
    SourceIp,
    /// The path, without the query.
    Path,
    /// The first value of this field; the source address when absent.
    Header(http::HeaderName),
    /// The value of this cookie; the source address when absent.
    Cookie(String),
}

/// The name of an algorithm, as the file gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Each in turn; weights are not looked at.
    RoundRobin,
    /// In turn, as often as the weight says, evenly interleaved.
    WeightedRoundRobin,
    /// Independent draws, as likely as the weight says.
    Random,
    /// The same key to the same endpoint, as far as it is eligible.
    RingHash,
}

/// A policy built for one list of endpoints; speaks of them by their index in it. Immutable, shared by all workers.
#[derive(Debug)]
pub enum Balancer {
    /// See [`Policy::RoundRobin`].
    RoundRobin(EndpointCount),
    /// See [`Policy::WeightedRoundRobin`]; the weights by index.
    WeightedRoundRobin(Weights),
    /// See [`Policy::Random`].
    Random(AliasTable),
    /// See [`Policy::RingHash`].
    RingHash(Ring),
}

/// How many endpoints a balancer was built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointCount(usize);

/// The weight of each endpoint by index, each at least 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights(Box<[u16]>);

/// One worker's moving state for one [`Balancer`]. Sized when made; a pick never grows it.
#[derive(Debug)]
pub struct Turn {
    rng: fastrand::Rng,
    state: State,
}

#[derive(Debug)]
enum State {
    RoundRobin(round_robin::Queue),
    WeightedRoundRobin(weighted_round_robin::Schedule),
    Random,
    RingHash(ring_hash::Seen),
}

// === impl Balancer ===

impl Balancer {
    /// Builds `policy` for the endpoints `(name, weight)`, in the order in which picks will count them.
    ///
    /// Weights are relative, 1..=65535; 0 is taken as 1. Only the ring looks at names: it hashes them, so an endpoint keeps
    /// its keys when others come, go or change places.
    pub fn build<'a>(
        policy: Policy,
        endpoints: impl IntoIterator<Item = (&'a str, u16)> + Clone,
    ) -> Self {
        let weights = || Weights(endpoints.clone().into_iter().map(|(_, w)| w.max(1)).collect());
        match policy {
            Policy::RoundRobin => {
                Self::RoundRobin(EndpointCount(endpoints.clone().into_iter().count()))
            }
            Policy::WeightedRoundRobin => Self::WeightedRoundRobin(weights()),
            Policy::Random => Self::Random(AliasTable::new(weights())),
            Policy::RingHash => {
                Self::RingHash(Ring::new(endpoints.into_iter().map(|(name, w)| (name, w.max(1)))))
            }
        }
    }

    /// How many endpoints it was built for.
    #[must_use]
    pub fn endpoint_count(&self) -> usize {
        match self {
            Self::RoundRobin(count) => count.0,
            Self::WeightedRoundRobin(weights) => weights.0.len(),
            Self::Random(table) => table.endpoint_count(),
            Self::RingHash(ring) => ring.endpoint_count(),
        }
    }

    /// Does [`Balancer::pick`] look at its key?
    #[must_use]
    pub fn wants_key(&self) -> bool {
        matches!(self, Self::RingHash(_))
    }

    /// A worker's state for this balancer. Workers must pass different seeds, or they would choose in lock step; the same
    /// seed gives the same picks.
    #[must_use]
    pub fn turn(&self, seed: u64) -> Turn {
        let mut rng = fastrand::Rng::with_seed(seed);
        let state = match self {
            Self::RoundRobin(count) => {
                State::RoundRobin(round_robin::Queue::new(count.0, &mut rng))
            }
            Self::WeightedRoundRobin(weights) => {
                State::WeightedRoundRobin(weighted_round_robin::Schedule::new(&weights.0, &mut rng))
            }
            Self::Random(_) => State::Random,
            Self::RingHash(ring) => State::RingHash(ring_hash::Seen::new(ring.endpoint_count())),
        };
        Turn { rng, state }
    }

    /// The index of the next endpoint for which `eligible` is true, or `None` when it is true for none.
    ///
    /// `key` is [`hash`] of what [`HashOn`] names; only the ring looks at it. `turn` must be of this balancer
    /// ([`Balancer::turn`]): with another one the first eligible endpoint is taken.
    #[inline]
    pub fn pick(
        &self,
        turn: &mut Turn,
        key: u64,
        mut eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        match (self, &mut turn.state) {
            (Self::RoundRobin(_), State::RoundRobin(queue)) => queue.pick(eligible),
            (Self::WeightedRoundRobin(weights), State::WeightedRoundRobin(schedule)) => {
                schedule.pick(&weights.0, eligible)
            }
            (Self::Random(table), State::Random) => table.pick(&mut turn.rng, eligible),
            (Self::RingHash(ring), State::RingHash(seen)) => ring.pick(seen, key, eligible),
            _ => (0..self.endpoint_count()).find(|&index| eligible(index)),
        }
    }
}

/// The key of the hash policies: FNV-1a over the bytes, then the 64-bit finaliser of MurmurHash3, so that keys that differ in
/// one bit land far apart. The same in every process, release and machine, so that all proxies of a fleet agree.
///
/// Not keyed: a client that chooses its own key chooses its endpoint; that is what a consistent hash is for.
#[inline]
#[must_use]
pub fn hash(bytes: &[u8]) -> u64 {
    finish(bytes.iter().fold(FNV_OFFSET, |state, byte| fnv1a(state, *byte)))
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

#[inline]
fn fnv1a(state: u64, byte: u8) -> u64 {
    (state ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
}

#[inline]
fn finish(mut state: u64) -> u64 {
    state ^= state >> 33;
    state = state.wrapping_mul(0xff51_afd7_ed55_8ccd);
    state ^= state >> 33;
    state = state.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

#[cfg(test)]
mod tests;
