//! Entries, configuration and files together, against a model that asks every network.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::controlplane::config;
use crate::controlplane::kernel::Side;

fn net(text: &str) -> IpNet {
    text.parse().expect("a network")
}

fn access(allow: &[IpNet], deny: &[IpNet], dynamic_max: usize) -> Access {
    let sources = vec![
        config::source(false, None, allow.to_vec()),
        config::source(true, None, deny.to_vec()),
    ];
    Access {
        default_deny: false,
        allow: config::union(sources.iter().take(1)),
        deny: config::union(sources.iter().skip(1)),
        sources,
        dynamic_max,
        state_file: None,
        dry_run: false,
    }
}

fn compiled(access: &Access) -> AccessList {
    AccessList::new(access.default_deny, &access.allow, &access.deny)
}

fn lists(access: &Access) -> Lists {
    Lists::new(access, &compiled(access), Instant::now())
}

fn request(list: List, prefix: &str) -> Request {
    Request {
        list,
        prefix: net(prefix),
        ttl: None,
        reason: String::new(),
        dry_run: false,
        origin: Origin::Ctl,
        by: None,
    }
}

/// The kernel's lists as they would be: what is told at the start, then the edits.
#[derive(Default)]
struct Told(BTreeMap<(bool, IpNet), ()>);

impl Told {
    fn start(&mut self, lists: &Lists) {
        let AccessLists { allow, deny, .. } = lists.union();
        self.0.extend(allow.into_iter().map(|net| ((false, net), ())));
        self.0.extend(deny.into_iter().map(|net| ((true, net), ())));
    }

    fn follow(&mut self, lists: &mut Lists) {
        for Edit { side, net, listed } in lists.take_edits(usize::MAX).0 {
            if listed {
                self.0.insert((side == Side::Deny, net), ());
            } else {
                self.0.remove(&(side == Side::Deny, net));
            }
        }
    }

    fn permits(&self, address: std::net::IpAddr) -> bool {
        let has = |deny| self.0.keys().any(|(side, net)| *side == deny && net.contains(&address));
        has(false) || !has(true)
    }
}

#[test]
fn blocking_says_what_it_touches_and_abuse_never_blocks_the_trusted() {
    let mut lists = lists(&access(&[net("192.0.2.128/25")], &[net("198.51.100.0/24")], 10));
    let now = Instant::now();
    let outcome = lists.put(request(List::Deny, "192.0.2.7/24"), now).expect("taken");
    assert_eq!(
        (outcome.prefix, &outcome.allowed[..]),
        (net("192.0.2.0/24"), &[net("192.0.2.128/25")][..])
    );
    assert!(outcome.enforced && !outcome.loopback);
    assert!(lists.put(request(List::Deny, "::/0"), now).expect("taken").loopback);
    let abuse = |lists: &mut Lists, prefix| {
        lists.block(net(prefix), Some(Duration::from_secs(60)), "why", Origin::Abuse, false, now)
    };
    assert_eq!(abuse(&mut lists, "192.0.2.129/32"), Err(Refusal::Trusted(net("192.0.2.128/25"))));
    // Somebody's word stands, and is not taken back with what the loop has asked for.
    assert_eq!(abuse(&mut lists, "192.0.2.0/24"), Err(Refusal::Trusted(net("192.0.2.128/25"))));
    lists.put(request(List::Deny, "203.0.113.1/32"), now).expect("taken");
    assert_eq!(abuse(&mut lists, "203.0.113.1/32"), Err(Refusal::NotOurs(Origin::Ctl)));
    assert!(!lists.forgive(net("203.0.113.1/32")));
    assert!(abuse(&mut lists, "127.0.0.1/32").is_ok() && lists.forgive(net("127.0.0.1/32")));
    assert!(abuse(&mut lists, "::ffff:203.0.113.9/128").is_ok());
    assert_eq!(lists.matching(net("203.0.113.9/32")).len(), 1, "IPv4, whatever it was written as");
    assert_eq!(
        lists.remove(List::Deny, net("198.51.100.0/24")),
        Err(Refusal::NotOurs(Origin::Config))
    );
    assert_eq!(lists.remove(List::Deny, net("198.51.100.0/25")), Err(Refusal::Unknown));
}

#[test]
fn what_two_have_listed_stays_until_both_are_gone() {
    let deny = [net("198.51.100.0/24")];
    let mut lists = lists(&access(&[], &deny, 10));
    let mut told = Told::default();
    told.start(&lists);
    let address = "198.51.100.9".parse().expect("an address");
    lists.put(request(List::Deny, "198.51.100.0/24"), Instant::now()).expect("taken");
    told.follow(&mut lists);
    lists.configure(&access(&[], &[], 10), &compiled(&access(&[], &[], 10)));
    told.follow(&mut lists);
    assert!(!told.permits(address) && !lists.take_access().expect("changed").permits(address));
    lists.remove(List::Deny, deny[0]).expect("removed");
    told.follow(&mut lists);
    assert!(told.permits(address) && lists.take_access().expect("changed").permits(address));
}

#[test]
fn pages_show_everything_once() {
    let deny: Vec<IpNet> =
        (0..1200_u32).map(|n| IpNet::from(std::net::IpAddr::V4(n.into()))).collect();
    let mut lists = lists(&access(&[net("10.0.0.0/8")], &deny, 1000));
    for n in 0..700_u32 {
        let list = if n % 2 == 0 { List::Deny } else { List::Allow };
        let prefix = std::net::Ipv6Addr::from(u128::from(n)).to_string();
        lists.put(request(list, &format!("{prefix}/128")), Instant::now()).expect("taken");
    }
    for size in [1, 7, 500, 700, 3000] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (rows, next) = lists.page(after, size);
            assert!(rows.len() <= size);
            seen.extend(rows.iter().map(|row| (row.origin, row.list, row.prefix)));
            match next {
                Some(next) => after = Some(next.to_string().parse().expect("as it was shown")),
                None => break,
            }
        }
        assert_eq!(seen.len(), 1901);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 1901);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { list: List, prefix: IpNet, seconds: Option<u64>, dry: bool },
    Remove { list: List, prefix: IpNet },
    Pass(u64),
    Reload { allow: Vec<IpNet>, deny: Vec<IpNet>, dry_run: bool },
}

fn network() -> impl Strategy<Value = IpNet> {
    (0_u32..64, 26_u8..=32).prop_map(|(low, length)| {
        IpNet::new(std::net::IpAddr::V4(low.into()), length).expect("<= 32").trunc()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let list = || prop_oneof![Just(List::Allow), Just(List::Deny)];
    prop_oneof![
        4 => (list(), network(), prop::option::of(1_u64..20), any::<bool>()).prop_map(
            |(list, prefix, seconds, dry)| Step::Put { list, prefix, seconds, dry }
        ),
        2 => (list(), network()).prop_map(|(list, prefix)| Step::Remove { list, prefix }),
        2 => (1_u64..10).prop_map(Step::Pass),
        1 => (
            prop::collection::vec(network(), 0..4),
            prop::collection::vec(network(), 0..4),
            any::<bool>()
        )
            .prop_map(|(allow, deny, dry_run)| Step::Reload { allow, deny, dry_run }),
    ]
}

proptest! {
    /// The data plane, the kernel and what `list --match` says are one, and what a model says.
    #[test]
    fn all_who_look_see_the_same(steps in prop::collection::vec(step(), 1..40)) {
        let mut fixed = access(&[], &[], 8);
        let mut lists = lists(&fixed);
        let mut told = Told::default();
        told.start(&lists);
        let mut model: BTreeMap<(List, IpNet), (Option<Instant>, bool)> = BTreeMap::new();
        let mut now = Instant::now();
        let mut seen = lists.take_access().expect("the first");
        for step in steps {
            match step {
                Step::Put { list, prefix, seconds, dry } => {
                    let ttl = seconds.map(Duration::from_secs);
                    let put = Request { ttl, dry_run: dry, ..request(list, &prefix.to_string()) };
                    match lists.put(put, now) {
                        Ok(_) => {
                            model.insert((list, prefix), (ttl.map(|ttl| now + ttl), dry));
                        }
                        Err(refusal) => {
                            prop_assert_eq!(refusal, Refusal::Full { max: 8 });
                            prop_assert!(model.len() >= 8 && !model.contains_key(&(list, prefix)));
                        }
                    }
                }
                Step::Remove { list, prefix } => {
                    let removed = lists.remove(list, prefix).is_ok();
                    prop_assert_eq!(removed, model.remove(&(list, prefix)).is_some());
                }
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds);
                    lists.beat(now);
                    model.retain(|_, (until, _)| until.is_none_or(|until| until > now));
                }
                Step::Reload { allow, deny, dry_run } => {
                    fixed = Access { dry_run, ..access(&allow, &deny, 8) };
                    lists.configure(&fixed, &compiled(&fixed));
                }
            }
            told.follow(&mut lists);
            if let Some(access) = lists.take_access() {
                prop_assert_ne!(access.version(), seen.version());
                seen = access;
            }
            for low in 0_u32..66 {
                let address = std::net::IpAddr::V4(low.into());
                let has = |list: List, dry: bool| {
                    let fixed = if list == List::Allow { &fixed.allow } else { &fixed.deny };
                    !dry && fixed.iter().any(|net| net.contains(&address))
                        || model.iter().any(|((on, net), (_, spared))| {
                            let global = list == List::Deny && lists.dry_run;
                            *on == list && net.contains(&address) && (*spared || global) == dry
                        })
                };
                let allowed = has(List::Allow, false);
                let permitted = allowed || !has(List::Deny, false);
                prop_assert_eq!(seen.permits(address), permitted, "user space, {}", address);
                prop_assert_eq!(told.permits(address), permitted, "kernel, {}", address);
                prop_assert_eq!(lists.permits(address), permitted, "shown, {}", address);
                let spared = permitted && !allowed && has(List::Deny, true);
                prop_assert_eq!(seen.is_spared(address), spared, "spared, {}", address);
            }
        }
    }
}
