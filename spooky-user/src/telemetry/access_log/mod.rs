//! The access log: one JSON line for each finished request. May import: id, telemetry::metrics.
//!
//! A worker formats into a recycled buffer and hands it over a bounded queue of its own; a thread of this module writes. A
//! slow disk or a stopped reader costs lines (`spooky_access_log_dropped_total`), never a worker's time.

mod entry;
mod sink;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

pub use self::entry::Entry;
use self::sink::{LogFile, Sink, Stderr, Stdout};
use self::writer::Shared;
use super::metrics::{Samples, Source, WorkerMetrics};
use crate::id::WorkerId;

/// `access_log.path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Nothing is written.
    Off,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to this file, made with mode 0640.
    File(PathBuf),
}

/// Why the log could not be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The file cannot be opened for appending.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The writer's thread cannot be started.
    Thread(io::Error),
}

/// The log of this process. Held by the control plane; dropping it leaves the writer to end by itself.
pub struct AccessLog {
    open: Option<Open>,
}

struct Open {
    shared: Arc<Shared>,
    /// Closed by the writer when it ends.
    ended: Receiver<()>,
}

/// One worker's end of the log.
pub struct WorkerLog {
    shared: Option<Arc<Shared>>,
    worker: WorkerId,
    metrics: Arc<WorkerMetrics>,
}

// === impl AccessLog ===

impl AccessLog {
    /// Opens the target and starts the writer, for workers `0..workers`.
    ///
    /// # Errors
    /// [`OpenError`]: the file or the thread.
    pub fn open(target: &Target, workers: usize) -> Result<Self, OpenError> {
        let sink: Box<dyn Sink> = match target {
            Target::Off => return Ok(Self { open: None }),
            Target::Stdout => Box::new(Stdout),
            Target::Stderr => Box::new(Stderr),
            Target::File(path) => Box::new(
                LogFile::open(path)
                    .map_err(|error| OpenError::File { path: path.clone(), error })?,
            ),
        };
        Self::with_sink(sink, workers)
    }

    fn with_sink(sink: Box<dyn Sink>, workers: usize) -> Result<Self, OpenError> {
        let shared = Arc::new(Shared::new(workers));
        let (end, ended) = mpsc::sync_channel(0);
        let writer = Arc::clone(&shared);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                writer.run(sink);
                drop::<mpsc::SyncSender<()>>(end);
            })
            .map_err(OpenError::Thread)?;
        Ok(Self { open: Some(Open { shared, ended }) })
    }

    /// The end of the log that `worker` writes to.
    ///
    /// # Panics
    /// When the worker is not one of those the log was opened for.
    #[must_use]
    pub fn worker(&self, worker: WorkerId, metrics: Arc<WorkerMetrics>) -> WorkerLog {
        let shared = self.open.as_ref().map(|open| Arc::clone(&open.shared));
        if let Some(shared) = &shared {
            assert!(worker.index() < shared.queues.len(), "the log was opened for every worker");
        }
        WorkerLog { shared, worker, metrics }
    }

    /// Asks the writer to open its file again, after a rotation. Returns at once.
    pub fn reopen(&self) {
        if let Some(open) = &self.open {
            open.shared.ask_reopen();
        }
    }

    /// Lines written and lines lost to write errors, for `metrics::Registry::add_source`.
    #[must_use]
    pub fn source(&self) -> Arc<dyn Source> {
        let shared = self.open.as_ref().map(|open| Arc::clone(&open.shared));
        Arc::new(move |samples: &mut Samples| {
            let (written, errors) = shared.as_ref().map_or((0, 0), |shared| {
                let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
                (read(&shared.lines_written), read(&shared.write_errors))
            });
            samples.counter(
                "spooky_access_log_lines_total",
                "Access log lines written.",
                &[],
                written,
            );
            samples.counter(
                "spooky_access_log_write_errors_total",
                "Access log lines lost because their target could not be written.",
                &[],
                errors,
            );
        })
    }

    /// Writes what is queued and ends the writer; waits at most `deadline`. `false` when it did not end in time, because
    /// its target blocks: the lines are lost. Call it after the workers ended.
    #[must_use]
    pub fn close(self, deadline: Duration) -> bool {
        let Some(open) = self.open else { return true };
        open.shared.ask_close();
        // Nothing is ever sent: the channel closes when the writer ends.
        matches!(open.ended.recv_timeout(deadline), Err(mpsc::RecvTimeoutError::Disconnected))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.ask_close();
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog").field("open", &self.open.is_some()).finish()
    }
}

// === impl WorkerLog ===

impl WorkerLog {
    /// Queues the line of one request. Never blocks; a line without room is dropped and counted.
    pub fn record(&self, entry: &Entry<'_>) {
        let Some(shared) = &self.shared else { return };
        let Some(queue) = shared.queues.get(self.worker.index()) else { return };
        if !shared.push(queue, |line| entry.write(line)) {
            self.metrics.access_log_dropped.inc();
        }
    }

    /// Is anything written? When not, the caller need not make an [`Entry`].
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }
}

impl fmt::Debug for WorkerLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLog").field("worker", &self.worker).finish_non_exhaustive()
    }
}

// === impl OpenError ===

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(
                f,
                "access_log.path: {} cannot be opened for appending: {error}",
                path.display()
            ),
            Self::Thread(error) => {
                write!(f, "the access log's thread cannot be started: {error}; raise RLIMIT_NPROC")
            }
        }
    }
}

impl std::error::Error for OpenError {}
