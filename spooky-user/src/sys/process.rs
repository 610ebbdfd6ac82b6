//! What this process uses: <https://man7.org/linux/man-pages/man5/proc.5.html>. Imports nothing of the crate.

use std::time::Duration;
use std::{fs, io};

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// A reading of what the process uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory in RAM (`VmRSS`).
    pub resident_bytes: u64,
    /// The most it ever was (`VmHWM`).
    pub resident_bytes_max: u64,
    /// Bytes of address space (`VmSize`).
    pub virtual_bytes: u64,
    /// CPU time of all threads, user and system.
    pub cpu: Duration,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// `RLIMIT_NOFILE`, soft; `None` is unlimited.
    pub fds_max: Option<u64>,
}

/// Reads it. Costs some system calls: for scrapes, not for requests.
///
/// # Errors
/// When `/proc` is not mounted or not readable.
pub fn usage() -> io::Result<Usage> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name| status_field(&status, name).ok_or_else(|| absent(name));
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    Ok(Usage {
        resident_bytes: field("VmRSS:")? << 10,
        resident_bytes_max: field("VmHWM:")? << 10,
        virtual_bytes: field("VmSize:")? << 10,
        cpu: Duration::try_from(cpu).unwrap_or_default(),
        threads: field("Threads:")?,
        // The directory being read is open too, for as long as it is read.
        fds: (fs::read_dir("/proc/self/fd")?.count() as u64).saturating_sub(1),
        fds_max: getrlimit(Resource::Nofile).current,
    })
}

/// How many threads there are; `None` when `/proc` does not say.
#[must_use]
pub fn threads() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    usize::try_from(status_field(&status, "Threads:")?).ok()
}

/// The number behind `name`; memory is given in KiB.
fn status_field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn absent(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc/self/status has no {name}"))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_reading_is_plausible_and_follows_what_is_used() {
        let before = usage().unwrap();
        assert!(before.resident_bytes > 1 << 20 && before.virtual_bytes >= before.resident_bytes);
        assert!(before.resident_bytes_max >= before.resident_bytes / 2);
        assert!(threads().is_some_and(|count| count >= 1));
        assert!(before.threads >= 1 && before.fds >= 1);
        // Other tests run beside this one, so only what is added here for sure is compared.
        let end = Instant::now() + Duration::from_secs(20);
        while usage().unwrap().cpu <= before.cpu + Duration::from_millis(5) {
            assert!(Instant::now() < end, "no CPU time was counted");
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "Name:\tx\nVmRSSx:\t1 kB\nVmRSS:\t   42 kB\nThreads:\t7\nBad:\n";
        assert_eq!(status_field(status, "VmRSS:"), Some(42));
        assert_eq!(status_field(status, "Threads:"), Some(7));
        assert_eq!(status_field(status, "Bad:"), None);
        assert_eq!(status_field(status, "Gone:"), None);
    }
}
