//! Row H11: what 10,000 connection IDs give away, what a forged one reaches, and what is left of IDs when their key is
//! followed by another. The IDs are those of the issuer that workers have; the last part asks the kernel as well.

use spooky_common::{
    cid::{CID_LEN, Owner},
    counter::Counter,
    steer,
};
use spooky_user::dataplane::quic::cid::{Cid, Issuer, Secrets};

use crate::{
    frames::{frame, short},
    rig::{self, Setup},
};

/// IDs of one collection.
const COLLECTED: usize = 10_000;
/// Who issued them: so many workers, and so many servers.
const ISSUERS: usize = 8;
/// The row's bound for all figures of one collection together.
const P_MIN: f64 = 0.01;
/// Collections before the row fails: what is random is below the bound once in a hundred times, what shows is always.
const COLLECTIONS: usize = 3;

/// IDs, each with the number of its issuer.
type Collection = Vec<(usize, Cid)>;

fn collect(issuers: &[Issuer]) -> Collection {
    (0..COLLECTED).map(|nth| (nth % ISSUERS, issuers[nth % ISSUERS].issue())).collect()
}

fn of_workers() -> Collection {
    let secrets = Secrets::random(0, [0xa1, 0xb2, 0xc3]);
    let worker = |worker| Issuer::new(&secrets, Owner { worker, generation: 1 });
    collect(&(0..ISSUERS as u8).map(worker).collect::<Vec<_>>())
}

fn of_servers() -> Collection {
    let keys = fastrand::u128(..).to_le_bytes();
    let keys = [keys, fastrand::u128(..).to_le_bytes()].concat().try_into().expect("32 octets");
    let server = |server| {
        let secrets = Secrets::from_bytes(0, [0, 0, server], &keys);
        Issuer::new(&secrets, Owner { worker: 3, generation: 1 })
    };
    collect(&(0..ISSUERS as u8).map(server).collect::<Vec<_>>())
}

/// Of the tables "issuer by value of a nibble", one for each nibble behind the first octet, the one in which the two
/// depend on each other most: its p by Pearson's chi-squared test, times the number of tables.
fn least_p(collection: &Collection) -> f64 {
    let nibbles = 2..2 * CID_LEN;
    let tables = nibbles.len() as f64;
    let nibble = |cid: &Cid, at: usize| usize::from(cid[at / 2] >> (4 * (1 - at % 2)) & 15);
    let least = nibbles.map(|at| {
        let mut table = [[0.0_f64; 16]; ISSUERS];
        for (issuer, cid) in collection {
            table[*issuer][nibble(cid, at)] += 1.0;
        }
        p_of_independence(&table)
    });
    (least.fold(1.0, f64::min) * tables).min(1.0)
}

/// Every row is as long as the others.
fn p_of_independence(table: &[[f64; 16]; ISSUERS]) -> f64 {
    let mut chi = 0.0;
    for value in 0..16 {
        let expected = table.iter().map(|row| row[value]).sum::<f64>() / ISSUERS as f64;
        chi += table.iter().map(|row| (row[value] - expected).powi(2) / expected).sum::<f64>();
    }
    // Wilson and Hilferty 1931: the cube root is all but normal.
    let (freedom, ninth) = (105.0_f64, 2.0 / 9.0 / 105.0_f64);
    assert_eq!(freedom, (ISSUERS as f64 - 1.0) * 15.0);
    normal_beyond(((chi / freedom).cbrt() - (1.0 - ninth)) / ninth.sqrt())
}

/// How probable a standard normal value of at least `z` is (Abramowitz and Stegun 26.2.17; off by 7.5e-8 at most).
fn normal_beyond(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - normal_beyond(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let terms = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    let sum = terms.into_iter().fold(0.0, |sum, term| (sum + term) * t);
    ((-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * sum).max(f64::MIN_POSITIVE)
}

#[test]
fn h11_ten_thousand_ids_tell_neither_worker_nor_server() {
    assert!((normal_beyond(2.326_35) - 0.01).abs() < 1e-6 && normal_beyond(-9.0) > 0.999);
    for (what, collection) in [("worker", of_workers as fn() -> Collection), ("server", of_servers)]
    {
        let p: Vec<f64> = (0..COLLECTIONS).map(|_| least_p(&collection())).collect();
        println!("H11: {COLLECTED} IDs of {ISSUERS} {what}s: p {p:.3?}, three times (> {P_MIN})");
        assert!(p.iter().any(|p| *p > P_MIN), "the {what} shows: {p:?}");
        // The test can fail: a worker that shows in one octet of twenty, in one ID of five, is found each time.
        let mut leaking = collection();
        for (issuer, cid) in leaking.iter_mut().step_by(5) {
            cid[17] = *issuer as u8;
        }
        assert!(least_p(&leaking) < P_MIN, "a leak is not found");
    }
}

#[test]
fn h11_a_forged_id_names_a_worker_one_time_in_65536_at_most() {
    const FORGED: u32 = 1 << 21;
    let secrets = Secrets::from_bytes(0, [0, 0, 1], &[7; 32]);
    let issuer = Issuer::new(&secrets, Owner { worker: 3, generation: 1 });
    let mut random = fastrand::Rng::with_seed(11);
    let mut keys = [None; 7];
    keys[0] = Some(secrets.local_key);
    let mut forged = [0; CID_LEN];
    let mut named = 0;
    for _ in 0..FORGED {
        random.fill(&mut forged);
        named += u32::from(steer::owner(&forged, &keys).is_some());
    }
    // Who has seen an ID knows its first octet and may change the worker; the check then fits with 2^-12.
    const CHANGED: u32 = 1 << 17;
    let mut moved = 0;
    for change in 0..CHANGED {
        let mut cid = issuer.issue();
        cid[17] ^= change as u8 | 1;
        moved += u32::from(issuer.open(&cid).is_some());
    }
    println!("H11: {named} of {FORGED} made-up IDs name a worker (at most {})", FORGED >> 16);
    println!(
        "H11: {moved} of {CHANGED} changed IDs name another worker (2^-12: {})",
        CHANGED >> 12
    );
    assert!(named <= FORGED >> 16, "{named}");
    // 32 expected, standard deviation 5.7, six of them.
    assert!(moved <= 66, "{moved}");
}

#[test]
fn h11_ids_outlive_the_next_key() {
    let (former, present) = (Secrets::random(0, [0; 3]), Secrets::random(1, [0; 3]));
    let owner = Owner { worker: 3, generation: 1 };
    let former_issuer = Issuer::new(&former, owner);
    let issuers = [&former, &present].map(|secrets| Issuer::new(secrets, owner));
    let mut setup = Setup {
        listeners: vec!["0.0.0.0:443".parse().expect("address")],
        live: vec![owner],
        ..Setup::default()
    };
    setup.keys[0] = Some(former.local_key);
    setup.keys[1] = Some(present.local_key);
    let ids: Vec<Cid> = (0..COLLECTED).map(|_| former_issuer.issue()).collect();
    let named = ids.iter().filter(|id| steer::owner(id, &setup) == Some(owner)).count();
    assert_eq!(named, COLLECTED);
    assert!(ids.iter().all(|id| issuers.iter().any(|issuer| issuer.open(id) == Some(owner))));
    println!("H11: {named} of {COLLECTED} IDs of the former key name their worker under both");

    let Some(mut rig) = rig::load("H11, the next key") else { return };
    rig.apply(&setup);
    let run = |rig: &mut rig::Rig, ids: &[Cid]| {
        let before = rig.counter(Counter::XdpOwner);
        for id in ids {
            rig.run(&frame("192.0.2.1:50000", "192.0.2.9:443", &short(id)).octets());
        }
        rig.counter(Counter::XdpOwner) - before
    };
    let ids = &ids[..500];
    assert_eq!(run(&mut rig, ids), 500, "the former key's, while it is there");
    // And not when it is taken away: it was the key that named them.
    setup.keys[0] = None;
    rig.apply(&setup);
    let left = run(&mut rig, ids);
    println!("H11: the kernel steers 500 of 500 with the former key, {left} without it");
    assert!(left <= 2, "{left}");
}
