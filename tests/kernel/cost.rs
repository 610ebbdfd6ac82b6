//! Row H03: what a frame costs at the XDP hook, by the kernel's own clock. Prints its figures; the bound is a multiple of the
//! target, because the machine that runs the tests is shared.

use std::time::Duration;

use spooky_common::{
    cid::{LocalKey, Owner},
    counter::Counter,
};

use crate::{
    frames::{frame, long, our_cid, short},
    rig::{self, Setup, XDP_DROP, XDP_PASS},
};

/// Runs a figure is the mean of. The best of three counts.
const REPEAT: u32 = 1_000_000;
/// Targets are 150 ns to pass and 60 ns to drop; four times that is a defect on any machine.
const SLACK: u32 = 4;

#[test]
fn h03_a_frame_costs_little() {
    let Some(mut rig) = rig::load("cost") else { return };
    let key = LocalKey { k0: 3, k1: 4 };
    let mut setup = Setup {
        listeners: vec![
            "0.0.0.0:443".parse().expect("address"),
            "[::]:443".parse().expect("address"),
        ],
        ..Setup::default()
    };
    setup.keys[0] = Some(key);
    let owner = Owner { worker: 3, generation: 1 };
    setup.live.push(owner);
    setup.settings.early = 1;
    setup.deny.extend([
        ("198.51.100.0".parse().expect("address"), 24),
        ("2001:db8:bad::".parse().expect("address"), 48),
    ]);
    rig.apply(&setup);
    let ours = short(&our_cid(&key, 0, owner, 9));
    let initial = long(0xc0, 1, &[7; 8]);
    let rows = [
        ("pass, other port", frame("192.0.2.1:50000", "192.0.2.9:53", &ours), XDP_PASS, 150),
        ("pass, owner, IPv4", frame("192.0.2.1:50000", "192.0.2.9:443", &ours), XDP_PASS, 150),
        (
            "pass, owner, IPv6",
            frame("[2001:db8::1]:50000", "[2001:db8::9]:443", &ours),
            XDP_PASS,
            150,
        ),
        ("pass, Initial, IPv4", frame("192.0.2.1:50000", "192.0.2.9:443", &initial), XDP_PASS, 150),
        (
            "drop, too short",
            frame("192.0.2.1:50000", "192.0.2.9:443", &initial[..100]),
            XDP_DROP,
            60,
        ),
        ("drop, denied, IPv4", frame("198.51.100.7:50000", "192.0.2.9:443", &ours), XDP_DROP, 60),
        (
            "drop, denied, IPv6",
            frame("[2001:db8:bad::1]:50000", "[2001:db8::9]:443", &ours),
            XDP_DROP,
            60,
        ),
    ];
    for (name, frame, verdict, target) in rows {
        let octets = frame.octets();
        let runs: Vec<_> = (0..3).map(|_| rig.repeat(&octets, REPEAT)).collect();
        assert!(runs.iter().all(|(got, _)| *got == verdict), "{name}: {runs:?}");
        let best = runs.iter().map(|(_, time)| *time).min().unwrap_or_default();
        println!("H03: {name}: {} ns (target {target} ns)", best.as_nanos());
        assert!(best <= Duration::from_nanos(u64::from(target * SLACK)), "{name}: {best:?}");
    }
    assert!(rig.counters()[Counter::XdpDenied.index() as usize] >= u64::from(REPEAT));
}
