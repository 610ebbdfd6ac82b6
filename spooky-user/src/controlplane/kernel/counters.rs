//! The kernel's counters, summed over its CPUs.

use spooky_common::{
    counter::{Counter, ROW, Row},
    map,
};

use super::{KernelError, object::Loaded};

/// What became of the frames of one receive queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueCounts {
    /// Its number; 64 stands for all from 64 on.
    pub queue: u32,
    row: Row,
}

pub(super) fn read(loaded: &Loaded) -> Result<Vec<(Counter, u64)>, KernelError> {
    let mut frames = QueueCounts { queue: 0, row: [0; ROW] };
    for queue in 0..map::STEERING_CAPACITY {
        frames.add(&row(loaded, queue)?);
    }
    let mut counters = Vec::with_capacity(Counter::ALL.len());
    for counter in Counter::ALL {
        let count = if counter.place_in_row().is_some() {
            frames.count(*counter)
        } else {
            let per_cpu = loaded
                .counters
                .get(&counter.index(), 0)
                .map_err(|error| KernelError::map(map::COUNTERS, error))?;
            per_cpu.iter().sum()
        };
        counters.push((*counter, count));
    }
    Ok(counters)
}

pub(super) fn by_queue(loaded: &Loaded) -> Result<Vec<QueueCounts>, KernelError> {
    let mut queues = Vec::new();
    for queue in 0..map::STEERING_CAPACITY {
        let row = row(loaded, queue)?;
        if row.iter().any(|count| *count != 0) {
            queues.push(QueueCounts { queue, row });
        }
    }
    Ok(queues)
}

/// One queue's row over all CPUs.
fn row(loaded: &Loaded, queue: u32) -> Result<Row, KernelError> {
    let per_cpu =
        loaded.steering.get(&queue, 0).map_err(|error| KernelError::map(map::STEERING, error))?;
    let mut sum = QueueCounts { queue, row: [0; ROW] };
    for row in per_cpu.iter() {
        sum.add(row);
    }
    Ok(sum.row)
}

// === impl QueueCounts ===

impl QueueCounts {
    /// How often `counter` was counted on this queue; 0 for one that does not count frames.
    #[must_use]
    pub fn count(&self, counter: Counter) -> u64 {
        counter.place_in_row().and_then(|place| self.row.get(place)).copied().unwrap_or(0)
    }

    fn add(&mut self, row: &Row) {
        for (sum, count) in self.row.iter_mut().zip(row) {
            *sum = sum.wrapping_add(*count);
        }
    }
}
