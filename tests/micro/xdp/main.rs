//! `spooky-xdp-cost`: nanoseconds a frame at the XDP hook by the kernel's own clock (`BPF_PROG_TEST_RUN`), for each
//! verdict, family and length of the deny list. One JSON line on stdout, a table on stderr; asserts verdicts, no time.
//!
//! A repetition goes once through all rows, so that a disturbance meets all of them, and every repetition takes
//! another source address, listed or not as the row says, so that no row stands for one lucky place in the list.

mod empty;
mod lists;

#[path = "../../kernel/frames.rs"]
#[expect(dead_code, reason = "the kernel tests use all of it")]
mod frames;
#[path = "../../kernel/rig.rs"]
#[expect(dead_code, reason = "the kernel tests use all of it")]
mod rig;

use std::net::IpAddr;
use std::process::ExitCode;

use serde_json::{Value, json};
use spooky_common::cid::{LocalKey, Owner};

use frames::{frame, long, our_cid, short};
use lists::{Family, Sources};
use rig::{Rig, Setup, XDP_DROP, XDP_PASS};

const USAGE: &str = "\
usage: spooky-xdp-cost [--repeat N] [--repetitions N] [--entries N] [--seed N]
  --repeat N       runs of the program a figure is the mean of (default 1000000)
  --repetitions N  figures a median is taken of (default 9)
  --entries N      prefixes of each family in the long list (default 100000)
  --seed N         of the lists (default 1)
Needs CAP_BPF and CAP_NET_ADMIN.";

/// Every listener is on this port.
const PORT: u16 = 443;
/// Whose connection ID is steered.
const OWNER: Owner = Owner { worker: 3, generation: 1 };

#[derive(Debug, Clone, Copy)]
struct Options {
    repeat: u32,
    repetitions: usize,
    entries: usize,
    seed: u64,
}

/// What a frame is made to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// To a port that is not ours.
    Pass,
    /// From a listed source.
    Deny,
    /// From a source that is not listed, with a connection ID of ours.
    Steer,
    /// The same, with an Initial of a new connection.
    Initial,
}

/// One figure: program, frame, and what was measured.
struct Row {
    kind: Kind,
    family: Family,
    /// Index into the rigs.
    rig: usize,
    /// Prefixes a family in its deny list.
    entries: usize,
    nanoseconds: Vec<u64>,
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("spooky-xdp-cost: {message}");
            return ExitCode::from(2);
        }
    };
    let Some(line) = measure(options) else { return ExitCode::from(2) };
    println!("{line}");
    ExitCode::SUCCESS
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { repeat: 1_000_000, repetitions: 9, entries: 100_000, seed: 1 };
    while let Some(flag) = arguments.next() {
        let value = arguments.next().and_then(|value| value.parse::<u32>().ok());
        let value = value.ok_or_else(|| format!("{flag}: a number is missing\n{USAGE}"))?;
        match flag.as_str() {
            "--repeat" => options.repeat = value,
            "--repetitions" => options.repetitions = value as usize,
            "--entries" => options.entries = value as usize,
            "--seed" => options.seed = u64::from(value),
            _ => return Err(format!("{flag} is unknown\n{USAGE}")),
        }
    }
    if options.repeat == 0 || options.repetitions == 0 || options.entries < 2 {
        return Err(format!("--repeat, --repetitions and --entries are too small\n{USAGE}"));
    }
    Ok(options)
}

/// `None`: not privileged, said on stdout.
fn measure(options: Options) -> Option<Value> {
    let key = LocalKey { k0: 3, k1: 4 };
    // Nothing listed; one prefix, without which no frame is denied; the long list.
    let sizes = [0, 1, options.entries];
    let sources: Vec<Sources> = sizes.iter().map(|n| Sources::new(*n, options.seed)).collect();
    let mut rigs = Vec::new();
    for sources in &sources {
        let mut rig = rig::load("spooky-xdp-cost")?;
        rig.apply(&setup(&key, sources.listed()));
        rigs.push(rig);
    }
    let mut baseline = empty::load();
    let mut rows = rows(&sizes);
    let mut floor = Vec::new();
    let our_id = short(&our_cid(&key, 0, OWNER, 9));
    let initial = long(0xc0, 1, &[7; 8]);
    for repetition in 0..options.repetitions {
        let any = octets(&sources[0], Kind::Pass, Family::V4, repetition, &our_id);
        floor.push(empty::nanoseconds(&mut baseline, &any, options.repeat));
        for row in &mut rows {
            let payload = if row.kind == Kind::Initial { &initial } else { &our_id };
            let octets = octets(&sources[row.rig], row.kind, row.family, repetition, payload);
            row.nanoseconds.push(run(&mut rigs[row.rig], row.kind, &octets, options.repeat));
        }
    }
    Some(report(options, &floor, &rows))
}

fn setup(key: &LocalKey, deny: Vec<(IpAddr, u8)>) -> Setup {
    let listeners = ["0.0.0.0", "::"].map(|any| (any.parse::<IpAddr>().expect("address"), PORT));
    let mut setup = Setup { listeners: listeners.map(Into::into).into(), deny, ..Setup::default() };
    setup.keys[0] = Some(*key);
    setup.live.push(OWNER);
    setup.settings.early = 1;
    setup
}

fn rows(sizes: &[usize]) -> Vec<Row> {
    let mut rows = Vec::new();
    for kind in [Kind::Pass, Kind::Deny, Kind::Steer, Kind::Initial] {
        for family in [Family::V4, Family::V6] {
            for (rig, entries) in sizes.iter().copied().enumerate() {
                if kind != Kind::Deny || entries > 0 {
                    rows.push(Row { kind, family, rig, entries, nanoseconds: Vec::new() });
                }
            }
        }
    }
    rows
}

fn octets(sources: &Sources, kind: Kind, family: Family, nth: usize, payload: &[u8]) -> Vec<u8> {
    let source = match kind {
        Kind::Deny => sources.denied(family, nth),
        _ => sources.clean(family, nth),
    };
    let port = if kind == Kind::Pass { 53 } else { PORT };
    let destination = match family {
        Family::V4 => format!("192.0.2.9:{port}"),
        Family::V6 => format!("[2001:db8::9]:{port}"),
    };
    let source = std::net::SocketAddr::from((source, 50_000)).to_string();
    frame(&source, &destination, payload).octets()
}

fn run(rig: &mut Rig, kind: Kind, octets: &[u8], repeat: u32) -> u64 {
    let (verdict, time) = rig.repeat(octets, repeat);
    let expected = if kind == Kind::Deny { XDP_DROP } else { XDP_PASS };
    assert_eq!(verdict, expected, "{kind:?}");
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn report(options: Options, floor: &[u64], rows: &[Row]) -> Value {
    let floor = spread(floor);
    eprintln!("empty program: {floor}");
    let mut shown = Vec::new();
    for row in rows {
        let time = spread(&row.nanoseconds);
        let short_list = rows.iter().find(|other| {
            (other.kind, other.family) == (row.kind, row.family) && other.rig < row.rig
        });
        let ratio = short_list.map(|other| {
            let ratio = median(&row.nanoseconds) as f64 / median(&other.nanoseconds).max(1) as f64;
            (ratio * 100.0).round() / 100.0
        });
        eprintln!("{:?} {:?}, {} prefixes: {time} {ratio:?}", row.kind, row.family, row.entries);
        shown.push(json!({
            "kind": format!("{:?}", row.kind).to_lowercase(),
            "family": format!("{:?}", row.family).to_lowercase(),
            "entries": row.entries,
            "ns": time,
            "of_shortest_list": ratio,
        }));
    }
    json!({
        "repeat": options.repeat,
        "repetitions": options.repetitions,
        "seed": options.seed,
        "empty_program_ns": floor,
        "rows": shown,
    })
}

fn spread(values: &[u64]) -> Value {
    json!({ "median": median(values), "min": values.iter().min(), "max": values.iter().max() })
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
