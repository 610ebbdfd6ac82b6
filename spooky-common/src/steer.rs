//! Which worker a datagram goes to: a pure decision over its header and the keys. XDP counts it, sk_reuseport acts on
//! it, tests compare both with the host. Imports [`crate::cid`], [`crate::invariant`] and [`crate::siphash`] only.

use crate::{
    cid::{self, LocalKey, Owner},
    invariant::{Form, Header, Kind},
    siphash::siphash24,
};

/// Where the decision finds the key of a config id.
pub trait Keys {
    /// The key of `config_id` (0..=7), `None` when there is none. Always `None` for 7.
    fn local_key(&self, config_id: u8) -> Option<&LocalKey>;
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steer {
    /// The packet carries a connection ID of ours: it belongs to this worker's connection.
    Owner(Owner),
    /// A new flow: its place in the slot table, the same for every Initial and 0-RTT packet of one first flight.
    Place(u8),
    /// Nobody's connection as far as can be told. Its place is the flow's hash, so that its sender always reaches the
    /// same worker, which may answer with a stateless reset.
    Unknown(Unknown),
}

/// Whose a packet is, before it is given a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// As [`Steer::Owner`].
    Owner(Owner),
    /// A new flow's; [`slot`] is its place.
    NewFlow,
    /// As [`Steer::Unknown`].
    Unknown(Unknown),
}

/// What an unknown packet looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Handshake, Retry or Version Negotiation.
    Long,
    /// A short header whose connection ID does not decode: another host's, an expired key's, or made up.
    Short,
}

/// Decides for one packet. `placement` is the secret of the slot table's hash, so that a client cannot choose the
/// worker its connections land on.
#[inline(always)]
#[must_use]
pub fn steer<K: Keys>(header: &Header, keys: &K, placement: &LocalKey) -> Steer {
    match whose(header, keys) {
        Whose::Owner(owner) => Steer::Owner(owner),
        Whose::NewFlow => Steer::Place(slot(header, placement)),
        Whose::Unknown(unknown) => Steer::Unknown(unknown),
    }
}

/// The first half of the decision, without a hash for what a client opens with.
///
/// An ID of 20 octets is tried first whatever the packet type: from its second flight on, a client's Initial,
/// 0-RTT and Handshake packets carry the ID that we chose (RFC 9000 s7.2).
#[inline(always)]
#[must_use]
pub fn whose<K: Keys>(header: &Header, keys: &K) -> Whose {
    if usize::from(header.dcid_len) == cid::CID_LEN
        && let Some(owner) = owner(&header.dcid, keys)
    {
        return Whose::Owner(owner);
    }
    match header.form {
        Form::Short => Whose::Unknown(Unknown::Short),
        Form::Long { kind: Kind::Handshake | Kind::Retry | Kind::VersionNegotiation, .. } => {
            Whose::Unknown(Unknown::Long)
        }
        Form::Long { kind: Kind::Initial | Kind::ZeroRtt | Kind::OtherVersion, .. } => {
            Whose::NewFlow
        }
    }
}

/// The owner that `dcid` names, if it is one of ours.
#[inline(always)]
#[must_use]
pub fn owner<K: Keys>(dcid: &[u8; cid::CID_LEN], keys: &K) -> Option<Owner> {
    cid::open(dcid, keys.local_key(cid::config_id(dcid[0]))?)
}

/// The slot of a client-chosen connection ID: SipHash over its length and its first 20 octets.
#[inline(always)]
#[must_use]
pub fn slot(header: &Header, placement: &LocalKey) -> u8 {
    let d = &header.dcid;
    let words = [
        u64::from_le_bytes([d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]),
        u64::from_le_bytes([d[8], d[9], d[10], d[11], d[12], d[13], d[14], d[15]]),
        u64::from_le_bytes([d[16], d[17], d[18], d[19], header.dcid_len, 0, 0, 0]),
    ];
    siphash24(placement.k0, placement.k1, words) as u8
}

impl Keys for [Option<LocalKey>; cid::CONFIG_IDS as usize] {
    #[inline]
    fn local_key(&self, config_id: u8) -> Option<&LocalKey> {
        self.get(usize::from(config_id))?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{cid::CID_LEN, invariant::VERSION_1};

    const KEY: LocalKey = LocalKey { k0: 11, k1: 12 };
    const PLACEMENT: LocalKey = LocalKey { k0: 21, k1: 22 };
    const KEYS: [Option<LocalKey>; 7] = [None, None, Some(KEY), None, None, None, None];

    fn header(form: Form, dcid: [u8; CID_LEN], dcid_len: u8) -> Header {
        Header { form, dcid, dcid_len }
    }

    fn long(kind: Kind) -> Form {
        Form::Long { version: VERSION_1, kind }
    }

    const FORMS: [Form; 7] = [
        Form::Short,
        Form::Long { version: 1, kind: Kind::Initial },
        Form::Long { version: 1, kind: Kind::ZeroRtt },
        Form::Long { version: 1, kind: Kind::Handshake },
        Form::Long { version: 1, kind: Kind::Retry },
        Form::Long { version: 0, kind: Kind::VersionNegotiation },
        Form::Long { version: 9, kind: Kind::OtherVersion },
    ];

    proptest! {
        #[test]
        fn our_ids_reach_their_owner_in_every_form(octets: [u8; 17], worker: u8, generation in 0_u8..16) {
            let mut dcid = [0; CID_LEN];
            dcid[..17].copy_from_slice(&octets);
            dcid[0] = cid::first_octet(2);
            let owner = Owner { worker, generation };
            cid::seal(&mut dcid, &KEY, owner);
            for form in FORMS {
                prop_assert_eq!(steer(&header(form, dcid, 20), &KEYS, &PLACEMENT), Steer::Owner(owner));
            }
            // A prefix of our ID is not our ID, nor is the same ID without its key.
            let shorter = steer(&header(long(Kind::Initial), dcid, 19), &KEYS, &PLACEMENT);
            prop_assert!(matches!(shorter, Steer::Place(_)));
            let keyless = steer(&header(Form::Short, dcid, 20), &[None; 7], &PLACEMENT);
            prop_assert_eq!(keyless, Steer::Unknown(Unknown::Short));
        }

        #[test]
        fn one_first_flight_has_one_place(dcid: [u8; CID_LEN], dcid_len in 0_u8..19) {
            let places = [Kind::Initial, Kind::ZeroRtt, Kind::OtherVersion]
                .map(|kind| steer(&header(long(kind), dcid, dcid_len), &KEYS, &PLACEMENT));
            prop_assert!(matches!(places[0], Steer::Place(_)));
            prop_assert_eq!(places[0], places[1]);
            prop_assert_eq!(places[0], places[2]);
        }

        #[test]
        fn what_no_client_opens_with_is_unknown(dcid: [u8; CID_LEN], dcid_len in 0_u8..19) {
            for kind in [Kind::Handshake, Kind::Retry, Kind::VersionNegotiation] {
                let decision = steer(&header(long(kind), dcid, dcid_len), &KEYS, &PLACEMENT);
                prop_assert_eq!(decision, Steer::Unknown(Unknown::Long));
            }
        }
    }

    #[test]
    fn config_id_seven_never_decodes() {
        assert_eq!(KEYS.local_key(7), None);
        assert_eq!([Some(KEY); 7].local_key(7), None);
        assert_eq!([Some(KEY); 7].local_key(6), Some(&KEY));
    }

    #[test]
    fn places_are_spread_evenly() {
        // 256 slots, 64 a slot expected, 8 the standard deviation: 64 +- 5 * 8.
        let mut slots = [0_u32; 256];
        for n in 0_u64..16_384 {
            let mut dcid = [0; CID_LEN];
            dcid[..8].copy_from_slice(&n.to_be_bytes());
            slots[usize::from(slot(&header(long(Kind::Initial), dcid, 8), &PLACEMENT))] += 1;
        }
        assert!(slots.iter().all(|n| (24..=104).contains(n)), "{slots:?}");
    }

    #[test]
    fn the_length_is_part_of_the_place() {
        let places = core::array::from_fn::<u8, 20, _>(|len| {
            slot(&header(long(Kind::Initial), [0; CID_LEN], len as u8), &PLACEMENT)
        });
        assert!(places.iter().any(|place| *place != places[0]));
    }
}
