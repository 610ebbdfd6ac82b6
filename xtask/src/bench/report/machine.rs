//! On what, when and how it was measured. Reads files of the system; imports `lab` and `options`.

use crate::bench::lab::{Lab, commit};
use crate::bench::options::Options;
use crate::command::{output, which};
use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lines of the table at the head of every report.
pub(crate) fn describe(lab: &Lab, options: &Options) -> Vec<(String, String)> {
    let cores = &lab.cores;
    let mut lines = vec![
        ("date", date()),
        ("commit", commit()),
        ("machine", hardware(cores.available)),
        ("system", system()),
        ("load average at the start", load()),
        ("placement", placement(lab)),
        (
            "spooky",
            "release profile, 1 worker, one route, no access log, [defaults otherwise](../tests/load/peers/spooky.yaml)".into(),
        ),
        ("generator", "`spooky-load` (quiche): one thread, GSO and GRO, warm connections".into()),
    ];
    let nghttpd = which("nghttpd").and_then(|it| output(Command::new(it).arg("--version")));
    let nghttpd = nghttpd.map_or_else(|| "nghttpd".to_owned(), |text| text.trim().to_owned());
    lines.push(("backend", format!("{nghttpd}, HTTP/2 with prior knowledge, one for each proxy")));
    let found = lab.peers.found.iter().map(|(name, version)| format!("{name} {version}"));
    let given = options.peers.iter().map(|(name, _)| name.clone());
    lines.push(("peers", found.chain(given).collect::<Vec<_>>().join(", ")));
    lines.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()
}

fn placement(lab: &Lab) -> String {
    let cores = &lab.cores;
    match cores.available {
        0 | 1 => {
            "one core for generator, proxy and backend: every time has the others in it".into()
        }
        _ => format!(
            "proxy and backend on core {}, generator on core {}; two workers on cores {}",
            cores.proxy, cores.client, cores.proxy_of_two
        ),
    }
}

fn hardware(cores: usize) -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "unknown processor".to_owned());
    let virtual_mark = match field("flags") {
        Some(flags) if flags.contains("hypervisor") => ", virtual",
        _ => "",
    };
    format!("{model}, {cores} cores{virtual_mark}, {} GiB", memory_gib())
}

fn memory_gib() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("MemTotal:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    // A little is the kernel's own, so the next whole number is what was bought.
    kib.unwrap_or(0).div_ceil(1 << 20)
}

fn system() -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    format!("Linux {}, {}", kernel.trim(), name.unwrap_or("unknown").trim_matches('"'))
}

fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// `2026-11-21 20:58 UTC`.
fn date() -> String {
    let (year, month, day, hour, minute, _) = now();
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// For names of files, in their order.
pub(crate) fn stamp() -> String {
    let (year, month, day, hour, minute, second) = now();
    format!("{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

fn now() -> (i64, i64, i64, i64, i64, i64) {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seconds = i64::try_from(seconds).unwrap_or(0);
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second = seconds.rem_euclid(86_400);
    (year, month, day, second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a number of days since 1970-01-01, for years that begin in March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
        assert_eq!(civil(20_779), (2026, 11, 22));
    }
}
