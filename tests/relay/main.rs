//! `spooky-relay`: the impaired path as a program, to try any client and server over it by hand. Only reads its arguments
//! and prints; everything else is in the library.

use std::net::SocketAddr;
use std::process::ExitCode;

use spooky_tests::relay::{Impairment, Relay};

const USAGE: &str = "\
usage: spooky-relay --listen ADDR:PORT --server ADDR:PORT [--impair NAME=VALUE,...] [--rebind-every SECONDS]

Carries UDP datagrams between clients and a server and impairs them, each direction alike:
  seed=N           where the random sources start; the same seed is the same fate of the n-th datagram
  loss=S corruption=S duplication=S reordering=S    shares of 1
  burst=N          at most N lost, or spoiled, datagrams in a row
  delay=T jitter=T one way, such as 15ms
  rate=BITS queue=N  bits a second of a flow and direction, and datagrams that may wait
  dark=T/T         nothing arrives: after the first time, for the second, again and again
--rebind-every: all flows go on from a new source port each time, as behind a NAT that forgets.
Ends with Ctrl-C and prints what it did.";

struct Options {
    listen: SocketAddr,
    server: SocketAddr,
    impairment: Impairment,
    rebind_every: Option<std::time::Duration>,
}

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("spooky-relay: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let relay = Relay::bind(options.listen, options.server, options.impairment)
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    println!("listening {} seed {}", relay.address(), options.impairment.seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(async {
        let end = tokio::signal::ctrl_c();
        tokio::pin!(end);
        loop {
            let rebind = async {
                match options.rebind_every {
                    Some(every) => tokio::time::sleep(every).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = &mut end => return,
                () = rebind => relay.rebind(),
            }
        }
    });
    println!("{:#?}", relay.tally());
    Ok(())
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut listen, mut server, mut rebind_every) = (None, None, None);
    let mut impairment = Impairment::default();
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            return Err(USAGE.into());
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} wants a value\n\n{USAGE}"))?;
        let wrong = || format!("{flag}: {value:?} does not fit\n\n{USAGE}");
        match flag.as_str() {
            "--listen" => listen = Some(value.parse().map_err(|_cause| wrong())?),
            "--server" => server = Some(value.parse().map_err(|_cause| wrong())?),
            "--impair" => impairment = value.parse()?,
            "--rebind-every" => {
                let seconds: u64 = value.parse().map_err(|_cause| wrong())?;
                rebind_every = Some(std::time::Duration::from_secs(seconds.max(1)));
            }
            _ => return Err(format!("unknown argument {flag}\n\n{USAGE}")),
        }
    }
    Ok(Options {
        listen: listen.ok_or_else(|| format!("--listen is missing\n\n{USAGE}"))?,
        server: server.ok_or_else(|| format!("--server is missing\n\n{USAGE}"))?,
        impairment,
        rebind_every,
    })
}
