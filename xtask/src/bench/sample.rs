//! One run of a generator, as figures. Reads text, runs nothing, imports nothing of xtask.

use serde_json::{Map, Value, json};
use std::time::Duration;

/// A figure that is compared between subjects, rounds and results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Figure {
    /// CPU time of the proxy, all threads, µs a request.
    Cost,
    /// As [`Self::Cost`], of the kernel threads that receive for it.
    Receive,
    /// Both.
    Together,
    /// CPU time of all cores for whatever: generator and backend, too.
    Machine,
    /// Requests a second.
    Rate,
    /// Latency, µs.
    P50,
    P99,
    P999,
    /// Most memory the proxy ever had, KiB.
    Peak,
    /// KiB a connection, over those of the run.
    Connection,
    /// CPU time of the generator over wall time.
    Saturation,
    /// UDP datagrams a request, at the client.
    DatagramsIn,
    DatagramsOut,
    /// Requests that failed.
    Failures,
}

/// The JSON line of a run, flat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    fields: Map<String, Value>,
}

impl Figure {
    pub(crate) const ALL: [Self; 14] = [
        Self::Cost,
        Self::Receive,
        Self::Together,
        Self::Machine,
        Self::Rate,
        Self::P50,
        Self::P99,
        Self::P999,
        Self::Peak,
        Self::Connection,
        Self::Saturation,
        Self::DatagramsIn,
        Self::DatagramsOut,
        Self::Failures,
    ];

    /// As it is called in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cost => "cpu_us",
            Self::Receive => "receive_us",
            Self::Together => "together_us",
            Self::Machine => "machine_us",
            Self::Rate => "requests_per_second",
            Self::P50 => "p50_us",
            Self::P99 => "p99_us",
            Self::P999 => "p999_us",
            Self::Peak => "peak_kib",
            Self::Connection => "kib_per_connection",
            Self::Saturation => "generator_utilisation",
            Self::DatagramsIn => "datagrams_in",
            Self::DatagramsOut => "datagrams_out",
            Self::Failures => "failures",
        }
    }
}

impl Sample {
    /// # Errors
    /// The line is no JSON object.
    pub(crate) fn of_generator(line: &str) -> Result<Self, String> {
        match serde_json::from_str(line) {
            Ok(Value::Object(fields)) => Ok(Self { fields }),
            Ok(_) => Err("no JSON object".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// From the text of `h2load`, and the CPU time that the server spent meanwhile.
    ///
    /// # Errors
    /// The text has no result.
    pub(crate) fn of_h2load(text: &str, requests: u64, spent: Duration) -> Result<Self, String> {
        let line = |name: &str| text.lines().find_map(|line| line.trim().strip_prefix(name));
        let finished = line("finished in ").ok_or("no result")?;
        let rate = finished.split(", ").find_map(|part| part.strip_suffix(" req/s"));
        let rate: f64 = rate.and_then(|rate| rate.parse().ok()).ok_or("no rate")?;
        let good = line("status codes:").and_then(|codes| codes.split_whitespace().next());
        let good: u64 = good.and_then(|good| good.parse().ok()).ok_or("no status codes")?;
        let cost = spent.as_secs_f64() * 1e6 / requests.max(1) as f64;
        let fields = json!({
            "requests": requests,
            "failures": requests.saturating_sub(good),
            "requests_per_second": rate,
            "proxy_cpu_us": cost,
        });
        match fields {
            Value::Object(fields) => Ok(Self { fields }),
            _ => Err("no object".to_owned()),
        }
    }

    pub(crate) fn figure(&self, figure: Figure) -> Option<f64> {
        let per_request = |name| {
            let requests = self.number("requests").filter(|requests| *requests > 0.0)?;
            Some(self.number(name)? / requests)
        };
        match figure {
            Figure::Cost => self.number("proxy_cpu_us"),
            Figure::Receive => self.number("beside_cpu_us"),
            Figure::Together => Some(self.number("proxy_cpu_us")? + self.number("beside_cpu_us")?),
            Figure::Machine => self.number("machine_cpu_us"),
            Figure::Rate => self.number("requests_per_second"),
            Figure::P50 => self.latency("p50", 0),
            Figure::P99 => self.latency("p99", 1),
            Figure::P999 => self.latency("p999", usize::MAX),
            Figure::Peak => self.number("peak_resident_kib"),
            Figure::Connection => self.number("kib_per_connection"),
            Figure::Saturation => self.number("own_utilisation"),
            Figure::DatagramsIn => per_request("datagrams_in"),
            Figure::DatagramsOut => per_request("datagrams_out"),
            Figure::Failures => self.number("failures"),
        }
    }

    /// 1 when the line does not say: no result is no success.
    pub(crate) fn failures(&self) -> u64 {
        self.fields.get("failures").and_then(Value::as_u64).unwrap_or(1)
    }

    /// What failed, as the generator names it.
    pub(crate) fn kinds(&self) -> String {
        self.fields.get("failure_kinds").map_or_else(String::new, Value::to_string)
    }

    pub(crate) fn number(&self, name: &str) -> Option<f64> {
        self.fields.get(name).and_then(Value::as_f64)
    }

    /// The opening and holding of connections, out of a run that went on with some of them.
    pub(crate) fn of_the_idle(&self) -> Self {
        let mut fields = self.fields.clone();
        for (to, from) in [("proxy_cpu_us", "handshake_cpu_us"), ("requests", "connections")] {
            if let Some(value) = self.fields.get(from) {
                fields.insert(to.to_owned(), value.clone());
            }
        }
        for of_requests in ["datagrams_in", "datagrams_out", "own_utilisation", "latency_us"] {
            fields.remove(of_requests);
        }
        Self { fields }
    }

    pub(crate) fn json(&self) -> Value {
        Value::Object(self.fields.clone())
    }

    /// An object by names, or a list of p50, p99 and the most.
    fn latency(&self, name: &str, place: usize) -> Option<f64> {
        let latency = self.fields.get("latency_us")?;
        latency.get(name).or_else(|| latency.get(place)).and_then(Value::as_f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_generator_is_read() {
        let line = r#"{"requests": 100, "failures": 0, "proxy_cpu_us": 12.5, "datagrams_in": 50,
                       "latency_us": {"p50": 3, "p99": 9, "p999": 20}}"#;
        let sample = Sample::of_generator(line).expect("an object");
        assert_eq!(sample.figure(Figure::Cost), Some(12.5));
        assert_eq!(sample.figure(Figure::DatagramsIn), Some(0.5));
        assert_eq!(sample.figure(Figure::P999), Some(20.0));
        assert_eq!(sample.figure(Figure::Connection), None);
        assert_eq!(sample.failures(), 0);
        assert_eq!(Sample::of_generator("{}").map(|sample| sample.failures()), Ok(1));
        assert!(Sample::of_generator("[]").is_err());
    }

    #[test]
    fn the_idle_part_of_a_run_is_its_handshakes() {
        let line = r#"{"requests": 900, "failures": 0, "proxy_cpu_us": 30, "handshake_cpu_us": 300,
                       "connections": 100, "datagrams_in": 5, "kib_per_connection": 40}"#;
        let idle = Sample::of_generator(line).expect("an object").of_the_idle();
        assert_eq!(idle.figure(Figure::Cost), Some(300.0));
        assert_eq!(idle.figure(Figure::Connection), Some(40.0));
        assert_eq!(idle.figure(Figure::DatagramsIn), None);
    }

    #[test]
    fn the_text_of_h2load_is_read() {
        let text = "finished in 512.35ms, 19518.15 req/s, 19.86MB/s\n\
                    requests: 10000 total, 10000 started, 10000 done, 9999 succeeded\n\
                    status codes: 9999 2xx, 0 3xx, 1 4xx, 0 5xx\n";
        let sample = Sample::of_h2load(text, 10_000, Duration::from_millis(30)).expect("a result");
        assert_eq!(sample.figure(Figure::Cost), Some(3.0));
        assert_eq!(sample.figure(Figure::Rate), Some(19_518.15));
        assert_eq!(sample.failures(), 1);
        assert!(Sample::of_h2load("", 1, Duration::ZERO).is_err());
    }
}
