//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::ctl::{self, Ctl};

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
    /// Packets recorded at the interface, judged again.
    #[command(subcommand)]
    Trace(Trace),
}

/// What can be done with a trace.
#[derive(Debug, Subcommand)]
pub enum Trace {
    /// Record what XDP sees and decides: the frames to the listeners, and the state of its maps.
    ///
    /// Asks a running daemon over its control socket. The trace holds the packets' headers and source addresses, and no key of
    /// this host. Needs `ebpf.mode: xdp`. Exit code 0: written. 1: the daemon refused. 2: it was not asked, or the file exists.
    Capture(ctl::trace::Capture),
    /// Judge every frame of a trace again: on the host, and by the kernel's program where this process may load it
    /// (CAP_BPF and CAP_NET_ADMIN; nothing is attached).
    ///
    /// Prints a line for each frame. Exit code 0 when all agree with what was recorded, 1 when not, 2 when it cannot be read.
    Replay {
        /// The trace, as `spooky trace capture` wrote it.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// On the host only: needs no privilege.
        #[arg(long)]
        host: bool,
        /// Print only frames on which the judges do not agree.
        #[arg(long, short)]
        quiet: bool,
    },
}
