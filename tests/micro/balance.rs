//! Picking an endpoint by every policy, all eligible or every other one.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use spooky_user::dataplane::balance::{Balancer, Policy};

const POLICIES: [(&str, Policy); 4] = [
    ("round robin", Policy::RoundRobin),
    ("weighted round robin", Policy::WeightedRoundRobin),
    ("random", Policy::Random),
    ("ring hash", Policy::RingHash),
];

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance");
    for (name, policy) in POLICIES {
        for count in [1_usize, 10, 1000] {
            let names: Vec<String> = (0..count).map(|index| format!("b{index}")).collect();
            let endpoints = names.iter().zip((1_u16..).map(|n| 100 + n % 7));
            let balancer =
                Balancer::build(policy, endpoints.map(|(name, weight)| (name.as_str(), weight)));
            for (state, every) in [("", 1), (", half down", 2)] {
                let mut turn = balancer.turn(7);
                let mut key = 0_u64;
                let id = BenchmarkId::new(format!("{name}{state}"), count);
                group.bench_function(id, |bencher| {
                    bencher.iter(|| {
                        key = key.wrapping_add(0x9e37_79b9_7f4a_7c15);
                        balancer.pick(&mut turn, black_box(key), |index| index % every == 0)
                    });
                });
            }
        }
    }
}
