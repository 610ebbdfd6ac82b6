//! The kernel's counters, summed over its CPUs.

use spooky_common::{counter::Counter, map};

use super::{KernelError, object::Loaded};

pub(super) fn read(loaded: &Loaded) -> Result<Vec<(Counter, u64)>, KernelError> {
    let mut counters = Vec::with_capacity(Counter::ALL.len());
    for counter in Counter::ALL {
        let per_cpu = loaded
            .counters
            .get(&counter.index(), 0)
            .map_err(|error| KernelError::map(map::COUNTERS, error))?;
        counters.push((*counter, per_cpu.iter().sum()));
    }
    Ok(counters)
}
