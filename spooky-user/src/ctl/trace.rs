//! `spooky trace capture`: begins a capture in the daemon, tells how far it is, and writes the file. Imports its parent.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::{number, text};

/// How often the daemon is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// What to capture.
#[derive(Debug, Args)]
pub struct Capture {
    /// The daemon's control socket, as `admin.socket` names it.
    #[arg(long, value_name = "PATH", default_value = "/run/spooky/spooky.sock")]
    socket: PathBuf,
    /// Where the trace goes: a new file, which only its owner can read.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// At most so long, 1 to 600.
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    seconds: u64,
    /// At most so many frames, 1 to 20000.
    #[arg(long, default_value_t = 2000, value_name = "N")]
    frames: usize,
    /// One frame in N of each verdict and reason.
    #[arg(long, default_value_t = 1, value_name = "N")]
    every: u32,
}

/// Why there is no trace.
enum NoTrace {
    Asked(Failure),
    File(io::Error),
}

/// Captures and writes.
#[must_use]
pub fn capture(order: &Capture) -> ExitCode {
    let client = Client::new(&order.socket);
    match captured(&client, order) {
        Ok((frames, lost)) => {
            let said = format!("{}: {frames} frames, {lost} lost\n", order.out.display());
            let _ = io::stdout().write_all(said.as_bytes());
            ExitCode::SUCCESS
        }
        Err(NoTrace::Asked(failure)) => {
            let _ = writeln!(io::stderr(), "spooky trace: {failure}");
            ExitCode::from(failure.exit_code())
        }
        Err(NoTrace::File(error)) => {
            let _ = writeln!(io::stderr(), "spooky trace: {}: {error}", order.out.display());
            ExitCode::from(2)
        }
    }
}

fn captured(client: &Client<'_>, order: &Capture) -> Result<(u64, u64), NoTrace> {
    // Before anything is captured for nothing.
    let mut file = create(&order.out).map_err(NoTrace::File)?;
    let done = fetch(client, order).and_then(|answer| {
        file.write_all(text(&answer, "/trace").as_bytes()).map_err(NoTrace::File)?;
        Ok((number(&answer, "/frames"), number(&answer, "/lost")))
    });
    if done.is_err() {
        // What is left is empty or half a trace.
        let _ = std::fs::remove_file(&order.out);
    }
    done
}

fn fetch(client: &Client<'_>, order: &Capture) -> Result<Value, NoTrace> {
    let Capture { frames, seconds, every, .. } = order;
    let wanted = json!({"frames": frames, "seconds": seconds, "every": every});
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(NoTrace::File)?;
    client.ask("POST", "/trace/begin", Some(&wanted))?;
    let _ = writeln!(
        io::stderr(),
        "capturing for at most {seconds} s; Ctrl-C ends it and keeps what there is"
    );
    let shown = runtime.block_on(watch(client))?;
    if shown > 0 {
        let _ = writeln!(io::stderr());
    }
    Ok(client.ask("POST", "/trace/end", None)?)
}

/// Tells how far the capture is until it is over or was interrupted; how many frames were shown last.
async fn watch(client: &Client<'_>) -> Result<u64, Failure> {
    let mut shown = 0;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            _ = &mut interrupted => return Ok(shown),
            () = tokio::time::sleep(ASK_EVERY) => {}
        }
        let progress = client.ask("GET", "/trace", None)?;
        let frames = number(&progress, "/frames");
        if frames != shown {
            shown = frames;
            let _ = write!(io::stderr(), "\r{frames} frames");
        }
        if progress.get("over") == Some(&Value::Bool(true)) {
            return Ok(shown);
        }
    }
}

impl From<Failure> for NoTrace {
    fn from(failure: Failure) -> Self {
        Self::Asked(failure)
    }
}

fn create(path: &Path) -> io::Result<std::fs::File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
