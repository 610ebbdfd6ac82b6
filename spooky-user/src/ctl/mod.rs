//! `spooky ctl`: asks a running daemon over its control socket and shows the answer, to people as a table, to programs as
//! JSON. One file for each family of verbs, as `controlplane::admin::verbs` has them. Imports nothing of the crate: it speaks to
//! the daemon as anybody could.
//!
//! Exit code 0: done. 1: the daemon refused, and said why. 2: it was not asked, for want of a socket, of permission, or of
//! sense in the command line.

mod attack;
mod client;
mod lists;
mod status;
mod steering;
pub mod trace;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::client::{Client, Failure};

/// Where the daemon is, and what is asked.
#[derive(Debug, Args)]
pub struct Ctl {
    /// The daemon's control socket, as `admin.socket` names it.
    #[arg(long, value_name = "PATH", default_value = "/run/spooky/spooky.sock", global = true)]
    socket: PathBuf,
    /// Print the daemon's answer as it is, in JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

/// What is asked.
#[derive(Debug, Subcommand)]
enum Verb {
    /// The daemon, its workers and its kernel programs.
    Status,
    /// Where packets go: by receive queue at the interface, at the socket groups, and in each worker.
    Steering,
    /// Show attack mode, or turn it on or off: clients prove their address first, XDP drops what belongs to no connection.
    Attack(attack::Attack),
    /// Refuse clients of a network, those who have a connection included.
    Block(lists::Put),
    /// Let in clients of a network, whatever blocks it.
    Allow(lists::Put),
    /// Remove what `block` has made.
    Unblock(lists::Remove),
    /// Show the access lists: what is blocked and allowed, by whom, and for how long.
    List(lists::List),
}

/// An answer in both forms.
struct Shown {
    json: Value,
    text: String,
}

/// Asks and prints.
#[must_use]
pub fn run(ctl: &Ctl) -> ExitCode {
    let client = Client::new(&ctl.socket);
    let shown = match &ctl.verb {
        Verb::Status => status::status(&client),
        Verb::Steering => steering::steering(&client),
        Verb::Attack(mode) => attack::attack(&client, mode),
        Verb::Block(put) => lists::put(&client, "block", put),
        Verb::Allow(put) => lists::put(&client, "allow", put),
        Verb::Unblock(remove) => lists::remove(&client, remove),
        Verb::List(list) => lists::list(&client, list),
    };
    match shown {
        Ok(shown) => {
            let text = if ctl.json { format!("{:#}\n", shown.json) } else { shown.text };
            // Whoever closed the pipe does not want to know.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if let (Failure::Refused { answer, .. }, true) = (&failure, ctl.json) {
                let _ = writeln!(std::io::stdout(), "{answer:#}");
            }
            let _ = writeln!(std::io::stderr(), "spooky ctl: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Text of a field; empty when it is missing.
fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Number of a field; 0 when it is missing.
fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

/// Rows in columns as wide as they need to be; the last column is not filled up.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|it| it.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
