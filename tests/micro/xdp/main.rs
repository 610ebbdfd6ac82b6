//! `spooky-xdp-cost`: nanoseconds a frame at the XDP hook by the kernel's own clock (`BPF_PROG_TEST_RUN`), for each
//! verdict, family and length of the deny list. One JSON line on stdout, a table on stderr; asserts verdicts, no time.
//!
//! A repetition goes once through all rows, so that a disturbance meets all of them, and every repetition takes
//! another source address, listed or not as the row says, so that no row stands for one lucky place in the list. Each
//! figure has the empty program's beside it, taken in the same moment, and with `--against` another object's: their
//! difference and their ratio hold on a busy machine as well, where the times themselves do not.

mod lists;

#[path = "../../kernel/frames.rs"]
#[expect(dead_code, reason = "the kernel tests use all of it")]
mod frames;
#[path = "../../kernel/rig.rs"]
#[expect(dead_code, reason = "the kernel tests use all of it")]
mod rig;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use spooky_common::cid::{LocalKey, Owner};
use spooky_tests::empty::Empty;

use frames::{frame, long, our_cid, short};
use lists::{Family, Sources};
use rig::{Rig, Setup, XDP_DROP, XDP_PASS};

const USAGE: &str = "\
usage: spooky-xdp-cost [--repeat N] [--repetitions N] [--entries N] [--seed N] [--against FILE]
  --repeat N       runs of the program a figure is the mean of (default 1000000)
  --repetitions N  figures a median is taken of (default 9)
  --entries N      prefixes of each family in the long list (default 100000)
  --seed N         of the lists (default 1)
  --against FILE   another object of the same layout, run by turns with the built-in one
Needs CAP_BPF and CAP_NET_ADMIN.";

/// Every listener is on this port.
const PORT: u16 = 443;
/// Whose connection ID is steered.
const OWNER: Owner = Owner { worker: 3, generation: 1 };

#[derive(Debug, Clone)]
struct Options {
    repeat: u32,
    repetitions: usize,
    entries: usize,
    seed: u64,
    against: Option<PathBuf>,
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
    nanoseconds: Vec<f64>,
    /// Of the empty program, beside each of them.
    empty: Vec<f64>,
    /// Of the other object, beside each of them; none without one.
    other: Vec<f64>,
}

fn main() -> ExitCode {
    let line = parse(std::env::args().skip(1)).and_then(|options| measure(&options));
    match line {
        Ok(Some(line)) => println!("{line}"),
        Ok(None) => return ExitCode::from(2),
        Err(message) => {
            eprintln!("spooky-xdp-cost: {message}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (repeat, repetitions, entries, seed) = (1_000_000, 9, 100_000, 1);
    let mut options = Options { repeat, repetitions, entries, seed, against: None };
    while let Some(flag) = arguments.next() {
        let value =
            arguments.next().ok_or_else(|| format!("{flag}: a value is missing\n{USAGE}"))?;
        let number =
            || value.parse().map_err(|_not_one| format!("{flag} {value}: not a number\n{USAGE}"));
        match flag.as_str() {
            "--repeat" => options.repeat = number()?,
            "--repetitions" => options.repetitions = number()? as usize,
            "--entries" => options.entries = number()? as usize,
            "--seed" => options.seed = u64::from(number()?),
            "--against" => options.against = Some(value.into()),
            _ => return Err(format!("{flag} is unknown\n{USAGE}")),
        }
    }
    if options.repeat == 0 || options.repetitions == 0 || options.entries < 2 {
        return Err(format!("--repeat, --repetitions and --entries are too small\n{USAGE}"));
    }
    Ok(options)
}

/// `None`: not privileged, said on stdout.
fn measure(options: &Options) -> Result<Option<Value>, String> {
    let key = LocalKey { k0: 3, k1: 4 };
    // Nothing listed; one prefix, without which no frame is denied; the long list.
    let sizes = [0, 1, options.entries];
    let sources: Vec<Sources> = sizes.iter().map(|n| Sources::new(*n, options.seed)).collect();
    let Some(mut rigs) = loaded(rig::OBJECT, &sources, &key) else { return Ok(None) };
    let mut others = Vec::new();
    if let Some(file) = &options.against {
        let object = other(file)?;
        let Some(rigs) = loaded(&object, &sources, &key) else { return Ok(None) };
        others = rigs;
    }
    let mut baseline = Empty::load();
    let mut rows = rows(&sizes);
    let our_id = short(&our_cid(&key, 0, OWNER, 9));
    let initial = long(0xc0, 1, &[7; 8]);
    for repetition in 0..options.repetitions {
        for row in &mut rows {
            let payload = if row.kind == Kind::Initial { &initial } else { &our_id };
            let octets = octets(&sources[row.rig], row.kind, row.family, repetition, payload);
            row.empty.push(baseline.nanoseconds(&octets, options.repeat));
            let mut both = [Some(&mut rigs[row.rig]), others.get_mut(row.rig)];
            let mut figures = [&mut row.nanoseconds, &mut row.other];
            // By turns the one and the other first: what grows or fades meanwhile favours neither.
            if repetition % 2 == 1 {
                both.reverse();
                figures.reverse();
            }
            for (rig, figures) in both.into_iter().zip(figures) {
                if let Some(rig) = rig {
                    figures.push(run(rig, row.kind, &octets, options.repeat));
                }
            }
        }
    }
    Ok(Some(report(options, &rows)))
}

/// The other object, if its layout is ours.
fn other(file: &Path) -> Result<Vec<u8>, String> {
    let object = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let layout = layout(&object);
    if layout != Some(spooky_common::LAYOUT_VERSION) {
        let ours = spooky_common::LAYOUT_VERSION;
        return Err(format!("{}: of layout {layout:?}, not {ours}", file.display()));
    }
    Ok(object)
}

/// The layout that an object was built for; `None` when it does not say. Needs privilege, as all maps do.
fn layout(object: &[u8]) -> Option<u32> {
    let ebpf = aya::Ebpf::load(object).ok()?;
    let section: aya::maps::Array<_, u32> =
        ebpf.map(spooky_common::map::LAYOUT)?.try_into().ok()?;
    section.get(&0, 0).ok()
}

/// The object once for each list.
fn loaded(object: &[u8], sources: &[Sources], key: &LocalKey) -> Option<Vec<Rig>> {
    let mut rigs = Vec::new();
    for sources in sources {
        let mut rig = rig::load_object("spooky-xdp-cost", object)?;
        rig.apply(&setup(key, sources.listed()));
        rigs.push(rig);
    }
    Some(rigs)
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
                    let (nanoseconds, empty, other) = (Vec::new(), Vec::new(), Vec::new());
                    rows.push(Row { kind, family, rig, entries, nanoseconds, empty, other });
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

fn run(rig: &mut Rig, kind: Kind, octets: &[u8], repeat: u32) -> f64 {
    let (verdict, time) = rig.repeat(octets, repeat);
    let expected = if kind == Kind::Deny { XDP_DROP } else { XDP_PASS };
    assert_eq!(verdict, expected, "{kind:?}");
    time.as_nanos() as f64
}

fn report(options: &Options, rows: &[Row]) -> Value {
    let empty = spread(&rows.iter().flat_map(|row| row.empty.clone()).collect::<Vec<_>>());
    eprintln!("empty program: {empty}");
    let mut shown = Vec::new();
    for row in rows {
        let time = spread(&row.nanoseconds);
        let own = median(&beside(&row.nanoseconds, &row.empty, |time, empty| time - empty));
        let short_list = rows.iter().find(|other| {
            (other.kind, other.family) == (row.kind, row.family) && other.rig < row.rig
        });
        let of_shortest = short_list
            .map(|other| rounded(median(&row.nanoseconds) / median(&other.nanoseconds).max(1.0)));
        let other = (!row.other.is_empty()).then(|| spread(&row.other));
        let of_other = beside(&row.nanoseconds, &row.other, |time, other| time / other.max(1.0));
        let of_other = other.is_some().then(|| rounded(median(&of_other)));
        let mut line = format!(
            "{:?} {:?}, {} prefixes: {time}, own {own}, of the shortest list {of_shortest:?}",
            row.kind, row.family, row.entries
        );
        if let (Some(other), Some(ratio)) = (&other, of_other) {
            line.push_str(&format!("; other object {other}, of it {ratio}"));
        }
        eprintln!("{line}");
        shown.push(json!({
            "kind": format!("{:?}", row.kind).to_lowercase(),
            "family": format!("{:?}", row.family).to_lowercase(),
            "entries": row.entries,
            "ns": time,
            "own_ns": own,
            "of_shortest_list": of_shortest,
            "other_ns": other,
            "of_other": of_other,
        }));
    }
    json!({
        "repeat": options.repeat,
        "repetitions": options.repetitions,
        "seed": options.seed,
        "empty_program_ns": empty,
        "rows": shown,
    })
}

/// Each figure with the one that was taken beside it.
fn beside(times: &[f64], others: &[f64], with: fn(f64, f64) -> f64) -> Vec<f64> {
    times.iter().zip(others).map(|(time, other)| with(*time, *other)).collect()
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn spread(values: &[f64]) -> Value {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    json!({ "median": median(values), "min": least, "max": most })
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
