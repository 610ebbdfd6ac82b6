//! What `spooky-load` was asked to do. Imports nothing of this program.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
usage: spooky-load [options] ADDRESS:PORT
  -c N            connections; with --fresh or --idle, connections that are opened at a time (default 10)
  -m N            requests at a time on each connection (default 10)
  -n N            requests that are measured (default 10000)
  --warm N        requests before them, on the same connections (default: a tenth of -n)
  --rate N        begin N requests a second whatever becomes of them; latencies count from the time they were to begin.
                  Without it a request begins when another has ended
  --path PATH     (default /)
  --body N        POST with a generated body of N octets instead of GET
  --expect N      octets every answer's body must have
  --sha256 HEX    SHA-256 every answer's body must have
  --status N      status every answer must have (default 200)
  --fresh         a new connection for every request
  --resume        with --fresh: the first connection gets a session ticket, all later ones must resume
  --early         with --resume: requests go as 0-RTT data
  --groups LIST   key exchanges to offer, such as X25519 (default X25519MLKEM768 first)
  --idle N        open N connections and hold them, before anything else
  --touch         with --idle: one request on each of them
  --hold S        with --idle: seconds to hold them before memory is read (default 1)
  --active N      with --idle: so many of them then run -n requests; without it none does
  --host NAME     SNI and :authority (default localhost)
  --source IP     local address to send from
  --pid A,B,...   processes whose CPU time and memory are read before and after
  --beside A,B,...  others, such as kernel threads, whose CPU time is told apart
  --name TEXT     goes into the output as it is
Certificates are not verified. One JSON line on stdout; exit code 1 when a request failed, 2 when there is no result.";

/// One run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Options {
    pub(crate) target: SocketAddr,
    pub(crate) connections: usize,
    /// Requests in flight on each connection.
    pub(crate) streams: usize,
    pub(crate) requests: u64,
    pub(crate) warm: u64,
    /// Requests a second; `None` is the closed loop.
    pub(crate) rate: Option<u64>,
    pub(crate) path: String,
    /// Octets to upload with each request; `None` is a GET.
    pub(crate) body: Option<u64>,
    pub(crate) expect: Option<u64>,
    pub(crate) sha256: Option<[u8; 32]>,
    pub(crate) status: u16,
    pub(crate) fresh: bool,
    pub(crate) resume: bool,
    pub(crate) early: bool,
    /// Key exchanges that are offered, as BoringSSL lists them; its own list when `None`.
    pub(crate) groups: Option<String>,
    pub(crate) idle: Option<Idle>,
    pub(crate) host: String,
    pub(crate) source: Option<IpAddr>,
    pub(crate) pids: Vec<u32>,
    /// Processes whose CPU time is told apart.
    pub(crate) beside: Vec<u32>,
    pub(crate) name: String,
}

/// Connections that are held.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    /// Each gets one request.
    pub(crate) touch: bool,
    pub(crate) hold: Duration,
    /// So many of them run the requests afterwards; 0 when there are none.
    pub(crate) active: usize,
}

// === impl Options ===

impl Options {
    /// # Errors
    /// What is wrong with the arguments, or the usage text when it is asked for.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::of(SocketAddr::from(([127, 0, 0, 1], 0)));
        let mut idle = Idle::default();
        let (mut target, mut warm) = (None, None);
        while let Some(flag) = arguments.next() {
            if !flag.starts_with('-') {
                target = Some(parsed("ADDRESS:PORT", &flag)?);
            } else if !options.switch(&flag, &mut idle)? {
                let value = arguments.next();
                let value = value.ok_or_else(|| format!("{flag} wants a value or is unknown"))?;
                match flag.as_str() {
                    "--warm" => warm = Some(parsed(&flag, &value)?),
                    "--idle" => idle.connections = parsed(&flag, &value)?,
                    "--active" => idle.active = parsed(&flag, &value)?,
                    "--hold" => {
                        let seconds = parsed::<f64>(&flag, &value)?;
                        let hold = Duration::try_from_secs_f64(seconds);
                        idle.hold = hold.map_err(|error| format!("--hold: {error}"))?;
                    }
                    _ => options.set(&flag, value)?,
                }
            }
        }
        options.target = target.ok_or_else(|| format!("ADDRESS:PORT is missing\n{USAGE}"))?;
        options.warm = warm.unwrap_or(options.requests / 10);
        options.checked(idle)
    }

    /// Takes a flag that has no value; `false` when it is none.
    fn switch(&mut self, flag: &str, idle: &mut Idle) -> Result<bool, String> {
        match flag {
            "-h" | "--help" => return Err(USAGE.into()),
            "--fresh" => self.fresh = true,
            "--resume" => self.resume = true,
            "--early" => self.early = true,
            "--touch" => idle.touch = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn set(&mut self, flag: &str, value: String) -> Result<(), String> {
        match flag {
            "-c" => self.connections = parsed(flag, &value)?,
            "-m" => self.streams = parsed(flag, &value)?,
            "-n" => self.requests = parsed(flag, &value)?,
            "--rate" => self.rate = Some(parsed(flag, &value)?),
            "--path" => self.path = value,
            "--body" => self.body = Some(parsed(flag, &value)?),
            "--expect" => self.expect = Some(parsed(flag, &value)?),
            "--sha256" => self.sha256 = Some(hash(&value)?),
            "--status" => self.status = parsed(flag, &value)?,
            "--host" => self.host = value,
            "--groups" => self.groups = Some(value),
            "--source" => self.source = Some(parsed(flag, &value)?),
            "--pid" => self.pids = numbers(flag, &value)?,
            "--beside" => self.beside = numbers(flag, &value)?,
            "--name" => self.name = value,
            _ => return Err(format!("{flag} is unknown\n{USAGE}")),
        }
        Ok(())
    }

    fn checked(mut self, idle: Idle) -> Result<Self, String> {
        if self.connections == 0 || self.streams == 0 || self.requests == 0 || self.rate == Some(0)
        {
            return Err("-c, -m, -n and --rate must be at least 1".into());
        }
        if (self.resume && !self.fresh) || (self.early && !self.resume) {
            return Err("--resume goes with --fresh, and --early with --resume".into());
        }
        if idle.connections == 0 && idle != Idle::default() {
            return Err("--touch, --hold and --active go with --idle".into());
        }
        if idle.connections > 0 && self.fresh {
            return Err("--idle does not go with --fresh".into());
        }
        if idle.active > idle.connections {
            return Err("--active is one part of --idle, so it cannot be more".into());
        }
        if self.source.is_some_and(|source| source.is_ipv4() != self.target.is_ipv4()) {
            return Err("--source and ADDRESS are of different families".into());
        }
        self.idle = (idle.connections > 0).then_some(idle);
        Ok(self)
    }

    /// The defaults, towards `target`.
    pub(crate) fn of(target: SocketAddr) -> Self {
        Self {
            target,
            connections: 10,
            streams: 10,
            requests: 10_000,
            warm: 1_000,
            rate: None,
            path: "/".into(),
            body: None,
            expect: None,
            sha256: None,
            status: 200,
            fresh: false,
            resume: false,
            early: false,
            groups: None,
            idle: None,
            host: "localhost".into(),
            source: None,
            pids: Vec::new(),
            beside: Vec::new(),
            name: String::new(),
        }
    }
}

impl Default for Idle {
    fn default() -> Self {
        Self { connections: 0, touch: false, hold: Duration::from_secs(1), active: 0 }
    }
}

fn parsed<T: FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_cause| format!("{flag}: {value:?} does not fit\n{USAGE}"))
}

fn numbers(flag: &str, value: &str) -> Result<Vec<u32>, String> {
    value.split(',').map(|pid| parsed(flag, pid)).collect()
}

fn hash(value: &str) -> Result<[u8; 32], String> {
    let digit = |octet: u8| char::from(octet).to_digit(16);
    let octet = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => None,
    };
    let octets: Option<Vec<u8>> = value.as_bytes().chunks(2).map(octet).collect();
    octets
        .and_then(|octets| octets.try_into().ok())
        .ok_or_else(|| format!("--sha256: {value:?} is not 64 hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn everything_has_its_place() {
        let options = parse(
            "-c 3 -m 1 -n 50 --path /x --body 7 --expect 9 --pid 1,2 --fresh --resume --early --rate 5 --status 404 \
             --source ::1 --host h --name n [::1]:443",
        );
        let mut wanted = Options::of("[::1]:443".parse().expect("an address"));
        wanted = Options { connections: 3, streams: 1, requests: 50, warm: 5, ..wanted };
        wanted = Options { path: "/x".into(), body: Some(7), expect: Some(9), ..wanted };
        wanted = Options { fresh: true, resume: true, early: true, rate: Some(5), ..wanted };
        wanted = Options { status: 404, host: "h".into(), name: "n".into(), ..wanted };
        wanted.source = Some("::1".parse().expect("an address"));
        assert_eq!(options, Ok(Options { pids: vec![1, 2], ..wanted }));
    }

    #[test]
    fn idle_connections_and_a_hash() {
        let digits = "00ff".repeat(16);
        let line = format!("--idle 9 --hold 0.5 --active 2 --touch --sha256 {digits} 1.1.1.1:1");
        let options = parse(&line).expect("it fits");
        let hold = Duration::from_millis(500);
        assert_eq!(options.idle, Some(Idle { connections: 9, touch: true, hold, active: 2 }));
        assert_eq!(options.sha256, Some(std::array::from_fn(|place| [0, 255][place % 2])));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for line in [
            "",
            "-c",
            "-c x 1.1.1.1:1",
            "-c 0 1.1.1.1:1",
            "--nothing 1 1.1.1.1:1",
            "here",
            "--rate 0 1.1.1.1:1",
            "--resume 1.1.1.1:1",
            "--fresh --early 1.1.1.1:1",
            "--touch 1.1.1.1:1",
            "--hold 2 1.1.1.1:1",
            "--idle 1 --hold -1 1.1.1.1:1",
            "--idle 1 --active 2 1.1.1.1:1",
            "--idle 1 --fresh 1.1.1.1:1",
            "--sha256 00 1.1.1.1:1",
            "--source ::1 1.1.1.1:1",
        ] {
            assert!(parse(line).is_err(), "{line:?} was taken");
        }
    }
}
