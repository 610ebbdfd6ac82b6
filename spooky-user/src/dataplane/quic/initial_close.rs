//! The last word to a client whose handshake failed before it could read anything but Initial packets (RFC 9000 §10.2.3).
//!
//! quiche says nothing to a client whose very first packet is at fault (bad transport parameters, say), and speaks in a
//! Handshake packet, for which the client has no keys, when it was the second. So this packet is made here, of what the
//! client has sent. Imports its siblings alone.

use ring::aead::quic::{AES_128, HeaderProtectionKey};
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use spooky_common::invariant::VERSION_1;

/// RFC 9001 §5.2.
const SALT: [u8; 20] = [
    0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad,
    0xcc, 0xbb, 0x7f, 0x0a,
];
/// Far above what quiche may have numbered in this space, so that no nonce is used twice, and below half of what four octets
/// tell apart, so that the client reads it as it is meant (RFC 9000 §17.1).
const PACKET_NUMBER: u32 = 1 << 30;
const PACKET_NUMBER_LEN: usize = 4;
const TAG_LEN: usize = 16;
/// Where the sample for header protection begins, counted from the packet number (RFC 9001 §5.4.2).
const SAMPLE_AFTER: usize = 4;
/// CONNECTION_CLOSE of a transport error (RFC 9000 §19.19).
const CONNECTION_CLOSE: u8 = 0x1c;

/// Whose packet it is, and for whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids<'i> {
    /// The destination of the client's first Initial, after a Retry that of the next: the keys come of it.
    pub(super) first: &'i [u8],
    /// The client's own ID.
    pub(super) client: &'i [u8],
    /// Ours.
    pub(super) server: &'i [u8],
}

/// Writes an Initial packet with CONNECTION_CLOSE and `code` into `out`: its size, or `None` when there is no room for it.
///
/// It is not padded: it asks for no acknowledgement (RFC 9000 §14.1), and so is smaller than what it answers.
pub(super) fn write(ids: Ids<'_>, code: u64, out: &mut [u8]) -> Option<usize> {
    let keys = Keys::of_server(ids.first)?;
    let code = varint(code)?;
    let mut writer = Writer { out, size: 0 };
    writer.put(&[0xc0 | (PACKET_NUMBER_LEN as u8 - 1)])?;
    writer.put(&VERSION_1.to_be_bytes())?;
    for id in [ids.client, ids.server] {
        writer.put(&[u8::try_from(id.len()).ok()?])?;
        writer.put(id)?;
    }
    // No token.
    writer.put(&[0])?;
    let payload = 1 + code.len() + 2;
    writer.put(&varint((PACKET_NUMBER_LEN + payload + TAG_LEN) as u64)?)?;
    let number_at = writer.size;
    writer.put(&PACKET_NUMBER.to_be_bytes())?;
    let payload_at = writer.size;
    writer.put(&[CONNECTION_CLOSE])?;
    writer.put(&code)?;
    // Neither the type of the frame at fault nor a reason: quiche tells neither.
    writer.put(&[0, 0])?;
    writer.put(&[0; TAG_LEN])?;
    let size = writer.size;
    keys.protect(out.get_mut(..size)?, number_at, payload_at)?;
    Some(size)
}

/// The keys of a server's Initial packets.
struct Keys {
    packet: LessSafeKey,
    iv: [u8; NONCE_LEN],
    header: HeaderProtectionKey,
}

impl Keys {
    /// From the client's first destination connection ID (RFC 9001 §5.2).
    fn of_server(first: &[u8]) -> Option<Self> {
        let secret = Salt::new(HKDF_SHA256, &SALT).extract(first);
        let secret: [u8; 32] = expand(&secret, b"server in")?;
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        let key: [u8; 16] = expand(&secret, b"quic key")?;
        let header: [u8; 16] = expand(&secret, b"quic hp")?;
        Some(Self {
            packet: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?),
            iv: expand(&secret, b"quic iv")?,
            header: HeaderProtectionKey::new(&AES_128, &header).ok()?,
        })
    }

    /// Encrypts the payload and then hides the packet number (RFC 9001 §5.3, §5.4).
    fn protect(&self, packet: &mut [u8], number_at: usize, payload_at: usize) -> Option<()> {
        let mut nonce = self.iv;
        for (octet, number) in nonce.iter_mut().rev().zip(PACKET_NUMBER.to_le_bytes()) {
            *octet ^= number;
        }
        let (header, payload) = packet.split_at_mut_checked(payload_at)?;
        let end = payload.len().checked_sub(TAG_LEN)?;
        let (payload, tag) = payload.split_at_mut_checked(end)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.packet.seal_in_place_separate_tag(nonce, Aad::from(&*header), payload);
        tag.copy_from_slice(sealed.ok()?.as_ref());

        let sample_at = number_at + SAMPLE_AFTER;
        let sample = packet.get(sample_at..sample_at + self.header.algorithm().sample_len())?;
        let [first, number @ ..] = self.header.new_mask(sample).ok()?;
        *packet.first_mut()? ^= first & 0x0f;
        let hidden = packet.get_mut(number_at..number_at + PACKET_NUMBER_LEN)?;
        for (octet, mask) in hidden.iter_mut().zip(number) {
            *octet ^= mask;
        }
        Some(())
    }
}

/// HKDF-Expand-Label of TLS 1.3 without a context (RFC 8446 §7.1).
fn expand<const N: usize>(secret: &Prk, label: &[u8]) -> Option<[u8; N]> {
    struct Octets(usize);
    impl KeyType for Octets {
        fn len(&self) -> usize {
            self.0
        }
    }
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let label_length = [u8::try_from(b"tls13 ".len() + label.len()).ok()?];
    let info: [&[u8]; 5] = [&length, &label_length, b"tls13 ", label, &[0]];
    let mut key = [0; N];
    secret.expand(&info, Octets(N)).ok()?.fill(&mut key).ok()?;
    Some(key)
}

/// An integer in four octets (RFC 9000 §16).
fn varint(value: u64) -> Option<[u8; 4]> {
    let value = u32::try_from(value).ok().filter(|value| *value < 1 << 30)?;
    Some((value | 1 << 31).to_be_bytes())
}

struct Writer<'o> {
    out: &'o mut [u8],
    size: usize,
}

impl Writer<'_> {
    fn put(&mut self, octets: &[u8]) -> Option<()> {
        let end = self.size.checked_add(octets.len())?;
        self.out.get_mut(self.size..end)?.copy_from_slice(octets);
        self.size = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The destination connection ID of RFC 9001 appendix A.
    const FIRST: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];

    #[test]
    fn the_keys_are_those_of_rfc_9001_appendix_a() {
        let secret = Salt::new(HKDF_SHA256, &SALT).extract(&FIRST);
        let secret: [u8; 32] = expand(&secret, b"server in").unwrap();
        assert_eq!(secret[..4], [0x3c, 0x19, 0x98, 0x28]);
        let secret = Prk::new_less_safe(HKDF_SHA256, &secret);
        let key: [u8; 16] = expand(&secret, b"quic key").unwrap();
        assert_eq!(key[..4], [0xcf, 0x3a, 0x53, 0x31]);
        let header: [u8; 16] = expand(&secret, b"quic hp").unwrap();
        assert_eq!(header[..4], [0xc2, 0x06, 0xb8, 0xd9]);
        assert_eq!(Keys::of_server(&FIRST).unwrap().iv[..4], [0x0a, 0xc1, 0x49, 0x3c]);
    }

    #[test]
    fn a_client_reads_it_in_the_middle_of_its_handshake() {
        let mut config = quiche::Config::new(quiche::PROTOCOL_VERSION).unwrap();
        config.set_application_protos(&[b"h3"]).unwrap();
        let [from, to] = ["192.0.2.7:4000", "198.51.100.1:443"].map(|it| it.parse().unwrap());
        let scid = quiche::ConnectionId::from_ref(&[9; 8]);
        for code in [0x8, 0xa, 0x1234_5678] {
            let mut client =
                quiche::connect(Some("localhost"), &scid, from, to, &mut config).unwrap();
            let mut datagram = [0; 1500];
            client.send(&mut datagram).unwrap();
            let first = client.destination_id().to_vec();
            let ids = Ids { first: &first, client: &[9; 8], server: &[2; 20] };
            let size = write(ids, code, &mut datagram).unwrap();
            let info = quiche::RecvInfo { from: to, to: from };
            client.recv(&mut datagram[..size], info).unwrap();
            let error = client.peer_error().unwrap();
            assert_eq!((error.is_app, error.error_code), (false, code));
        }
    }

    #[test]
    fn it_fits_or_is_not_written() {
        let ids = Ids { first: &FIRST, client: &[1; 20], server: &[2; 20] };
        let mut out = [0; 600];
        let size = write(ids, 0x8, &mut out).unwrap();
        assert!(size < 100, "{size}");
        for room in 0..size {
            assert_eq!(write(ids, 0x8, &mut out[..room]), None);
        }
        assert_eq!(write(ids, 1 << 40, &mut out), None);
    }
}
