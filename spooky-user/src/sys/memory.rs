//! How much memory this process has and may have: <https://man7.org/linux/man-pages/man5/proc.5.html> (status) and
//! <https://docs.kernel.org/admin-guide/cgroup-v2.html> (memory.max). Imports nothing of the crate.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Where cgroups of version 2 are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes in RAM.
///
/// # Errors
/// When `/proc` is not mounted or not readable.
pub fn resident() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = field.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    let absent = || io::Error::new(io::ErrorKind::InvalidData, "/proc/self/status has no VmRSS");
    Ok(kib.ok_or_else(absent)? << 10)
}

/// The least `memory.max` of this process's cgroup and those above it; `None` when there is none.
#[must_use]
pub fn cgroup_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    least_limit(Path::new(CGROUPS), &Path::new(CGROUPS).join(path))
}

fn least_limit(root: &Path, own: &Path) -> Option<u64> {
    let mut least = None;
    let mut at: PathBuf = own.to_owned();
    loop {
        // "max" is no number, and the root has no such file: no limit.
        let text = fs::read_to_string(at.join("memory.max")).unwrap_or_default();
        if let Ok(limit) = text.trim().parse::<u64>() {
            least = Some(least.map_or(limit, |before: u64| before.min(limit)));
        }
        if at == root || !at.pop() {
            return least;
        }
    }
}

/// Gives pages that this thread has freed back to the system. mimalloc does so by itself only for as much as later
/// allocations come along, which after a burst may be never. Takes microseconds with nothing to give, and some tens for
/// each MiB that there is.
#[expect(unsafe_code, reason = "no safe wrapper has this call")]
pub fn give_back() {
    // SAFETY: no arguments, no result, nothing borrowed; it works on the heap of the calling thread, and on one that was
    // never used where mimalloc is not the allocator.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory() {
        let resident = resident().unwrap();
        assert!((1 << 20..1 << 40).contains(&resident), "{resident}");
    }

    #[test]
    fn the_least_limit_on_the_way_up_counts() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("a/b/c");
        fs::create_dir_all(&own).unwrap();
        assert_eq!(least_limit(folder.path(), &own), None);
        fs::write(folder.path().join("a/memory.max"), "4096000\n").unwrap();
        fs::write(folder.path().join("a/b/memory.max"), "8192000\n").unwrap();
        fs::write(own.join("memory.max"), "max\n").unwrap();
        assert_eq!(least_limit(folder.path(), &own), Some(4_096_000));
    }
}
