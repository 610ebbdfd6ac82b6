//! The state machine, on a clock of its own.

use super::*;

const SETTINGS: Settings = Settings {
    mode: Mode::Auto,
    half_open: 1000,
    drops_per_second: 10_000,
    leave_after: Duration::from_secs(10),
    strangers: Pace { step_ns: 1, slack_ns: 1 },
    strangers_all: Pace { step_ns: 1, slack_ns: 1 },
};

/// Looks twice a second, at a load that stays for a while.
struct Bench {
    attack: Attack,
    now: Instant,
    drops: u64,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let mut bench = Self { attack: Attack::new(settings), now: Instant::now(), drops: 7 };
        assert_eq!(bench.look(0, 0), None);
        bench
    }

    fn look(&mut self, half_open: u64, drops_per_second: u64) -> Option<Change> {
        self.now += WINDOW;
        self.drops += drops_per_second / 2;
        assert!(self.attack.is_due(self.now));
        let change = self.attack.look(Load { half_open, drops: self.drops }, self.now);
        assert!(!self.attack.is_due(self.now + WINDOW / 2));
        change
    }

    /// Looks for so many seconds at one load; nothing may change.
    fn stay(&mut self, seconds: u32, half_open: u64, drops_per_second: u64) {
        let was = self.attack.is_on();
        for _ in 0..2 * seconds {
            let change = self.look(half_open, drops_per_second);
            assert_eq!((change, self.attack.is_on()), (None, was));
        }
    }

    fn cause(&self) -> Option<Cause> {
        self.attack.report(self.now).on.map(|(cause, _)| cause)
    }
}

#[test]
fn either_load_turns_it_on_and_both_have_to_go() {
    let mut bench = Bench::new(SETTINGS);
    bench.stay(60, 999, 9_998);
    assert!(matches!(bench.look(1000, 0), Some(Change::Entered(Cause::HalfOpen, _))));
    // Half of a threshold is not below it, whichever it is.
    bench.stay(60, 501, 0);
    bench.stay(60, 0, 5_002);
    assert_eq!(bench.cause(), Some(Cause::HalfOpen));
    bench.stay(10, 500, 5_000);
    assert!(matches!(bench.look(500, 5_000), Some(Change::Left(_))));
    assert!(matches!(bench.look(0, 10_000), Some(Change::Entered(Cause::Drops, _))));
}

#[test]
fn quiet_is_counted_from_its_last_disturbance() {
    let mut bench = Bench::new(SETTINGS);
    assert!(bench.look(0, 20_000).is_some());
    for _ in 0..5 {
        bench.stay(9, 0, 0);
        assert_eq!(bench.attack.report(bench.now).ends_in, Some(Duration::from_millis(1500)));
        bench.stay(1, 0, 6_000);
        assert_eq!(bench.attack.report(bench.now).ends_in, None);
    }
    bench.stay(10, 0, 0);
    let Some(Change::Left(after)) = bench.look(0, 0) else { panic!("it is still on") };
    assert_eq!(after.as_secs(), 60);
}

#[test]
fn a_word_outranks_the_load_and_the_configuration() {
    let mut bench = Bench::new(SETTINGS);
    bench.attack.order(Mode::On);
    assert!(bench.attack.is_due(bench.now), "at once");
    assert!(matches!(bench.look(0, 0), Some(Change::Entered(Cause::Command, _))));
    bench.stay(60, 0, 0);
    bench.attack.order(Mode::Off);
    assert!(matches!(bench.look(5000, 50_000), Some(Change::Left(_))));
    bench.stay(60, 5000, 50_000);
    // A reload that says nothing else about it leaves that alone.
    bench.attack.configure(Settings { half_open: 1, ..SETTINGS });
    bench.stay(5, 5000, 50_000);
    bench.attack.configure(Settings { mode: Mode::On, ..SETTINGS });
    assert!(matches!(bench.look(0, 0), Some(Change::Entered(Cause::Configuration, _))));
    // By hand back to what the load says: on for as long as it was not quiet.
    bench.attack.order(Mode::Auto);
    bench.stay(5, 0, 0);
    assert_eq!(bench.attack.report(bench.now).mode, Mode::Auto);
    bench.stay(5, 0, 0);
    assert!(matches!(bench.look(0, 0), Some(Change::Left(_))));
}

#[test]
fn a_look_that_comes_late_measures_a_rate_all_the_same() {
    let mut bench = Bench::new(SETTINGS);
    bench.now += Duration::from_secs(9);
    // In nine and a half seconds.
    bench.drops += 90_000;
    assert_eq!(bench.look(0, 0), None);
    assert_eq!(bench.attack.report(bench.now).drops_per_second, 9473);
    // Counters of a worker that was started again may be less than before.
    bench.drops = 0;
    assert_eq!(bench.look(0, 0), None);
    assert_eq!(bench.attack.report(bench.now).drops_per_second, 0);
}

#[test]
fn an_order_does_not_make_a_rate_of_a_moment() {
    let mut bench = Bench::new(SETTINGS);
    bench.look(0, 8_000);
    bench.attack.order(Mode::Auto);
    // A millisecond later, ten packets: no 10,000 a second.
    let now = bench.now + Duration::from_millis(1);
    assert_eq!(bench.attack.look(Load { half_open: 0, drops: bench.drops + 10 }, now), None);
    assert_eq!(bench.attack.report(now).drops_per_second, 8_000);
}

#[test]
fn it_is_told_in_words_and_figures() {
    let mut bench = Bench::new(SETTINGS);
    let entered = bench.look(3, 20_000).expect("it is on");
    assert_eq!(
        entered.to_string(),
        "attack mode is on (drops): 3 handshakes under way, 20000 packets a second were nobody's; new clients have \
         to prove their address"
    );
    bench.stay(10, 0, 0);
    let left = bench.look(0, 0).expect("it is off");
    assert_eq!(left.to_string(), "attack mode is off again, after 10 s");
}
