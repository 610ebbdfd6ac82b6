//! `spooky-flood`: sends frames of one kind as fast as the machine can, or at a rate, through one interface. For floods over
//! a veth pair of one's own, bounded in count and in time. Prints one JSON line; judges nothing.
//!
//! Only reads its arguments and sends: what a frame looks like is in `template`, the socket in `packet`.

mod packet;
mod template;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde_json::json;

use packet::Sender;
use template::{Kind, Template};

const USAGE: &str = "\
usage: spooky-flood --interface NAME --mac MAC --to ADDR:PORT --from PREFIX --kind KIND
                    [--packets N] [--seconds S] [--rate N] [--threads N] [--seed N]
  --mac MAC      of the receiver's interface
  --from PREFIX  where the packets say they come from: a random address and port of it each
  --kind KIND    short: a short header with a random connection ID
                 initial: the head of an Initial with a random connection ID, 1,200 octets, that does not decrypt
                 tiny: the same in 100 octets
                 version: 1,200 octets of a version nobody speaks
  --packets N    at most so many in all (default 1000000)
  --seconds S    at most so long (default 5)
  --rate N       packets a second in all; 0 for as many as can be (default 0)
  --threads N    senders (default 1)
  --seed N       of the random numbers (default 1)
Needs CAP_NET_RAW. Send to machines and namespaces of your own only.";

/// Frames handed to the kernel by one call.
const BATCH: u64 = 64;

#[derive(Debug, Clone)]
struct Options {
    interface: String,
    mac: [u8; 6],
    to: SocketAddr,
    from: IpNet,
    kind: Kind,
    packets: u64,
    seconds: f64,
    rate: u64,
    threads: u64,
    seed: u64,
}

/// What one sender did.
#[derive(Debug, Default)]
struct Sent {
    frames: u64,
    octets: u64,
    /// Calls that the interface's queue refused.
    full: u64,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("spooky-flood: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let begun = Instant::now();
    let results: Vec<Result<Sent, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads)
            .map(|number| scope.spawn(move || send(options, number, begun)))
            .collect();
        threads
            .into_iter()
            .map(|it| it.join().unwrap_or_else(|_| Err("a sender broke".into())))
            .collect()
    });
    let mut all = Sent::default();
    for result in results {
        let sent = result?;
        all.frames += sent.frames;
        all.octets += sent.octets;
        all.full += sent.full;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let line = json!({
        "frames": all.frames, "octets": all.octets, "full": all.full, "seconds": seconds,
        "frames_per_second": all.frames as f64 / seconds, "seed": options.seed,
    });
    println!("{line}");
    Ok(())
}

/// One sender's share.
fn send(options: &Options, number: u64, begun: Instant) -> Result<Sent, String> {
    let mut random =
        fastrand::Rng::with_seed(options.seed.wrapping_mul(0x9e37_79b9).wrapping_add(number));
    let mut template = Template::new(options.kind, options.mac, options.to, options.from)?;
    let mut sender = Sender::open(&options.interface, template.len(), BATCH as usize)
        .map_err(|error| format!("{}: {error}", options.interface))?;
    let end = begun + Duration::from_secs_f64(options.seconds);
    let share = options.packets.div_ceil(options.threads);
    let rate = options.rate as f64 / options.threads as f64;
    let mut sent = Sent::default();
    while sent.frames < share {
        let now = Instant::now();
        if now >= end {
            break;
        }
        let ahead = sent.frames as f64 - rate * (now - begun).as_secs_f64();
        if options.rate > 0 && ahead > 0.0 {
            pause(Duration::from_secs_f64(ahead / rate));
            continue;
        }
        for frame in sender.frames() {
            template.write(frame, &mut random);
        }
        let taken = sender.send().map_err(|error| format!("{}: {error}", options.interface))?;
        sent.full += u64::from(taken < BATCH as usize);
        sent.frames += taken as u64;
        sent.octets += (taken * template.len()) as u64;
    }
    Ok(sent)
}

#[expect(clippy::disallowed_methods, reason = "the pace of a sender that has no loop")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut interface, mut mac, mut to, mut from, mut kind) = (None, None, None, None, None);
    let (mut packets, mut seconds, mut rate, mut threads, mut seed) = (1_000_000, 5.0, 0, 1, 1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--interface" => interface = Some(value),
            "--mac" => mac = Some(parse_mac(&value)?),
            "--to" => to = Some(parsed(&name, &value)?),
            "--from" => from = Some(parsed(&name, &value)?),
            "--kind" => {
                kind = Some(Kind::named(&value).ok_or(format!("--kind {value}: no such kind"))?)
            }
            "--packets" => packets = parsed(&name, &value)?,
            "--seconds" => seconds = parsed(&name, &value)?,
            "--rate" => rate = parsed(&name, &value)?,
            "--threads" => threads = parsed::<u64>(&name, &value)?.max(1),
            "--seed" => seed = parsed(&name, &value)?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let (Some(interface), Some(mac), Some(to), Some(from), Some(kind)) =
        (interface, mac, to, from, kind)
    else {
        return Err(USAGE.to_owned());
    };
    Ok(Options { interface, mac, to, from, kind, packets, seconds, rate, threads, seed })
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|error| format!("{name} {value}: {error}"))
}

fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let octets: Result<Vec<u8>, _> =
        text.split(':').map(|part| u8::from_str_radix(part, 16)).collect();
    octets
        .ok()
        .and_then(|octets| octets.try_into().ok())
        .ok_or_else(|| format!("--mac {text}: six octets in hex, such as 02:00:00:00:00:01"))
}
