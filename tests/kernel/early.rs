//! The frames of early refusal: what XDP may drop because every worker would, beside what is next to it. Written by hand
//! from the RFCs, as all fixtures are.

use spooky_common::counter::Counter::*;

use crate::{
    fixtures::{Fixture, KEY, OWNER, Rows, from, ours, v4, v6},
    frames::{frame, long, our_cid, short},
    rig::{XDP_DROP as DROP, XDP_PASS as PASS},
};

pub(crate) fn under_early() -> Vec<Fixture> {
    let rows = [initials(), others(), ports()].concat();
    let fixture = |(name, octets, verdict, counter)| Fixture { name, octets, verdict, counter };
    rows.into_iter().map(fixture).collect()
}

fn initials() -> Rows {
    let our = our_cid(&KEY, 0, OWNER, 5);
    let packet = |first: u8, version: u32, dcid: &[u8]| v4(&long(first, version, dcid)).octets();
    let cut = |packet: &[u8], len: usize| v4(&packet[..len]).octets();
    let scid = |len: u8| {
        let mut packet = long(0xc0, 1, &[7; 8]);
        packet[14] = len;
        packet
    };
    let initial = long(0xc0, 1, &[7; 8]);
    let ours_long = |first: u8| long(first, 1, &our);
    vec![
        ("Initial", packet(0xc0, 1, &[7; 8]), PASS, XdpNewFlow),
        ("Initial, fixed bit clear", packet(0x80, 1, &[7; 8]), PASS, XdpNewFlow),
        ("Initial, 1,199 octets", cut(&initial, 1199), DROP, XdpTooShort),
        ("Initial, 100 octets", cut(&initial, 100), DROP, XdpTooShort),
        ("Initial, our ID, 1,199 octets", cut(&ours_long(0xc0), 1199), DROP, XdpTooShort),
        ("Initial, our ID", v4(&ours_long(0xc0)).octets(), PASS, XdpOwner),
        ("Initial, IPv6, 1,199 octets", v6(&initial[..1199]).octets(), DROP, XdpTooShort),
        (
            "Initial, padded behind",
            v4(&initial[..1199]).with(|f| f.padding = 9).octets(),
            DROP,
            XdpTooShort,
        ),
        ("Initial, 0 octets of ID", packet(0xc0, 1, &[]), DROP, XdpDropMalformed),
        ("Initial, 7 octets of ID", packet(0xc0, 1, &[7; 7]), DROP, XdpDropMalformed),
        ("Initial, 20 octets not ours", packet(0xc0, 1, &[0x13; 20]), PASS, XdpNewFlow),
        ("Initial, 21 octets of ID", packet(0xc0, 1, &[7; 21]), DROP, XdpDropMalformed),
        ("Initial, 255 octets of ID", packet(0xc0, 1, &[7; 255]), DROP, XdpDropMalformed),
        ("Initial, source ID of 20", v4(&scid(20)).octets(), PASS, XdpNewFlow),
        ("Initial, source ID of 21", v4(&scid(21)).octets(), DROP, XdpDropMalformed),
        ("Initial, source ID of 255", v4(&scid(255)).octets(), DROP, XdpDropMalformed),
    ]
}

fn others() -> Rows {
    let our = our_cid(&KEY, 0, OWNER, 5);
    let packet = |first: u8, version: u32, dcid: &[u8]| v4(&long(first, version, dcid)).octets();
    let cut = |packet: &[u8], len: usize| v4(&packet[..len]).octets();
    let ours_long = |first: u8| long(first, 1, &our);
    vec![
        ("0-RTT, short", cut(&long(0xd0, 1, &[7; 8]), 90), PASS, XdpNewFlow),
        ("0-RTT, 3 octets of ID", packet(0xd0, 1, &[7; 3]), DROP, XdpDropMalformed),
        ("0-RTT, ours", cut(&ours_long(0xd0), 90), PASS, XdpOwner),
        ("Handshake, ours", cut(&ours_long(0xe0), 90), PASS, XdpOwner),
        ("Handshake, 20 octets not ours", packet(0xe0, 1, &[0x13; 20]), PASS, XdpUnknownLong),
        ("Handshake, 8 octets", packet(0xe0, 1, &[7; 8]), DROP, XdpNotInitial),
        ("Handshake, no ID", packet(0xe0, 1, &[]), DROP, XdpNotInitial),
        ("Handshake, source ID beyond", cut(&ours_long(0xe0), 30), DROP, XdpDropMalformed),
        ("Handshake, no source ID", cut(&ours_long(0xe0), 26), DROP, XdpDropMalformed),
        ("Retry, 8 octets", packet(0xf0, 1, &[7; 8]), DROP, XdpNotInitial),
        ("Retry, 20 octets", packet(0xf0, 1, &[7; 20]), PASS, XdpUnknownLong),
        ("Version Negotiation", packet(0x80, 0, &[7; 8]), DROP, XdpNotInitial),
        ("version 2", packet(0xd0, 0x6b33_43cf, &[7; 8]), PASS, XdpNewFlow),
        ("version 2, 255 octets", packet(0xd0, 0x6b33_43cf, &[7; 255]), PASS, XdpNewFlow),
        ("version 2, 1,199 octets", cut(&long(0xd0, 2, &[7; 8]), 1199), DROP, XdpTooShort),
        ("version 2, 1,199, 20 of ID", cut(&long(0xd0, 2, &[7; 20]), 1199), DROP, XdpTooShort),
        ("version 2, our ID, short", cut(&long(0xd0, 2, &our), 99), PASS, XdpOwner),
        ("cut in its version", v4(&[0xc0, 0, 0]).octets(), DROP, XdpDropMalformed),
        ("cut in its ID", v4(&[0xc0, 0, 0, 0, 1, 20, 1, 2]).octets(), DROP, XdpDropMalformed),
        ("short, 20 octets", v4(&ours()[..20]).octets(), DROP, XdpDropMalformed),
        ("short, 21 octets", v4(&ours()[..21]).octets(), PASS, XdpOwner),
        ("short, unknown", v4(&short(&[0xa7; 20])).octets(), PASS, XdpUnknownShort),
        ("empty datagram", v4(&[]).octets(), PASS, XdpNotQuic),
        ("denied and malformed", from("203.0.113.7:9").octets(), DROP, XdpDenied),
        ("other port", frame("192.0.2.1:53", "192.0.2.9:53", &[0xc0]).octets(), PASS, XdpOtherPort),
        ("fragment", v4(&[0xc0]).with(|f| f.fragment = 0x2000).octets(), PASS, XdpFragment),
    ]
}

fn ports() -> Rows {
    let our = our_cid(&KEY, 0, OWNER, 5);
    let of_port = |port: u16, payload: &[u8]| {
        frame(&format!("192.0.2.1:{port}"), "192.0.2.9:443", payload).octets()
    };
    let initial = long(0xc0, 1, &[7; 8]);
    let ours_long = |first: u8| long(first, 1, &our);
    vec![
        ("Initial, from port 0", of_port(0, &initial), DROP, XdpSourcePort),
        ("Initial, from port 53", of_port(53, &initial), DROP, XdpSourcePort),
        ("Initial, from port 443", of_port(443, &initial), DROP, XdpSourcePort),
        ("Initial, from port 1023", of_port(1023, &initial), DROP, XdpSourcePort),
        ("Initial, from port 1024", of_port(1024, &initial), PASS, XdpNewFlow),
        ("Initial, from port 1900", of_port(1900, &initial), DROP, XdpSourcePort),
        ("Initial, from port 11211", of_port(11_211, &initial), DROP, XdpSourcePort),
        (
            "20 octets not ours, port 53",
            of_port(53, &long(0xc0, 1, &[0x13; 20])),
            DROP,
            XdpSourcePort,
        ),
        ("0-RTT, from port 123", of_port(123, &long(0xd0, 1, &[7; 8])), DROP, XdpSourcePort),
        ("version 2, from port 123", of_port(123, &long(0xd0, 2, &[7; 8])), DROP, XdpSourcePort),
        ("our ID, from port 53", of_port(53, &ours()), PASS, XdpOwner),
        ("Initial, our ID, port 53", of_port(53, &ours_long(0xc0)), PASS, XdpOwner),
        ("short, unknown, port 53", of_port(53, &short(&[0xa7; 20])), PASS, XdpUnknownShort),
    ]
}
