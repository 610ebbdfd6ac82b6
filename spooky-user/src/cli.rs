//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::ctl::Ctl;

/// spooky: an HTTP/3 edge proxy whose packets are steered in the kernel.
#[derive(Debug, Parser)]
#[command(name = "spooky", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until SIGTERM or SIGINT.
    ///
    /// SIGTERM and SIGINT drain: clients are told (GOAWAY), what is in flight ends, then the exit code is 0. A second signal
    /// or `shutdown.drain_timeout` ends it hard, with exit code 1. SIGHUP reads the configuration again; if anything in it is
    /// wrong, all of it is logged and the old one stays. SIGUSR1 opens the access log again, after a rotation.
    Run {
        /// The configuration file. `config/spooky.yaml` in the source shows every key with its default.
        #[arg(long, short, value_name = "FILE")]
        config: PathBuf,
    },
    /// Read a configuration file and say everything that is wrong with it. Nothing is bound or changed.
    ///
    /// Exit code 0 when `spooky run` would take it, 2 when not.
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE")]
        config: PathBuf,
    },
    /// Ask a running spooky, or tell it what to do, over its control socket (`admin.socket`).
    ///
    /// Exit code 0 when it was done, 1 when the daemon refused, 2 when it could not be asked.
    Ctl(Ctl),
}
