//! A daemon's own counts, by its control socket: what its metrics page says. Imports nothing of xtask.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);
/// No page of metrics is near this size; more is cut off.
const OCTETS_MAX: u64 = 4 << 20;

/// One look at the page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    text: String,
}

impl Metrics {
    /// Nothing when nobody answers: every sum is 0 then.
    pub(crate) fn read(socket: &Path) -> Self {
        Self { text: page(socket).unwrap_or_default() }
    }

    /// All series of this name whose labels contain `label`, added up.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let series = self.text.lines().filter_map(|line| line.strip_prefix(name));
        let values = series.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
        values.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// How much that sum has grown since `before`.
    pub(crate) fn growth(&self, before: &Self, name: &str, label: &str) -> f64 {
        self.sum(name, label) - before.sum(name, label)
    }
}

fn page(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    stream.set_write_timeout(Some(PATIENCE)).ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut answer = Vec::new();
    stream.take(OCTETS_MAX).read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.starts_with("HTTP/1.1 200").then_some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_added_up_by_name_and_label() {
        let text =
            "# TYPE a counter\na{x=\"1\",y=\"2\"} 3\na{x=\"2\",y=\"2\"} 4\na_b{x=\"1\"} 9\na 1\n";
        let metrics = Metrics { text: text.to_owned() };
        assert_eq!(metrics.sum("a", ""), 8.0);
        assert_eq!(metrics.sum("a", "x=\"1\""), 3.0);
        assert_eq!(metrics.growth(&Metrics::default(), "a", "y=\"2\""), 7.0);
    }
}
