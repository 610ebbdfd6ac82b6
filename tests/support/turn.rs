//! Whose turn it is. The tests of a process share two cores, and wait for clients and for daemons most of their time: several
//! play side by side, those that measure memory or time play alone, those that only wait for a state of their own rest
//! beside either. Who asks to be alone in the middle has nothing under way that would not bear the wait for it: connections go
//! idle. Imports nothing.
//!
//! A binary needs more threads than tests may play, or those that wait to play alone leave none for the others:
//! `cargo xtask test` starts it with enough of them.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tests that play side by side at most: one more than there are cores keeps those busy and lets each answer in time.
static PLACES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get) + 1);

/// How a test plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Shared,
    Alone,
}

/// Who is on stage.
#[derive(Debug)]
struct Stage {
    shared: usize,
    alone: bool,
    /// Tests that wait to play side by side. They go before those that want to be alone, so that the stage is emptied as
    /// seldom as can be.
    waiting: usize,
}

static STAGE: Mutex<Stage> = Mutex::new(Stage { shared: 0, alone: false, waiting: 0 });
static CHANGED: Condvar = Condvar::new();

thread_local! {
    /// How the test of this thread plays, if it does.
    static PART: Cell<Option<Part>> = const { Cell::new(None) };
    /// How long it has waited for that.
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Held while a test is on stage.
#[derive(Debug)]
pub struct Turn {
    /// Since when; `None` for a further turn of one who is on stage already.
    since: Option<Instant>,
    /// Not for another thread: what is held is known by the one that took it.
    _here: PhantomData<MutexGuard<'static, ()>>,
}

/// Gives back the part that a test had before.
struct Back(Option<Part>);

// === impl Turn ===

impl Turn {
    /// Beside other tests. A further turn of one who has a turn is part of that: to wait for it behind another test that
    /// waits for the first would be for ever.
    pub fn shared() -> Self {
        Self::take(Part::Shared)
    }

    /// With the machine to itself.
    ///
    /// # Panics
    /// When this test is on stage with others already.
    pub fn alone() -> Self {
        assert!(
            PART.get() != Some(Part::Shared),
            "a test that is on stage with others cannot have it to itself"
        );
        Self::take(Part::Alone)
    }

    fn take(part: Part) -> Self {
        if PART.get().is_some() {
            return Self { since: None, _here: PhantomData };
        }
        let since = Instant::now();
        WAITED.set(Duration::ZERO);
        change(Some(part));
        Self { since: Some(since), _here: PhantomData }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(since) = self.since else { return };
        change(None);
        let (all, waited) = (since.elapsed(), WAITED.get());
        // Read by `cargo xtask test`.
        println!(
            "TOOK {:.1} s after {:.1} s",
            all.saturating_sub(waited).as_secs_f64(),
            waited.as_secs_f64()
        );
    }
}

/// Does `act` with the machine to itself, whatever the test has before and after.
pub fn alone<R>(act: impl FnOnce() -> R) -> R {
    let _back = Back(change(Some(Part::Alone)));
    act()
}

/// Does `act` off the stage, beside whatever others do: for what only looks at a state now and then.
pub fn resting<R>(act: impl FnOnce() -> R) -> R {
    let _back = Back(change(None));
    act()
}

// === impl Back ===

impl Drop for Back {
    fn drop(&mut self) {
        change(self.0);
    }
}

/// Makes this thread's test play another part, and returns the one it had.
fn change(to: Option<Part>) -> Option<Part> {
    let from = PART.replace(to);
    if from == to {
        return from;
    }
    let mut stage = STAGE.lock().unwrap_or_else(PoisonError::into_inner);
    match from {
        Some(Part::Shared) => stage.shared -= 1,
        Some(Part::Alone) => stage.alone = false,
        None => {}
    }
    CHANGED.notify_all();
    let begun = Instant::now();
    match to {
        // Whoever played alone goes on beside others at once: nobody else is there.
        Some(Part::Shared) => {
            stage.waiting += 1;
            stage = until(stage, |stage| !stage.alone && stage.shared < *PLACES);
            stage.waiting -= 1;
            stage.shared += 1;
        }
        Some(Part::Alone) => {
            stage = until(stage, |stage| !stage.alone && stage.shared == 0 && stage.waiting == 0);
            stage.alone = true;
        }
        None => {}
    }
    drop(stage);
    WAITED.set(WAITED.get() + begun.elapsed());
    from
}

fn until(stage: MutexGuard<'static, Stage>, may: fn(&Stage) -> bool) -> MutexGuard<'static, Stage> {
    CHANGED.wait_while(stage, |stage| !may(stage)).unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// Tests on stage now, those alone counted as a hundred.
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);

    fn play(weight: usize) {
        let now = NOW.fetch_add(weight, SeqCst) + weight;
        MOST.fetch_max(now, SeqCst);
        std::thread::yield_now();
        NOW.fetch_sub(weight, SeqCst);
    }

    #[test]
    fn alone_is_alone_and_the_others_have_their_places() {
        std::thread::scope(|scope| {
            for number in 0..24 {
                scope.spawn(move || {
                    let _turn = if number % 4 == 0 { Turn::alone() } else { Turn::shared() };
                    let _further = (number % 4 != 0).then(Turn::shared);
                    for _ in 0..50 {
                        play(if number % 4 == 0 { 100 } else { 1 });
                        alone(|| play(100));
                        resting(std::thread::yield_now);
                    }
                });
            }
        });
        assert_eq!(MOST.load(SeqCst), 100, "alone, with nobody beside");
        assert_eq!(PART.get(), None);
    }

    #[test]
    fn a_panic_gives_the_turn_on() {
        let broken = std::thread::spawn(|| {
            let _turn = Turn::shared();
            alone(|| panic!("on purpose"));
        });
        assert!(broken.join().is_err());
        let _turn = Turn::alone();
    }
}
