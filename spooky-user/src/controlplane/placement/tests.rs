//! Shares against simulated workers: chance places connections by the table, the table follows them.

use proptest::prelude::*;

use super::*;

const BEAT: Duration = Duration::from_millis(100);

fn look(weight: u16, lag_ms: u64, connections: u64) -> Look {
    Look { weight, lag: Duration::from_millis(lag_ms), connections }
}

/// Workers, a clock, and a source of chance whose seed is printed with a failure.
struct Simulation {
    placement: Placement,
    now: Instant,
    looks: Vec<Look>,
    chance: u64,
    /// Who got each new connection.
    placed: Vec<u64>,
    most_moved: u64,
}

impl Simulation {
    fn new(weights: &[u16], seed: u64) -> Self {
        let mut placement = Placement::new(weights.len());
        let looks: Vec<Look> = weights.iter().map(|weight| look(*weight, 1, 0)).collect();
        let now = Instant::now();
        placement.beat(&looks, now);
        let placed = vec![0; weights.len()];
        let chance = seed.wrapping_mul(2).wrapping_add(1);
        Self { placement, now, looks, chance, placed, most_moved: 0 }
    }

    /// xorshift64*.
    fn draw(&mut self, below: u64) -> u64 {
        self.chance ^= self.chance >> 12;
        self.chance ^= self.chance << 25;
        self.chance ^= self.chance >> 27;
        (self.chance.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % below
    }

    fn connect(&mut self) {
        let mut slot = self.draw(256) as u16;
        for (worker, share) in self.placement.shares.iter().enumerate() {
            match slot.checked_sub(*share) {
                Some(rest) => slot = rest,
                None => {
                    self.looks[worker].connections += 1;
                    self.placed[worker] += 1;
                    return;
                }
            }
        }
    }

    fn disconnect(&mut self) {
        let mut which = self.draw(self.looks.iter().map(|look| look.connections).sum());
        for look in &mut self.looks {
            match which.checked_sub(look.connections) {
                Some(rest) => which = rest,
                None => {
                    look.connections -= 1;
                    return;
                }
            }
        }
    }

    fn beat(&mut self) {
        self.now += BEAT;
        let before = self.placement.moves();
        self.placement.beat(&self.looks, self.now);
        self.most_moved = self.most_moved.max(self.placement.moves() - before);
    }

    fn spread(&self) -> f64 {
        let counts = || self.looks.iter().map(|look| look.connections);
        counts().max().unwrap_or(0) as f64 / counts().min().unwrap_or(0).max(1) as f64
    }
}

#[test]
fn equal_load_is_the_weights() {
    let mut placement = Placement::new(4);
    let now = Instant::now();
    let looks = [look(100, 3, 50), look(100, 9, 51), look(50, 0, 24), look(0, 0, 9)];
    assert_eq!(placement.beat(&looks, now), [103, 102, 51, 0]);
    assert_eq!(placement.beat(&looks, now + BEAT), [103, 102, 51, 0]);
    assert_eq!(placement.moves(), 256, "the first table, and nothing since");
}

#[test]
fn a_worker_that_stands_has_less_than_a_quarter_of_its_share_within_a_second() {
    for workers in [2, 3, 4, 8, 16] {
        let mut simulation = Simulation::new(&vec![1; workers], 1);
        let fair = 256 / workers as u16;
        let mut beats = 0;
        while simulation.placement.shares[1] * 4 >= fair {
            beats += 1;
            // Its last sign of life grows older with each beat; a beat of rest is no lag.
            simulation.looks[1].lag = BEAT * (beats - 1);
            simulation.beat();
            assert!(beats < 10, "{workers} workers: {:?}", simulation.placement.shares);
        }
        println!("{workers} workers: under a quarter after {beats} beats of 100 ms");
    }
}

/// It has ever fewer connections than the others meanwhile, and is not owed them as long as it is late.
#[test]
fn a_late_worker_is_not_given_what_it_lacks() {
    for seed in 0..50 {
        let mut simulation = Simulation::new(&[1; 4], seed);
        simulation.looks[1].lag = Duration::from_millis(100);
        simulation.beat();
        for _ in 0..200 {
            simulation.connect();
            simulation.connect();
            simulation.beat();
            assert!(simulation.placement.shares[1] < 4, "{:?}", simulation.placement.shares);
        }
        assert!(simulation.placed[1] < 25, "seed {seed}: {:?}", simulation.placed);
        let spread = [0, 2, 3].map(|worker| simulation.looks[worker].connections);
        assert!(spread.iter().max() < spread.iter().min().map(|least| least * 5 / 4).as_ref());
    }
}

#[test]
fn one_that_stands_200_ms_once_is_forgiven_soon() {
    let mut simulation = Simulation::new(&[1; 4], 1);
    simulation.looks[2].lag = Duration::from_millis(200);
    simulation.beat();
    assert!(simulation.placement.shares[2] < 16, "{:?}", simulation.placement.shares);
    simulation.looks[2].lag = Duration::ZERO;
    for _ in 0..30 {
        simulation.beat();
    }
    assert_eq!(simulation.placement.shares, [64; 4]);
}

#[test]
fn lateness_of_all_is_nobodys() {
    let mut simulation = Simulation::new(&[1, 2, 1], 1);
    for look in &mut simulation.looks {
        look.lag = Duration::from_millis(300);
    }
    simulation.beat();
    assert_eq!(simulation.placement.shares, [64, 128, 64]);
}

#[test]
fn the_dead_give_all_at_once_and_those_who_come_back_get_it_step_by_step() {
    let mut simulation = Simulation::new(&[1; 4], 1);
    simulation.looks[3].weight = 0;
    simulation.beat();
    assert_eq!(simulation.placement.shares, [86, 85, 85, 0]);
    simulation.looks[3].weight = 1;
    let mut beats = 0;
    while simulation.placement.shares != [64; 4] {
        simulation.most_moved = 0;
        simulation.beat();
        assert!(simulation.most_moved <= u64::from(STEP));
        beats += 1;
        assert!(beats <= 5, "{:?}", simulation.placement.shares);
    }
}

#[test]
fn what_the_operator_says_is_in_force_at_once() {
    let mut simulation = Simulation::new(&[1, 1, 2, 0], 1);
    assert_eq!(simulation.placement.shares, [64, 64, 128, 0]);
    for (look, weight) in simulation.looks.iter_mut().zip([0, 0, 0, 7]) {
        look.weight = weight;
    }
    simulation.placement.configure(true);
    simulation.beat();
    assert_eq!(simulation.placement.shares, [0, 0, 0, 256]);
    simulation.placement.configure(false);
    simulation.looks = vec![look(1, 900, 10_000), look(1, 0, 0), look(0, 0, 0), look(0, 0, 0)];
    simulation.beat();
    assert_eq!(simulation.placement.shares, [128, 128, 0, 0], "static: load does not matter");
}

#[test]
fn nobody_takes_anything_and_then_somebody_does() {
    let mut simulation = Simulation::new(&[1, 1], 1);
    simulation.looks = vec![look(0, 0, 0); 2];
    simulation.beat();
    assert_eq!(simulation.placement.shares, [0, 0]);
    simulation.looks[1].weight = 5;
    simulation.beat();
    assert_eq!(simulation.placement.shares, [0, 256]);
}

#[test]
fn few_connections_move_nothing() {
    let mut simulation = Simulation::new(&[1; 4], 1);
    let before = simulation.placement.moves();
    for counts in [[1, 0, 0, 0], [2, 1, 0, 0], [3, 2, 1, 0], [2, 2, 2, 2], [0, 0, 0, 1]] {
        for (look, count) in simulation.looks.iter_mut().zip(counts) {
            look.connections = count;
        }
        simulation.beat();
    }
    assert_eq!(simulation.placement.moves(), before);
}

proptest! {
    /// 2 to 4 workers, 200 connections and more, up to one in 20 of them new at each beat.
    #[test]
    fn connections_spread_evenly(
        workers in 2_usize..=4,
        target in 200_u64..1000,
        part in 20_u64..=200,
        seed: u64,
    ) {
        let a_beat = target / part;
        let mut simulation = Simulation::new(&vec![1; workers], seed);
        let mut opened = 0;
        while opened < target {
            for _ in 0..a_beat {
                simulation.connect();
            }
            opened += a_beat;
            simulation.beat();
        }
        prop_assert!(simulation.spread() <= 1.35, "full: {:?}", simulation.looks);
        // And as they come and go.
        let (mut sum, mut beats) = (0.0, 0);
        for _ in 0..200 {
            for _ in 0..a_beat {
                simulation.disconnect();
                simulation.connect();
            }
            simulation.beat();
            sum += simulation.spread();
            beats += 1;
        }
        prop_assert!(sum / f64::from(beats) <= 1.2, "on average {}", sum / f64::from(beats));
        prop_assert!(simulation.most_moved <= u64::from(STEP), "{}", simulation.most_moved);
    }

    /// Whatever is seen, the table is whole, and only those who may take connections are in it.
    #[test]
    fn the_table_is_whole(
        beats in proptest::collection::vec(
            proptest::collection::vec((0_u16..=1000, 0_u64..2000, 0_u64..100_000), 5),
            1..20,
        ),
    ) {
        let mut placement = Placement::new(5);
        let mut now = Instant::now();
        for beat in beats {
            let looks: Vec<Look> = beat.iter().map(|(weight, lag, n)| look(*weight, *lag, *n)).collect();
            now += BEAT;
            let shares = placement.beat(&looks, now).to_vec();
            let anybody = looks.iter().any(|look| look.weight > 0);
            prop_assert_eq!(shares.iter().sum::<u16>(), if anybody { 256 } else { 0 });
            for (look, share) in looks.iter().zip(shares) {
                prop_assert!(look.weight > 0 || share == 0);
            }
        }
    }

    /// A worker that was away has few connections: it gets no flood of new ones, and its share of all in the end.
    #[test]
    fn who_comes_back_catches_up(seed: u64) {
        let mut simulation = Simulation::new(&[1; 4], seed);
        for look in &mut simulation.looks {
            look.connections = 100;
        }
        simulation.looks[0].connections = 0;
        simulation.beat();
        simulation.placed = vec![0; 4];
        let mut sum = 0.0;
        for beat in 0..150 {
            for _ in 0..15 {
                simulation.disconnect();
                simulation.connect();
            }
            simulation.beat();
            sum += if beat < 100 { 0.0 } else { simulation.spread() };
            prop_assert!(simulation.placement.shares[0] <= 128, "{:?}", simulation.placement.shares);
        }
        prop_assert!(sum / 50.0 <= 1.2, "on average {}", sum / 50.0);
    }
}
