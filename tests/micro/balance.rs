//! Picking an endpoint by every policy, all eligible or every other one.

use std::hint::black_box;

use spooky_user::dataplane::balance::{Balancer, Policy};

use crate::stopwatch::Stopwatch;

const POLICIES: [(&str, Policy); 4] = [
    ("round robin", Policy::RoundRobin),
    ("weighted round robin", Policy::WeightedRoundRobin),
    ("random", Policy::Random),
    ("ring hash", Policy::RingHash),
];

pub(crate) fn benches(stopwatch: &mut Stopwatch) {
    for (policy_name, policy) in POLICIES {
        for count in [1_usize, 10, 1000] {
            let names: Vec<String> = (0..count).map(|index| format!("b{index}")).collect();
            let endpoints = names.iter().zip((0_u16..).map(|n| 100 + n % 7));
            let balancer =
                Balancer::build(policy, endpoints.map(|(name, weight)| (name.as_str(), weight)));
            for (state, every) in [("", 1), (", half down", 2)] {
                let mut turn = balancer.turn(7);
                let mut key = 0_u64;
                stopwatch.time(&format!("balance/{policy_name}, of {count}{state}"), || {
                    key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                    balancer.pick(&mut turn, black_box(key), |index| index % every == 0)
                });
            }
        }
    }
}
