//! The `spooky` program: command line, configuration, start, wait, exit code.

use std::fs::File;
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use spooky_user::cli::{self, Cli, Command};
use spooky_user::controlplane::config::{self, Config};
use spooky_user::controlplane::trace::{self, Trace, TraceError};
use spooky_user::controlplane::{boot, control, settings};
use spooky_user::ctl;
use spooky_user::telemetry::logging;

/// docs/codex/decisions/0066-mimalloc.md has the figures. AddressSanitizer only sees what its own allocator gave out.
#[cfg(not(asan))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration is wrong; nothing was bound.
const EXIT_CONFIG: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check { config } => check(&config),
        Command::Run { config } => run(&config),
        Command::Ctl(asked) => ctl::run(&asked),
        Command::Trace(cli::Trace::Capture(order)) => ctl::trace::capture(&order),
        Command::Trace(cli::Trace::Replay { file, host, quiet }) => replay(&file, !host, quiet),
    }
}

fn check(path: &Path) -> ExitCode {
    match load(path) {
        Ok(config) => {
            let counts = format!(
                "{}: ok: {} listeners, {} upstreams, {} routes\n",
                path.display(),
                config.listeners.len(),
                config.upstreams.len(),
                config.routes.len()
            );
            // Whoever closed the pipe does not want to know.
            let _ = std::io::stdout().write_all(counts.as_bytes());
            ExitCode::SUCCESS
        }
        Err(code) => code,
    }
}

fn run(path: &Path) -> ExitCode {
    let config = match load(path) {
        Ok(config) => config,
        Err(code) => return code,
    };
    if let Err(error) = logging::init(settings::logging(&config.log)) {
        return fail(&error);
    }
    // Only now is anything bound.
    match boot::boot(config) {
        Ok(running) => control::run(running),
        Err(error) => fail(&error),
    }
}

/// One or more frames are judged otherwise than was recorded.
const EXIT_APART: u8 = 1;

fn replay(path: &Path, kernel: bool, quiet: bool) -> ExitCode {
    let read =
        File::open(path).map_err(TraceError::File).and_then(|it| Trace::read(BufReader::new(it)));
    let trace = match read {
        Ok(trace) => trace,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}: {error}", path.display());
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let mut out = std::io::BufWriter::new(std::io::stdout());
    let judged = trace::replay::replay(&trace, kernel, |frame| {
        if !(quiet && frame.agrees()) {
            let _ = writeln!(out, "{frame}");
        }
    });
    let apart = match judged {
        Ok(apart) => apart,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "spooky: {error}; `--host` needs no kernel");
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    let judges = if kernel { "host and kernel" } else { "host" };
    let count = trace.frames.len();
    let _ = writeln!(
        out,
        "{count} frames by {judges}: {apart} apart; {} lost in the capture",
        trace.lost
    );
    if out.flush().is_err() || apart > 0 { ExitCode::from(EXIT_APART) } else { ExitCode::SUCCESS }
}

fn load(path: &Path) -> Result<Config, ExitCode> {
    config::load(path).map_err(|errors| {
        let _ = writeln!(std::io::stderr(), "{errors}");
        ExitCode::from(EXIT_CONFIG)
    })
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "spooky: {error}");
    ExitCode::FAILURE
}
