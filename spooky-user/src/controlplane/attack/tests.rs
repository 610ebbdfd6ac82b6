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

const BEAT: Duration = Duration::from_millis(100);

/// Looks ten times a second, at a load that stays for a while.
struct Bench {
    attack: Attack,
    now: Instant,
    drops: u64,
}

impl Bench {
    fn new(settings: Settings) -> Self {
        let mut bench = Self { attack: Attack::new(settings), now: Instant::now(), drops: 7 };
        bench.stay(1, 0, 0);
        bench
    }

    fn look(&mut self, half_open: u64, drops_per_second: u64) -> Option<Change> {
        self.now += BEAT;
        self.drops += drops_per_second / 10;
        self.attack.look(Load { half_open, drops: self.drops }, self.now)
    }

    /// Looks for half a second, until something changes.
    fn look_on(&mut self, half_open: u64, drops_per_second: u64) -> Option<Change> {
        (0..5).find_map(|_| self.look(half_open, drops_per_second))
    }

    /// Looks for so many seconds at one load; nothing may change.
    fn stay(&mut self, seconds: u32, half_open: u64, drops_per_second: u64) {
        let was = self.attack.is_on();
        for _ in 0..10 * seconds {
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
    bench.stay(60, 999, 9_990);
    assert!(matches!(bench.look(1000, 0), Some(Change::Entered(Cause::HalfOpen, _))));
    // Half of a threshold is not below it, whichever it is.
    bench.stay(60, 501, 0);
    bench.stay(60, 0, 5_010);
    assert_eq!(bench.cause(), Some(Cause::HalfOpen));
    bench.stay(10, 500, 5_000);
    assert!(matches!(bench.look_on(500, 5_000), Some(Change::Left(_))));
    assert!(matches!(bench.look_on(0, 10_010), Some(Change::Entered(Cause::Drops, _))));
}

#[test]
fn a_large_flood_is_seen_at_once_and_a_short_burst_is_none() {
    let mut bench = Bench::new(SETTINGS);
    // 4,900 at once are no 10,000 in a second.
    assert_eq!(bench.look(0, 49_000), None);
    bench.stay(5, 0, 0);
    assert!(matches!(bench.look(0, 500_000), Some(Change::Entered(Cause::Drops, _))));
}

#[test]
fn quiet_is_counted_from_its_last_disturbance() {
    let mut bench = Bench::new(SETTINGS);
    assert!(bench.look_on(0, 20_000).is_some());
    for _ in 0..5 {
        bench.stay(9, 0, 0);
        // What is quiet shows when a window is over.
        let left = bench.attack.report(bench.now).ends_in.expect("quiet");
        assert!((1000..2000).contains(&left.as_millis()), "{left:?}");
        bench.stay(1, 0, 6_000);
        assert_eq!(bench.attack.report(bench.now).ends_in, None);
    }
    bench.stay(10, 0, 0);
    let Some(Change::Left(after)) = bench.look_on(0, 0) else { panic!("it is still on") };
    assert_eq!(after.as_secs(), 60);
}

#[test]
fn a_word_outranks_the_load_and_the_configuration() {
    let mut bench = Bench::new(SETTINGS);
    bench.attack.order(Mode::On);
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
    bench.stay(10, 0, 0);
    assert_eq!(bench.attack.report(bench.now).mode, Mode::Auto);
    assert!(matches!(bench.look_on(0, 0), Some(Change::Left(_))));
}

#[test]
fn a_look_that_comes_late_measures_a_rate_all_the_same() {
    let mut bench = Bench::new(SETTINGS);
    // The looks before are a window old by now, but for the last.
    bench.now += Duration::from_millis(9_400);
    bench.drops += 90_000;
    assert_eq!(bench.look(0, 0), None);
    let rate = bench.attack.report(bench.now).drops_per_second;
    assert!((9_000..9_500).contains(&rate), "{rate}");
    // Counters of a worker that was started again may be less than before.
    bench.drops = 0;
    assert_eq!(bench.look_on(0, 0), None);
    assert_eq!(bench.attack.report(bench.now).drops_per_second, 0);
}

#[test]
fn looks_that_come_too_often_are_not_kept_for_ever() {
    let mut bench = Bench::new(SETTINGS);
    for _ in 0..1000 {
        bench.now += Duration::from_millis(1);
        bench.drops += 1;
        assert_eq!(bench.attack.look(Load { half_open: 0, drops: bench.drops }, bench.now), None);
    }
    assert!(bench.attack.looks.len() <= LOOKS);
}

#[test]
fn it_is_told_in_words_and_figures() {
    let mut bench = Bench::new(SETTINGS);
    let entered = bench.look(3, 100_000).expect("it is on");
    assert_eq!(
        entered.to_string(),
        "attack mode is on (drops): 3 handshakes under way, 20000 packets a second were nobody's; new clients have \
         to prove their address"
    );
    bench.stay(10, 0, 0);
    let left = bench.look_on(0, 0).expect("it is off");
    assert_eq!(left.to_string(), "attack mode is off again, after 10 s");
}

#[test]
fn a_clock_that_is_set_makes_no_token_too_old() {
    let attack = Attack::new(SETTINGS);
    let (instant, began) = attack.began;
    let (ttl, hour) = (Duration::from_secs(10), Duration::from_secs(3600));
    let ms = |wall: SystemTime| wall.duration_since(UNIX_EPOCH).expect("later").as_secs() * 1000;
    let later = |wall| attack.tokens_since_ms(ttl, instant + hour, wall);
    assert_eq!(later(began + hour), ms(began + hour - ttl));
    // Forward: workers go on from where it was. Back: those that are started from now on do not.
    assert_eq!(later(began + 2 * hour), ms(began + hour - ttl));
    assert_eq!(later(began), ms(began - ttl));
    assert_eq!(later(UNIX_EPOCH), 0);
}
