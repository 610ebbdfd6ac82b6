//! From reports to sentences: whose prefix, and whose not.

use super::*;

fn settings(mode: Mode) -> Settings {
    Settings {
        mode,
        rules: Rules {
            weights: [10, 1, 1, 10, 100, 2],
            threshold: 100,
            half_life: Duration::from_secs(10),
            block_for: Duration::from_secs(60),
            max_block_for: Duration::from_secs(600),
            max_entries: 10,
        },
        ipv4_prefix: 24,
        ipv6_prefix: 64,
        trusted: vec!["192.0.2.7/32".parse().unwrap()],
    }
}

fn ring() -> Arc<Reports> {
    Arc::new(Reports::new())
}

fn flood(ring: &Reports, client: &str, event: Event, times: usize) {
    for _ in 0..times {
        ring.report(client.parse().unwrap(), event);
    }
}

fn prefixes(sentences: &[Sentence]) -> Vec<String> {
    sentences.iter().map(|sentence| sentence.prefix.to_string()).collect()
}

#[test]
fn a_prefix_has_one_score_whichever_worker_and_address() {
    let rings = [ring(), ring()];
    let mut harm = Loop::new(settings(Mode::Block), &[], rings.to_vec());
    let now = Instant::now();
    flood(&rings[0], "198.51.100.1", Event::ClientError, 60);
    flood(&rings[1], "198.51.100.2", Event::Reset, 40);
    flood(&rings[1], "198.51.101.1", Event::Reset, 99);
    flood(&rings[0], "2001:db8:1:2::1", Event::Glitch, 5);
    flood(&rings[1], "2001:db8:1:2:ffff::1", Event::Glitch, 5);
    let sentences = harm.beat(now);
    let mut names = prefixes(&sentences);
    names.sort();
    assert_eq!(names, ["198.51.100.0/24", "2001:db8:1:2::/64"]);
    let mixed = sentences.iter().find(|it| it.prefix.addr().is_ipv4()).unwrap();
    assert_eq!(mixed.reason(), "client_error 60, reset 40");
    let figures = harm.figures();
    assert_eq!((figures.tracked, figures.sentenced), (3, 2));
    assert_eq!(figures.events, [0, 60, 139, 10, 0, 0]);
    assert!(harm.beat(now).is_empty());
}

#[test]
fn the_trusted_have_no_score_and_protect_their_prefix() {
    let ring = ring();
    let allowed = ["203.0.113.0/24".parse().unwrap()];
    let mut harm = Loop::new(settings(Mode::Block), &allowed, vec![Arc::clone(&ring)]);
    let now = Instant::now();
    flood(&ring, "192.0.2.7", Event::Violation, 50);
    flood(&ring, "203.0.113.9", Event::Violation, 50);
    assert!(harm.beat(now).is_empty());
    assert_eq!((harm.figures().tracked, harm.figures().trusted), (0, 100));
    // A neighbour of a trusted address, in the same /24.
    flood(&ring, "192.0.2.8", Event::Violation, 1);
    assert!(harm.beat(now).is_empty());
    assert_eq!(harm.figures().sentenced, 0);
    // Trusted no more, and by itself.
    let narrow = Settings { ipv4_prefix: 32, trusted: Vec::new(), ..settings(Mode::Block) };
    harm.configure(narrow, &[]);
    flood(&ring, "192.0.2.7", Event::Violation, 1);
    assert_eq!(prefixes(&harm.beat(now)), ["192.0.2.7/32"]);
}

#[test]
fn modes_decide_who_is_heard() {
    let ring = ring();
    let mut harm = Loop::new(settings(Mode::Off), &[], vec![Arc::clone(&ring)]);
    let now = Instant::now();
    flood(&ring, "198.51.100.1", Event::Violation, 3);
    assert!(harm.beat(now).is_empty());
    assert_eq!(harm.figures(), Figures::default());
    assert!(harm.configure(settings(Mode::DryRun), &[]).is_empty());
    flood(&ring, "198.51.100.1", Event::Violation, 3);
    let sentences = harm.beat(now);
    assert_eq!(sentences.len(), 1);
    assert!(harm.is_dry_run());
    harm.settle(&sentences[0], Fate::DryRun, now);
    // What a dry run has found out is no reason to wait when it is meant.
    assert_eq!(harm.configure(settings(Mode::Block), &[]), [sentences[0].prefix]);
    flood(&ring, "198.51.100.1", Event::Violation, 3);
    let sentences = harm.beat(now);
    assert_eq!(sentences.len(), 1);
    harm.settle(&sentences[0], Fate::Refused, now);
    flood(&ring, "198.51.100.1", Event::Violation, 1);
    let sentences = harm.beat(now);
    assert_eq!(sentences.len(), 1, "it could not be carried out, and is tried again");
    harm.settle(&sentences[0], Fate::Blocked, now);
    let figures = harm.figures();
    assert_eq!((figures.dry_run, figures.blocked, figures.refused), (1, 1, 1));
}

#[test]
fn who_is_trusted_from_now_on_is_let_go() {
    let ring = ring();
    let mut harm = Loop::new(settings(Mode::Block), &[], vec![Arc::clone(&ring)]);
    let now = Instant::now();
    flood(&ring, "198.51.100.1", Event::Violation, 1);
    flood(&ring, "203.0.113.1", Event::Violation, 1);
    assert_eq!(harm.beat(now).len(), 2);
    let allowed = ["203.0.113.9/32".parse().unwrap()];
    let free = harm.configure(settings(Mode::Block), &allowed);
    assert_eq!(free, ["203.0.113.0/24".parse().unwrap()]);
    assert_eq!(harm.figures().sentenced, 1, "the other stays");
    let free = harm.configure(settings(Mode::Off), &allowed);
    assert_eq!(free, ["198.51.100.0/24".parse().unwrap()]);
    assert_eq!((harm.figures().sentenced, harm.figures().tracked), (0, 0));
}
