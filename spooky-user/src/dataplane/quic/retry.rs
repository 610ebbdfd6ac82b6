//! Address validation with Retry (RFC 9000 §8.1.2): the tokens, and the packet that carries one.
//!
//! ```text
//!  token: head(17) odcid length(1) odcid(0..20) tag(16)
//!  head:  version(1) mark(8) minted(8, Unix milliseconds), see `spooky_common::token`
//!  tag:   HMAC-SHA256 of the octets before it, the client's address and port and the ID that the Retry gave it
//! ```
//!
//! XDP reads the head, and the head alone, while there is an attack; here the tag covers it. The tag's key is derived from the listener's secrets and the hour, so it rotates by itself, all workers share it, and a token
//! outlives a restart where the secrets do. Imports its siblings alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ring::hmac;
use spooky_common::token::{self, VERSION};

use super::cid::{Cid, Issuer};

const TAG_LEN: usize = 16;
/// Octets before the original destination connection ID.
const HEAD_LEN: usize = token::HEAD_LEN + 1;
/// The longest token.
const TOKEN_LEN_MAX: usize = HEAD_LEN + 20 + TAG_LEN;
const _: () = assert!(TOKEN_LEN_MAX <= token::LEN_MAX, "XDP reads the length in one octet");
const HOUR_MS: u64 = 3_600_000;

/// Mints and reads the tokens of one listener.
#[derive(Debug)]
pub(super) struct Tokens {
    key: hmac::Key,
    lifetime: Duration,
}

/// A token, on the stack.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    octets: [u8; TOKEN_LEN_MAX],
    length: usize,
}

/// The connection ID that the client chose for its very first Initial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Original {
    /// Octets from `length` on are zero.
    pub(super) octets: [u8; 20],
    pub(super) length: u8,
}

/// Why a token does not validate an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It does not look like one of ours: another server's, or a later version's.
    Foreign,
    /// It was ours, and is too old.
    Expired,
    /// Changed, or used from another address or with another ID.
    Forged,
}

impl Tokens {
    /// `key` is a secret of the listener's; a token is good for `lifetime`.
    pub(super) fn new(key: hmac::Key, lifetime: Duration) -> Self {
        Self { key, lifetime }
    }

    /// A token for a client at `peer` that is told to come back with `cid`, of the same issuer.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.1
    //# A token sent in a NEW_TOKEN frame or a Retry packet MUST be constructed
    //# in a way that allows the server to identify how it was provided to a
    //# client.
    // There are no others than those of Retry packets.
    pub(super) fn mint(
        &self,
        original: Original,
        peer: SocketAddr,
        (cid, issuer): (&Cid, &Issuer),
        now_ms: u64,
    ) -> Token {
        let mut token = Token { octets: [0; TOKEN_LEN_MAX], length: 0 };
        token.push(&token::head(issuer.mark(peer, now_ms), now_ms));
        token.push(&[original.length]);
        token.push(original.as_bytes());
        let tag = self.tag(token.as_bytes(), peer, cid, now_ms);
        token.push(tag.as_ref().get(..TAG_LEN).unwrap_or_default());
        token
    }

    /// The original destination connection ID of a client that has come back.
    pub(super) fn read(
        &self,
        token: &[u8],
        peer: SocketAddr,
        cid: &Cid,
        now_ms: u64,
    ) -> Result<Original, Invalid> {
        let (signed, tag) = token.split_last_chunk::<TAG_LEN>().ok_or(Invalid::Foreign)?;
        let (head, odcid) = signed.split_first_chunk::<HEAD_LEN>().ok_or(Invalid::Foreign)?;
        let [version, _, _, _, _, _, _, _, _, minted @ .., length] = head;
        let original = Original::new(odcid).ok_or(Invalid::Foreign)?;
        if *version != VERSION || usize::from(*length) != odcid.len() {
            return Err(Invalid::Foreign);
        }
        let minted = u64::from_be_bytes(*minted);
        let expected = self.tag(signed, peer, cid, minted);
        // In constant time: a client must not learn a tag octet by octet.
        let mut difference = 0;
        for (ours, theirs) in expected.as_ref().iter().zip(tag) {
            difference |= ours ^ theirs;
        }
        if difference != 0 {
            return Err(Invalid::Forged);
        }
        let lifetime = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
        //# To protect against such attacks, servers MUST ensure that replay of
        //# tokens is prevented or limited.
        // A token of a clock that runs ahead a little is as good as a fresh one.
        if now_ms.saturating_sub(minted) > lifetime || minted.saturating_sub(now_ms) > lifetime {
            return Err(Invalid::Expired);
        }
        Ok(original)
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
    //# An address validation token MUST be difficult to guess.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
    //# For this design to work, the token MUST be covered by integrity
    //# protection against modification or falsification by clients.
    fn tag(&self, signed: &[u8], peer: SocketAddr, cid: &Cid, minted_ms: u64) -> hmac::Tag {
        let hour = hmac::sign(&self.key, &(minted_ms / HOUR_MS).to_be_bytes());
        let mut context =
            hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, hour.as_ref()));
        context.update(signed);
        let address = match peer.ip() {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
        //# If the client IP address has changed, the server MUST adhere to the
        //# anti-amplification limit; see Section 8.
        context.update(&address.octets());
        context.update(&peer.port().to_be_bytes());
        context.update(cid);
        context.sign()
    }
}

impl Token {
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..self.length).unwrap_or_default()
    }

    /// What does not fit is left out; nothing that is put in here does not fit.
    fn push(&mut self, octets: &[u8]) {
        if let Some(place) = self.octets.get_mut(self.length..self.length + octets.len()) {
            place.copy_from_slice(octets);
            self.length += octets.len();
        }
    }
}

impl Original {
    /// `None` when it is longer than any in version 1.
    pub(super) fn new(id: &[u8]) -> Option<Self> {
        let mut octets = [0; 20];
        octets.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self { octets, length: u8::try_from(id.len()).ok()? })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.octets.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Writes the Retry packet that answers the Initial in `trigger`; its size.
//= https://www.rfc-editor.org/rfc/rfc9000#section-17.2.5.1
//# The server includes a connection ID of its choice in the Source
//# Connection ID field.  This value MUST NOT be equal to the Destination
//# Connection ID field of the packet sent by the client.
pub(super) fn write(
    trigger: &mut [u8],
    cid: &Cid,
    token: impl FnOnce(Original) -> Token,
    out: &mut [u8],
) -> Option<usize> {
    let header = quiche::Header::from_slice(trigger, 20).ok()?;
    let token = token(Original::new(&header.dcid)?);
    let cid = quiche::ConnectionId::from_ref(cid);
    quiche::retry(&header.scid, &header.dcid, &cid, token.as_bytes(), header.version, out).ok()
}

#[cfg(test)]
mod tests {
    use spooky_common::cid::Owner;

    use super::*;
    use crate::dataplane::quic::cid::Secrets;

    const NOW: u64 = 1_790_000_000_000;
    const CID: Cid = [7; 20];

    fn issuer() -> Issuer {
        Issuer::new(&Secrets::from_bytes(0, [0; 3], &[7; 32]), Owner { worker: 1, generation: 0 })
    }

    fn mint(original: Original) -> Token {
        tokens().mint(original, peer(), (&CID, &issuer()), NOW)
    }

    fn tokens() -> Tokens {
        Tokens::new(hmac::Key::new(hmac::HMAC_SHA256, b"a secret"), Duration::from_secs(10))
    }

    fn peer() -> SocketAddr {
        "203.0.113.9:4711".parse().unwrap()
    }

    fn original() -> Original {
        Original::new(b"12345678").unwrap()
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.1
    //= type=test
    //# A token sent in a NEW_TOKEN frame or a Retry packet MUST be constructed
    //# in a way that allows the server to identify how it was provided to a
    //# client.
    #[test]
    fn a_token_names_the_first_id_of_its_client() {
        let token = mint(original());
        let read = |now| tokens().read(token.as_bytes(), peer(), &CID, now);
        assert_eq!(read(NOW), Ok(original()));
        assert_eq!(read(NOW + 10_000), Ok(original()));
        assert_eq!(read(NOW + 10_001), Err(Invalid::Expired));
        assert_eq!(read(NOW - 10_001), Err(Invalid::Expired));
        let mapped = "[::ffff:203.0.113.9]:4711".parse().unwrap();
        assert_eq!(tokens().read(token.as_bytes(), mapped, &CID, NOW), Ok(original()));
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
    //= type=test
    //# If the client IP address has changed, the server MUST adhere to the
    //# anti-amplification limit; see Section 8.
    #[test]
    fn it_is_bound_to_address_port_and_id() {
        let token = mint(original());
        for other in ["203.0.113.10:4711", "203.0.113.9:4712", "[2001:db8::1]:4711"] {
            let read = tokens().read(token.as_bytes(), other.parse().unwrap(), &CID, NOW);
            assert_eq!(read, Err(Invalid::Forged), "{other}");
        }
        assert_eq!(tokens().read(token.as_bytes(), peer(), &[8; 20], NOW), Err(Invalid::Forged));
        let other = Tokens::new(hmac::Key::new(hmac::HMAC_SHA256, b"another"), Duration::MAX);
        assert_eq!(other.read(token.as_bytes(), peer(), &CID, NOW), Err(Invalid::Forged));
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
    //= type=test
    //# An address validation token MUST be difficult to guess.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-8.1.4
    //= type=test
    //# For this design to work, the token MUST be covered by integrity
    //# protection against modification or falsification by clients.
    #[test]
    fn no_changed_octet_and_no_other_length_passes() {
        let token = mint(original());
        let bytes = token.as_bytes();
        for place in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.to_vec();
                changed[place] ^= 1 << bit;
                assert!(tokens().read(&changed, peer(), &CID, NOW).is_err(), "{place}.{bit}");
            }
            assert!(tokens().read(&bytes[..place], peer(), &CID, NOW).is_err(), "cut at {place}");
        }
        let longer = [bytes, &[0]].concat();
        assert!(tokens().read(&longer, peer(), &CID, NOW).is_err());
        assert_eq!(tokens().read(&[9; 64], peer(), &CID, NOW), Err(Invalid::Foreign));
    }

    #[test]
    fn ids_of_every_length_fit() {
        for length in 0..=20 {
            let original = Original::new(&[0xa5; 20][..length]).unwrap();
            let token = mint(original);
            assert_eq!(tokens().read(token.as_bytes(), peer(), &CID, NOW), Ok(original));
        }
        assert_eq!(Original::new(&[0; 21]), None);
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-17.2.5.1
    //= type=test
    //# This value MUST NOT be equal to the Destination Connection ID field
    //# of the packet sent by the client.
    #[test]
    fn a_retry_gives_another_id_than_it_came_under() {
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).unwrap();
        config.set_application_protos(&[b"h3"]).unwrap();
        let scid = quiche::ConnectionId::from_ref(&[9; 8]);
        let mut client = quiche::connect(None, &scid, peer(), peer(), &mut config).unwrap();
        let (mut trigger, mut out) = ([0; 1200], [0; 600]);
        client.send(&mut trigger).unwrap();
        let asked = quiche::Header::from_slice(&mut trigger, 20).unwrap().dcid.to_vec();
        let size = write(&mut trigger, &CID, mint, &mut out).unwrap();
        let retry = quiche::Header::from_slice(&mut out[..size], 20).unwrap();
        assert_eq!((retry.ty, retry.scid.as_ref()), (quiche::Type::Retry, &CID[..]));
        assert_ne!(retry.scid.as_ref(), asked);
        let token = retry.token.unwrap();
        let read = tokens().read(&token, peer(), &CID, NOW).unwrap();
        assert_eq!(read.as_bytes(), asked);
    }
}
