//! The frames of the verdict table, each with the verdict and the one counter that its author expects: written by
//! hand from the RFCs, not computed.

use spooky_common::{
    cid::{LocalKey, Owner},
    counter::Counter::{self, *},
    invariant,
    map::Settings,
    steer,
};

use crate::{
    frames::{Frame, QINQ, VLAN, frame, long, our_cid, short},
    rig::{Setup, XDP_DROP as DROP, XDP_PASS as PASS, XDP_REDIRECT as REDIRECT},
};

pub(crate) const KEY: LocalKey = LocalKey { k0: 0x1122_3344_5566_7788, k1: 0x99aa_bbcc_ddee_ff00 };
pub(crate) const OLD_KEY: LocalKey = LocalKey { k0: 5, k1: 6 };
pub(crate) const OWNER: Owner = Owner { worker: 3, generation: 9 };

/// A frame, what happens to it, and which counter says so.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) octets: Vec<u8>,
    pub(crate) verdict: u32,
    pub(crate) counter: Counter,
}

/// Listeners on 443 (both wildcards), on 8443 of two single addresses, and on 9443 of one; keys for config ids 0
/// and 1; a denied and an allowed network in each family.
pub(crate) fn setup() -> Setup {
    let address = |text: &str| text.parse().expect("an address");
    let mut setup = Setup {
        listeners: [
            "0.0.0.0:443",
            "[::]:443",
            "192.0.2.9:8443",
            "[2001:db8::9]:8443",
            "192.0.2.8:9443",
        ]
        .map(|listener| listener.parse().expect("an address and port"))
        .into(),
        settings: Settings { placement: LocalKey { k0: 7, k1: 8 }, ..Settings::default() },
        deny: vec![
            (address("198.51.100.0"), 24),
            (address("203.0.113.7"), 32),
            (address("2001:db8:bad::"), 48),
            (address("2001:db8:1::66"), 128),
        ],
        allow: vec![
            (address("198.51.100.128"), 25),
            (address("2001:db8:bad:cafe::"), 64),
            (address("10.0.0.0"), 8),
            (address("2001:db8:a::"), 48),
        ],
        ..Setup::default()
    };
    setup.keys[0] = Some(KEY);
    setup.keys[1] = Some(OLD_KEY);
    setup.live.push(OWNER);
    setup
}

pub(crate) fn v4(payload: &[u8]) -> Frame {
    frame("192.0.2.1:50000", "192.0.2.9:443", payload)
}

pub(crate) fn v6(payload: &[u8]) -> Frame {
    frame("[2001:db8::1]:50000", "[2001:db8::9]:443", payload)
}

pub(crate) fn from(source: &str) -> Frame {
    let destination = if source.starts_with('[') { "[2001:db8::9]:443" } else { "192.0.2.9:443" };
    frame(source, destination, &ours())
}

pub(crate) fn ours() -> Vec<u8> {
    short(&our_cid(&KEY, 0, OWNER, 77))
}

fn tampered(at: usize, bits: u8) -> Vec<u8> {
    let mut packet = ours();
    packet[1 + at] ^= bits;
    packet
}

/// A frame with one octet set.
fn set(frame: &Frame, at: usize, octet: u8) -> Vec<u8> {
    let mut octets = frame.octets();
    octets[at] = octet;
    octets
}

pub(crate) fn all() -> Vec<Fixture> {
    let mut fixtures = Vec::new();
    for (table, rows) in
        [link(), ipv4(), ipv6(), listeners(), long_headers(), short_headers(), access()]
            .into_iter()
            .enumerate()
    {
        assert!(!rows.is_empty(), "table {table}");
        for (name, octets, verdict, counter) in rows {
            fixtures.push(Fixture { name, octets, verdict, counter });
        }
    }
    fixtures
}

pub(crate) type Rows = Vec<(&'static str, Vec<u8>, u32, Counter)>;

fn link() -> Rows {
    let mut arp = vec![0xff; 12];
    arp.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([0; 18]);
    let mut lldp = vec![1; 12];
    lldp.extend([0x88, 0xcc, 2, 7, 4]);
    vec![
        ("ARP", arp, PASS, XdpNotIp),
        ("LLDP", lldp, PASS, XdpNotIp),
        ("Ethernet header only, IPv4", v4(&[]).octets()[..14].to_vec(), PASS, XdpTruncated),
        ("VLAN", v4(&ours()).with(|f| f.tags = vec![VLAN]).octets(), PASS, XdpOwner),
        ("service VLAN alone", v4(&ours()).with(|f| f.tags = vec![QINQ]).octets(), PASS, XdpOwner),
        ("QinQ", v4(&ours()).with(|f| f.tags = vec![QINQ, VLAN]).octets(), PASS, XdpOwner),
        ("QinQ, IPv6", v6(&ours()).with(|f| f.tags = vec![QINQ, VLAN]).octets(), PASS, XdpOwner),
        (
            "two customer VLANs",
            v4(&ours()).with(|f| f.tags = vec![VLAN, VLAN]).octets(),
            PASS,
            XdpOwner,
        ),
        ("three VLANs", v4(&ours()).with(|f| f.tags = vec![VLAN; 3]).octets(), PASS, XdpNotIp),
        (
            "padded to 60 octets and more",
            v4(&ours()).with(|f| f.padding = 30).octets(),
            PASS,
            XdpOwner,
        ),
        (
            "denied behind QinQ",
            from("203.0.113.7:9").with(|f| f.tags = vec![QINQ, VLAN]).octets(),
            DROP,
            XdpDenied,
        ),
    ]
}

fn ipv4() -> Rows {
    let options = |count: usize| v4(&ours()).with(|f| f.options = vec![1; count]).octets();
    let fragment = |bits: u16| v4(&ours()).with(|f| f.fragment = bits).octets();
    let protocol = |number: u8| v4(&ours()).with(|f| f.protocol = number).octets();
    let denied_fragment = from("203.0.113.7:9").with(|f| f.fragment = 0x2000).octets();
    vec![
        ("IPv4", v4(&ours()).octets(), PASS, XdpOwner),
        ("IPv4, 4 octets of options", options(4), PASS, XdpOwner),
        ("IPv4, 40 octets of options", options(40), PASS, XdpOwner),
        ("IPv4, don't fragment clear", fragment(0), PASS, XdpOwner),
        ("IPv4, reserved flag", fragment(0x8000), PASS, XdpOwner),
        ("IPv4, first fragment", fragment(0x2000), PASS, XdpFragment),
        ("IPv4, middle fragment", fragment(0x2001), PASS, XdpFragment),
        ("IPv4, last fragment", fragment(0x0100), PASS, XdpFragment),
        ("IPv4, fragment of a denied source", denied_fragment, PASS, XdpFragment),
        ("IPv4, TCP", protocol(6), PASS, XdpNotUdp),
        ("IPv4, ICMP", protocol(1), PASS, XdpNotUdp),
        ("IPv4, UDP-Lite", protocol(136), PASS, XdpNotUdp),
        (
            "IPv4, ICMP of a denied source",
            from("203.0.113.7:9").with(|f| f.protocol = 1).octets(),
            PASS,
            XdpNotUdp,
        ),
        ("IPv4, header length 4", set(&v4(&ours()), 14, 0x44), PASS, XdpMalformed),
        ("IPv4, version 6", set(&v4(&ours()), 14, 0x65), PASS, XdpMalformed),
        ("IPv4, total length below its header", set(&v4(&ours()), 17, 19), PASS, XdpMalformed),
        ("IPv4, total length below UDP's", set(&v4(&ours()), 17, 40), PASS, XdpMalformed),
        ("UDP length 7", set(&v4(&ours()), 14 + 20 + 5, 7), PASS, XdpMalformed),
        ("UDP length 8, data behind it", set(&v4(&ours()), 14 + 20 + 5, 8), PASS, XdpNotQuic),
        ("UDP length beyond IP's", set(&v4(&ours()), 14 + 20 + 4, 0x10), PASS, XdpMalformed),
        ("UDP checksum 0", v4(&ours()).octets(), PASS, XdpOwner),
    ]
}

fn ipv6() -> Rows {
    let chain = |extensions: &[(u8, usize)]| {
        v6(&ours())
            .with(|f| {
                f.extensions = extensions.iter().map(|(kind, len)| (*kind, vec![0; *len])).collect()
            })
            .octets()
    };
    vec![
        ("IPv6", v6(&ours()).octets(), PASS, XdpOwner),
        ("IPv6, hop-by-hop", chain(&[(0, 6)]), PASS, XdpOwner),
        ("IPv6, destination options of 64 octets", chain(&[(60, 62)]), PASS, XdpOwner),
        ("IPv6, routing", chain(&[(43, 22)]), PASS, XdpOwner),
        (
            "IPv6, four extension headers",
            chain(&[(0, 6), (60, 6), (43, 6), (60, 6)]),
            PASS,
            XdpOwner,
        ),
        (
            "IPv6, five extension headers",
            chain(&[(0, 6), (60, 6), (43, 6), (60, 6), (60, 6)]),
            PASS,
            XdpNotUdp,
        ),
        ("IPv6, longest extension header", chain(&[(60, 2046)]), PASS, XdpOwner),
        ("IPv6, fragment", chain(&[(44, 6)]), PASS, XdpFragment),
        ("IPv6, fragment behind hop-by-hop", chain(&[(0, 6), (44, 6)]), PASS, XdpFragment),
        (
            "IPv6, fragment as fifth",
            chain(&[(0, 6), (60, 6), (43, 6), (60, 6), (44, 6)]),
            PASS,
            XdpFragment,
        ),
        ("IPv6, authentication header", chain(&[(51, 6)]), PASS, XdpNotUdp),
        ("IPv6, ICMPv6", v6(&ours()).with(|f| f.protocol = 58).octets(), PASS, XdpNotUdp),
        ("IPv6, no next header", v6(&ours()).with(|f| f.protocol = 59).octets(), PASS, XdpNotUdp),
        ("IPv6, version 4", set(&v6(&ours()), 14, 0x45), PASS, XdpMalformed),
        ("IPv6, payload length 0", set(&v6(&ours()), 19, 0), PASS, XdpMalformed),
        (
            "IPv6, extension beyond the payload length",
            set(&v6(&ours()).with(|f| f.extensions = vec![(60, vec![0; 6])]), 14 + 41, 200),
            PASS,
            XdpMalformed,
        ),
    ]
}

fn listeners() -> Rows {
    let to = |destination: &str| {
        let source = if destination.starts_with('[') { "[2001:db8::1]:5" } else { "192.0.2.1:5" };
        frame(source, destination, &ours()).octets()
    };
    vec![
        ("other port", to("192.0.2.9:53"), PASS, XdpOtherPort),
        ("other port, IPv6", to("[2001:db8::9]:53"), PASS, XdpOtherPort),
        (
            "our port as source only",
            frame("192.0.2.1:443", "192.0.2.9:50000", &ours()).octets(),
            PASS,
            XdpOtherPort,
        ),
        ("wildcard, any address", to("203.0.113.99:443"), PASS, XdpOwner),
        ("single address", to("192.0.2.9:8443"), PASS, XdpOwner),
        ("single address, IPv6", to("[2001:db8::9]:8443"), PASS, XdpOwner),
        ("its neighbour's address", to("192.0.2.8:8443"), PASS, XdpOtherPort),
        ("its neighbour's address, IPv6", to("[2001:db8::8]:8443"), PASS, XdpOtherPort),
        ("single IPv4 address, from IPv6", to("[2001:db8::9]:9443"), PASS, XdpOtherPort),
        (
            "denied source, other port",
            frame("203.0.113.7:9", "192.0.2.9:53", &ours()).octets(),
            PASS,
            XdpOtherPort,
        ),
        (
            "denied source, other address",
            frame("203.0.113.7:9", "192.0.2.8:8443", &ours()).octets(),
            PASS,
            XdpOtherPort,
        ),
    ]
}

fn long_headers() -> Rows {
    let our = our_cid(&KEY, 0, OWNER, 5);
    let packet = |first: u8, version: u32, dcid: &[u8]| v4(&long(first, version, dcid)).octets();
    vec![
        ("Initial, 8 octets", packet(0xc0, 1, &[7; 8]), PASS, XdpNewFlow),
        ("Initial, IPv6", v6(&long(0xc3, 1, &[7; 18])).octets(), PASS, XdpNewFlow),
        ("Initial, 20 octets not ours", packet(0xc0, 1, &[0x13; 20]), PASS, XdpNewFlow),
        ("Initial, empty ID", packet(0xc0, 1, &[]), PASS, XdpNewFlow),
        ("Initial, 1 octet", packet(0xc0, 1, &[9]), PASS, XdpNewFlow),
        ("Initial, 19 octets of ours", packet(0xc0, 1, &our[..19]), PASS, XdpNewFlow),
        ("Initial, ours", packet(0xc0, 1, &our), PASS, XdpOwner),
        ("Initial, 21 octets", packet(0xc0, 1, &[3; 21]), PASS, XdpNewFlow),
        ("0-RTT, 8 octets", packet(0xd0, 1, &[7; 8]), PASS, XdpNewFlow),
        ("0-RTT, ours", packet(0xd0, 1, &our), PASS, XdpOwner),
        ("Handshake, ours", packet(0xe0, 1, &our), PASS, XdpOwner),
        ("Handshake, 8 octets", packet(0xe0, 1, &[7; 8]), PASS, XdpUnknownLong),
        ("Handshake, empty ID", packet(0xe0, 1, &[]), PASS, XdpUnknownLong),
        ("Retry", packet(0xf0, 1, &[7; 8]), PASS, XdpUnknownLong),
        ("Version Negotiation", packet(0x80, 0, &[7; 8]), PASS, XdpUnknownLong),
        ("version 2", packet(0xd0, 0x6b33_43cf, &[7; 8]), PASS, XdpNewFlow),
        ("greased version, 255 octets", packet(0xc0, 0x1a2a_3a4a, &[1; 255]), PASS, XdpNewFlow),
        ("long header without its version", v4(&[0xc0, 0, 0]).octets(), PASS, XdpNotQuic),
        (
            "long header, ID beyond the datagram",
            v4(&[0xc0, 0, 0, 0, 1, 20, 1, 2, 3]).octets(),
            PASS,
            XdpNotQuic,
        ),
    ]
}

fn short_headers() -> Rows {
    let of = |owner: Owner| v4(&short(&our_cid(&KEY, 0, owner, 3))).octets();
    let key_of = |key: &LocalKey, config: u8| v4(&short(&our_cid(key, config, OWNER, 3))).octets();
    vec![
        ("short, config 1", key_of(&OLD_KEY, 1), PASS, XdpOwner),
        ("short, config 1 under the key of 0", key_of(&KEY, 1), PASS, XdpUnknownShort),
        ("short, config 2 without a key", key_of(&KEY, 2), PASS, XdpUnknownShort),
        ("short, unroutable config 7", key_of(&KEY, 7), PASS, XdpUnknownShort),
        ("short, another worker", of(Owner { worker: 4, ..OWNER }), PASS, XdpOwnerGone),
        ("short, another generation", of(Owner { generation: 8, ..OWNER }), PASS, XdpOwnerGone),
        ("short, random", v4(&short(&[0xa7; 20])).octets(), PASS, XdpUnknownShort),
        ("short, first octet tampered", v4(&tampered(0, 1)).octets(), PASS, XdpUnknownShort),
        ("short, block tampered", v4(&tampered(5, 0x20)).octets(), PASS, XdpUnknownShort),
        ("short, worker tampered", v4(&tampered(17, 0x01)).octets(), PASS, XdpUnknownShort),
        ("short, generation tampered", v4(&tampered(18, 0x10)).octets(), PASS, XdpUnknownShort),
        ("short, check tampered", v4(&tampered(19, 0x80)).octets(), PASS, XdpUnknownShort),
        ("short, fixed bit clear", set(&v4(&ours()), 14 + 28, 0x01), PASS, XdpOwner),
        ("short, 21 octets", v4(&ours()[..21]).octets(), PASS, XdpOwner),
        ("short, 20 octets", v4(&ours()[..20]).octets(), PASS, XdpNotQuic),
        (
            "short, 20 octets and padding",
            v4(&ours()[..20]).with(|f| f.padding = 9).octets(),
            PASS,
            XdpNotQuic,
        ),
        ("one octet", v4(&[0x40]).octets(), PASS, XdpNotQuic),
        ("empty datagram", v4(&[]).octets(), PASS, XdpNotQuic),
        (
            "DNS on our port",
            v4(&[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]).octets(),
            PASS,
            XdpNotQuic,
        ),
    ]
}

/// What changes where the queue has the AF_XDP socket of [`OWNER`], and keeps new flows below slot `share`.
pub(crate) fn on_its_queue(share: u16) -> Vec<Fixture> {
    let stays =
        |slot: u16| if slot < share { (REDIRECT, XdpRedirectedNew) } else { (PASS, XdpNewFlow) };
    let initial = |id: u8| {
        let packet = long(0xc0, 1, &[id; 8]);
        let header = invariant::parse(&packet).expect("whole");
        (v4(&packet).octets(), stays(steer::slot(&header, &setup().settings.placement).into()))
    };
    let of = |owner: Owner| v4(&short(&our_cid(&KEY, 0, owner, 3))).octets();
    let our = our_cid(&KEY, 0, OWNER, 5);
    let owner = |octets| (octets, (REDIRECT, XdpRedirected));
    let passed = |octets, counter| (octets, (PASS, counter));
    let mut fixtures: Vec<_> = [
        ("short, the queue's owner", owner(v4(&ours()).octets())),
        ("short, IPv6", owner(v6(&ours()).octets())),
        ("short, tagged", owner(v4(&ours()).with(|f| f.tags = vec![QINQ, VLAN]).octets())),
        ("short, options", owner(v4(&ours()).with(|f| f.options = vec![1; 8]).octets())),
        ("short, single address", owner(frame("192.0.2.1:5", "192.0.2.9:8443", &ours()).octets())),
        ("Handshake", owner(v4(&long(0xe0, 1, &our)).octets())),
        ("Initial, our ID", owner(v4(&long(0xc0, 1, &our)).octets())),
        ("another worker", passed(of(Owner { worker: 4, ..OWNER }), XdpOwner)),
        ("a worker that is gone", passed(of(Owner { worker: 5, ..OWNER }), XdpOwnerGone)),
        ("another generation", passed(of(Owner { generation: 8, ..OWNER }), XdpOwnerGone)),
        ("short, unknown", passed(v4(&short(&[0xa7; 20])).octets(), XdpUnknownShort)),
        ("Handshake, unknown", passed(v4(&long(0xe0, 1, &[7; 8])).octets(), XdpUnknownLong)),
        ("no QUIC header", passed(v4(&[0x40]).octets(), XdpNotQuic)),
        ("fragment", passed(v4(&ours()).with(|f| f.fragment = 0x2000).octets(), XdpFragment)),
        (
            "other port",
            passed(frame("192.0.2.1:5", "192.0.2.9:53", &ours()).octets(), XdpOtherPort),
        ),
        ("denied", (from("203.0.113.7:9").octets(), (DROP, XdpDenied))),
        ("0-RTT", (v4(&long(0xd0, 1, &[1; 8])).octets(), initial(1).1)),
        ("version 2", (v4(&long(0xd0, 0x6b33_43cf, &[1; 8])).octets(), initial(1).1)),
    ]
    .into();
    fixtures.extend((0..32).map(|id| ("Initial", initial(id))));
    let fixture = |(name, (octets, (verdict, counter)))| Fixture { name, octets, verdict, counter };
    fixtures.into_iter().map(fixture).collect()
}

fn access() -> Rows {
    vec![
        ("denied /24", from("198.51.100.1:9").octets(), DROP, XdpDenied),
        (
            "denied /24, last before the allowed half",
            from("198.51.100.127:9").octets(),
            DROP,
            XdpDenied,
        ),
        ("allowed within denied", from("198.51.100.128:9").octets(), PASS, XdpOwner),
        ("neighbour of the denied /24", from("198.51.101.1:9").octets(), PASS, XdpOwner),
        ("denied /32", from("203.0.113.7:9").octets(), DROP, XdpDenied),
        ("neighbour of the denied /32", from("203.0.113.6:9").octets(), PASS, XdpOwner),
        ("denied /48, IPv6", from("[2001:db8:bad::1]:9").octets(), DROP, XdpDenied),
        ("allowed within denied, IPv6", from("[2001:db8:bad:cafe::1]:9").octets(), PASS, XdpOwner),
        ("neighbour of the denied /48", from("[2001:db8:bae::1]:9").octets(), PASS, XdpOwner),
        ("denied /128", from("[2001:db8:1::66]:9").octets(), DROP, XdpDenied),
        ("neighbour of the denied /128", from("[2001:db8:1::67]:9").octets(), PASS, XdpOwner),
        (
            "denied, with options",
            from("203.0.113.7:9").with(|f| f.options = vec![1; 8]).octets(),
            DROP,
            XdpDenied,
        ),
        (
            "denied, empty datagram",
            frame("203.0.113.7:9", "192.0.2.9:443", &[]).octets(),
            DROP,
            XdpDenied,
        ),
        (
            "denied, behind an extension header",
            from("[2001:db8:1::66]:9").with(|f| f.extensions = vec![(0, vec![0; 6])]).octets(),
            DROP,
            XdpDenied,
        ),
        ("allowed without a deny", from("10.1.2.3:9").octets(), PASS, XdpOwner),
    ]
}

/// What changes when the default is to deny.
pub(crate) fn under_default_deny() -> Vec<Fixture> {
    [
        ("on no list", from("192.0.2.1:9").octets(), DROP, XdpNotAllowed),
        ("on no list, IPv6", from("[2001:db8::1]:9").octets(), DROP, XdpNotAllowed),
        ("on no list, Initial", v4(&long(0xc0, 1, &[7; 8])).octets(), DROP, XdpNotAllowed),
        ("allowed", from("10.1.2.3:9").octets(), PASS, XdpOwner),
        ("allowed, IPv6", from("[2001:db8:a::1]:9").octets(), PASS, XdpOwner),
        ("denied", from("203.0.113.7:9").octets(), DROP, XdpDenied),
        ("allowed within denied", from("198.51.100.128:9").octets(), PASS, XdpOwner),
        ("other port", frame("192.0.2.1:9", "192.0.2.9:53", &ours()).octets(), PASS, XdpOtherPort),
        ("fragment", v4(&ours()).with(|f| f.fragment = 0x2000).octets(), PASS, XdpFragment),
        ("TCP", v4(&ours()).with(|f| f.protocol = 6).octets(), PASS, XdpNotUdp),
    ]
    .map(|(name, octets, verdict, counter)| Fixture { name, octets, verdict, counter })
    .into()
}
