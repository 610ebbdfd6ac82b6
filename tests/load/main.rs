//! `spooky-load`: an HTTP/3 load generator that says what a request costs the proxy in CPU time. One thread, one
//! connected socket a connection, GSO and GRO; closed loop or a fixed rate, kept, fresh, resumed or idle connections.

mod account;
mod client;
mod drive;
mod histogram;
mod meter;
mod options;
mod plan;
mod request;
mod schedule;
mod wake;

use std::process::ExitCode;

use serde_json::{Value, json};

use account::{Failure, Memory, Tally};
use drive::Load;
use meter::{Meter, hundredths, per};
use options::{Idle, Options};

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok((line, failures)) => {
            println!("{line}");
            if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            eprintln!("spooky-load: {message}");
            ExitCode::from(2)
        }
    }
}

/// The result as one line of JSON, and the number of failed requests.
fn run(options: &Options) -> Result<(Value, u64), String> {
    let mut load = Load::new(options)?;
    if let Some(idle) = &options.idle {
        return hold(&mut load, options, idle);
    }
    if !options.fresh {
        let mut opened = Tally::default();
        load.open(false, &mut opened)?;
        clean(&opened, "connections could not be opened")?;
    }
    requests(&mut load, options, options.connections)
}

/// Warms up, then measures, on so many of the open connections or on fresh ones.
fn requests(
    load: &mut Load,
    options: &Options,
    connections: usize,
) -> Result<(Value, u64), String> {
    let phase = |load: &mut Load, requests: u64, tally: &mut Tally| {
        if options.fresh {
            load.fresh(requests, tally)
        } else {
            load.stay(connections, requests, tally)
        }
    };
    let mut warm = Tally::default();
    phase(load, options.warm, &mut warm)?;
    clean(&warm, "requests failed while warming up")?;

    let mut tally = Tally::default();
    let held_lost = load.held_lost();
    let meter = Meter::start(load, options)?;
    // A run that breaks off still says how far it came; what had not ended counts as failed.
    if let Err(message) = phase(load, options.requests, &mut tally) {
        eprintln!("spooky-load: {message}");
    }
    let cost = meter.cost(options)?;
    tally.failed(Failure::Held, load.held_lost() - held_lost);
    let line = meter.line(load, options, cost, options.requests, &tally)?;
    Ok((line, tally.failures()))
}

/// Opens many connections and holds them; then some may run requests beside the others.
fn hold(load: &mut Load, options: &Options, idle: &Idle) -> Result<(Value, u64), String> {
    let count = idle.connections as u64;
    let before = Memory::of(&options.pids)?;
    let meter = Meter::start(load, options)?;
    let mut opened = Tally::default();
    if let Err(message) = load.open(idle.touch, &mut opened) {
        eprintln!("spooky-load: {message}");
    }
    let cost = meter.cost(options)?;
    load.hold(idle.hold)?;
    let after = Memory::of(&options.pids)?;
    opened.failed(Failure::Held, load.held_lost());
    let mut failures = opened.failures();

    let mut line = meter.line(load, options, cost, count, &opened)?;
    if idle.active > 0 && failures == 0 {
        (line, failures) = requests(load, options, idle.active)?;
    }
    let grown = after.resident as f64 - before.resident as f64;
    line["connections"] = json!(count);
    line["open_seconds"] = json!(cost.seconds);
    line["handshake_cpu_us"] = json!(per(cost.proxy.total(), count));
    line["resident_before_kib"] = json!(before.resident);
    line["resident_after_kib"] = json!(after.resident);
    line["kib_per_connection"] = json!(hundredths(grown / count as f64));
    Ok((line, failures))
}

fn clean(tally: &Tally, what: &str) -> Result<(), String> {
    if tally.failures() == 0 { Ok(()) } else { Err(format!("{what}: {}", tally.kinds())) }
}
