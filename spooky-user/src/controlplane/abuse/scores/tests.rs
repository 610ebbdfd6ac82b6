//! Scores over time, and with more prefixes than there is room for.

use proptest::prelude::*;

use super::*;

fn rules() -> Rules {
    Rules {
        weights: [10, 1, 1, 10, 100, 2],
        threshold: 100,
        half_life: Duration::from_secs(10),
        block_for: Duration::from_secs(60),
        max_block_for: Duration::from_secs(600),
        max_entries: 1000,
    }
}

fn prefix(number: u32) -> IpNet {
    IpNet::from(std::net::IpAddr::from(number.to_be_bytes()))
}

/// So many of these events at once; the last verdict.
fn flood(
    scores: &mut Scores,
    who: IpNet,
    event: Event,
    times: u32,
    now: Instant,
) -> Option<Sentence> {
    (0..times).filter_map(|_| scores.record(who, event, now)).last()
}

#[test]
fn the_threshold_is_reached_once() {
    let (mut scores, now) = (Scores::new(rules()), Instant::now());
    assert_eq!(flood(&mut scores, prefix(1), Event::ClientError, 99, now), None);
    let sentence = scores.record(prefix(1), Event::ClientError, now).expect("a sentence");
    assert_eq!(sentence.ttl, Duration::from_secs(60));
    assert_eq!((sentence.earlier, sentence.events[1]), (0, 100));
    assert_eq!(sentence.reason(), "client_error 100");
    assert_eq!(flood(&mut scores, prefix(1), Event::Violation, 50, now), None, "once");
    assert_eq!((scores.sentenced(), scores.tracked()), (1, 1));
    let later = now + Duration::from_secs(60);
    scores.release(later);
    assert_eq!(scores.sentenced(), 0);
}

#[test]
fn sentences_of_repeaters_double_and_are_forgotten() {
    let (mut scores, mut now) = (Scores::new(rules()), Instant::now());
    let mut terms = Vec::new();
    for _ in 0..6 {
        let sentence = flood(&mut scores, prefix(1), Event::Violation, 1, now).expect("a sentence");
        terms.push(sentence.ttl.as_secs());
        now += sentence.ttl;
        scores.release(now);
        scores.sweep(now);
    }
    assert_eq!(terms, [60, 120, 240, 480, 600, 600]);
    now += Duration::from_secs(599);
    scores.sweep(now);
    assert_eq!(scores.tracked(), 1, "still remembered");
    now += Duration::from_secs(1);
    let sentence = flood(&mut scores, prefix(1), Event::Violation, 1, now).expect("a sentence");
    assert_eq!((sentence.ttl.as_secs(), sentence.earlier), (60, 0), "a clean record");
}

#[test]
fn what_cannot_be_carried_out_is_tried_again() {
    let (mut scores, now) = (Scores::new(rules()), Instant::now());
    assert!(flood(&mut scores, prefix(1), Event::Violation, 1, now).is_some());
    scores.undo(&prefix(1), now);
    assert_eq!(scores.sentenced(), 0);
    let again = flood(&mut scores, prefix(1), Event::Violation, 1, now).expect("a sentence");
    assert_eq!(again.earlier, 0, "it did not count");
}

#[test]
fn as_many_are_sentenced_as_may_be() {
    let (mut scores, now) = (Scores::new(Rules { max_entries: 3, ..rules() }), Instant::now());
    let sentenced =
        (0..5).filter(|n| scores.record(prefix(*n), Event::Violation, now).is_some()).count();
    assert_eq!((sentenced, scores.capped()), (3, 2));
    let later = now + Duration::from_secs(60);
    scores.release(later);
    assert!(scores.record(prefix(4), Event::Violation, later).is_some());
}

#[test]
fn a_full_table_forgets_the_lowest() {
    let (mut scores, now) = (Scores::new(rules()), Instant::now());
    assert_eq!(flood(&mut scores, prefix(0), Event::Glitch, 9, now), None);
    assert!(scores.record(prefix(1), Event::Violation, now).is_some());
    for number in 2..40_000 {
        assert_eq!(scores.record(prefix(number), Event::ClientError, now), None);
        assert!(scores.tracked() <= CAPACITY);
    }
    assert!(scores.evicted() >= 40_000 - CAPACITY as u64);
    assert_eq!(scores.score(&prefix(0), now), 90.0, "who does most is not forgotten");
    assert!(scores.record(prefix(1), Event::Violation, now).is_none(), "nor who is sentenced");
}

#[test]
fn a_weight_of_nothing_is_no_entry() {
    let (mut scores, now) = (Scores::new(Rules { weights: [0; 6], ..rules() }), Instant::now());
    for event in Event::ALL {
        assert_eq!(flood(&mut scores, prefix(1), event, 1000, now), None);
    }
    assert_eq!(scores.tracked(), 0);
}

proptest! {
    /// A score is the sum of what was done, each halved for each half-life since.
    #[test]
    fn scores_decay(gaps in proptest::collection::vec(0_u64..20_000, 1..50), after in 0_u64..60_000) {
        let mut scores = Scores::new(Rules { threshold: 1_000_000, ..rules() });
        let start = Instant::now();
        let (mut now, mut times) = (start, Vec::new());
        for gap in gaps {
            now += Duration::from_millis(gap);
            prop_assert_eq!(scores.record(prefix(7), Event::Glitch, now), None);
            times.push(now);
        }
        now += Duration::from_millis(after);
        let halvings = |at: Instant| (now - at).as_secs_f64() / 10.0;
        let exact: f64 = times.into_iter().map(|at| 10.0 * 0.5_f64.powf(halvings(at))).sum();
        prop_assert!((scores.score(&prefix(7), now) - exact).abs() < 1e-6 * exact.max(1.0));
    }

    /// Whoever stays below the threshold's rate is never sentenced, whatever a neighbour does.
    #[test]
    fn neighbours_are_not_affected(
        floods in proptest::collection::vec((0_usize..6, 1_u32..500, 0_u64..1000), 1..40),
    ) {
        let mut scores = Scores::new(rules());
        let mut now = Instant::now();
        for (event, times, gap) in floods {
            now += Duration::from_millis(gap);
            scores.release(now);
            flood(&mut scores, prefix(8), Event::ALL[event], times, now);
            prop_assert_eq!(scores.record(prefix(9), Event::ClientError, now), None);
            prop_assert!(scores.score(&prefix(9), now) <= 40.0);
            prop_assert!(scores.sentenced() <= 1);
        }
    }

    /// However many there are and whatever they do: bounded.
    #[test]
    fn the_table_is_bounded(
        events in proptest::collection::vec((0_u32..5000, 0_usize..6, 0_u64..3000), 1..2000),
        max_entries in 1_usize..50,
    ) {
        let mut scores = Scores::new(Rules { max_entries, ..rules() });
        let mut now = Instant::now();
        for (who, event, gap) in events {
            now += Duration::from_millis(gap);
            scores.release(now);
            if let Some(sentence) = scores.record(prefix(who), Event::ALL[event], now) {
                prop_assert!(sentence.ttl >= Duration::from_secs(60));
                prop_assert!(sentence.ttl <= Duration::from_secs(600));
            }
            prop_assert!(scores.sentenced() <= max_entries);
        }
        let later = now + Duration::from_secs(1300);
        scores.release(later);
        scores.sweep(later);
        prop_assert_eq!((scores.tracked(), scores.sentenced()), (0, 0));
    }
}
