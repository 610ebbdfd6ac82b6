//! Connection IDs: what is issued names its owner to whoever holds the keys, and nothing else is taken for one of ours but what
//! the layout's arithmetic, done here a second time and in another way, says.
//!
//! Input: 32 octets of keys, the configuration, worker, generation, then 20 octets that may be an ID. Short of that, zeros.

use boring::symm::{Cipher, Crypter, Mode};
use spooky_common::cid::{self, CID_LEN, LocalKey, Owner};
use spooky_user::dataplane::quic::cid::{Issuer, Secrets};

pub(super) fn run(input: &[u8]) {
    let mut octets = [0; 55];
    for (octet, byte) in octets.iter_mut().zip(input) {
        *octet = *byte;
    }
    let (keys, rest) = octets.split_first_chunk::<32>().expect("they are there");
    let [config_id, worker, generation, candidate @ ..] = rest else { return };
    let (config_id, owner) =
        (config_id % 7, Owner { worker: *worker, generation: generation % 16 });
    let secrets = Secrets::from_bytes(config_id, [1, 2, 3], keys);
    let issuer = Issuer::new(&secrets, owner);

    let issued = issuer.issue();
    assert_eq!(issuer.open(&issued), Some(owner));
    assert_eq!(cid::config_id(issued[0]), config_id);
    assert_eq!(read(&issued, &secrets.local_key), Some(owner));
    let block = decrypted(&secrets.block_key, &issued);
    assert_eq!(block[..5], [1, 2, 3, owner.worker, owner.generation], "what a load balancer reads");
    assert_ne!(issuer.issue(), issued);

    let mut candidate: [u8; CID_LEN] = candidate.try_into().expect("20 are left");
    for forged in 0..3 {
        assert_eq!(cid::open(&candidate, &secrets.local_key), read(&candidate, &secrets.local_key));
        if forged == 0 {
            // Sealed, it is ours.
            candidate[0] = cid::first_octet(config_id);
            cid::seal(&mut candidate, &secrets.local_key, owner);
            assert_eq!(issuer.open(&candidate), Some(owner));
        }
        // The check alone, changed, is never right.
        candidate[19] ^= 1 << (forged % 8);
    }
    assert_eq!(issuer.open(&candidate), None, "with another check");
    let other = Issuer::new(&Secrets::from_bytes((config_id + 1) % 7, [1, 2, 3], keys), owner);
    assert_eq!(other.open(&issued), None, "under another configuration");
}

/// Who owns an ID: SipHash of the standard library, and the product of matrix and vector bit by bit.
fn read(cid: &[u8; CID_LEN], key: &LocalKey) -> Option<Owner> {
    #[expect(
        deprecated,
        reason = "the only SipHash of the standard library whose keys can be given"
    )]
    let hash = {
        use std::hash::{Hasher as _, SipHasher};
        let mut hasher = SipHasher::new_with_keys(key.k0, key.k1);
        hasher.write(&cid[1..17]);
        hasher.finish()
    };
    let bit = |at: u32| hash >> at & 1 == 1;
    let sealed = u32::from_be_bytes([0, cid[17], cid[18], cid[19]]);
    let clear: u32 = (0..24).map(|at| u32::from(bit(at) ^ (sealed >> at & 1 == 1)) << at).sum();
    let who = clear >> 12;
    let check: u32 = (0..12)
        .map(|row| {
            let ones = (0..12).filter(|column| bit(24 + row + column) && who >> column & 1 == 1);
            (ones.count() as u32 % 2) << row
        })
        .sum();
    let ours = cid[0] % 32 == 19 && check == clear % 4096;
    ours.then_some(Owner { worker: (who / 16) as u8, generation: (who % 16) as u8 })
}

/// The block of octets 1 to 16 in clear.
fn decrypted(key: &[u8; 16], cid: &[u8; CID_LEN]) -> Vec<u8> {
    let mut crypter =
        Crypter::new(Cipher::aes_128_ecb(), Mode::Decrypt, key, None).expect("AES-128");
    crypter.pad(false);
    let mut block = vec![0; 32];
    let written = crypter.update(&cid[1..17], &mut block).expect("one block");
    let rest = crypter.finalize(&mut block[written..]).expect("no padding");
    block.truncate(written + rest);
    block
}
