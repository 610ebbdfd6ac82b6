//! Consistent hash: endpoints own arcs of a ring, in as many pieces as their weight says; a key belongs to the next piece.
//! May import: its parent's hash.
//!
//! When an endpoint leaves, only its own keys move. When one is not eligible, its keys go on to the next endpoints of the
//! ring, spread over many of them, and come back with it.

use super::{FNV_OFFSET, finish, fnv1a};

/// Pieces an endpoint of mean weight gets: at least this many, less than twice as many. At 1024 the shares of equal endpoints
/// differ by about 1 / sqrt(1024) = 3 %; a thousand endpoints take 8 to 16 MB.
const PIECES_MEAN_MIN: f64 = 1024.0;

/// How far a pick walks along the ring before it asks the remaining endpoints one by one, in endpoints.
const WALK_FACTOR: usize = 4;

/// The ring, built once per change of membership or weights.
#[derive(Debug)]
pub struct Ring {
    endpoint_count: usize,
    /// Sorted by position.
    pieces: Box<[Piece]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    /// The upper half of the hash. Where two meet, the lower index wins: a share of 2^-32.
    position: u32,
    endpoint: u32,
}

/// Which endpoints a pick has already asked; a bit each, cleared by every pick.
#[derive(Debug)]
pub(super) struct Seen(Box<[u64]>);

// === impl Ring ===

impl Ring {
    pub(super) fn new<'a>(endpoints: impl Iterator<Item = (&'a str, u16)>) -> Self {
        let endpoints: Vec<(&str, u16)> = endpoints.collect();
        let scale = pieces_per_weight(&endpoints);
        let mut pieces = Vec::new();
        for (index, &(name, weight)) in (0..).zip(&endpoints) {
            let count = ((f64::from(weight) * scale).round() as u64).max(1);
            let seed = name.bytes().fold(FNV_OFFSET, fnv1a);
            // A separator, so that the pieces of "b1" and "b" + "1..." cannot meet.
            let seed = fnv1a(seed, 0);
            pieces.extend((0..count).map(|replica: u64| {
                let position = finish(replica.to_le_bytes().into_iter().fold(seed, fnv1a));
                Piece { position: upper_half(position), endpoint: index }
            }));
        }
        pieces.sort_unstable();
        Self { endpoint_count: endpoints.len(), pieces: pieces.into_boxed_slice() }
    }

    pub(super) fn endpoint_count(&self) -> usize {
        self.endpoint_count
    }

    pub(super) fn pick(
        &self,
        seen: &mut Seen,
        key: u64,
        mut eligible: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let start = self.pieces.partition_point(|piece| piece.position < upper_half(key));
        let (before, after) = self.pieces.split_at_checked(start)?;
        seen.clear();
        let walk = after.iter().chain(before).take(self.endpoint_count * WALK_FACTOR);
        for piece in walk {
            let index = piece.endpoint as usize;
            if seen.insert(index) && eligible(index) {
                return Some(index);
            }
        }
        // Most are ineligible, or weights differ so much that light ones are far away.
        let first = (key % (self.endpoint_count.max(1) as u64)) as usize;
        let mut rest = (first..self.endpoint_count).chain(0..first);
        rest.find(|&index| !seen.contains(index) && eligible(index))
    }
}

/// A power of two, so that it stays the same (and with it every key) unless the mean weight passes a power of two.
fn pieces_per_weight(endpoints: &[(&str, u16)]) -> f64 {
    let sum: f64 = endpoints.iter().map(|&(_, weight)| f64::from(weight)).sum();
    let mean = sum / endpoints.len().max(1) as f64;
    (PIECES_MEAN_MIN / mean.max(1.0)).log2().ceil().exp2()
}

fn upper_half(hash: u64) -> u32 {
    (hash >> 32) as u32
}

// === impl Seen ===

impl Seen {
    pub(super) fn new(endpoint_count: usize) -> Self {
        Self(vec![0; endpoint_count.div_ceil(64)].into_boxed_slice())
    }

    fn clear(&mut self) {
        self.0.fill(0);
    }

    /// `false` when it was already there.
    fn insert(&mut self, index: usize) -> bool {
        let Some(word) = self.0.get_mut(index / 64) else { return false };
        let bit = 1 << (index % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }
}
