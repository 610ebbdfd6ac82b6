//! Which CPU a thread runs on: <https://man7.org/linux/man-pages/man2/sched_setaffinity.2.html>.
//! Imports nothing of the crate.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs this thread may run on, ascending: the mask of its cgroup's cpuset, `taskset` or container. Never empty.
///
/// # Errors
/// The kernel's, when it has more CPUs than the 1,024 of a static mask.
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    let mask = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|cpu| mask.is_set(*cpu)).collect())
}

/// Binds the calling thread, and threads it starts later, to one CPU.
///
/// # Errors
/// `InvalidInput` when the CPU does not exist or is not allowed; the kernel's otherwise. The thread runs on as before.
pub fn pin_current_thread(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no CPU {cpu}")));
    }
    let mut mask = CpuSet::new();
    mask.set(cpu);
    Ok(sched_setaffinity(None, &mask)?)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_pinned_thread_has_one_cpu_and_others_keep_theirs() {
        let before = allowed_cpus().unwrap();
        assert!(!before.is_empty());
        for cpu in &before {
            let cpu = *cpu;
            let after = thread::spawn(move || {
                pin_current_thread(cpu).unwrap();
                assert_eq!(rustix::thread::sched_getcpu(), cpu);
                allowed_cpus().unwrap()
            });
            assert_eq!(after.join().unwrap(), [cpu]);
        }
        assert_eq!(allowed_cpus().unwrap(), before);
    }

    #[test]
    fn a_cpu_that_is_not_there_is_refused() {
        for cpu in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU, usize::MAX] {
            let error = pin_current_thread(cpu).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{cpu}");
        }
    }
}
