//! What XDP ends besides the lists: datagrams that their headers prove to be refused, more of a prefix than its pace, and
//! versions nobody speaks, which it answers.

use std::collections::BTreeSet;

use spooky_common::{
    answer,
    counter::Counter::{self, *},
    frame::udp,
    invariant,
    map::Queue,
    pace::Pace,
};

use crate::{
    early::under_early,
    fixtures::{self, Fixture, OWNER, ours},
    frames::{Frame, QINQ, VLAN, frame, long},
    rig::{self, Rig, Setup, XDP_DROP, XDP_PASS, XDP_TX, moved},
    xdp_verdicts::{check, on_host},
};

/// So slow that no test sees a second packet become due.
const NEVER_AGAIN: u64 = 1 << 60;

fn early() -> Setup {
    let mut setup = fixtures::setup();
    setup.settings.early = 1;
    setup
}

#[test]
fn h01_what_workers_refuse_ends_early() {
    let Some(mut rig) = rig::load("early") else { return };
    let setup = early();
    rig.apply(&setup);
    let fixtures = under_early();
    check(&mut rig, &setup, &fixtures);
    println!("{} fixtures", fixtures.len());
}

#[test]
fn h01_cut_at_every_octet_nothing_good_is_dropped() {
    let Some(mut rig) = rig::load("early, cut") else { return };
    let setup = early();
    rig.apply(&setup);
    let mut runs = 0;
    for fixture in under_early().into_iter().chain(fixtures::all()) {
        let whole = on_host(&setup, &fixture.octets);
        for cut in 14..fixture.octets.len().min(81) {
            let octets = &fixture.octets[..cut];
            let host = on_host(&setup, octets);
            let before = rig.counters();
            assert_eq!(rig.run(octets), host.0, "{} cut at {cut}", fixture.name);
            let delta = moved(&before, &rig.counters());
            assert_eq!(delta, [(host.1, 1)], "{} cut at {cut}", fixture.name);
            if host.0 == XDP_DROP {
                assert_eq!(whole.0, XDP_DROP, "{} cut at {cut} is dropped", fixture.name);
            }
            runs += 1;
        }
    }
    println!("{runs} cut frames");
}

fn from(source: &str, payload: &[u8]) -> Vec<u8> {
    let destination = if source.starts_with('[') { "[2001:db8::9]:443" } else { "192.0.2.9:443" };
    frame(source, destination, payload).octets()
}

#[test]
fn h01_a_prefix_has_its_pace() {
    let Some(mut rig) = rig::load("pace") else { return };
    let mut setup = early();
    setup.settings.new_flows = Pace { step_ns: NEVER_AGAIN, slack_ns: 2 * NEVER_AGAIN };
    rig.apply(&setup);
    let initial = long(0xc0, 1, &[7; 8]);
    let expect = |rig: &mut Rig, octets: &[u8], passes: bool| {
        let before = rig.counters();
        let verdict = rig.run(octets);
        let (action, counter) = if passes { (XDP_PASS, XdpNewFlow) } else { (XDP_DROP, XdpPace) };
        assert_eq!((verdict, moved(&before, &rig.counters())), (action, vec![(counter, 1)]));
    };
    for (prefix, neighbour) in [
        (["192.0.2.1:5000", "192.0.2.77:6000"], "192.0.3.1:5000"),
        (["[2001:db8:1::1]:5000", "[2001:db8:1:ffff::2]:6000"], "[2001:db8:2::1]:5000"),
    ] {
        for nth in 0..6 {
            expect(&mut rig, &from(prefix[nth % 2], &initial), nth < 3);
        }
        expect(&mut rig, &from(neighbour, &initial), true);
        // Who has a connection is not counted, nor who opens none.
        let before = rig.counters();
        for _ in 0..20 {
            assert_eq!(rig.run(&from(prefix[0], &ours())), XDP_PASS);
        }
        assert_eq!(moved(&before, &rig.counters()), [(XdpOwner, 20)]);
    }
    // Without a limit there is none.
    setup.settings.new_flows = Pace::default();
    rig.settings(&setup);
    for _ in 0..20 {
        expect(&mut rig, &from("192.0.2.1:5000", &initial), true);
    }
}

#[test]
fn h01_a_pace_follows_the_clock() {
    let Some(mut rig) = rig::load("pace in time") else { return };
    let mut setup = early();
    // A burst of a second's, so that a machine that is busy elsewhere for a while loses nothing.
    setup.settings.new_flows = Pace::new(2000, 2000);
    rig.apply(&setup);
    let initial = from("192.0.2.1:5000", &long(0xc0, 1, &[7; 8]));
    let begun = std::time::Instant::now();
    let (mut sent, mut passed) = (0_u64, 0_u64);
    while begun.elapsed() < std::time::Duration::from_millis(300) || sent < 10_000 {
        passed += u64::from(rig.run(&initial) == XDP_PASS);
        sent += 1;
    }
    let due = begun.elapsed().as_secs_f64() * 2000.0 + 2000.0;
    println!("{passed} of {sent} passed, {due:.0} due");
    assert!(passed > 2010 && passed as f64 <= due + 1.0, "{passed} of {sent}, {due} due");
    assert!(rig.counter(XdpPace) == sent - passed);
}

/// A packet of another version with these connection IDs.
fn other(version: u32, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let mut packet = vec![0xc3];
    packet.extend(version.to_be_bytes());
    packet.push(dcid.len() as u8);
    packet.extend(dcid);
    packet.push(scid.len() as u8);
    packet.extend(scid);
    packet.resize(1200, 0x77);
    packet
}

fn answering(rig: &mut Rig) -> Setup {
    let mut setup = early();
    setup.settings.versions = Pace { step_ns: 1, slack_ns: NEVER_AGAIN };
    setup.queue = Queue::live(OWNER, 256);
    rig.apply(&setup);
    setup
}

/// What goes back, written from RFC 8999 and RFC 768 to 8200, with none of the program's code.
fn golden(asked: &Frame, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let mut payload = vec![0xc0, 0, 0, 0, 0, scid.len() as u8];
    payload.extend(scid);
    payload.push(dcid.len() as u8);
    payload.extend(dcid);
    payload.extend([0x1a, 0x2a, 0x3a, 0x4a, 0, 0, 0, 1]);
    let mut back = asked.clone();
    std::mem::swap(&mut back.source, &mut back.destination);
    back.payload = payload;
    let mut octets = back.octets();
    // The builder's stations and its IPv4 identification are the way there.
    let (to, from) = (octets[0..6].to_vec(), octets[6..12].to_vec());
    octets[..6].copy_from_slice(&from);
    octets[6..12].copy_from_slice(&to);
    let network = 14 + 4 * asked.tags.len();
    let transport = if asked.source.is_ipv4() {
        octets[network + 4..network + 6].fill(0);
        let checksum = checksum(&[&octets[network..network + 20]]);
        octets[network + 10..network + 12].copy_from_slice(&checksum);
        network + 20
    } else {
        network + 40
    };
    let length = (octets.len() - transport) as u16;
    let addresses = if asked.source.is_ipv4() { network + 12 } else { network + 8 };
    let udp_sum = checksum(&[
        &octets[addresses..transport],
        &[0, 17],
        &length.to_be_bytes(),
        &octets[transport..],
    ]);
    octets[transport + 6..transport + 8].copy_from_slice(&udp_sum);
    octets
}

/// RFC 1071, octet by octet.
fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    let octets: Vec<u8> = parts.concat();
    let mut sum = 0_u64;
    for (place, octet) in octets.iter().enumerate() {
        sum += u64::from(*octet) << if place % 2 == 0 { 8 } else { 0 };
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

#[test]
fn h01_versions_nobody_speaks_are_answered_octet_by_octet() {
    let Some(mut rig) = rig::load("versions") else { return };
    answering(&mut rig);
    let id =
        |len: usize, first: u8| (0..len).map(|n| first.wrapping_add(n as u8)).collect::<Vec<_>>();
    let mut answers = 0;
    for (dcid, scid) in [
        (8, 8),
        (0, 0),
        (8, 0),
        (0, 7),
        (1, 20),
        (20, 20),
        (20, 3),
        (255, 255),
        (21, 254),
        (13, 200),
    ] {
        let (dcid, scid) = (id(dcid, 0x11), id(scid, 0xa0));
        for version in [0x6b33_43cf, 0x1a2a_3a4a, 2, 0xffff_ffff] {
            for (source, destination) in
                [("192.0.2.1:50000", "192.0.2.9:443"), ("[2001:db8::1]:50001", "[2001:db8::9]:443")]
            {
                for tags in [vec![], vec![VLAN], vec![QINQ, VLAN]] {
                    let asked = frame(source, destination, &other(version, &dcid, &scid))
                        .with(|built| built.tags = tags);
                    let octets = asked.octets();
                    let before = rig.counters();
                    let (verdict, answer) = rig.run_for_frame(&octets);
                    assert_eq!(verdict, XDP_TX, "{asked:?}");
                    assert_eq!(answer, golden(&asked, &dcid, &scid), "{asked:?}");
                    assert!(
                        answer.len() * 2 < octets.len(),
                        "an answer of {} octets",
                        answer.len()
                    );
                    assert_eq!(moved(&before, &rig.counters()), [(XdpAnswered, 1)]);
                    // The host's copy of the code says the same.
                    let tuple = udp(&mut octets.as_slice()).expect("UDP");
                    let mut copy = octets.clone();
                    let len = answer::version_negotiation(&mut copy.as_mut_slice(), &tuple)
                        .expect("room");
                    assert_eq!(copy[answer::SHIFT..answer::SHIFT + len], answer);
                    answers += 1;
                }
            }
        }
    }
    println!("{answers} answers");
}

#[test]
fn h01_what_may_not_be_answered_is_not() {
    let Some(mut rig) = rig::load("versions, unanswered") else { return };
    let setup = answering(&mut rig);
    let asked = other(0x1a2a_3a4a, &[1; 8], &[2; 8]);
    let v4 = |payload: &[u8]| frame("192.0.2.1:50000", "192.0.2.9:443", payload);
    let our_id = crate::frames::our_cid(&fixtures::KEY, 0, OWNER, 5);
    let set = |at: usize, octet: u8| {
        let mut octets = v4(&asked).octets();
        octets[at] = octet;
        octets
    };
    let rows: Vec<(&'static str, Vec<u8>, u32, Counter)> = vec![
        ("version 1", v4(&long(0xc0, 1, &[7; 8])).octets(), XDP_PASS, XdpNewFlow),
        ("version 0", v4(&long(0xc0, 0, &[7; 8])).octets(), XDP_DROP, XdpNotInitial),
        ("version 0, 20 octets", v4(&long(0xc0, 0, &[7; 20])).octets(), XDP_PASS, XdpUnknownLong),
        ("short header", v4(&[0x43; 1200]).octets(), XDP_PASS, XdpUnknownShort),
        ("1,199 octets", v4(&asked[..1199]).octets(), XDP_DROP, XdpTooShort),
        (
            "a service's port",
            frame("192.0.2.1:53", "192.0.2.9:443", &asked).octets(),
            XDP_DROP,
            XdpSourcePort,
        ),
        ("our ID", v4(&other(0x1a2a_3a4a, &our_id, &[2; 8])).octets(), XDP_PASS, XdpOwner),
        (
            "denied",
            frame("203.0.113.7:5000", "192.0.2.9:443", &asked).octets(),
            XDP_DROP,
            XdpDenied,
        ),
        (
            "other port",
            frame("192.0.2.1:5000", "192.0.2.9:53", &asked).octets(),
            XDP_PASS,
            XdpOtherPort,
        ),
        ("IP options", v4(&asked).with(|f| f.options = vec![1; 8]).octets(), XDP_PASS, XdpNewFlow),
        ("to a group of stations", set(0, 0x01), XDP_PASS, XdpNewFlow),
        ("from a group of stations", set(6, 0x03), XDP_PASS, XdpNewFlow),
        ("the frame is cut", v4(&asked).octets()[..900].to_vec(), XDP_PASS, XdpNewFlow),
        (
            "extension header",
            frame("[2001:db8::1]:5000", "[2001:db8::9]:443", &asked)
                .with(|f| f.extensions = vec![(60, vec![0; 6])])
                .octets(),
            XDP_PASS,
            XdpNewFlow,
        ),
    ];
    // No socket is behind the queue, so nothing is redirected.
    let fixtures: Vec<_> = rows
        .into_iter()
        .map(|(name, octets, verdict, counter)| Fixture { name, octets, verdict, counter })
        .collect();
    check(&mut rig, &setup, &fixtures);
    for fixture in &fixtures {
        let (_, after) = rig.run_for_frame(&fixture.octets);
        assert_eq!(after, fixture.octets, "{} is changed", fixture.name);
    }
}

#[test]
fn h01_answers_have_their_rate() {
    let Some(mut rig) = rig::load("versions, rate") else { return };
    let mut setup = answering(&mut rig);
    setup.settings.versions = Pace { step_ns: NEVER_AGAIN, slack_ns: 2 * NEVER_AGAIN };
    rig.settings(&setup);
    let seen: Vec<_> = (0..8_u8)
        .map(|nth| {
            let asked = other(9, &[nth; 8], &[nth; 8]);
            let source = format!("192.0.{nth}.1:5000");
            rig.run(&frame(&source, "192.0.2.9:443", &asked).octets())
        })
        .collect();
    assert_eq!(seen, [&[XDP_TX; 3][..], &[XDP_DROP; 5]].concat());
    assert_eq!(rig.counter(XdpVersions), 5);
    // Left to the workers.
    setup.settings.versions = Pace::default();
    rig.settings(&setup);
    assert_eq!(rig.run(&from("192.0.2.1:5000", &other(9, &[1; 8], &[]))), XDP_PASS);
}

/// No frame that a drop by its header ends has anything that the program did not look at before.
#[test]
fn drops_by_header_need_no_more_than_the_header() {
    let setup = early();
    let mut reasons = BTreeSet::new();
    for fixture in under_early().into_iter().filter(|fixture| fixture.verdict == XDP_DROP) {
        let payload_at = fixture.octets.len() - invariant_tail(&fixture.octets);
        let mut changed = fixture.octets.clone();
        let from = (payload_at + 60).min(changed.len());
        changed[from..].fill(0x55);
        assert_eq!(on_host(&setup, &changed), (XDP_DROP, fixture.counter), "{}", fixture.name);
        reasons.insert(fixture.counter);
    }
    assert!(reasons.len() >= 4, "{reasons:?}");
}

/// Octets of payload, whatever they are.
fn invariant_tail(octets: &[u8]) -> usize {
    let mut cursor = octets;
    let _ = udp(&mut cursor).expect("UDP");
    let _ = invariant::parse(cursor);
    cursor.len()
}
