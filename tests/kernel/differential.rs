//! Seeded frames, mutated and random, through the kernel and through the same code on the host: no difference in verdict
//! or counter. 100,000 of them, a million under `SPOOKY_SOAK=1`.

use std::os::fd::AsFd as _;

use spooky_common::{
    cid::{self, Owner},
    counter::Counter,
    map::Queue,
    pace::Pace,
};

use crate::{
    early,
    fixtures::{self, OWNER},
    frames::{Frame, QINQ, VLAN, frame, long, short},
    guard, queues,
    rig::{self, Setup, moved},
    xdp_verdicts::on_host,
};

/// Frames between two readings of all counters.
const BATCH: usize = 1000;

#[test]
fn h02_kernel_and_host_agree() {
    let Some(mut rig) = rig::load("differential") else { return };
    let Some(socket) = queues::socket("differential") else { return };
    let batches = if spooky_tests::soak() { 1000 } else { 130 };
    let seed =
        std::env::var("SPOOKY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed_0001);
    println!("SPOOKY_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut setup = fixtures::setup();
    let even = (0..16).flat_map(|generation| {
        (0..=u8::MAX).step_by(2).map(move |worker| Owner { worker, generation })
    });
    setup.live.extend(even);
    let fixtures =
        fixtures::all().into_iter().chain(early::under_early()).chain(guard::under_attack());
    let corpus: Vec<_> = fixtures.map(|fixture| fixture.octets).collect();
    let mut seen = vec![0_u64; Counter::ALL.len()];
    for batch in 0..batches {
        vary(&mut setup, batch);
        setup.queue = match batch % 3 {
            0 => Queue::NOBODYS,
            _ => Queue::live(OWNER, random.u16(..=256)),
        };
        if batch == 0 {
            rig.apply(&setup);
        }
        // The first ones have an owner without a socket.
        if batch == batches / 10 {
            setup.socket = true;
            rig.socket(socket.as_fd());
        }
        rig.forget_pace(&setup);
        rig.queue(&setup);
        rig.settings(&setup);
        let before = rig.counters();
        let mut expected = before.clone();
        for number in 0..BATCH {
            let octets = any_frame(&mut random, &corpus);
            let (verdict, counter) = on_host(&setup, &octets);
            expected[counter.index() as usize] += 1;
            seen[counter.index() as usize] += 1;
            let got = rig.run(&octets);
            let at = batch * BATCH + number;
            assert_eq!(
                got, verdict,
                "seed {seed}, frame {at} ({counter:?} on the host): {octets:02x?}"
            );
            let sum = rig.counter(counter);
            assert_eq!(
                sum,
                expected[counter.index() as usize],
                "seed {seed}, frame {at}: {counter:?} on the host, kernel counted {:?}: {octets:02x?}",
                moved(&before, &rig.counters())
            );
        }
        assert_eq!(rig.counters(), expected, "seed {seed}, batch {batch}");
    }
    println!("{} frames, 0 differences", batches * BATCH);
    enough_of_each(&seen);
}

/// Other settings for each batch.
fn vary(setup: &mut Setup, batch: usize) {
    setup.settings.default_deny = u32::from(batch % 8 == 7);
    setup.in_tries = batch % 2 == 1;
    setup.settings.early = u32::from(!batch.is_multiple_of(4));
    // Time stands still on the host, and in the kernel no pace below is reached again.
    let pace = |on: bool| Pace { step_ns: u64::from(on) << 50, slack_ns: 5 << 49 };
    setup.settings.new_flows = pace(batch % 3 == 1);
    setup.settings.versions = pace(batch.is_multiple_of(2));
    setup.settings.versions.slack_ns *= 3;
    setup.settings.attack = u32::from(batch % 5 == 3);
    setup.settings.strangers = pace(batch.is_multiple_of(2));
    setup.settings.strangers_all = pace(batch % 3 == 1);
    setup.settings.strangers_all.slack_ns *= 4;
    setup.settings.tokens_since_ms = guard::SINCE;
}

/// A difference can only show where there are frames.
fn enough_of_each(seen: &[u64]) {
    for counter in Counter::ALL.iter().filter(|counter| counter.place_in_row().is_some()) {
        println!("{counter:?}: {}", seen[counter.index() as usize]);
        assert!(
            seen[counter.index() as usize] > 100,
            "{counter:?} hardly occurs: the frames prove little"
        );
    }
}

fn any_frame(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut octets = match random.u8(..8) {
        0 => (0..random.usize(14..200)).map(|_| random.u8(..)).collect(),
        1..=3 => built(random).octets(),
        _ => corpus[random.usize(..corpus.len())].clone(),
    };
    octets.truncate(if random.bool() { 1300 } else { 400 });
    if random.u8(..4) > 0 {
        for _ in 0..random.usize(..4) {
            mutate(random, &mut octets);
        }
    }
    octets.resize(octets.len().max(14), 0);
    octets
}

fn mutate(random: &mut fastrand::Rng, octets: &mut Vec<u8>) {
    let at = random.usize(..octets.len().max(1));
    match random.u8(..5) {
        0 => octets.truncate(at),
        1 if at < octets.len() => octets[at] ^= 1 << random.u8(..8),
        2 if at < octets.len() => octets[at] = random.u8(..),
        3 => octets.insert(at.min(octets.len()), random.u8(..)),
        // Most decisions are made in the first octets.
        _ if octets.len() > 64 => octets[random.usize(12..64)] = random.u8(..),
        _ => {}
    }
}

fn built(random: &mut fastrand::Rng) -> Frame {
    let v6 = random.bool();
    let pick = |random: &mut fastrand::Rng, choices: &[&'static str]| {
        choices[random.usize(..choices.len())]
    };
    let source = if v6 {
        pick(
            random,
            &[
                "[2001:db8::1]:9",
                "[2001:db8:bad::1]:9",
                "[2001:db8:bad:cafe::2]:9",
                "[2001:db8:a::1]:1",
            ],
        )
    } else {
        pick(random, &["192.0.2.1:9", "198.51.100.4:9", "198.51.100.200:9", "10.9.9.9:1"])
    };
    let destination = if v6 {
        pick(
            random,
            &["[2001:db8::9]:443", "[2001:db8::9]:8443", "[2001:db8::8]:8443", "[2001:db8::9]:53"],
        )
    } else {
        pick(random, &["192.0.2.9:443", "192.0.2.9:8443", "192.0.2.8:8443", "192.0.2.9:53"])
    };
    frame(source, destination, &payload(random)).with(|built| {
        built.tags = match random.u8(..6) {
            0 => vec![VLAN],
            1 => vec![QINQ, VLAN],
            _ => Vec::new(),
        };
        built.options = vec![1; random.usize(..21).saturating_sub(10) * 4];
        built.fragment = if random.u8(..8) == 0 { random.u16(..) } else { 0x4000 };
        built.protocol = if random.u8(..8) == 0 { random.u8(..) } else { 17 };
        built.padding = random.usize(..8);
        built.extensions = (0..random.usize(..6).saturating_sub(1))
            .map(|_| ([0, 43, 60, 44, 51][random.usize(..5)], vec![0; 6 + 8 * random.usize(..4)]))
            .collect();
    })
}

fn payload(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut dcid = [0; cid::CID_LEN];
    dcid.fill_with(|| random.u8(..));
    if random.u8(..8) == 0 {
        return long(0xc0, random.u32(2..), &dcid[..random.usize(..=20)]);
    }
    if random.bool() {
        let config_id = random.u8(..8);
        dcid[0] = cid::first_octet(config_id);
        let key = if config_id == 1 { fixtures::OLD_KEY } else { fixtures::KEY };
        cid::seal(&mut dcid, &key, Owner { worker: random.u8(..), generation: random.u8(..16) });
    }
    let mut packet = if random.bool() {
        short(&dcid)
    } else {
        let version = [0, 1, 1, random.u32(..), random.u32(..)][random.usize(..5)];
        let length = if random.bool() { 20 } else { random.usize(..=20) };
        long(0x80 | random.u8(..), version, &dcid[..length])
    };
    packet.truncate(match random.u8(..4) {
        0 => random.usize(..60),
        1 => 120,
        _ => packet.len(),
    });
    packet
}
