//! Writes the entries to their file, one write at a time, off the control plane's thread; whoever has asked for a change is
//! answered when a write that has it is on the disk. Imports `state`, `table`, `figures`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;

use super::figures::ListFigures;
use super::state;
use super::table::{Entry, Table};

/// After a write that failed.
const AGAIN: Duration = Duration::from_secs(5);

/// Told whether a change will outlive the process, and if not why.
pub type Told = Box<dyn FnOnce(Result<(), &str>)>;

pub(super) struct Store {
    path: Option<PathBuf>,
    /// Counts changes.
    changes: u64,
    /// The changes that the last write had.
    written: u64,
    writing: Option<(u64, JoinHandle<io::Result<()>>)>,
    waiting: Vec<(u64, Told)>,
    failed: Option<Instant>,
}

impl Store {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, changes: 0, written: 0, writing: None, waiting: Vec::new(), failed: None }
    }

    /// What the file has. One that cannot be used is put aside. Blocks.
    pub(super) fn restore(&mut self, figures: &ListFigures, now: Instant) -> Vec<Entry> {
        let Some(path) = &self.path else { return Vec::new() };
        match state::read(path, now, SystemTime::now()) {
            Ok(entries) => {
                if !entries.is_empty() {
                    tracing::info!(entries = entries.len(), "access: dynamic entries restored");
                }
                entries
            }
            Err(error) => {
                figures.state_error();
                let kept = match state::put_aside(path) {
                    Ok(aside) => format!("it is kept as {}", aside.display()),
                    Err(error) => format!("it cannot be put aside: {error}"),
                };
                tracing::error!(file = %path.display(), "access.state_file: {error}; starting without its entries, {kept}");
                Vec::new()
            }
        }
    }

    /// Something has changed.
    pub(super) fn touch(&mut self) {
        self.changes += 1;
    }

    /// Tells when all changes so far are on the disk, or that they will not be.
    pub(super) fn tell(&mut self, told: Told) {
        if self.path.is_none() {
            told(Err("access.state_file is not set"));
        } else if self.written == self.changes {
            told(Ok(()));
        } else {
            self.waiting.push((self.changes, told));
        }
    }

    /// Begins a write, if there is something to be written and no other under way.
    pub(super) fn write(&mut self, table: &Table, now: Instant) {
        let Some(path) = &self.path else { return };
        let patient = self.failed.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN);
        let pressing = patient || !self.waiting.is_empty();
        if self.written == self.changes || self.writing.is_some() || !pressing {
            return;
        }
        let (path, entries) = (path.clone(), table.iter().cloned().collect::<Vec<Arc<Entry>>>());
        let write = move || state::write(&path, &entries, now, SystemTime::now());
        self.writing = Some((self.changes, tokio::task::spawn_blocking(write)));
    }

    /// A write has ended, and those who waited for it have been told. Waits for ever when there is none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn written(&mut self, figures: &ListFigures) {
        let Some((changes, handle)) = &mut self.writing else {
            return std::future::pending().await;
        };
        let (changes, result) = (*changes, handle.await);
        self.writing = None;
        let result = result.unwrap_or_else(|error| Err(io::Error::other(error)));
        let failure = result.err().map(|error| error.to_string());
        match &failure {
            None => {
                self.written = changes;
                self.failed = None;
            }
            Some(error) => {
                figures.state_error();
                self.failed = Some(Instant::now());
                tracing::error!(
                    "access.state_file cannot be written, entries would not survive a restart: {error}"
                );
            }
        }
        let (done, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(wanted, _)| *wanted <= changes);
        self.waiting = waiting;
        for (_, told) in done {
            told(failure.as_deref().map_or(Ok(()), Err));
        }
    }

    /// Writes what is not written yet, at the end of the process. Blocks.
    pub(super) fn finish(&mut self, table: &Table) {
        let Some(path) = self.path.as_ref().filter(|_| self.written != self.changes) else {
            return;
        };
        let entries: Vec<_> = table.iter().cloned().collect();
        if let Err(error) = state::write(path, &entries, Instant::now(), SystemTime::now()) {
            tracing::error!("access.state_file cannot be written: {error}");
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}
