//! Floods of packets that nobody wants, at the most that one or two senders can send, and honest clients beside them. The
//! same flood against plain sockets, XDP and AF_XDP. Imports `instance`, `lab`, `place`, `process`, `sample`.
//!
//! What is measured is the server: the honest client runs at a real-time priority, so that it never waits for the sender it
//! shares a core with. The proxy has no such privilege.

use super::metrics::Metrics;
use crate::bench::instance::{Instance, Load};
use crate::bench::lab::{Lab, SMALL};
use crate::bench::options::Extent;
use crate::bench::place::Place;
use crate::bench::process::{Running, cpu};
use crate::bench::sample::{Figure, Sample};
use crate::bench::subject::{PORT, Shape, Subject};
use crate::command::{Failure, say};
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

/// Nobody may come from there.
const DENIED: &str = "198.51.100.0/24";
/// Anybody may.
const OPEN: &str = "203.0.113.0/24";
/// What is flooded. Attack mode comes and goes by itself, and goes before the next quiet time.
const FLOODED: [(&str, Shape); 3] = [
    ("sockets", Shape { mode: "reuseport", ebpf: ", attack_mode: {leave_after: 1s}", ..DEFENDED }),
    ("xdp", Shape { mode: "xdp", ebpf: ", attack_mode: {leave_after: 1s}", ..DEFENDED }),
    (
        "af_xdp-copy",
        Shape {
            mode: "xdp",
            ebpf: ", af_xdp: {mode: copy}, attack_mode: {leave_after: 1s}",
            ..DEFENDED
        },
    ),
];
const DEFENDED: Shape = Shape { denied: Some(DENIED), ..Shape::PLAIN };
/// The floods: what they are called, `spooky-flood --kind`, where they say they come from, and how many senders.
const FLOODS: [Flood; 6] = [
    Flood { name: BLOCKED, kind: "short", from: DENIED, senders: 1, place: Place::Veth },
    Flood { name: BLOCKED, kind: "short", from: DENIED, senders: 2, place: Place::Veth },
    Flood { name: NOBODY, kind: "short", from: OPEN, senders: 1, place: Place::Veth },
    Flood { name: NOBODY, kind: "short", from: OPEN, senders: 2, place: Place::Veth },
    Flood { name: BLOCKED, kind: "short", from: DENIED, senders: 1, place: Place::Card },
    Flood { name: NOBODY, kind: "short", from: OPEN, senders: 1, place: Place::Card },
];
const BLOCKED: &str = "blocked addresses";
const NOBODY: &str = "IDs of nobody";
/// The honest clients: requests a second on ten connections that are kept, and on new ones: fewer than the share that attack
/// mode leaves to one prefix without tokens.
const KEPT: u64 = 500;
const FRESH: u64 = 15;
/// How long they are looked at.
const SECONDS: u64 = 3;
/// The flood begins so much before them, and ends as much later. Attack mode is entered by then.
const LEAD: Duration = Duration::from_millis(1200);
/// Attack mode has left by then.
const CALM: Duration = Duration::from_secs(3);
/// Packets of one flood, at most.
const PACKETS: &str = "20000000";
/// More than this goes on when nobody answers any more.
const HONEST_MAX: Duration = Duration::from_secs(90);
const LOOK: Duration = Duration::from_millis(10);
/// Real-time priority of the client, below that of the threads that receive.
const CLIENT: &str = "10";

#[derive(Clone, Copy, Debug)]
struct Flood {
    name: &'static str,
    kind: &'static str,
    from: &'static str,
    senders: usize,
    /// Where the packets are received: on the sender's core, or on the proxy's.
    place: Place,
}

/// The honest clients of one time.
#[derive(Clone, Debug)]
pub(crate) struct Honest {
    pub(crate) kept: Client,
    pub(crate) fresh: Client,
    /// CPU time of the daemon and of the thread that receives for it, of one core.
    pub(crate) daemon: f64,
    pub(crate) receiver: f64,
    datagrams: f64,
}

/// One kind of honest client.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Client {
    pub(crate) requests: u64,
    /// Those that failed, and those that were answered after more than a second.
    pub(crate) lost: u64,
    /// In ms; `None` when nothing was answered.
    pub(crate) p99: Option<f64>,
}

/// One flood against one subject, and the quiet time before it.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) subject: &'static str,
    pub(crate) flood: &'static str,
    pub(crate) senders: usize,
    pub(crate) place: Place,
    pub(crate) round: usize,
    /// Frames a second that the interface took from the senders.
    pub(crate) rate: f64,
    /// Of those, dropped by XDP and seen by a worker.
    pub(crate) dropped: f64,
    pub(crate) reached: f64,
    pub(crate) quiet: Honest,
    pub(crate) during: Honest,
}

/// # Errors
/// spooky or a sender does not start, or a signal came. Honest clients that are not answered are a result.
pub(crate) fn run(lab: &Lab, rounds: usize, outcomes: &mut Vec<Outcome>) -> Result<(), Failure> {
    for place in [Place::Veth, Place::Card] {
        let mut stages = Vec::new();
        for (name, shape) in FLOODED {
            let instance = Instance::start(Subject::spooky(name, shape)?, place, lab)?;
            // An answer to the flood, if there is one, finds its way.
            for prefix in [DENIED, OPEN] {
                instance.net().route_to_clients(prefix)?;
            }
            stages.push((name, instance));
        }
        for round in 0..rounds {
            flood_round(lab, place, round, &mut stages, outcomes)?;
        }
    }
    Ok(())
}

/// Every flood of one place at everybody, after a quiet time.
fn flood_round(
    lab: &Lab,
    place: Place,
    round: usize,
    stages: &mut [(&'static str, Instance)],
    outcomes: &mut Vec<Outcome>,
) -> Result<(), Failure> {
    std::thread::park_timeout(CALM);
    let quiet = stages.iter().map(|(_, instance)| honest(lab, instance));
    let quiet = quiet.collect::<Result<Vec<Honest>, Failure>>()?;
    for flood in FLOODS.into_iter().filter(|flood| flood.place == place) {
        for ((name, instance), quiet) in stages.iter_mut().zip(&quiet) {
            lab.go_on()?;
            instance.check()?;
            let outcome = once(lab, instance, (name, round, quiet), flood)?;
            say(outcome.said());
            outcomes.push(outcome);
        }
    }
    Ok(())
}

fn once(
    lab: &Lab,
    instance: &Instance,
    (subject, round, quiet): (&'static str, usize, &Honest),
    flood: Flood,
) -> Result<Outcome, Failure> {
    let socket = instance.dir().join("spooky.sock");
    let before = Metrics::read(&socket);
    let log = instance.dir().join("flood.log");
    let mut sender = Running::start("spooky-flood", command(lab, instance, flood)?, &log)?;
    std::thread::park_timeout(LEAD);
    let during = honest(lab, instance)?;
    let sent = wait(lab, &mut sender)?;
    let after = Metrics::read(&socket);
    let number = |key: &str| sent[key].as_f64().unwrap_or_default();
    let frames = number("frames").max(1.0);
    let received = after.growth(&before, "spooky_datagrams_received_total", "");
    Ok(Outcome {
        subject,
        flood: flood.name,
        senders: flood.senders,
        place: flood.place,
        round,
        rate: number("frames_per_second"),
        dropped: after.growth(&before, "spooky_xdp_frames_total", "verdict=\"drop\"") / frames,
        reached: (received - during.datagrams).max(0.0) / frames,
        quiet: quiet.clone(),
        during,
    })
}

/// The sender: on the client's core, a second one on the proxy's, or on cores of their own where there are some. With what
/// time everybody else leaves (SCHED_IDLE): on a wire the sender's time is not the server's.
fn command(lab: &Lab, instance: &Instance, flood: Flood) -> Result<Command, Failure> {
    let cores = match (lab.cores.available, flood.senders) {
        (4.., 1) => "3".to_owned(),
        (4.., _) => "2,3".to_owned(),
        (_, 1) => lab.cores.client.clone(),
        _ => format!("{},{}", lab.cores.client, lab.cores.proxy),
    };
    let net = instance.net();
    let mut sender = net.at_the_client(&cores, "chrt");
    sender.args(["-i", "0"]).arg(lab.program("spooky-flood"));
    sender.args(["--interface", net.peer(), "--mac", &net.edge_mac()?, "--kind", flood.kind]);
    sender.args(["--to", &format!("{}:{PORT}", net.place().address()), "--from", flood.from]);
    let seconds = seconds(lab) as f64 + 2.0 * LEAD.as_secs_f64();
    sender.args(["--packets", PACKETS, "--threads", &flood.senders.to_string()]);
    sender.args(["--seconds", &seconds.to_string()]);
    Ok(sender)
}

fn seconds(lab: &Lab) -> u64 {
    if lab.extent == Extent::Shape { 1 } else { SECONDS }
}

/// What the sender says at its end.
fn wait(lab: &Lab, sender: &mut Running) -> Result<Value, Failure> {
    let deadline = Instant::now() + HONEST_MAX;
    while sender.is_alive() {
        lab.go_on()?;
        if Instant::now() > deadline {
            return Err(sender.blame("does not end"));
        }
        std::thread::park_timeout(LOOK);
    }
    let said = sender.output();
    let line = said.lines().find(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(line).map_err(|_no_result| sender.blame("has no result"))
}

/// Both kinds of honest clients at once.
fn honest(lab: &Lab, instance: &Instance) -> Result<Honest, Failure> {
    let get = format!("--path /bytes/{SMALL} --expect {SMALL} --warm 0");
    let kept = (KEPT * seconds(lab), format!("-c 10 -m 10 --rate {KEPT} {get}"));
    let fresh = (FRESH * seconds(lab), format!("-c 256 --fresh --rate {FRESH} {get}"));
    let busy = || -> [Duration; 2] {
        let sum = |pids: Vec<u32>| pids.into_iter().filter_map(cpu).sum();
        [sum(instance.pids()), sum(instance.net().threads().edge.clone())]
    };
    let (begun, before) = (Instant::now(), busy());
    let mut running = Vec::new();
    for (name, (requests, words)) in [("kept", &kept), ("fresh", &fresh)] {
        let generator = instance.generator(lab, &Load::new(*requests, words));
        let mut command = Command::new("chrt");
        command.args(["-f", CLIENT]).arg(generator.get_program()).args(generator.get_args());
        running.push(Running::start(name, command, &instance.dir().join(format!("{name}.log")))?);
    }
    let deadline = begun + HONEST_MAX;
    while running.iter_mut().any(Running::is_alive) && Instant::now() < deadline {
        lab.go_on()?;
        std::thread::park_timeout(LOOK);
    }
    let (after, seconds) = (busy(), begun.elapsed().as_secs_f64());
    let share = |place: usize| after[place].saturating_sub(before[place]).as_secs_f64() / seconds;
    let samples: Vec<Option<Sample>> = running.iter().map(|it| result(&it.output())).collect();
    let client = |place: usize, requests| {
        let sample = samples.get(place).and_then(Option::as_ref);
        sample.map_or(Client { requests, lost: requests, p99: None }, Client::of)
    };
    let datagrams = samples.iter().flatten().filter_map(|it| it.number("datagrams_out")).sum();
    let (kept, fresh) = (client(0, kept.0), client(1, fresh.0));
    Ok(Honest { kept, fresh, daemon: share(0), receiver: share(1), datagrams })
}

/// A generator that could not even open its connections has none.
fn result(output: &str) -> Option<Sample> {
    let line = output.lines().rev().find(|line| line.starts_with('{'))?;
    Sample::of_generator(line).ok()
}

impl Client {
    fn of(sample: &Sample) -> Self {
        let requests = sample.number("requests").unwrap_or_default() as u64;
        let late = sample.number("late").unwrap_or_default() as u64;
        let p99 = sample.figure(Figure::P99).map(|it| it / 1000.0);
        Self { requests, lost: (sample.failures() + late).min(requests), p99 }
    }

    /// In parts of 100.
    pub(crate) fn success(&self) -> f64 {
        100.0 * (1.0 - self.lost as f64 / self.requests.max(1) as f64)
    }

    fn json(&self) -> Value {
        json!({ "requests": self.requests, "lost": self.lost, "p99_ms": self.p99 })
    }
}

impl Honest {
    #[cfg(test)]
    pub(crate) fn of(kept: Client, fresh: Client) -> Self {
        Self { kept, fresh, daemon: 0.0, receiver: 0.0, datagrams: 0.0 }
    }

    fn json(&self) -> Value {
        json!({ "kept": self.kept.json(), "fresh": self.fresh.json(),
                "daemon": self.daemon, "receiver": self.receiver })
    }
}

impl Outcome {
    pub(crate) fn json(&self) -> Value {
        json!({
            "subject": self.subject, "flood": self.flood, "senders": self.senders, "place": self.place.name(), "round": self.round,
            "frames_per_second": self.rate, "dropped_by_xdp": self.dropped, "reached_workers": self.reached,
            "quiet": self.quiet.json(), "during": self.during.json(),
        })
    }

    fn said(&self) -> String {
        let ms = |client: Client| client.p99.unwrap_or(f64::NAN);
        let about = |name: &str, quiet: Client, during: Client| {
            let (before, after) = (ms(quiet), ms(during));
            format!("{name} {:.1} %, p99 {after:.2} ms (quiet {before:.2})", during.success())
        };
        format!(
            "{:<2} {:<5} {:<12} {}, {} senders: {:.0}/s, {:.0} % dropped by XDP, {:.0} % reached workers; {}; {}; \
             daemon {:.0} %, receiving {:.0} %",
            self.round + 1,
            self.place.name(),
            self.subject,
            self.flood,
            self.senders,
            self.rate,
            100.0 * self.dropped,
            100.0 * self.reached,
            about("kept", self.quiet.kept, self.during.kept),
            about("new", self.quiet.fresh, self.during.fresh),
            100.0 * self.during.daemon,
            100.0 * self.during.receiver,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_late_was_no_success() {
        let line = r#"{"requests": 200, "failures": 1, "late": 3, "latency_us": {"p99": 2500}}"#;
        let client = Client::of(&result(&format!("noise\n{line}\n")).expect("a result"));
        assert_eq!(client, Client { requests: 200, lost: 4, p99: Some(2.5) });
        assert!((client.success() - 98.0).abs() < 1e-9);
        assert!(result("spooky-load: nobody answers").is_none());
    }
}
