//! `spooky-load`: an HTTP/3 load generator that says what a request costs the proxy in CPU time. One thread, one
//! connected socket a connection, GSO and GRO, closed loop.

mod account;
mod client;
mod drive;
mod options;
mod socket;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use account::{Cpu, Memory, Tally};
use drive::Load;
use options::Options;

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
    let mut warm = Tally::default();
    load.phase(options.warm, &mut warm)?;
    if warm.failures() > 0 {
        return Err(format!("requests failed while warming up: {}", warm.kinds()));
    }

    let mut tally = Tally::default();
    let me = [std::process::id()];
    let lost = load.lost();
    let dropped = account::receive_buffer_errors();
    let (proxy_before, own_before) = (Cpu::of(&options.pids)?, Cpu::of(&me)?);
    let begun = Instant::now();
    // A run that breaks off still says how far it came; what had not ended counts as failed.
    if let Err(message) = load.phase(options.requests, &mut tally) {
        eprintln!("spooky-load: {message}");
    }
    let seconds = begun.elapsed().as_secs_f64();
    let proxy = Cpu::of(&options.pids)?.since(proxy_before);
    let own = Cpu::of(&me)?.since(own_before);
    let memory = Memory::of(&options.pids)?;
    let dropped = account::receive_buffer_errors().zip(dropped).map(|(now, then)| now - then);

    let per_request = |time: Duration| {
        let value = time.as_secs_f64() * 1e6 / options.requests as f64;
        (value * 100.0).round() / 100.0
    };
    let failures = tally.failures();
    let line = json!({
        "name": options.name,
        "requests": options.requests,
        "failures": failures,
        "failure_kinds": tally.kinds(),
        "rejected_and_sent_again": load.rejected,
        "seconds": seconds,
        "requests_per_second": ((options.requests - failures) as f64 / seconds).round(),
        "proxy_cpu_us": per_request(proxy.total()),
        "proxy_user_us": per_request(proxy.user),
        "proxy_system_us": per_request(proxy.system),
        "own_cpu_us": per_request(own.total()),
        "latency_us": tally.percentiles(&[500, 990, 1000]),
        "resident_kib": memory.resident,
        "peak_resident_kib": memory.peak,
        "own_datagrams_lost": load.lost() - lost,
        "receive_buffer_drops": dropped,
    });
    Ok((line, failures))
}
