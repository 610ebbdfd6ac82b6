//! What every packet or connection passes: connection IDs, the invariant header, steering, access lists.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use spooky_common::{
    cid::{self, CID_LEN, LocalKey, Owner},
    invariant, steer,
};
use spooky_user::dataplane::{
    filter::ip_access::AccessList,
    quic::cid::{Issuer, Secrets},
};

use crate::stopwatch::Stopwatch;

const KEY: LocalKey = LocalKey { k0: 3, k1: 4 };
const OWNER: Owner = Owner { worker: 3, generation: 1 };

pub(crate) fn benches(stopwatch: &mut Stopwatch) {
    connection_ids(stopwatch);
    for count in [0, 1, 100_000] {
        let list = AccessList::new(false, &[], &deny(count));
        for (family, source) in [
            ("IPv4", IpAddr::V4(Ipv4Addr::new(10, 3, 0, 1))),
            ("IPv6", IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0x77, 0, 0, 0, 1))),
        ] {
            stopwatch.time(&format!("access list/{family}, of {count}"), || {
                list.permits(black_box(source))
            });
        }
    }
}

fn connection_ids(stopwatch: &mut Stopwatch) {
    let issuer = Issuer::new(&Secrets::from_bytes(0, [0; 3], &[7; 32]), OWNER);
    stopwatch.time("connection ID/issue", || issuer.issue());
    let ours = issuer.issue();
    stopwatch.time("connection ID/read", || issuer.open(black_box(&ours)));
    stopwatch.time("connection ID/read a stranger's", || issuer.open(black_box(&[0x13; CID_LEN])));
    let mut packet = [0x41; 40];
    let mut dcid = [9; CID_LEN];
    dcid[0] = cid::first_octet(0);
    cid::seal(&mut dcid, &KEY, OWNER);
    packet[1..=CID_LEN].copy_from_slice(&dcid);
    let keys = [Some(KEY), None, None, None, None, None, None];
    stopwatch.time("connection ID/steer a short header", || {
        let header = invariant::parse(black_box(&packet)).ok()?;
        Some(steer::steer(&header, &keys, &KEY))
    });
}

/// Half of them in each family, none next to another.
fn deny(count: u32) -> Vec<IpNet> {
    let net = |number: u32| {
        let (address, bits): (IpAddr, u8) = if number.is_multiple_of(2) {
            (Ipv4Addr::from(0x0a00_0000 + number * 8).into(), 30)
        } else {
            let host = u128::from(number) << 66;
            (Ipv6Addr::from((0x2001_0db8_u128 << 96) + host).into(), 64)
        };
        IpNet::new(address, bits).unwrap_or_else(|error| panic!("{error}"))
    };
    (0..count).map(net).collect()
}
