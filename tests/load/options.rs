//! What `spooky-load` was asked to do. Imports nothing of this program.

use std::net::SocketAddr;
use std::str::FromStr;

pub(crate) const USAGE: &str = "\
usage: spooky-load [options] ADDRESS:PORT
  -c N            connections, or with --fresh connections at a time (default 10)
  -m N            requests at a time on each connection (default 10)
  -n N            requests that are measured (default 10000)
  --warm N        requests before them, on the same connections (default: a tenth of -n)
  --path PATH     (default /)
  --body N        POST with a generated body of N octets instead of GET
  --expect N      octets every answer's body must have
  --fresh         a new connection for every request
  --host NAME     SNI and :authority (default localhost)
  --pid A,B,...   processes whose CPU time and memory are read before and after
  --name TEXT     goes into the output as it is
Certificates are not verified. One JSON line on stdout; exit code 1 when a request failed, 2 when there is no result.";

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    /// Requests in flight on each connection.
    pub(crate) streams: usize,
    pub(crate) requests: u64,
    pub(crate) warm: u64,
    pub(crate) path: String,
    /// Octets to upload with each request; `None` is a GET.
    pub(crate) body: Option<u64>,
    pub(crate) expect: Option<u64>,
    pub(crate) fresh: bool,
    pub(crate) host: String,
    pub(crate) pids: Vec<u32>,
    pub(crate) name: String,
}

impl Options {
    /// # Errors
    /// What is wrong with the arguments, or the usage text when it is asked for.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::of(SocketAddr::from(([127, 0, 0, 1], 0)));
        let (mut target, mut warm) = (None, None);
        while let Some(flag) = arguments.next() {
            if !flag.starts_with('-') {
                target = Some(parsed("ADDRESS:PORT", &flag)?);
                continue;
            }
            if flag == "--fresh" {
                options.fresh = true;
                continue;
            }
            let value = match flag.as_str() {
                "-h" | "--help" => return Err(USAGE.into()),
                _ => {
                    arguments.next().ok_or_else(|| format!("{flag} wants a value or is unknown"))?
                }
            };
            match flag.as_str() {
                "-c" => options.connections = parsed(&flag, &value)?,
                "-m" => options.streams = parsed(&flag, &value)?,
                "-n" => options.requests = parsed(&flag, &value)?,
                "--warm" => warm = Some(parsed(&flag, &value)?),
                "--path" => options.path = value,
                "--body" => options.body = Some(parsed(&flag, &value)?),
                "--expect" => options.expect = Some(parsed(&flag, &value)?),
                "--host" => options.host = value,
                "--pid" => {
                    options.pids =
                        value.split(',').map(|pid| parsed(&flag, pid)).collect::<Result<_, _>>()?;
                }
                "--name" => options.name = value,
                _ => return Err(format!("{flag} is unknown\n{USAGE}")),
            }
        }
        options.target = target.ok_or_else(|| format!("ADDRESS:PORT is missing\n{USAGE}"))?;
        options.warm = warm.unwrap_or(options.requests / 10);
        if options.connections == 0 || options.streams == 0 || options.requests == 0 {
            return Err("-c, -m and -n must be at least 1".into());
        }
        Ok(options)
    }

    /// The defaults, towards `target`.
    pub(crate) fn of(target: SocketAddr) -> Self {
        Self {
            target,
            connections: 10,
            streams: 10,
            requests: 10_000,
            warm: 1_000,
            path: "/".into(),
            body: None,
            expect: None,
            fresh: false,
            host: "localhost".into(),
            pids: Vec::new(),
            name: String::new(),
        }
    }
}

fn parsed<T: FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_cause| format!("{flag}: {value:?} does not fit\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn everything_has_its_place() {
        let options =
            parse("-c 3 -m 1 -n 50 --path /x --body 7 --expect 9 --pid 1,2 --fresh [::1]:443");
        let mut wanted = Options::of("[::1]:443".parse().expect("an address"));
        wanted = Options { connections: 3, streams: 1, requests: 50, warm: 5, ..wanted };
        wanted = Options { path: "/x".into(), body: Some(7), expect: Some(9), ..wanted };
        assert_eq!(options, Ok(Options { pids: vec![1, 2], fresh: true, ..wanted }));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for line in ["", "-c", "-c x 1.1.1.1:1", "-c 0 1.1.1.1:1", "--nothing 1 1.1.1.1:1", "here"]
        {
            assert!(parse(line).is_err(), "{line:?} was taken");
        }
    }
}
