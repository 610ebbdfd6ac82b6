//! What is asked of every subject: the scenarios and what the generators are told for them. Numbers and words only;
//! imports `instance` for what a generator takes, `lab` for sizes.

use super::instance::Load;
use super::lab::{Backend, LARGE, SMALL};
use super::options::Extent;

/// One column of the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    /// As `--only` and results name it.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) drive: Drive,
    pub(crate) cast: Cast,
    /// Also on the veth pair.
    pub(crate) on_veth: bool,
    /// Also with `--quick`.
    pub(crate) quick: bool,
}

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drive {
    /// 10 connections, 10 requests at a time on each, as fast as it goes.
    Get,
    /// So many a second on 10 connections, whatever the answers do.
    Rate(u64),
    /// As [`Self::Rate`], at half of what the subject can do.
    Half,
    Download,
    Upload,
    /// A connection for each request, 8 at a time; resumed or not.
    Fresh {
        resumed: bool,
        /// Only X25519 is offered, which every subject speaks: the same work for all. Else X25519MLKEM768 comes first, and
        /// who does not know it does less.
        classical: bool,
    },
    /// So many connections that do nothing; then `active` of them make requests.
    Idle {
        connections: u64,
        active: u64,
    },
}

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cast {
    /// Floors, spooky in its modes, peers; running all the time.
    Everybody,
    /// The same, each on a fresh process, one after the other.
    Fresh,
    /// spooky in many shapes, and everybody with two workers.
    Shapes,
}

const fn scenario(id: &'static str, title: &'static str, drive: Drive, cast: Cast) -> Scenario {
    Scenario { id, title, drive, cast, on_veth: false, quick: false }
}

const fn everywhere(scenario: Scenario) -> Scenario {
    Scenario { on_veth: true, ..scenario }
}

const fn quick(scenario: Scenario) -> Scenario {
    Scenario { quick: true, ..scenario }
}

pub(crate) const GET: &str = "get";

pub(crate) const SCENARIOS: [Scenario; 13] = [
    quick(everywhere(scenario(GET, "GET 1 KiB, 10x10, saturated", Drive::Get, Cast::Everybody))),
    quick(everywhere(scenario(
        "rate",
        "GET 1 KiB at 2,000 requests/s",
        Drive::Rate(2000),
        Cast::Everybody,
    ))),
    quick(everywhere(scenario("down", "download 1 MiB, 10x1", Drive::Download, Cast::Everybody))),
    quick(everywhere(scenario("up", "upload 1 MiB, 10x1", Drive::Upload, Cast::Everybody))),
    quick(everywhere(scenario(
        "fresh",
        "new connection + GET 1 KiB, full handshake",
        Drive::Fresh { resumed: false, classical: false },
        Cast::Everybody,
    ))),
    quick(everywhere(scenario(
        "resumed",
        "new connection + GET 1 KiB, resumed",
        Drive::Fresh { resumed: true, classical: false },
        Cast::Everybody,
    ))),
    quick(scenario(
        "fresh-x25519",
        "new connection + GET 1 KiB, full handshake, X25519",
        Drive::Fresh { resumed: false, classical: true },
        Cast::Everybody,
    )),
    scenario(
        "resumed-x25519",
        "new connection + GET 1 KiB, resumed, X25519",
        Drive::Fresh { resumed: true, classical: true },
        Cast::Everybody,
    ),
    scenario("half", "GET 1 KiB at half of its own capacity", Drive::Half, Cast::Everybody),
    scenario("shapes", "GET 1 KiB, 10x10: routes, endpoints, workers", Drive::Get, Cast::Shapes),
    quick(scenario(
        "idle-1000",
        "1,000 idle connections",
        Drive::Idle { connections: 1000, active: 0 },
        Cast::Fresh,
    )),
    scenario(
        "idle-10000",
        "10,000 idle connections",
        Drive::Idle { connections: 10_000, active: 0 },
        Cast::Fresh,
    ),
    scenario(
        "active",
        "10,000 connections, 100 of them active",
        Drive::Idle { connections: 10_000, active: 100 },
        Cast::Fresh,
    ),
];

impl Scenario {
    pub(crate) fn is_in(&self, extent: Extent) -> bool {
        match extent {
            Extent::Full => true,
            Extent::Quick => self.quick,
            Extent::Shape => self.quick || self.cast == Cast::Fresh,
        }
    }
}

pub(crate) fn by_id(id: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.id == id)
}

/// How long, and with how many requests, a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Size {
    /// A saturated run, in seconds.
    pub(crate) saturated: f64,
    /// A run at a fixed rate.
    pub(crate) paced: f64,
}

impl Size {
    pub(crate) const fn of(extent: Extent) -> Self {
        match extent {
            Extent::Full => Self { saturated: 0.9, paced: 2.0 },
            Extent::Quick => Self { saturated: 0.5, paced: 1.0 },
            Extent::Shape => Self { saturated: 0.0, paced: 0.0 },
        }
    }
}

impl Drive {
    /// Whether a run of this is a run of `other` as well, before it goes on.
    pub(crate) const fn begins_as(self, other: Self) -> bool {
        match (self, other) {
            (
                Self::Idle { connections: a, active: 1.. },
                Self::Idle { connections: b, active: 0 },
            ) => a == b,
            _ => false,
        }
    }

    /// The same in small where only the shape is looked at.
    pub(crate) const fn sized(self, extent: Extent) -> Self {
        match (self, extent) {
            (Self::Idle { active: 0, .. }, Extent::Shape) => {
                Self::Idle { connections: 20, active: 0 }
            }
            (Self::Idle { .. }, Extent::Shape) => Self::Idle { connections: 20, active: 5 },
            (drive, _) => drive,
        }
    }

    /// Requests of the run that finds out how fast the subject is.
    pub(crate) const fn pilot(self) -> u64 {
        match self {
            Self::Download | Self::Upload => 20,
            Self::Fresh { .. } => 100,
            Self::Get | Self::Rate(_) | Self::Half => 2000,
            Self::Idle { .. } => 0,
        }
    }

    /// Requests of a run that is to take `size`, for a subject that does `rate` a second.
    pub(crate) fn requests(self, rate: f64, size: Size) -> u64 {
        let whole = |value: f64| value.clamp(0.0, 1e7).round() as u64;
        match self {
            Self::Download | Self::Upload => whole(rate * size.saturated).max(10),
            Self::Fresh { .. } => whole(rate * size.saturated).max(16),
            Self::Get => whole(rate * size.saturated).max(200),
            Self::Rate(of_us) => whole(of_us as f64 * size.paced).max(100),
            Self::Half => whole(rate / 2.0 * size.paced).max(100),
            Self::Idle { active: 0, .. } => 1,
            // 10 for each: enough to see what the many idle ones cost the few.
            Self::Idle { active, .. } => active * 100,
        }
    }

    /// What `spooky-load` is told besides the number of requests. `rate`: what the subject can do.
    pub(crate) fn words(self, rate: f64, backend: Backend) -> String {
        let get = format!("--path /bytes/{SMALL} --expect {SMALL}");
        match self {
            Self::Get => format!("-c 10 -m 10 {get}"),
            Self::Rate(of_us) => format!("-c 10 -m 10 --rate {of_us} {get}"),
            Self::Half => format!("-c 10 -m 10 --rate {} {get}", (rate / 2.0).max(1.0).round()),
            Self::Download => {
                format!("-c 10 -m 1 --warm 10 --path /bytes/{LARGE} --expect {LARGE}")
            }
            Self::Upload => match backend {
                // nghttpd drops the body and answers with the file.
                Backend::Nghttpd => format!("-c 10 -m 1 --warm 10 --body {LARGE} {get}"),
                Backend::Origin => format!("-c 10 -m 1 --warm 10 --body {LARGE} --path /hash"),
            },
            Self::Fresh { resumed, classical } => {
                let resume = if resumed { " --resume" } else { "" };
                let groups = if classical { " --groups X25519" } else { "" };
                format!("-c 8 --fresh{resume}{groups} --warm 8 {get}")
            }
            Self::Idle { connections, active: 0 } => format!("--idle {connections} --hold 1 {get}"),
            Self::Idle { connections, active } => {
                format!("--idle {connections} --hold 1 --active {active} -m 1 {get}")
            }
        }
    }

    /// What `h2load` is told for the same at the backend itself: its arguments, the path last. `None`: there is nothing
    /// that the backend does.
    pub(crate) fn backend(self, requests: u64, post: &std::path::Path) -> Option<Load> {
        let small = format!("/bytes/{SMALL}");
        let words = match self {
            Self::Get => format!("-c 10 -m 10 {small}"),
            Self::Rate(of_us) => format!("-c 10 -m 10 --rps {} {small}", of_us / 10),
            Self::Download => format!("-c 10 -m 1 -w 24 -W 26 /bytes/{LARGE}"),
            Self::Upload => format!("-c 10 -m 1 -d {} {small}", post.display()),
            Self::Fresh { .. } => format!("-c 8 -m 1 {small}"),
            Self::Half | Self::Idle { .. } => return None,
        };
        Some(Load::new(requests, &words))
    }

    /// Costs are told in ms, not in µs.
    pub(crate) const fn is_large(self) -> bool {
        matches!(self, Self::Download | Self::Upload)
    }

    /// Requests come at a rate, whatever the answers do.
    pub(crate) const fn is_paced(self) -> bool {
        matches!(self, Self::Rate(_) | Self::Half)
    }

    /// Requests a second that the generator has to keep.
    pub(crate) const fn fixed_rate(self) -> Option<f64> {
        match self {
            Self::Rate(rate) => Some(rate as f64),
            _ => None,
        }
    }

    /// Nothing but handshakes and waiting.
    pub(crate) const fn is_idle(self) -> bool {
        matches!(self, Self::Idle { active: 0, .. })
    }

    /// Whether the cost of the run can be compared with another subject's: not at different rates.
    pub(crate) const fn compares_cost(self) -> bool {
        !matches!(self, Self::Half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_are_told_apart() {
        let mut ids: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), SCENARIOS.len());
        assert!(by_id(GET).is_some_and(|scenario| scenario.quick && scenario.on_veth));
        assert_eq!(by_id("nothing"), None);
    }

    #[test]
    fn a_run_is_as_long_as_the_subject_is_fast() {
        let size = Size { saturated: 0.5, paced: 2.0 };
        assert_eq!(Drive::Get.requests(10_000.0, size), 5000);
        assert_eq!(Drive::Rate(2000).requests(10_000.0, size), 4000);
        assert_eq!(Drive::Half.requests(10_000.0, size), 10_000);
        assert_eq!(Drive::Download.requests(1.0, size), 10);
    }

    #[test]
    fn the_active_ones_begin_as_idle_ones() {
        let drive = |id| by_id(id).expect("a scenario").drive;
        assert!(drive("active").begins_as(drive("idle-10000")));
        assert!(!drive("active").begins_as(drive("idle-1000")));
        assert!(!drive("idle-10000").begins_as(drive("idle-10000")));
    }

    #[test]
    fn half_is_half_of_its_own() {
        assert!(Drive::Half.words(9000.0, Backend::Nghttpd).contains("--rate 4500 "));
        assert_eq!(Drive::Half.backend(1, std::path::Path::new("x")), None);
    }
}
