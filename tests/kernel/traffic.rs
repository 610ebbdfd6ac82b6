//! Row H06 in traffic: the lists change while 200,000 packets a second, or as many as this machine can send, come in over a
//! veth pair of the test's own. What is listed gets nothing from then on, and the others everything.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ipnet::IpNet;
use spooky_common::{
    counter::Counter::{self, XdpDenied, XdpNewFlow, XdpUnknownShort},
    frame::Address,
};
use spooky_tests::{programs, soak};
use spooky_user::controlplane::kernel::{Edit, Kernel, Mode, Running, Side};

use crate::{
    group::{desired, kernel, settings},
    lists::entry,
    netns,
};

/// Of the interface that packets come in by.
const MAC: &str = "02:00:00:00:00:01";
/// Frames a second of those that are listed by turns, and of those that never are. The row asks for their sum.
const LISTED: (&str, &str, &str, u64) = ("short", "198.51.100.0/24", "10.77.0.1:443", 150_000);
const OTHERS: (&str, &str, &str, u64) = ("tiny", "2001:db8:f::/64", "[fd77::1]:443", 50_000);
/// Frames that show that the flood goes on.
const SOME: u64 = 200;
/// How long they may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// The row's bound.
const VISIBLE: Duration = Duration::from_millis(10);

/// A sender, ended with its guard; at most twenty million frames and two minutes.
struct Flood(Child);

impl Flood {
    fn start((kind, from, to, rate): (&str, &str, &str, u64)) -> Self {
        let mut command = Command::new(programs::flood());
        command.args(["--interface", "edge1", "--mac", MAC, "--kind", kind, "--to", to]);
        command.args(["--from", from, "--rate", &rate.to_string()]);
        command.args(["--packets", "20000000", "--seconds", "120"]).stdout(Stdio::null());
        Self(command.spawn().expect("the sender runs"))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.0.kill().expect("it was ours");
        self.0.wait().expect("it was ours");
    }
}

fn count(kernel: &Kernel, of: Counter) -> u64 {
    let counters = kernel.counters().expect("counters");
    counters.iter().filter(|(counter, _)| *counter == of).map(|(_, count)| count).sum()
}

fn all(kernel: &Kernel) -> u64 {
    let counters = kernel.counters().expect("counters");
    let frames = counters.iter().filter(|(counter, _)| counter.place_in_row().is_some());
    frames.map(|(_, count)| count).sum()
}

/// Lists or not, and how long it took until no frame had the other verdict any more.
fn changed(kernel: &mut Kernel, net: IpNet, listed: bool) -> Duration {
    let (now, before) =
        if listed { (XdpDenied, XdpUnknownShort) } else { (XdpUnknownShort, XdpDenied) };
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
    let start = Instant::now();
    assert_eq!(kernel.edit(&[Edit { side: Side::Deny, net, listed }]).expect("edit"), 1);
    let took = start.elapsed();
    let (seen, last) = (count(kernel, now), count(kernel, before));
    let deadline = Instant::now() + DEADLINE;
    while count(kernel, now) < seen + SOME {
        assert!(Instant::now() < deadline, "the flood has stopped");
        std::thread::yield_now();
    }
    // A program that was running when the list changed counts afterwards: one a CPU.
    let late = count(kernel, before) - last;
    assert!(late <= cpus, "{late} frames had the verdict of before, listed {listed}");
    took
}

#[test]
fn h06_changes_hold_at_once_among_two_hundred_thousand_packets_a_second() {
    let test = "h06 in traffic";
    let (entries, rounds) = if soak() { (200_000, 90) } else { (4_000, 30) };
    let Some(()) = netns::enter(test) else { return };
    let link = ["link", "add", "edge0", "address", MAC, "type", "veth", "peer", "name", "edge1"];
    netns::ip(&link);
    for interface in ["edge0", "edge1"] {
        netns::ip(&["link", "set", interface, "up"]);
    }
    let mut settings = settings(Mode::Xdp);
    settings.interface = Some("edge0".to_owned());
    settings.sample_every = 1000;
    let Some(mut kernel) = kernel(test, &settings) else { return };
    assert_eq!(kernel.attach_xdp().expect("attach"), Running::XdpNative);
    let listeners = [LISTED.2, OTHERS.2].map(|to| to.parse().expect("an address"));
    let mut desired = desired(0, &[1], &listeners);
    desired.access.deny = (0..entries).map(entry).collect();
    assert_eq!(kernel.apply(&desired).expect("apply").prefixes, entries as usize);

    let senders = [LISTED, OTHERS].map(Flood::start);
    let deadline = Instant::now() + DEADLINE;
    while count(&kernel, XdpUnknownShort) < SOME || count(&kernel, XdpNewFlow) < SOME {
        assert!(Instant::now() < deadline, "the floods do not come");
        std::thread::yield_now();
    }
    let net: IpNet = LISTED.1.parse().expect("a prefix");
    let (begun, before) = (Instant::now(), all(&kernel));
    let (mut took, mut samples) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        took.push(changed(&mut kernel, net, true));
        if round % 15 == 14 {
            // The words are compiled and written under the same traffic; what they say is the same.
            let last = count(&kernel, XdpUnknownShort);
            while let Some(list) = kernel.compilation() {
                let compiled = std::thread::spawn(move || list.run()).join().expect("compiled");
                kernel.settle(compiled).expect("settle");
            }
            assert_eq!(count(&kernel, XdpUnknownShort), last, "compiled, round {round}");
        }
        took.push(changed(&mut kernel, net, false));
        kernel.drain_samples(|sample| samples.push(sample.source()));
    }
    let rate = (all(&kernel) - before) as f64 / begun.elapsed().as_secs_f64();
    drop(senders);

    let strangers = samples.iter().filter(|it| !matches!(it, Address::V4([198, 51, 100, _])));
    assert_eq!(strangers.count(), 0, "a source that was never listed was dropped");
    assert!(!samples.is_empty(), "no drop was sampled");
    took.sort_unstable();
    let within = took.iter().filter(|took| **took <= VISIBLE).count();
    let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "h06: {} changes among {entries} prefixes at {rate:.0} packets a second: median {median:?}, most {most:?}, \
         {within} within {VISIBLE:?}; {} drops sampled, all of listed sources",
        took.len(),
        samples.len()
    );
    assert!(median < VISIBLE, "{took:?}");
}
