//! Each fixture through the kernel: verdict, counter delta, the host's opinion; then cut at every octet.

use spooky_common::{
    answer, counter::Counter, frame::udp, guard, map::REDIRECT_OCTETS_MAX, verdict,
};

use crate::{
    fixtures::{self, Fixture},
    frames::frame,
    rig::{self, Rig, Setup, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX, moved},
};

/// The kernel's `bpf_prog_test_run_xdp` takes no frame shorter than an Ethernet header.
const SHORTEST: usize = 14;

#[test]
fn every_fixture_has_its_verdict_and_its_counter() {
    let fixtures = fixtures::all();
    assert!(fixtures.len() >= 60, "{} fixtures", fixtures.len());
    let Some(mut rig) = rig::load("xdp_verdicts") else { return };
    for in_tries in [false, true] {
        let mut setup = fixtures::setup();
        setup.in_tries = in_tries;
        rig.apply(&setup);
        check(&mut rig, &setup, &fixtures);
        setup.settings.default_deny = 1;
        rig.apply(&setup);
        check(&mut rig, &setup, &fixtures::under_default_deny());
    }
    println!("{} fixtures", fixtures.len() + fixtures::under_default_deny().len());
}

pub(crate) fn check(rig: &mut Rig, setup: &Setup, fixtures: &[Fixture]) {
    for fixture in fixtures {
        let before = rig.counters();
        let verdict = rig.run(&fixture.octets);
        let delta = moved(&before, &rig.counters());
        assert_eq!(
            (verdict, delta),
            (fixture.verdict, vec![(fixture.counter, 1)]),
            "{}",
            fixture.name
        );
        assert_eq!(
            on_host(setup, &fixture.octets),
            (fixture.verdict, fixture.counter),
            "{} on the host",
            fixture.name
        );
    }
}

#[test]
fn a_cut_frame_is_dropped_only_for_what_it_still_proves() {
    let Some(mut rig) = rig::load("xdp_verdicts, cut") else { return };
    let setup = fixtures::setup();
    rig.apply(&setup);
    let mut runs = 0;
    for fixture in fixtures::all() {
        // Behind 200 octets nothing is read, and an Initial has a thousand of them.
        let end = fixture.octets.len().min(200);
        for cut in 0..end {
            let octets = &fixture.octets[..cut];
            let host = on_host(&setup, octets);
            if cut >= SHORTEST {
                let before = rig.counters();
                let verdict = rig.run(octets);
                let delta = moved(&before, &rig.counters());
                assert_eq!(
                    (verdict, delta),
                    (host.0, vec![(host.1, 1)]),
                    "{} cut at {cut}",
                    fixture.name
                );
                runs += 1;
            }
            if host.0 == XDP_DROP {
                assert_eq!(fixture.verdict, XDP_DROP, "{} cut at {cut} is dropped", fixture.name);
                // Ethernet, the shortest IP header, UDP: source and ports are there.
                assert!(cut >= 42, "{} is dropped at {cut}, before its ports", fixture.name);
            }
        }
    }
    println!("{runs} cut frames");
}

#[test]
fn drops_are_sampled_one_in_n() {
    let Some(mut rig) = rig::load("samples") else { return };
    let mut setup = fixtures::setup();
    setup.settings.sample_every = 4;
    rig.apply(&setup);
    let payload = fixtures::ours();
    let v4 = frame("203.0.113.7:4433", "192.0.2.9:443", &payload).octets();
    let v6 = frame("[2001:db8:1::66]:4434", "[2001:db8::9]:443", &payload[..5]).octets();
    let passed = frame("192.0.2.1:1", "192.0.2.9:443", &payload).octets();
    // Samples count per CPU; the test run stays where the caller is for one system call, so a migration in between
    // can only delay a sample, never add one.
    for _ in 0..40 {
        assert_eq!(rig.run(&v4), XDP_DROP);
        assert_eq!(rig.run(&passed), XDP_PASS);
    }
    let samples = rig.samples();
    assert!((8..=10).contains(&samples.len()), "{} samples of 40 drops", samples.len());
    for sample in &samples {
        assert_eq!(sample.source(), spooky_common::frame::Address::V4([203, 0, 113, 7]));
        assert_eq!((sample.source_port, sample.destination_port), (4433, 443));
        assert_eq!(usize::from(sample.payload_len), payload.len());
        assert_eq!(sample.octets[..], payload[..16]);
        assert!(sample.at_ns > 0);
    }
    setup.settings.sample_every = 1;
    rig.apply(&setup);
    rig.run(&v6);
    let samples = rig.samples();
    let sample = samples.first().expect("every drop is sampled");
    assert_eq!((sample.octets_len, &sample.octets[..5], samples.len()), (5, &payload[..5], 1));
    assert_eq!(sample.reason(), Some(verdict::DropReason::Denied));
    setup.settings.sample_every = 0;
    rig.apply(&setup);
    rig.run(&v6);
    assert_eq!(rig.samples(), []);
}

#[test]
fn a_full_ring_loses_samples_not_verdicts() {
    let Some(mut rig) = rig::load("full ring") else { return };
    let mut setup = fixtures::setup();
    setup.settings.sample_every = 1;
    rig.apply(&setup);
    let denied = frame("203.0.113.7:4433", "192.0.2.9:443", &fixtures::ours()).octets();
    let (verdict, _) = rig.repeat(&denied, 10_000);
    assert_eq!(verdict, XDP_DROP);
    let lost = rig.counters()[Counter::SamplesLost.index() as usize];
    let kept = rig.samples().len() as u64;
    assert_eq!(lost + kept, 10_000);
    assert!(lost > 0 && kept > 4000, "{kept} kept, {lost} lost");
}

/// Whether the program can make the answer itself.
fn answers(octets: &[u8]) -> bool {
    let tuple = udp(&mut &*octets).expect("read before");
    answer::can_answer(&octets.to_vec().as_mut_slice(), &tuple)
}

/// The same decision, by the same code, on the host.
pub(crate) fn on_host(setup: &Setup, octets: &[u8]) -> (u32, Counter) {
    let verdict = guard::decide(&octets, setup);
    match verdict {
        verdict::Verdict::Pass(counter) => (XDP_PASS, counter),
        verdict::Verdict::Drop(reason, _) => (XDP_DROP, reason.counter()),
        verdict::Verdict::Answer if answers(octets) => (XDP_TX, verdict.counter()),
        verdict::Verdict::Answer => (XDP_PASS, Counter::XdpNewFlow),
        verdict::Verdict::Redirect(..) if setup.socket && octets.len() <= REDIRECT_OCTETS_MAX => {
            (XDP_REDIRECT, verdict.counter())
        }
        verdict::Verdict::Guard => unreachable!("decided"),
        verdict::Verdict::Redirect(_, why) => (XDP_PASS, why.passed()),
    }
}
