//! `spooky-floor`: what HTTP/3 costs when nothing is behind it. quiche with the windows spooky has by default, answers
//! from memory, GSO and GRO. A proxy built on quiche cannot be cheaper than this and its backend side together.

mod server;
mod site;

use std::net::SocketAddr;
use std::process::ExitCode;

use server::{Server, Tls};
use spooky_tests::socket::Socket;

const USAGE: &str = "\
usage: spooky-floor --listen ADDRESS:PORT --cert FILE --key FILE [--workers N] [--early-data]
GET /1k, /1m or /bytes/N is answered with that many octets, a POST or PUT anywhere with 1 KiB once its body has come.
  --workers N    threads, each with a socket of its own (default 1)
  --early-data   take 0-RTT requests
Octet i of a body is i modulo 251. Prints `listening ADDRESS:PORT` once it takes connections.";

struct Options {
    listen: SocketAddr,
    tls: Tls,
    workers: usize,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("spooky-floor: {message}");
            ExitCode::from(2)
        }
    }
}

/// Serves until a signal ends the process or a socket breaks.
fn run(options: &Options) -> Result<(), String> {
    let socket = |address: SocketAddr| {
        Socket::listen(address).map_err(|error| format!("cannot listen on {address}: {error}"))
    };
    let first = socket(options.listen)?;
    let address = first.local();
    let mut sockets = vec![first];
    for _ in 1..options.workers {
        sockets.push(socket(address)?);
    }
    let servers = sockets.into_iter().map(|socket| Server::new(socket, &options.tls));
    let servers = servers.collect::<Result<Vec<_>, String>>()?;
    println!("listening {address}");
    let threads: Vec<_> =
        servers.into_iter().map(|server| std::thread::spawn(move || server.serve())).collect();
    for thread in threads {
        thread.join().map_err(|_panic| "a worker panicked".to_owned())??;
    }
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut listen, mut cert, mut key) = (None, None, None);
    let (mut workers, mut early_data) = (1, false);
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} wants a value\n{USAGE}"));
        match flag.as_str() {
            "-h" | "--help" => return Err(USAGE.into()),
            "--listen" => {
                let text = value()?;
                listen =
                    Some(text.parse().map_err(|_cause| format!("{text:?} is no ADDRESS:PORT"))?);
            }
            "--cert" => cert = Some(value()?),
            "--key" => key = Some(value()?),
            "--workers" => {
                let text = value()?;
                let count = text.parse().ok().filter(|count| (1..=1024).contains(count));
                workers = count.ok_or_else(|| format!("--workers: {text:?} is not 1 to 1024"))?;
            }
            "--early-data" => early_data = true,
            _ => return Err(format!("{flag} is unknown\n{USAGE}")),
        }
    }
    match (listen, cert, key) {
        (Some(listen), Some(cert), Some(key)) => {
            let ticket_key = std::array::from_fn(|_| fastrand::u8(..));
            Ok(Options { listen, tls: Tls { cert, key, ticket_key, early_data }, workers })
        }
        _ => Err(format!("--listen, --cert and --key are needed\n{USAGE}")),
    }
}
