//! The `spooky` program: command line, configuration, start, wait, exit code.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use spooky_user::cli::{Cli, Command};
use spooky_user::controlplane::config::{self, Config};
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
