//! `spooky-origin`: the sample backend as a program. Only reads its arguments; everything else is in the library.

use std::process::ExitCode;

use spooky_tests::origin::{Options, Origin, TlsFiles};

const USAGE: &str = "usage: spooky-origin --listen ADDR:PORT --name NAME [--tls-cert FILE --tls-key FILE] \
                     [--max-streams N] [--goaway-after N]";

fn main() -> ExitCode {
    match options(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("spooky-origin: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(async {
        let origin = Origin::bind(options).await?;
        println!("listening {}", origin.local_addr());
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|error| format!("cannot listen for SIGTERM: {error}"))?;
        tokio::select! {
            () = origin.serve() => {}
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut listen, mut name, mut cert, mut key) = (None, None, None, None);
    let (mut max_streams, mut goaway_after) = (None, None);
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            return Err(USAGE.into());
        }
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} wants a value\n{USAGE}"));
        match flag.as_str() {
            "--listen" => listen = Some(parsed(&flag, &value()?)?),
            "--name" => name = Some(value()?),
            "--tls-cert" => cert = Some(value()?.into()),
            "--tls-key" => key = Some(value()?.into()),
            "--max-streams" => max_streams = Some(parsed(&flag, &value()?)?),
            "--goaway-after" => goaway_after = Some(parsed(&flag, &value()?)?),
            _ => return Err(format!("unknown argument {flag}\n{USAGE}")),
        }
    }
    let tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        _ => return Err("--tls-cert and --tls-key belong together".into()),
    };
    Ok(Options {
        listen: listen.ok_or_else(|| format!("--listen is missing\n{USAGE}"))?,
        name: name.ok_or_else(|| format!("--name is missing\n{USAGE}"))?,
        tls,
        max_streams,
        goaway_after,
    })
}

fn parsed<T: std::str::FromStr>(flag: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_cause| format!("{flag}: {value:?} does not fit\n{USAGE}"))
}
