//! Waiting for a state, never for a time: every wait of the tests goes through here. Imports nothing.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Looks at `condition` until it gives a value, and returns that.
///
/// # Panics
/// When `deadline` has passed without one; the message names `what`.
#[track_caller]
pub fn until<T>(what: &str, deadline: Duration, condition: impl FnMut() -> Option<T>) -> T {
    match poll(deadline, condition) {
        Some(value) => value,
        None => panic!("{what}: not within {deadline:?}"),
    }
}

/// Looks at `condition` until it holds.
///
/// # Panics
/// When `deadline` has passed before; the message names `what`.
#[track_caller]
pub fn until_true(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    until(what, deadline, || condition().then_some(()));
}

/// Looks at `condition` until it gives a value or `deadline` has passed.
pub fn poll<T>(deadline: Duration, condition: impl FnMut() -> Option<T>) -> Option<T> {
    poll_every(STEP, deadline, condition)
}

/// As [`poll`], looking only so often: where a look costs something, or others measure meanwhile.
pub fn poll_every<T>(
    step: Duration,
    deadline: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Option<T> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::park_timeout(step);
    }
}

/// Looks at `state` every tenth of a second for `time` and hands each value to `look`: for what must hold all along.
pub fn watch<T>(time: Duration, mut state: impl FnMut() -> T, mut look: impl FnMut(T)) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        look(state());
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
