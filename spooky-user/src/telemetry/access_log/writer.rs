//! The thread that writes lines, and the queues to it. Imports only its siblings.
//!
//! Each worker has two bounded queues: `full` carries lines to the writer, `free` brings their buffers back. A worker never
//! waits: when `full` has no room, the line is dropped and counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::thread::{self, Thread};

use crossbeam_queue::ArrayQueue;

use super::sink::Sink;

/// Lines that may wait for the writer, for each worker.
pub(super) const LINES_MAX: usize = 1024;

/// A buffer that grew beyond this is not kept.
const BUFFER_KEPT_MAX: usize = 8 << 10;

/// Lines are gathered into writes of about this size.
const BATCH: usize = 64 << 10;

pub(super) struct Shared {
    pub(super) queues: Box<[Queue]>,
    /// The writer found nothing and is about to sleep.
    sleeping: AtomicBool,
    reopen: AtomicBool,
    closing: AtomicBool,
    writer: OnceLock<Thread>,
    pub(super) lines_written: AtomicU64,
    pub(super) write_errors: AtomicU64,
}

pub(super) struct Queue {
    full: ArrayQueue<Vec<u8>>,
    free: ArrayQueue<Vec<u8>>,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(workers: usize) -> Self {
        let queue = || Queue { full: ArrayQueue::new(LINES_MAX), free: ArrayQueue::new(LINES_MAX) };
        Self {
            queues: (0..workers).map(|_| queue()).collect(),
            sleeping: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            writer: OnceLock::new(),
            lines_written: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
        }
    }

    /// Gives a line to the writer. `false` when it was dropped.
    pub(super) fn push(&self, queue: &Queue, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if queue.full.is_full() {
            return false;
        }
        let mut line = queue.free.pop().unwrap_or_else(|| Vec::with_capacity(1024));
        write(&mut line);
        // The worker is the only one that pushes, so there is room still.
        let pushed = queue.full.push(line).is_ok();
        self.wake_if_sleeping();
        pushed
    }

    pub(super) fn ask_reopen(&self) {
        self.reopen.store(true, Ordering::Relaxed);
        self.wake_if_sleeping();
    }

    pub(super) fn ask_close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.wake_if_sleeping();
    }

    /// One side writes its news and then reads `sleeping`; the other writes `sleeping` and then looks for news. With a
    /// sequentially consistent fence between the two steps on both sides, at least one of them sees the other.
    fn wake_if_sleeping(&self) {
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed)
            && self.sleeping.swap(false, Ordering::Relaxed)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    fn sleep_unless_news(&self) {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let news = self.queues.iter().any(|queue| !queue.full.is_empty())
            || self.reopen.load(Ordering::Relaxed)
            || self.closing.load(Ordering::Relaxed);
        if !news {
            thread::park();
        }
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// The life of the writer thread: until it was asked to close and nothing is left.
    pub(super) fn run(&self, mut sink: Box<dyn Sink>) {
        let _ = self.writer.set(thread::current());
        let mut batch = Vec::with_capacity(2 * BATCH);
        loop {
            // Read before the queues are: what was pushed before the request to close is written.
            let closing = self.closing.load(Ordering::Acquire);
            if self.reopen.swap(false, Ordering::Relaxed)
                && let Err(error) = sink.reopen()
            {
                tracing::warn!(%error, "access log cannot be reopened; the old file stays in use");
            }
            let lines = self.gather(&mut batch);
            if lines > 0 {
                self.write(&mut *sink, &batch, lines);
            } else if closing {
                return;
            } else {
                self.sleep_unless_news();
            }
        }
    }

    /// Fills `batch` from the queues in turn, a line each, until they are empty or it is large enough.
    fn gather(&self, batch: &mut Vec<u8>) -> u64 {
        batch.clear();
        let mut lines = 0;
        loop {
            let before = lines;
            for queue in &self.queues {
                let Some(mut line) = queue.full.pop() else { continue };
                batch.extend_from_slice(&line);
                lines += 1;
                if line.capacity() <= BUFFER_KEPT_MAX {
                    line.clear();
                    // `free` has as many places as `full`; were it full, the buffer would be freed.
                    let _ = queue.free.push(line);
                }
            }
            if lines == before || batch.len() >= BATCH {
                return lines;
            }
        }
    }

    fn write(&self, sink: &mut dyn Sink, batch: &[u8], lines: u64) {
        match sink.write(batch) {
            Ok(()) => {
                self.lines_written.fetch_add(lines, Ordering::Relaxed);
            }
            Err(error) => {
                // Logged for the first only, counted for all: a full disk must not fill the other log too.
                if self.write_errors.fetch_add(lines, Ordering::Relaxed) == 0 {
                    tracing::error!(%error, "access log cannot be written; lines are lost");
                }
            }
        }
    }
}
