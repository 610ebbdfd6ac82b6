//! Real files and a real writer thread; nothing sleeps.

use std::collections::HashSet;
use std::fs;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::entry::tests::entry;
use super::writer::LINES_MAX;
use super::*;
use crate::telemetry::metrics::Registry;

const DEADLINE: Duration = Duration::from_secs(20);

/// Says when a write begins, and ends it when told.
struct Gate {
    begun: SyncSender<usize>,
    go: Receiver<io::Result<()>>,
}

impl Sink for Gate {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let count = lines.iter().filter(|byte| **byte == b'\n').count();
        let _ = self.begun.send(count);
        self.go.recv().unwrap_or(Ok(()))
    }
}

fn gate() -> (Box<Gate>, Receiver<usize>, SyncSender<io::Result<()>>) {
    let ((begun, begins), (go, gone)) = (sync_channel(2 * LINES_MAX), sync_channel(2 * LINES_MAX));
    (Box::new(Gate { begun, go: gone }), begins, go)
}

fn paths(text: &str) -> Vec<String> {
    let path = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        value["path"].as_str().unwrap().to_owned()
    };
    text.lines().map(path).collect()
}

#[test]
fn every_line_of_every_worker_is_written_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let registry = Registry::new(4);
    let log = AccessLog::open(&Target::File(path.clone()), 4).unwrap();
    thread::scope(|scope| {
        for number in 0..4 {
            let metrics = registry.worker(WorkerId(number));
            let worker = log.worker(WorkerId(number), Arc::clone(&metrics));
            scope.spawn(move || {
                for count in 0..5_000 {
                    let path = format!("/{number}/{count}");
                    let dropped = metrics.access_log_dropped.value();
                    // A dropped line is tried again, so that all of them come through in the end.
                    loop {
                        let before = metrics.access_log_dropped.value();
                        worker.record(&entry(path.as_bytes()));
                        if metrics.access_log_dropped.value() == before {
                            break;
                        }
                        thread::yield_now();
                    }
                    assert!(metrics.access_log_dropped.value() >= dropped);
                }
            });
        }
    });
    assert!(log.close(DEADLINE));
    let written = paths(&fs::read_to_string(&path).unwrap());
    assert_eq!(written.len(), 20_000);
    assert_eq!(written.iter().collect::<HashSet<_>>().len(), 20_000);
    for number in 0..4 {
        let prefix = format!("/{number}/");
        let counts = written.iter().filter_map(|path| path.strip_prefix(&prefix));
        assert!(counts.map(|count| count.parse::<u32>().unwrap()).eq(0..5_000));
    }
}

#[test]
fn a_stopped_reader_costs_lines_not_time() {
    let (sink, begins, go) = gate();
    let registry = Registry::new(1);
    let metrics = registry.worker(WorkerId(0));
    let log = AccessLog::with_sink(sink, 1).unwrap();
    registry.add_source(log.source());
    let worker = log.worker(WorkerId(0), Arc::clone(&metrics));
    worker.record(&entry(b"/first"));
    assert_eq!(begins.recv_timeout(DEADLINE), Ok(1));
    // The writer is stuck in its first write: the queue takes its capacity, and no more.
    for _ in 0..LINES_MAX + 10 {
        worker.record(&entry(b"/more"));
    }
    assert_eq!(metrics.access_log_dropped.value(), 10);
    go.send(Ok(())).unwrap();
    // The rest cannot be written: counted by line, and the writer lives on.
    drop(begins);
    for _ in 0..LINES_MAX {
        let _ = go.send(Err(io::Error::other("no space")));
    }
    assert!(log.close(DEADLINE));
    let text = registry.render();
    assert!(text.contains("\nspooky_access_log_lines_total 1\n"), "{text}");
    let lost = format!("\nspooky_access_log_write_errors_total {LINES_MAX}\n");
    assert!(text.contains(&lost) && text.contains("\nspooky_access_log_dropped_total 10\n"));
}

/// The writer goes to sleep between any two of these lines; were one wake-up lost, its line would wait for ever.
#[test]
fn no_wake_up_is_lost() {
    let (sink, begins, go) = gate();
    let registry = Registry::new(1);
    let log = AccessLog::with_sink(sink, 1).unwrap();
    let worker = log.worker(WorkerId(0), registry.worker(WorkerId(0)));
    for round in 0..50_000 {
        // Sweeps over the moments at which the writer can be met on its way to sleep.
        for _ in 0..round % 512 {
            std::hint::spin_loop();
        }
        worker.record(&entry(b"/"));
        assert_eq!(begins.recv_timeout(DEADLINE), Ok(1));
        go.send(Ok(())).unwrap();
    }
    assert!(log.close(DEADLINE));
}

#[test]
fn close_does_not_wait_for_a_target_that_blocks() {
    let (sink, begins, go) = gate();
    let registry = Registry::new(1);
    let log = AccessLog::with_sink(sink, 1).unwrap();
    log.worker(WorkerId(0), registry.worker(WorkerId(0))).record(&entry(b"/"));
    assert_eq!(begins.recv_timeout(DEADLINE), Ok(1));
    assert!(!log.close(Duration::from_millis(20)));
    drop(go);
}

#[test]
fn a_rotated_file_is_opened_again() {
    let directory = tempfile::tempdir().unwrap();
    let (path, old) = (directory.path().join("access.log"), directory.path().join("old.log"));
    let registry = Registry::new(1);
    let log = AccessLog::open(&Target::File(path.clone()), 1).unwrap();
    let worker = log.worker(WorkerId(0), registry.worker(WorkerId(0)));
    worker.record(&entry(b"/before"));
    wait_until(|| fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n')));
    fs::rename(&path, &old).unwrap();
    log.reopen();
    wait_until(|| path.exists());
    worker.record(&entry(b"/after"));
    assert!(log.close(DEADLINE));
    assert_eq!(paths(&fs::read_to_string(&old).unwrap()), ["/before"]);
    assert_eq!(paths(&fs::read_to_string(&path).unwrap()), ["/after"]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o007, 0, "{mode:o}");
}

#[test]
fn off_and_not_to_be_opened() {
    let registry = Registry::new(1);
    let log = AccessLog::open(&Target::Off, 1).unwrap();
    let worker = log.worker(WorkerId(0), registry.worker(WorkerId(0)));
    assert!(!worker.is_on());
    worker.record(&entry(b"/"));
    assert_eq!(registry.worker(WorkerId(0)).access_log_dropped.value(), 0);
    assert!(log.close(DEADLINE));
    let error = AccessLog::open(&Target::File("/nowhere/at/all".into()), 1).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

fn wait_until(condition: impl Fn() -> bool) {
    let end = std::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(std::time::Instant::now() < end, "not within {DEADLINE:?}");
        thread::yield_now();
    }
}
