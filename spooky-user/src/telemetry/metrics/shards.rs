//! One cell-block a worker, at least one, so that a worker always has one to write to. Imports only `id`.

use crate::id::WorkerId;

/// What each worker counts of one thing. Never empty.
#[derive(Debug)]
pub(super) struct Shards<T> {
    first: T,
    rest: Box<[T]>,
}

impl<T> Shards<T> {
    /// For workers `0..workers`, and for worker 0 in any case.
    pub(super) fn new(workers: usize, mut make: impl FnMut() -> T) -> Self {
        Self { first: make(), rest: (1..workers).map(|_| make()).collect() }
    }

    /// The shard of this worker. One that was not foreseen shares the first: counts may be lost there (two writers), nothing
    /// else is.
    pub(super) fn of(&self, worker: WorkerId) -> &T {
        let place = worker.index().checked_sub(1).and_then(|index| self.rest.get(index));
        place.unwrap_or(&self.first)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_has_its_own_and_a_stranger_the_first() {
        let mut made = 0..;
        let shards = Shards::new(3, || made.next());
        let of = |worker| *shards.of(WorkerId(worker));
        assert_eq!([of(0), of(1), of(2), of(3)], [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(shards.iter().count(), 3);
        assert_eq!(Shards::new(0, || ()).iter().count(), 1);
    }
}
