//! Starting a worker: a named, pinned thread with a current-thread runtime.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::Setup;
use super::inbox::{Inbox, Pulse};
use super::turn::Worker;
use crate::id::WorkerId;
use crate::sys::affinity;

/// A running worker, as the control plane holds it. Dropping it does not stop the worker: see [`Inbox::stop`].
#[derive(Debug)]
pub struct Handle {
    /// Which worker.
    pub id: WorkerId,
    /// Orders to it.
    pub inbox: Arc<Inbox>,
    /// Its sign of life.
    pub pulse: Arc<Pulse>,
    thread: JoinHandle<()>,
}

/// Why a worker did not start.
#[derive(Debug)]
pub enum StartError {
    /// The thread or its runtime could not be made.
    Thread(io::Error),
    /// A socket could not be put on the runtime.
    Socket(io::Error),
    /// BoringSSL or quiche could not make a configuration.
    Transport(String),
    /// It ended before it said that it runs.
    Died,
}

/// Tells of the end of the thread, by whatever way it ends.
struct EndOfLife(Arc<Pulse>);

impl Drop for EndOfLife {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Starts a worker and waits until it is ready to receive.
///
/// # Errors
///
/// [`StartError`]; nothing of the worker is left then.
pub fn spawn(setup: Setup) -> Result<Handle, StartError> {
    let id = setup.id;
    let inbox = Arc::clone(&setup.inbox);
    let pulse = Arc::clone(&setup.pulse);
    let (ready, started) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || run(setup, &ready))
        .map_err(StartError::Thread)?;
    match started.recv() {
        Ok(Ok(())) => Ok(Handle { id, inbox, pulse, thread }),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(StartError::Died),
    }
}

fn run(setup: Setup, ready: &mpsc::SyncSender<Result<(), StartError>>) {
    let _end = EndOfLife(Arc::clone(&setup.pulse));
    if let Some(core) = setup.core
        && let Err(error) = affinity::pin_current_thread(core)
    {
        tracing::warn!(worker = %setup.id, core, %error, "worker not pinned to its core");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(StartError::Thread(error)));
            return;
        }
    };
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        match Worker::new(setup) {
            Ok(worker) => {
                let _ = ready.send(Ok(()));
                worker.run().await;
            }
            Err(error) => {
                let _ = ready.send(Err(error));
            }
        }
    });
}

// === impl Handle ===

impl Handle {
    /// The thread has ended, in order or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.pulse.has_ended()
    }

    /// Waits for the end of the thread; `false` when it ended in a panic.
    #[must_use]
    pub fn join(self) -> bool {
        self.thread.join().is_ok()
    }
}

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "a worker thread cannot be started: {error}"),
            Self::Socket(error) => write!(f, "a worker's socket cannot be used: {error}"),
            Self::Transport(error) => write!(f, "a worker's QUIC set-up failed: {error}"),
            Self::Died => f.write_str("a worker ended while it was starting; see the log above"),
        }
    }
}

impl std::error::Error for StartError {}
