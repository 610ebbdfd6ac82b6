//! Attack mode in XDP: what belongs to no live connection is dropped without any state, strangers have a share, and a token that
//! was given to its sender is worth more than that.

use std::net::SocketAddr;

use spooky_common::{
    cid::Owner,
    counter::Counter::{self, *},
    map::Queue,
    pace::Pace,
    token,
};

use crate::{
    fixtures::{self, Fixture, KEY, OLD_KEY, OWNER, Rows, from, ours, v4, v6},
    frames::{Frame, VLAN, frame, long, our_cid, short},
    rig::{self, Rig, Setup, XDP_DROP as DROP, XDP_PASS as PASS, moved},
    xdp_verdicts::check,
};

/// Tokens minted before are too old.
pub(crate) const SINCE: u64 = 1_790_000_000_000;
const NOW: u64 = SINCE + 5000;
/// So slow that no test sees a second packet become due.
const NEVER_AGAIN: u64 = 1 << 50;

/// Worker and generation of nobody.
const GONE: Owner = Owner { worker: 77, generation: 1 };

fn attacked() -> Setup {
    let mut setup = fixtures::setup();
    setup.settings.early = 1;
    setup.settings.attack = 1;
    setup.settings.tokens_since_ms = SINCE;
    setup
}

fn some_at_once(count: u64) -> Pace {
    Pace { step_ns: NEVER_AGAIN, slack_ns: NEVER_AGAIN * count - NEVER_AGAIN }
}

/// An Initial under this ID of 20 octets, with a source ID of so many octets and this token.
fn initial(dcid: &[u8; 20], scid: usize, token: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc0, 0, 0, 0, 1, 20];
    packet.extend(dcid);
    packet.push(scid as u8);
    packet.resize(packet.len() + scid, 0x5c);
    packet.push(token.len() as u8);
    packet.extend(token);
    packet.resize(1200, 0);
    packet
}

/// A token as a Retry gives it to a client at `to`.
fn token(to: SocketAddr, minted: u64) -> Vec<u8> {
    let mark = token::mark(&KEY, &to.ip().into(), to.port(), minted);
    let mut token = token::head(mark, minted).to_vec();
    token.push(8);
    token.resize(42, 0xee);
    token
}

fn bringing(frame: Frame, scid: usize, minted: u64) -> Frame {
    let token = token(frame.source, minted);
    let payload = initial(&our_cid(&KEY, 0, OWNER, 5), scid, &token);
    frame.with(|frame| frame.payload = payload)
}

/// Without a limit on strangers.
pub(crate) fn under_attack() -> Vec<Fixture> {
    let our = our_cid(&KEY, 0, OWNER, 5);
    let gone = our_cid(&KEY, 0, GONE, 5);
    let packet = |first: u8, version: u32, dcid: &[u8]| v4(&long(first, version, dcid)).octets();
    let short = |cid: &[u8; 20]| v4(&short(cid)).octets();
    let rows: Rows = vec![
        ("1-RTT, ours", short(&our), PASS, XdpOwner),
        ("1-RTT, IPv6, ours", v6(&ours()).octets(), PASS, XdpOwner),
        ("1-RTT, of nobody", short(&[0x13; 20]), DROP, XdpDropUnknownShort),
        (
            "1-RTT, of nobody, IPv6",
            v6(&crate::frames::short(&[0x13; 20])).octets(),
            DROP,
            XdpDropUnknownShort,
        ),
        ("1-RTT, of a worker that is gone", short(&gone), DROP, XdpDropOwnerGone),
        ("1-RTT, another config id", short(&our_cid(&OLD_KEY, 1, OWNER, 5)), PASS, XdpOwner),
        (
            "1-RTT, under another key",
            short(&our_cid(&OLD_KEY, 0, OWNER, 6)),
            DROP,
            XdpDropUnknownShort,
        ),
        ("Handshake, ours", packet(0xe0, 1, &our), PASS, XdpOwner),
        ("Handshake, of nobody", packet(0xe0, 1, &[0x13; 20]), DROP, XdpDropUnknownLong),
        ("Handshake, gone", packet(0xe0, 1, &gone), DROP, XdpDropOwnerGone),
        ("Retry, of nobody", packet(0xf0, 1, &[0x13; 20]), DROP, XdpDropUnknownLong),
        ("Version Negotiation", packet(0xc0, 0, &[0x13; 20]), DROP, XdpDropUnknownLong),
        ("0-RTT, ours", packet(0xd0, 1, &our), PASS, XdpOwner),
        ("0-RTT", packet(0xd0, 1, &[7; 8]), PASS, XdpNewFlow),
        ("Initial", packet(0xc0, 1, &[7; 8]), PASS, XdpNewFlow),
        ("Initial, ours", packet(0xc0, 1, &our), PASS, XdpOwner),
        ("Initial, gone", packet(0xc0, 1, &gone), DROP, XdpDropOwnerGone),
        ("Initial, 20 octets not ours", packet(0xc0, 1, &[0x13; 20]), PASS, XdpNewFlow),
        ("Initial, token", bringing(v4(&[]), 8, NOW).octets(), PASS, XdpOwner),
        ("Initial, token, no source ID", bringing(v6(&[]), 0, NOW).octets(), PASS, XdpOwner),
        ("another version", packet(0xc0, 9, &[7; 8]), PASS, XdpNewFlow),
        ("Initial, 1,199 octets", v4(&long(0xc0, 1, &[7; 8])[..1199]).octets(), DROP, XdpTooShort),
        (
            "from a service",
            frame("192.0.2.1:53", "192.0.2.9:443", &long(0xc0, 1, &[7; 8])).octets(),
            DROP,
            XdpSourcePort,
        ),
        ("denied", from("203.0.113.7:5000").octets(), DROP, XdpDenied),
        ("no QUIC", v4(&[]).octets(), PASS, XdpNotQuic),
        (
            "another port",
            frame("192.0.2.1:5000", "192.0.2.9:80", &crate::frames::short(&[0x13; 20])).octets(),
            PASS,
            XdpOtherPort,
        ),
    ];
    let fixture = |(name, octets, verdict, counter)| Fixture { name, octets, verdict, counter };
    rows.into_iter().map(fixture).collect()
}

#[test]
fn h01_under_attack_what_is_nobodys_ends() {
    let Some(mut rig) = rig::load("guard") else { return };
    let setup = attacked();
    rig.apply(&setup);
    let fixtures = under_attack();
    check(&mut rig, &setup, &fixtures);
    println!("{} fixtures", fixtures.len());
}

/// Runs a frame of a stranger or of one that is none; whether it passed.
fn passes(rig: &mut Rig, frame: &Frame, counter: Counter) -> bool {
    let before = rig.counters();
    let passed = rig.run(&frame.octets()) == PASS;
    let expected = if passed { counter } else { XdpNoToken };
    assert_eq!(moved(&before, &rig.counters()), [(expected, 1)]);
    passed
}

#[test]
fn h01_strangers_share_and_tokens_do_not() {
    let Some(mut rig) = rig::load("strangers") else { return };
    let mut setup = attacked();
    setup.settings.strangers = some_at_once(3);
    // In peace the same prefixes would have none at all.
    setup.settings.new_flows = Pace { step_ns: NEVER_AGAIN, slack_ns: 0 };
    rig.apply(&setup);
    let hello = |source: &str| from(source).with(|frame| frame.payload = long(0xc0, 1, &[7; 8]));
    let back = |source: &str, minted| bringing(from(source), 8, minted);
    for (source, neighbour) in
        [("192.0.2.1:5000", "192.0.3.1:5000"), ("[2001:db8:1::1]:5000", "[2001:db8:2::1]:5000")]
    {
        for nth in 0..6 {
            assert_eq!(passes(&mut rig, &hello(source), XdpNewFlow), nth < 3, "{source} {nth}");
        }
        // Who has been asked to come back does; also by VLAN, and without a share left.
        for frame in [
            back(source, NOW),
            back(source, SINCE),
            back(source, NOW).with(|f| f.tags = vec![VLAN]),
        ] {
            assert!(passes(&mut rig, &frame, XdpOwner), "{source}");
        }
        assert!(!passes(&mut rig, &back(source, SINCE - 1), XdpOwner), "too old");
        // With somebody else's token, with another port's, with one that is none, with none.
        for place in ["192.0.2.2:5000", "192.0.2.1:5001"] {
            let theirs = back(source, NOW).with(|frame| {
                frame.payload = initial(
                    &our_cid(&KEY, 0, OWNER, 5),
                    8,
                    &token(place.parse().expect("a place"), NOW),
                )
            });
            assert!(!passes(&mut rig, &theirs, XdpOwner), "{place}");
        }
        for none in [&[][..], &[2; 17], &[2; 63]] {
            let bare = from(source)
                .with(|frame| frame.payload = initial(&our_cid(&KEY, 0, OWNER, 5), 8, none));
            assert!(!passes(&mut rig, &bare, XdpOwner), "{none:?}");
        }
        // Connections that there are notice nothing.
        assert!(passes(&mut rig, &from(source), XdpOwner));
        assert!(passes(&mut rig, &hello(neighbour), XdpNewFlow), "another prefix");
    }
}

#[test]
fn h01_all_strangers_together_have_a_share() {
    let Some(mut rig) = rig::load("all strangers") else { return };
    let mut setup = attacked();
    setup.settings.strangers = some_at_once(2);
    setup.settings.strangers_all = some_at_once(10);
    rig.apply(&setup);
    let hello = |network: usize| {
        let frame = from(&format!("10.1.{network}.1:5000"));
        frame.with(|frame| frame.payload = long(0xc0, 1, &[7; 8]))
    };
    // What is too much of one prefix takes nothing from the others.
    let first = (0..50).filter(|_| passes(&mut rig, &hello(0), XdpNewFlow)).count();
    let others = (1..100).filter(|n| passes(&mut rig, &hello(*n), XdpNewFlow)).count();
    assert_eq!((first, others), (2, 8));
    assert!(passes(&mut rig, &bringing(from("10.1.0.1:5000"), 8, NOW), XdpOwner));
}

#[test]
fn h01_cut_at_every_octet_the_guard_reads_nothing_behind() {
    let Some(mut rig) = rig::load("guard, cut") else { return };
    let mut setup = attacked();
    setup.settings.strangers = some_at_once(1);
    setup.queue = Queue::live(OWNER, 256);
    rig.apply(&setup);
    let whole = bringing(v4(&[]), 20, NOW).octets();
    // Up to the last octet of the head it is no token.
    let head = 14 + 20 + 8 + token::BEFORE + 1 + 20 + 1 + token::HEAD_LEN;
    let _spent = rig.run(&whole[..head - 1]);
    for cut in 14..whole.len().min(head + 20) {
        let before = rig.counters();
        let verdict = rig.run(&whole[..cut]);
        let counters = moved(&before, &rig.counters());
        if cut >= head {
            assert_eq!((verdict, counters), (PASS, vec![(XdpOwner, 1)]), "cut at {cut}");
        } else {
            assert!(verdict == PASS || counters == [(XdpNoToken, 1)], "cut at {cut}: {counters:?}");
        }
    }
}

#[test]
fn h01_in_peace_nothing_of_it_holds() {
    let Some(mut rig) = rig::load("peace") else { return };
    let mut setup = attacked();
    setup.settings.attack = 0;
    setup.settings.strangers = Pace { step_ns: NEVER_AGAIN, slack_ns: 0 };
    rig.apply(&setup);
    let mut passed = 0;
    for fixture in under_attack() {
        let of_attack =
            [XdpDropUnknownShort, XdpDropUnknownLong, XdpDropOwnerGone].contains(&fixture.counter);
        let verdict = rig.run(&fixture.octets);
        assert_eq!(verdict == PASS, fixture.verdict == PASS || of_attack, "{}", fixture.name);
        passed += u32::from(of_attack);
    }
    assert!(passed > 5);
    let drops = [XdpDropUnknownShort, XdpDropUnknownLong, XdpDropOwnerGone, XdpNoToken];
    assert!(drops.iter().all(|counter| rig.counter(*counter) == 0));
}
