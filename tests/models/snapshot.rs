//! The snapshot that the control plane swaps while requests hold it: never half of one and half of another, never backwards, each
//! freed once, when its last request has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, Cache};

use crate::in_every_order;
use crate::inbox::Inbox;

/// Snapshots that are published while readers read.
const PUBLISHED: u64 = 3000;
const READERS: usize = 3;

/// A snapshot in which every part says which one it is.
#[derive(Debug)]
struct Parts {
    version: u64,
    routes: Vec<u64>,
    freed: Arc<AtomicUsize>,
    gone: AtomicBool,
}

impl Parts {
    fn new(version: u64, freed: &Arc<AtomicUsize>) -> Self {
        let (routes, freed) = (vec![version; 8], Arc::clone(freed));
        Self { version, routes, freed, gone: AtomicBool::new(false) }
    }

    fn is_whole(&self) -> bool {
        self.routes.iter().all(|part| *part == self.version) && !self.gone.load(Ordering::Relaxed)
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        assert!(!self.gone.swap(true, Ordering::Relaxed), "freed twice");
        self.freed.fetch_add(1, Ordering::Relaxed);
    }
}

/// arc-swap as workers use it, in threads: a cache each, revalidated at each request, and requests that last.
#[test]
fn readers_see_whole_snapshots_and_each_is_freed_once() {
    let freed = Arc::new(AtomicUsize::new(0));
    let published = Arc::new(ArcSwap::from_pointee(Parts::new(1, &freed)));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| {
                let mut cache = Cache::new(Arc::clone(&published));
                let mut requests: Vec<Arc<Parts>> = Vec::new();
                let mut newest = 0;
                while !done.load(Ordering::Acquire) {
                    let snapshot = Arc::clone(cache.load());
                    assert!(snapshot.version >= newest, "backwards to {}", snapshot.version);
                    newest = snapshot.version;
                    requests.push(snapshot);
                    assert!(requests.iter().all(|held| held.is_whole()));
                    if requests.len() > 7 {
                        requests.remove(0);
                    }
                }
            });
        }
        for version in 2..=PUBLISHED {
            let previous = published.load_full();
            assert_eq!(previous.version, version - 1);
            published.store(Arc::new(Parts::new(version, &freed)));
        }
        done.store(true, Ordering::Release);
    });
    assert_eq!(freed.load(Ordering::Relaxed), PUBLISHED as usize - 1, "all but the one in force");
    drop(published);
    assert_eq!(freed.load(Ordering::Relaxed), PUBLISHED as usize);
}

/// A worker that has been told of a new snapshot lets go of the old one in the same turn, and a request that began with the
/// old one keeps all of it: in every order of events, with loom's reference counts, which find what is leaked.
#[test]
fn the_old_snapshot_goes_with_its_last_request() {
    use loom::sync::{Arc, Mutex};

    in_every_order(|| {
        let (inbox, old) = (Arc::new(Inbox::new()), Arc::new([1, 1]));
        let published = Arc::new(Mutex::new(Arc::clone(&old)));
        let control = {
            let (inbox, published) = (Arc::clone(&inbox), Arc::clone(&published));
            loom::thread::spawn(move || {
                *published.lock().expect("nobody panics") = Arc::new([2, 2]);
                inbox.reconfigured();
            })
        };
        let load = || Arc::clone(&published.lock().expect("nobody panics"));
        let mut cached = load();
        drop(old);
        let request = Arc::clone(&cached);
        if inbox.take_reconfigured() {
            cached = load();
            assert_eq!(*cached, [2, 2], "told, and not there");
        }
        assert_eq!(request[0], request[1]);
        control.join().expect("it ends");
        if inbox.take_reconfigured() {
            cached = load();
        }
        assert_eq!(*cached, [2, 2], "told once, by the first or the second look");
        let last = if *request == [1, 1] { 1 } else { 3 };
        assert_eq!(Arc::strong_count(&request), last, "only the request holds the old one");
    });
}
