//! Properties of every policy: fairness, movement of keys, determinism, eligibility.

use proptest::prelude::*;

use super::{Balancer, Policy, Turn, hash};

const POLICIES: [Policy; 4] =
    [Policy::RoundRobin, Policy::WeightedRoundRobin, Policy::Random, Policy::RingHash];

struct Built {
    names: Vec<String>,
    weights: Vec<u16>,
    balancer: Balancer,
}

fn build(policy: Policy, weights: &[u16]) -> Built {
    let names: Vec<String> = (0..weights.len()).map(|index| format!("b{index}")).collect();
    let balancer = rebuild(policy, &names, weights);
    Built { names, weights: weights.to_vec(), balancer }
}

fn rebuild(policy: Policy, names: &[String], weights: &[u16]) -> Balancer {
    Balancer::build(policy, names.iter().map(String::as_str).zip(weights.iter().copied()))
}

fn counts(balancer: &Balancer, turn: &mut Turn, picks: usize) -> Vec<usize> {
    let mut counts = vec![0; balancer.endpoint_count()];
    for number in 0..picks {
        let key = hash(&number.to_le_bytes());
        counts[balancer.pick(turn, key, |_| true).expect("all are eligible")] += 1;
    }
    counts
}

#[test]
fn nobody_to_pick() {
    for policy in POLICIES {
        let empty = build(policy, &[]);
        assert_eq!(empty.balancer.pick(&mut empty.balancer.turn(1), 7, |_| true), None);
        let three = build(policy, &[1, 2, 3]);
        assert_eq!(three.balancer.pick(&mut three.balancer.turn(1), 7, |_| false), None);
    }
}

#[test]
fn round_robin_gives_a_dead_neighbours_share_to_all() {
    let built = build(Policy::RoundRobin, &[1; 5]);
    let mut turn = built.balancer.turn(3);
    let mut counts = [0_usize; 5];
    for _ in 0..400 {
        counts[built.balancer.pick(&mut turn, 0, |index| index != 2).expect("four are left")] += 1;
    }
    assert_eq!(counts, [100, 100, 0, 100, 100]);
    // Back again: its turn comes once, not once for every turn it missed.
    let first: Vec<_> =
        (0..5).filter_map(|_| built.balancer.pick(&mut turn, 0, |_| true)).collect();
    assert_eq!(first.iter().filter(|&&index| index == 2).count(), 1);
}

#[test]
fn random_keeps_weights_within_two_percent() {
    let weights = [1, 2, 3, 10, 84];
    let built = build(Policy::Random, &weights);
    let picks = 200_000;
    let counts = counts(&built.balancer, &mut built.balancer.turn(11), picks);
    for (count, weight) in counts.iter().zip(weights) {
        let share = *count as f64 / picks as f64 * 100.0;
        assert!((share - f64::from(weight)).abs() < 2.0, "weight {weight}: {share} %");
    }
}

#[test]
fn random_keeps_weights_among_the_few_that_are_eligible() {
    let weights: Vec<u16> = (0..100).map(|index| if index < 97 { 500 } else { 1 }).collect();
    let built = build(Policy::Random, &weights);
    let mut turn = built.balancer.turn(5);
    let mut counts = [0_u32; 3];
    for _ in 0..30_000 {
        let index = built.balancer.pick(&mut turn, 0, |index| index >= 97).expect("three are");
        counts[index - 97] += 1;
    }
    for count in counts {
        assert!((9_600..10_400).contains(&count), "{counts:?}");
    }
}

#[test]
fn ring_shares_follow_weights() {
    let weights = [100, 100, 200, 400];
    let built = build(Policy::RingHash, &weights);
    let picks = 100_000;
    let counts = counts(&built.balancer, &mut built.balancer.turn(0), picks);
    for (count, weight) in counts.iter().zip(weights) {
        let (share, wanted) = (*count as f64 / picks as f64, f64::from(weight) / 800.0);
        assert!((share - wanted).abs() < 0.05, "weight {weight}: {share}, wanted {wanted}");
    }
}

#[test]
fn ring_spreads_the_keys_of_an_ineligible_endpoint() {
    let built = build(Policy::RingHash, &[100; 10]);
    let mut turn = built.balancer.turn(0);
    let mut heirs = [0_u32; 10];
    for number in 0..20_000_u32 {
        let key = hash(&number.to_le_bytes());
        if built.balancer.pick(&mut turn, key, |_| true) == Some(4) {
            heirs[built.balancer.pick(&mut turn, key, |index| index != 4).expect("nine are")] += 1;
        }
    }
    assert_eq!(heirs[4], 0);
    assert!(heirs.iter().filter(|&&count| count > 50).count() == 9, "{heirs:?}");
}

#[test]
fn a_thousand_endpoints() {
    for policy in POLICIES {
        let weights: Vec<u16> = (0..1000).map(|index| 1 + index % 7).collect();
        let built = build(policy, &weights);
        let mut turn = built.balancer.turn(9);
        let all = counts(&built.balancer, &mut turn, 50_000);
        assert!(all.iter().filter(|&&count| count > 0).count() > 990, "{policy:?}");
        // The last one standing is found, by every policy, at any key.
        for key in [0, 1, u64::MAX, hash(b"x")] {
            assert_eq!(built.balancer.pick(&mut turn, key, |index| index == 617), Some(617));
        }
    }
}

#[test]
fn a_turn_of_another_balancer_still_gives_an_eligible_endpoint() {
    let random = build(Policy::Random, &[1, 1, 1]);
    let mut foreign = build(Policy::RoundRobin, &[1]).balancer.turn(1);
    assert_eq!(random.balancer.pick(&mut foreign, 0, |index| index > 0), Some(1));
}

#[test]
fn workers_do_not_move_in_lock_step() {
    for policy in [Policy::RoundRobin, Policy::WeightedRoundRobin, Policy::Random] {
        let built = build(policy, &[3, 1, 4, 1, 5, 9, 2, 6]);
        let first: std::collections::HashSet<_> = (0..64)
            .map(|seed| built.balancer.pick(&mut built.balancer.turn(seed), 0, |_| true))
            .collect();
        assert!(first.len() >= 4, "{policy:?}: 64 workers began with only {first:?}");
    }
}

proptest! {
    // Rings of a thousand pieces an endpoint are built in each case; 32 cases keep a debug build under a second or two.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn weighted_round_robin_is_exact_in_every_cycle(
        weights in prop::collection::vec(1_u16..30, 1..20),
        seed: u64,
        skip in 0_usize..100,
    ) {
        let built = build(Policy::WeightedRoundRobin, &weights);
        let mut turn = built.balancer.turn(seed);
        counts(&built.balancer, &mut turn, skip);
        let cycle = weights.iter().map(|&weight| usize::from(weight)).sum();
        let counts = counts(&built.balancer, &mut turn, cycle);
        for (count, weight) in counts.iter().zip(&weights) {
            prop_assert!(count.abs_diff(usize::from(*weight)) <= 1, "{counts:?} for {weights:?}");
        }
    }

    #[test]
    fn round_robin_takes_strict_turns(count in 1_usize..50, seed: u64) {
        let built = build(Policy::RoundRobin, &vec![1; count]);
        let counts = counts(&built.balancer, &mut built.balancer.turn(seed), count * 3);
        prop_assert!(counts.iter().all(|&picks| picks == 3));
    }

    #[test]
    fn only_the_keys_of_the_endpoint_that_leaves_move(
        count in 2_usize..16,
        leaving: prop::sample::Index,
        weight in 1_u16..1000,
    ) {
        let built = build(Policy::RingHash, &vec![weight; count]);
        let gone = leaving.index(count);
        let (mut names, mut weights) = (built.names.clone(), built.weights.clone());
        names.remove(gone);
        weights.remove(gone);
        let after = rebuild(Policy::RingHash, &names, &weights);
        let (mut turn, mut turn_after) = (built.balancer.turn(0), after.turn(0));
        let keys = 4000_u32;
        let mut moved = 0;
        for number in 0..keys {
            let key = hash(&number.to_le_bytes());
            let old = built.balancer.pick(&mut turn, key, |_| true).expect("all are");
            let new = after.pick(&mut turn_after, key, |_| true).expect("all are");
            if built.names[old] != names[new] {
                prop_assert_eq!(old, gone, "a key of an endpoint that stayed has moved");
                moved += 1;
            }
        }
        let share = f64::from(moved) / f64::from(keys);
        prop_assert!(share <= 1.0 / count as f64 + 0.05, "{share} of {count}");
    }

    #[test]
    fn never_an_ineligible_one_and_always_one_when_there_is_one(
        weights in prop::collection::vec(1_u16..=u16::MAX, 1..24),
        eligible in prop::collection::vec(any::<bool>(), 24),
        keys in prop::collection::vec(any::<u64>(), 1..50),
        seed: u64,
    ) {
        for policy in POLICIES {
            let built = build(policy, &weights);
            let mut turn = built.balancer.turn(seed);
            let possible = eligible[..weights.len()].contains(&true);
            for key in &keys {
                let pick = built.balancer.pick(&mut turn, *key, |index| eligible[index]);
                prop_assert_eq!(pick.is_some(), possible);
                prop_assert!(pick.is_none_or(|index| eligible[index]));
            }
        }
    }

    #[test]
    fn retries_visit_every_endpoint_once(
        weights in prop::collection::vec(1_u16..100, 1..30),
        key: u64,
        seed: u64,
    ) {
        for policy in POLICIES {
            let built = build(policy, &weights);
            let mut turn = built.balancer.turn(seed);
            let mut tried = vec![false; weights.len()];
            for _ in 0..weights.len() {
                let index = built.balancer.pick(&mut turn, key, |index| !tried[index]);
                tried[index.expect("one is left")] = true;
            }
            prop_assert_eq!(built.balancer.pick(&mut turn, key, |index| !tried[index]), None);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_picks(
        weights in prop::collection::vec(1_u16..100, 1..30),
        seed: u64,
    ) {
        for policy in POLICIES {
            let built = build(policy, &weights);
            let (mut a, mut b) = (built.balancer.turn(seed), built.balancer.turn(seed));
            for key in 0..50 {
                prop_assert_eq!(
                    built.balancer.pick(&mut a, key, |_| true),
                    built.balancer.pick(&mut b, key, |_| true)
                );
            }
        }
    }
}
