//! Balancers under any sequence of endpoints that come, go, fail and recover: none that failed is picked, one is picked as long
//! as one is left, weights hold within 2 %, and only the keys of a ring's endpoint that comes or goes move.
//!
//! Input: the policy; then `add WEIGHT`, `remove PLACE`, `fail PLACE`, `heal PLACE`, `pick KEY TIMES`, `count`.

use spooky_user::dataplane::balance::{Balancer, Policy, Turn, hash};

use crate::script::{self, Line};

const OPERATIONS: [&str; 6] = ["add", "remove", "fail", "heal", "pick", "count"];
const ENDPOINTS_MAX: usize = 12;
/// Keys of which is asked where they lead before and after a change.
const KEYS: u32 = 2000;

struct State {
    policy: Policy,
    endpoints: Vec<Endpoint>,
    /// Numbers for names, never used again.
    named: usize,
    balancer: Balancer,
    turn: Turn,
}

#[derive(Clone)]
struct Endpoint {
    name: String,
    weight: u16,
    eligible: bool,
}

pub(super) fn run(input: &[u8]) {
    let mut lines = script::lines(input, 40);
    let policies = ["round_robin", "weighted_round_robin", "random", "ring_hash"];
    let policy = match lines.next().map_or(policies[0], |line| line.choice(&policies)) {
        "round_robin" => Policy::RoundRobin,
        "weighted_round_robin" => Policy::WeightedRoundRobin,
        "random" => Policy::Random,
        _ => Policy::RingHash,
    };
    let balancer = Balancer::build(policy, []);
    let turn = balancer.turn(1);
    let mut state = State { policy, endpoints: Vec::new(), named: 0, balancer, turn };
    for line in lines {
        state.follow(&line);
    }
    state.count();
}

impl State {
    fn follow(&mut self, line: &Line<'_>) {
        let place = line.below(1, self.endpoints.len());
        match line.choice(&OPERATIONS) {
            "add" => self.change(|state| state.add(line)),
            "remove" if !self.endpoints.is_empty() => {
                self.change(|state| drop(state.endpoints.remove(place)));
            }
            verb @ ("fail" | "heal") => {
                if let Some(endpoint) = self.endpoints.get_mut(place) {
                    endpoint.eligible = verb == "heal";
                }
            }
            "pick" => {
                for _ in 0..line.below(2, 64) {
                    self.pick(hash(&line.word(1)));
                }
            }
            _ => self.count(),
        }
    }

    fn add(&mut self, line: &Line<'_>) {
        if self.endpoints.len() == ENDPOINTS_MAX {
            return;
        }
        // Equal weights in a ring, for which the share that may move is known.
        let weight = if self.policy == Policy::RingHash { 100 } else { 1 + line.below(1, 100) };
        let (name, weight) = (format!("b{}", self.named), weight as u16);
        self.named += 1;
        self.endpoints.push(Endpoint { name, weight, eligible: true });
    }

    /// Changes the endpoints and builds anew; of a ring, sees what moved.
    fn change(&mut self, how: impl FnOnce(&mut Self)) {
        let before = self.endpoints.clone();
        let asked = self.policy == Policy::RingHash && !before.is_empty();
        let led: Vec<String> = if asked { self.leads(&before) } else { Vec::new() };
        how(self);
        let named = self.endpoints.iter().map(|endpoint| (endpoint.name.as_str(), endpoint.weight));
        self.balancer = Balancer::build(self.policy, named.collect::<Vec<_>>());
        self.turn = self.balancer.turn(self.named as u64);
        assert_eq!(self.balancer.endpoint_count(), self.endpoints.len());
        if !asked || self.endpoints.is_empty() {
            return;
        }
        let leads = self.leads(&self.endpoints.clone());
        let stays = |name: &String, all: &[Endpoint]| all.iter().any(|it| it.name == *name);
        let mut moved = 0;
        for (old, new) in led.iter().zip(&leads).filter(|(old, new)| old != new) {
            moved += 1;
            let reason = !stays(old, &self.endpoints) || !stays(new, &before);
            assert!(reason, "a key moved from {old} to {new}, which both stay");
        }
        let most = 1.0 / before.len().max(self.endpoints.len()) as f64 + 0.05;
        assert!(f64::from(moved) / f64::from(KEYS) <= most, "{moved} of {KEYS} keys moved");
    }

    /// To whom each key leads while all are well.
    fn leads(&self, endpoints: &[Endpoint]) -> Vec<String> {
        let mut turn = self.balancer.turn(0);
        let mut lead = |key: u32| {
            let place = self.balancer.pick(&mut turn, hash(&key.to_le_bytes()), |_| true);
            endpoints[place.expect("there is one")].name.clone()
        };
        (0..KEYS).map(&mut lead).collect()
    }

    fn pick(&mut self, key: u64) -> Option<usize> {
        let endpoints = &self.endpoints;
        let picked = self.balancer.pick(&mut self.turn, key, |place| endpoints[place].eligible);
        assert_eq!(picked.is_some(), endpoints.iter().any(|endpoint| endpoint.eligible));
        assert!(picked.is_none_or(|place| endpoints[place].eligible), "picked one that failed");
        picked
    }

    /// Picks as often as the weights of all that are well say, twenty times, and compares.
    fn count(&mut self) {
        let well: Vec<Endpoint> = self.endpoints.iter().filter(|it| it.eligible).cloned().collect();
        let round: usize = well.iter().map(|endpoint| weight_of(self.policy, endpoint)).sum();
        let exact = matches!(self.policy, Policy::RoundRobin | Policy::WeightedRoundRobin);
        if round == 0 || !exact {
            return;
        }
        // One that has just failed or recovered is out of step for a round.
        for _ in 0..round {
            self.pick(0);
        }
        let mut counts = vec![0_usize; self.endpoints.len()];
        for _ in 0..20 * round {
            counts[self.pick(0).expect("one is well")] += 1;
        }
        for (endpoint, count) in self.endpoints.iter().zip(counts) {
            let wanted = if endpoint.eligible { 20 * weight_of(self.policy, endpoint) } else { 0 };
            let off = count.abs_diff(wanted) as f64 / (20 * round) as f64;
            assert!(off <= 0.02 || count.abs_diff(wanted) <= 1, "{count} of {wanted} picks");
        }
    }
}

fn weight_of(policy: Policy, endpoint: &Endpoint) -> usize {
    if policy == Policy::RoundRobin { 1 } else { usize::from(endpoint.weight) }
}
