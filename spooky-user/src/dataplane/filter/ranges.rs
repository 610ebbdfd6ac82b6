//! Sorted ranges of addresses that neither touch nor overlap, in chunks that versions of the same set share: a look-up is two
//! binary searches, and a changed copy costs a chunk and a list of chunks, however many ranges there are. Imports nothing of the
//! crate.

use std::sync::Arc;

/// Ranges of a chunk when a set is made; a chunk that changes may have twice as many.
const CHUNK: usize = 256;

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range<A> {
    pub(super) first: A,
    pub(super) last: A,
}

/// A set of addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ranges<A> {
    /// With the first address of each. None is empty.
    chunks: Vec<(A, Arc<[Range<A>]>)>,
}

// === impl Ranges ===

impl<A> Default for Ranges<A> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

impl<A: Copy + Ord> Ranges<A> {
    /// Sorts, and joins ranges that overlap or touch. `next` is `None` after the last address there is.
    pub(super) fn new(mut ranges: Vec<Range<A>>, next: fn(A) -> Option<A>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<Range<A>> = Vec::new();
        for range in ranges {
            match merged.last_mut() {
                Some(open) if next(open.last).is_none_or(|after| range.first <= after) => {
                    open.last = open.last.max(range.last);
                }
                _ => merged.push(range),
            }
        }
        Self { chunks: chunks(&merged).collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn contains(&self, address: A) -> bool {
        let after = self.chunks.partition_point(|(first, _)| *first <= address);
        let chunk = after.checked_sub(1).and_then(|at| self.chunks.get(at));
        chunk.is_some_and(|(_, ranges)| holds(ranges, address))
    }

    /// Takes out what is inside `place` and puts `with` there, which is sorted, disjoint and inside as well. No range may reach
    /// over an end of `place`.
    pub(super) fn replace(&mut self, place: Range<A>, with: impl Iterator<Item = Range<A>>) {
        let count = self.chunks.len();
        let begin = self.chunks.partition_point(|(first, _)| *first <= place.first);
        let begin = begin.saturating_sub(1);
        let end = self.chunks.partition_point(|(first, _)| *first <= place.last);
        // One at least, so that what is new joins a chunk; and the next one, so that small chunks do not pile up.
        let end = (end.max(begin) + 1).min(count);
        let old = self.chunks.get(begin..end).unwrap_or_default();
        let old = || old.iter().flat_map(|(_, ranges)| ranges.iter().copied());
        let mut changed: Vec<Range<A>> = old().filter(|range| range.last < place.first).collect();
        changed.extend(with);
        changed.extend(old().filter(|range| range.first > place.last));
        self.chunks.splice(begin..end, chunks(&changed));
    }
}

fn chunks<A: Copy>(ranges: &[Range<A>]) -> impl Iterator<Item = (A, Arc<[Range<A>]>)> {
    let size = if ranges.len() <= 2 * CHUNK { 2 * CHUNK } else { CHUNK };
    ranges.chunks(size).filter_map(|chunk| Some((chunk.first()?.first, chunk.into())))
}

fn holds<A: Copy + Ord>(ranges: &[Range<A>], address: A) -> bool {
    let after = ranges.partition_point(|range| range.first <= address);
    after.checked_sub(1).and_then(|at| ranges.get(at)).is_some_and(|range| address <= range.last)
}
