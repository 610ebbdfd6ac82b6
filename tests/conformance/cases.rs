//! A suite: what each case was to end with, what it ended with, and the waivers that may stand between.
//!
//! A waiver is as strict as a case: it names the one end that comes instead, so that a mended quiche is noticed, and a case
//! that there is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};

use spooky_tests::scene::{LONG, Scene, Turn};

/// How the cases of these names end instead, and why.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Waiver {
    cases: Vec<String>,
    instead: String,
    reason: String,
}

/// Waivers by suite.
type Waivers = BTreeMap<String, Vec<Waiver>>;

/// One case as a client reports it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    expected: Vec<String>,
    got: String,
    h3spec: bool,
}

type Cases = BTreeMap<String, Case>;

/// Suites, and how many cases of h3spec each holds: 16 of HTTP/3 and 34 of QUIC.
const SUITES: [(&str, usize); 3] = [("http3", 16), ("parameters", 8), ("quic", 26)];

fn waivers() -> Waivers {
    serde_yaml::from_str(include_str!("waivers.yaml")).expect("waivers.yaml")
}

/// Plays `conformance_SUITE` and asserts that every case ends as it should or as its waiver says, beside a client that never
/// waits in vain and a daemon that never panics.
pub(crate) fn play(row: &str, suite: &str) {
    play_with(row, suite, json!({}));
}

/// The same with other settings under `quic`.
pub(crate) fn play_with(row: &str, suite: &str, quic: Value) {
    let h3spec = SUITES.iter().find(|(name, _)| *name == suite).expect("a suite").1;
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/listeners/0/quic", quic)
    });
    let result = scene.target.run(&format!("conformance_{suite}"), json!({}), LONG);
    let cases: Cases = serde_json::from_value(result["cases"].clone()).expect("cases");
    let waivers = waivers().remove(suite).unwrap_or_default();
    let wrong = wrong(&cases, &waivers);
    let waived: usize = waivers.iter().map(|waiver| waiver.cases.len()).sum();
    for waiver in &waivers {
        println!("{row}: {} instead: {}", waiver.instead, waiver.cases.join(", "));
    }
    let right = (cases.len() - waived).saturating_sub(wrong.len());
    println!("{row}: {suite}: {right} of {} exact, {waived} waived", cases.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cases.values().filter(|case| case.h3spec).count(), h3spec);
    let bystander = &result["bystander"];
    assert!(bystander["bad"] == Value::Null && bystander["good"].as_u64() > Some(0), "{bystander}");
    assert_eq!(scene.spooky.metrics().sum("spooky_panics_total", &[]), 0.0);
}

/// What is wrong with these ends and these waivers.
fn wrong(cases: &Cases, waivers: &[Waiver]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut waived = BTreeMap::new();
    for (waiver, name) in waivers.iter().flat_map(|it| it.cases.iter().map(move |name| (it, name)))
    {
        if waived.insert(name.as_str(), waiver).is_some() {
            wrong.push(format!("{name}: waived twice"));
        }
        if waiver.reason.trim().is_empty() {
            wrong.push(format!("{name}: waived without a reason"));
        }
        match cases.get(name) {
            None => wrong.push(format!("{name}: a waiver of no case")),
            Some(case) if case.expected.contains(&waiver.instead) => {
                wrong.push(format!("{name}: a waiver of what is right"));
            }
            Some(_) => {}
        }
    }
    for (name, case) in cases {
        let Case { expected, got, .. } = case;
        match waived.get(name.as_str()) {
            None if !expected.contains(got) => {
                wrong.push(format!("{name}: {got}, not {}", expected.join(" or ")));
            }
            Some(waiver) if *got != waiver.instead => {
                wrong.push(format!("{name}: {got}, and the waiver says {}", waiver.instead));
            }
            _ => {}
        }
    }
    wrong
}

#[test]
fn every_waiver_belongs_to_a_suite() {
    let suites: BTreeSet<&str> = SUITES.iter().map(|(name, _)| *name).collect();
    let strangers: Vec<String> =
        waivers().into_keys().filter(|suite| !suites.contains(suite.as_str())).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
}

#[test]
fn a_case_is_right_or_waived_as_it_is() {
    let case =
        |got: &str| Case { expected: vec!["transport 0x8".into()], got: got.into(), h3spec: false };
    let waiver = |name: &str, instead: &str| Waiver {
        cases: vec![name.into()],
        instead: instead.into(),
        reason: "because".into(),
    };
    let judge = |got: &str, waivers: &[Waiver]| {
        wrong(&Cases::from([("one".to_owned(), case(got))]), waivers).len()
    };
    assert_eq!(judge("transport 0x8", &[]), 0);
    assert_eq!(judge("transport 0xa", &[]), 1);
    assert_eq!(judge("transport 0xa", &[waiver("one", "transport 0xa")]), 0);
    // Mended, worse, of no case, twice, of what is right.
    assert_eq!(judge("transport 0x8", &[waiver("one", "transport 0xa")]), 1);
    assert_eq!(judge("open", &[waiver("one", "transport 0xa")]), 1);
    assert_eq!(judge("transport 0x8", &[waiver("other", "open")]), 1);
    assert_eq!(judge("open", &[waiver("one", "open"), waiver("one", "open")]), 1);
    assert_eq!(judge("transport 0x8", &[waiver("one", "transport 0x8")]), 1);
}
