//! Connection IDs that spooky issues, and the secrets behind them.
//!
//! The layout is `spooky_common::cid`: an encrypted block that only user space makes (draft-ietf-quic-load-balancers,
//! single-pass form), and a masked worker and generation that the kernel reads too. Retirement and numbering are quiche's.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;

use aes::Aes128Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use spooky_common::cid::{self, CID_LEN, LocalKey, Owner};
use spooky_common::token;

/// An issued connection ID.
//= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
//# An endpoint that uses this design MUST either use the same connection ID
//# length for all connections or encode the length of the connection ID
//# such that it can be recovered without state.
pub type Cid = [u8; CID_LEN];

/// Secrets of one connection-ID configuration. The same in every worker; kept across restarts when read from a file.
#[derive(Clone)]
pub struct Secrets {
    /// Code point in the first octet, 0..=6.
    pub config_id: u8,
    /// Names this machine to a load balancer in front of it.
    pub server_id: [u8; 3],
    /// AES-128 key of octets 1 to 16.
    pub block_key: [u8; 16],
    /// Key of octets 17 to 19, also in the kernel's KEYS map.
    pub local_key: LocalKey,
}

/// Issues and reads the IDs of one worker.
pub struct Issuer {
    first_octet: u8,
    server_id: [u8; 3],
    owner: Owner,
    cipher: Aes128Enc,
    local_key: LocalKey,
    reset_key: hmac::Key,
    retry_key: hmac::Key,
    random: SystemRandom,
    /// Counted up from a random start, so that no block repeats under one key.
    nonce: Cell<u128>,
}

// === impl Secrets ===

impl Secrets {
    /// Fresh keys that live as long as the process.
    ///
    /// # Panics
    ///
    /// When the system has no randomness: nothing could be served safely then.
    #[must_use]
    pub fn random(config_id: u8, server_id: [u8; 3]) -> Self {
        let mut bytes = [0; 32];
        let filled = SystemRandom::new().fill(&mut bytes);
        assert!(filled.is_ok(), "the system's random source failed");
        Self::from_bytes(config_id, server_id, &bytes)
    }

    /// Keys from 32 octets: 16 for the block, 16 for the local part.
    #[must_use]
    pub fn from_bytes(config_id: u8, server_id: [u8; 3], bytes: &[u8; 32]) -> Self {
        let (block, local) = bytes.split_at(16);
        let mut block_key = [0; 16];
        block_key.copy_from_slice(block);
        let (k0, k1) = local.split_at(8);
        let word = |half: &[u8]| half.iter().rev().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        Self { config_id, server_id, block_key, local_key: LocalKey { k0: word(k0), k1: word(k1) } }
    }

    /// The key of stateless reset tokens (RFC 9000 §10.3.2).
    fn reset_key(&self) -> hmac::Key {
        self.derive(b"spooky stateless reset v1")
    }

    /// The key of Retry tokens (RFC 9000 §8.1.2).
    pub(super) fn retry_key(&self) -> hmac::Key {
        self.derive(b"spooky retry token v1")
    }

    /// A key for one purpose, so that one secret file is enough.
    fn derive(&self, purpose: &[u8]) -> hmac::Key {
        let mut material = Vec::with_capacity(32);
        material.extend_from_slice(&self.block_key);
        material.extend_from_slice(&self.local_key.k0.to_le_bytes());
        material.extend_from_slice(&self.local_key.k1.to_le_bytes());
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &material), purpose);
        hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("config_id", &self.config_id).finish_non_exhaustive()
    }
}

// === impl Issuer ===

impl Issuer {
    /// For one worker of one generation.
    ///
    /// # Panics
    ///
    /// When the system has no randomness.
    #[must_use]
    pub fn new(secrets: &Secrets, owner: Owner) -> Self {
        let random = SystemRandom::new();
        let mut start = [0; 16];
        assert!(random.fill(&mut start).is_ok(), "the system's random source failed");
        Self {
            first_octet: cid::first_octet(secrets.config_id),
            server_id: secrets.server_id,
            owner,
            cipher: Aes128Enc::new(&secrets.block_key.into()),
            local_key: secrets.local_key,
            reset_key: secrets.reset_key(),
            retry_key: secrets.retry_key(),
            random,
            nonce: Cell::new(u128::from_le_bytes(start)),
        }
    }

    /// A new ID of this worker. Never the same twice: worker and generation are inside the block, the nonce counts up.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //# This method for choosing the stateless reset token means that the
    //# combination of connection ID and static key MUST NOT be used for another
    //# connection.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //# A connection ID from a connection that is reset by revealing the
    //# stateless reset token MUST NOT be reused for new connections at nodes
    //# that share a static key.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-9.6
    //# Whether or not it implements the counter method, the server MUST NOT
    //# reuse a nonce until it switches to a configuration with new keys.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4.1
    //# When the nonce length and server ID length sum to exactly 16 octets, the
    //# server MUST use a single-pass encryption algorithm.
    #[must_use]
    pub fn issue(&self) -> Cid {
        let nonce = self.nonce.get().wrapping_add(1);
        self.nonce.set(nonce);
        let mut block = [0; 16];
        let (head, tail) = block.split_at_mut(5);
        //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.1
        //# The configuration agent chooses a server ID length for each
        //# configuration that MUST be at least one octet.
        //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.3
        //# The server ID length MUST be at least 1 octet.
        //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.3
        //# The nonce length MUST be at least 4 octets.
        //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.3
        //# As QUIC version 1 limits connection IDs to 20 octets, the server ID and
        //# nonce lengths MUST sum to 19 octets or less.
        head.copy_from_slice(&[
            self.server_id[0],
            self.server_id[1],
            self.server_id[2],
            self.owner.worker,
            self.owner.generation,
        ]);
        for (octet, value) in tail.iter_mut().zip(nonce.to_le_bytes()) {
            *octet = value;
        }
        let mut block = block.into();
        self.cipher.encrypt_block(&mut block);
        let mut cid = [0; CID_LEN];
        cid[0] = self.first_octet;
        for (octet, value) in cid.iter_mut().skip(1).zip(block.iter()) {
            *octet = *value;
        }
        cid::seal(&mut cid, &self.local_key, self.owner);
        cid
    }

    /// This issuer, if the ID says that it was issued under its keys.
    #[must_use]
    pub fn reads(&self, cid: &Cid) -> Option<&Self> {
        (cid[0] == self.first_octet).then_some(self)
    }

    /// Whose ID this is, if it was issued under our keys.
    #[must_use]
    pub fn open(&self, cid: &Cid) -> Option<Owner> {
        (cid[0] == self.first_octet).then(|| cid::open(cid, &self.local_key)).flatten()
    }

    /// The key of Retry tokens, the same in every worker.
    pub(super) fn retry_key(&self) -> hmac::Key {
        self.retry_key.clone()
    }

    /// Whose worker and generation this issuer speaks for.
    #[must_use]
    pub fn owner(&self) -> Owner {
        self.owner
    }

    /// The stateless reset token of an ID (RFC 9000 §10.3.2): the same in every worker and after a restart with the
    /// same keys.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //# The stateless reset token MUST be difficult to guess.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //# The same stateless reset token MUST NOT be used for multiple connection
    //# IDs.
    #[must_use]
    pub fn reset_token(&self, cid: &[u8]) -> [u8; 16] {
        let tag = hmac::sign(&self.reset_key, cid);
        let mut token = [0; 16];
        for (octet, value) in token.iter_mut().zip(tag.as_ref()) {
            *octet = *value;
        }
        token
    }

    /// What marks a token for a client at `peer`, so that XDP knows it again. Under the key that XDP has for our IDs.
    #[must_use]
    pub(super) fn mark(&self, peer: SocketAddr, minted_ms: u64) -> u64 {
        token::mark(&self.local_key, &peer.ip().into(), peer.port(), minted_ms)
    }

    /// Fills `out` with unpredictable octets.
    pub fn fill_random(&self, out: &mut [u8]) {
        // A failing source after start leaves zeros: acceptable for padding, which is all this is used for.
        let _ = self.random.fill(out);
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer").field("owner", &self.owner).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use aes::Aes128Dec;
    use aes::cipher::BlockCipherDecrypt;

    use super::*;

    const OWNER: Owner = Owner { worker: 3, generation: 1 };

    /// Row I05: whatever prints a structure with keys in it, a log line or a panic, prints none of their octets.
    #[test]
    fn i05_keys_do_not_print_themselves() {
        let secrets = Secrets::from_bytes(2, [1, 2, 3], &[0xab; 32]);
        let ticket = crate::dataplane::quic::tls::TicketKey([0xab; 48]);
        let text =
            format!("{secrets:?} {secrets:#?} {:?} {ticket:?} {ticket:#?}", secrets.local_key);
        assert!(text.contains("config_id: 2"), "{text}");
        for octets in ["171", "ab", "AB", "12370169555311111083"] {
            assert!(!text.contains(octets), "{octets} in {text}");
        }
    }

    /// Server ID and nonce of an ID, as a load balancer with the key reads them.
    fn decrypted(cid: &Cid, key: &[u8; 16]) -> ([u8; 3], [u8; 13]) {
        let block: [u8; 16] = cid[1..17].try_into().unwrap();
        let mut block = block.into();
        Aes128Dec::new(&(*key).into()).decrypt_block(&mut block);
        (block[..3].try_into().unwrap(), block[3..].try_into().unwrap())
    }

    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
    //= type=test
    //# The first three bits of any connection ID MUST encode an identifier for
    //# the configuration that the connection ID uses.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.1
    //= type=test
    //# The configuration agent chooses a server ID length for each
    //# configuration that MUST be at least one octet.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.3
    //= type=test
    //# The nonce length MUST be at least 4 octets.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.3
    //= type=test
    //# The server ID length MUST be at least 1 octet.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.3
    //= type=test
    //# As QUIC version 1 limits connection IDs to 20 octets, the server ID and
    //# nonce lengths MUST sum to 19 octets or less.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4
    //= type=test
    //# In particular, all servers using a configuration MUST consistently add
    //# the same length to each connection ID, to preserve the linkability
    //# objectives of QUIC-LB.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-5.4.1
    //= type=test
    //# When the nonce length and server ID length sum to exactly 16 octets, the
    //# server MUST use a single-pass encryption algorithm.
    //= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-9.6
    //= type=test
    //# Whether or not it implements the counter method, the server MUST NOT
    //# reuse a nonce until it switches to a configuration with new keys.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //= type=test
    //# An endpoint that uses this design MUST either use the same connection ID
    //# length for all connections or encode the length of the connection ID
    //# such that it can be recovered without state.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //= type=test
    //# This method for choosing the stateless reset token means that the
    //# combination of connection ID and static key MUST NOT be used for another
    //# connection.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //= type=test
    //# A connection ID from a connection that is reset by revealing the
    //# stateless reset token MUST NOT be reused for new connections at nodes
    //# that share a static key.
    #[test]
    fn a_load_balancer_reads_the_server_and_a_nonce_that_never_comes_twice() {
        let secrets = Secrets::from_bytes(5, [0xa1, 0xb2, 0xc3], &[7; 32]);
        let mut nonces = HashSet::new();
        // Two workers, each of them started twice with the same secrets.
        for worker in [0, 0, 255, 255] {
            let issuer = Issuer::new(&secrets, Owner { worker, generation: 1 });
            for _ in 0..10_000 {
                let cid = issuer.issue();
                let (server, nonce) = decrypted(&cid, &secrets.block_key);
                assert_eq!((cid[0] >> 5, cid[0] & 0x1f, server), (5, 19, secrets.server_id));
                assert!(nonces.insert(nonce));
            }
        }
    }

    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //= type=test
    //# The stateless reset token MUST be difficult to guess.
    //= https://www.rfc-editor.org/rfc/rfc9000#section-10.3.2
    //= type=test
    //# The same stateless reset token MUST NOT be used for multiple connection
    //# IDs.
    #[test]
    fn tokens_differ_and_are_the_same_again_after_a_restart() {
        let secrets = Secrets::from_bytes(0, [0; 3], &[7; 32]);
        let issuer = Issuer::new(&secrets, OWNER);
        let cids: Vec<Cid> = (0..10_000).map(|_| issuer.issue()).collect();
        let tokens: HashSet<[u8; 16]> = cids.iter().map(|cid| issuer.reset_token(cid)).collect();
        assert_eq!(tokens.len(), cids.len());
        let again = Issuer::new(&secrets, Owner { worker: 9, generation: 2 });
        let other = Issuer::new(&Secrets::from_bytes(0, [0; 3], &[8; 32]), OWNER);
        for cid in &cids {
            assert_eq!(again.reset_token(cid), issuer.reset_token(cid));
            assert_ne!(other.reset_token(cid), issuer.reset_token(cid));
        }
    }
}
