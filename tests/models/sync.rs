//! loom's types in the place of those in the worker's own `sync`. The queue promises less than crossbeam's: who finds it empty
//! may have looked at an old length, so that what is built on it cannot lean on more than it is told.

use std::collections::VecDeque;
use std::task::Waker;

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;

pub(super) use loom::sync::atomic::{AtomicU16, AtomicU64, Ordering};

/// loom's waker with the signature of the one that it stands for.
#[derive(Debug)]
pub(super) struct AtomicWaker(loom::future::AtomicWaker);

impl AtomicWaker {
    pub(super) fn new() -> Self {
        Self(loom::future::AtomicWaker::new())
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.0.register_by_ref(waker);
    }

    pub(super) fn wake(&self) {
        self.0.wake();
    }
}

/// loom's flag. It lets an exchange overlook a store that no exchange has seen, which C++20 does not ([atomics.order] 10), and
/// then forgets the store: made an exchange itself, a store cannot be lost that way.
#[derive(Debug)]
pub(super) struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub(super) fn new(value: bool) -> Self {
        Self(loom::sync::atomic::AtomicBool::new(value))
    }

    pub(super) fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    pub(super) fn store(&self, value: bool, order: Ordering) {
        self.0.swap(value, order);
    }

    pub(super) fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }
}

/// Places in a queue, whatever its owner asks for: a model that fills 2,048 would not end.
pub(super) const CAPACITY: usize = 2;

/// A bounded queue of many writers and readers.
#[derive(Debug)]
pub(super) struct ArrayQueue<T> {
    values: Mutex<VecDeque<T>>,
    length: AtomicUsize,
}

impl<T> ArrayQueue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        assert!(capacity >= CAPACITY);
        Self { values: Mutex::new(VecDeque::new()), length: AtomicUsize::new(0) }
    }

    pub(super) fn push(&self, value: T) -> Result<(), T> {
        let mut values = self.values.lock().expect("nobody panics");
        if values.len() == CAPACITY {
            return Err(value);
        }
        values.push_back(value);
        drop(values);
        self.length.fetch_add(1, Ordering::Release);
        Ok(())
    }

    pub(super) fn pop(&self) -> Option<T> {
        if self.length.load(Ordering::Acquire) == 0 {
            return None;
        }
        let value = self.values.lock().expect("nobody panics").pop_front()?;
        self.length.fetch_sub(1, Ordering::Release);
        Some(value)
    }

    pub(super) fn len(&self) -> usize {
        self.length.load(Ordering::Acquire)
    }
}
