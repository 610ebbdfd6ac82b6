//! Long lists in the kernel, in their words and in their tries: every source gets what asking every prefix gives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::{
    frames::{frame, short},
    rig::{self, Setup},
    xdp_verdicts::on_host,
};

const SEED: u64 = 20_261_122;
const PREFIXES: usize = 2_000;
const SOURCES: usize = 2_000;

/// Crowded, so that prefixes nest and meet and many sources are near one.
fn address(random: &mut fastrand::Rng) -> IpAddr {
    if random.bool() {
        Ipv4Addr::from(0x0a00_0000 | random.u32(..0x1_0000) << random.u32(..9)).into()
    } else {
        let (high, low) = (random.u128(..16), random.u128(..64));
        Ipv6Addr::from(0x2001_0db8 << 96 | high << random.u32(44..92) | low).into()
    }
}

fn prefix(random: &mut fastrand::Rng) -> (IpAddr, u8) {
    let address = address(random);
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (address, longest - random.u8(..12))
}

#[test]
fn a_long_list_is_what_all_its_prefixes_are() {
    let Some(mut rig) = rig::load("prefixes") else { return };
    println!("seed {SEED}");
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut setup = Setup {
        listeners: vec![
            "0.0.0.0:443".parse().expect("address"),
            "[::]:443".parse().expect("address"),
        ],
        deny: (0..PREFIXES).map(|_| prefix(&mut random)).collect(),
        allow: (0..PREFIXES / 4).map(|_| prefix(&mut random)).collect(),
        ..Setup::default()
    };
    rig.apply(&setup);
    let mut verdicts = [0; 3];
    for _ in 0..SOURCES {
        let source = SocketAddr::new(address(&mut random), 9).to_string();
        let destination =
            if source.starts_with('[') { "[2001:db8::9]:443" } else { "10.0.0.9:443" };
        let octets = frame(&source, destination, &short(&[7; 20])).octets();
        for default_deny in [0, 1] {
            setup.settings.default_deny = default_deny;
            let (wanted, counter) = on_host(&setup, &octets);
            for in_tries in [false, true] {
                setup.in_tries = in_tries;
                rig.settings(&setup);
                assert_eq!(rig.run(&octets), wanted, "{source}: {counter:?}, tries: {in_tries}");
            }
            verdicts[wanted as usize] += 1;
        }
    }
    assert!(verdicts[1] > 200 && verdicts[2] > 200, "{verdicts:?} proves little");
}
