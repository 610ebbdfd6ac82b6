//! `spooky-devcert DIR`: a certificate authority and a leaf for localhost, for development alone.
//! Writes ca.pem, cert.pem (leaf and authority), key.pem and spki.txt (the hash of the leaf's key by
//! which Chromium can be told to trust it). What is still valid for a month is left as it is.
//!
//! The authority's key is not kept: whoever trusts ca.pem trusts this one leaf and nothing after it.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Chromium refuses leaves that are valid for more than 398 days.
const VALID: Duration = Duration::from_secs(90 * DAY.as_secs());
const RENEW_AT: Duration = Duration::from_secs(60 * DAY.as_secs());
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const FILES: [&str; 4] = ["ca.pem", "cert.pem", "key.pem", "spki.txt"];

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: spooky-devcert DIR");
        return ExitCode::from(2);
    };
    let dir = Path::new(&dir);
    if is_current(dir) {
        println!("{}: valid for localhost", dir.join("cert.pem").display());
        return ExitCode::SUCCESS;
    }
    match make(dir) {
        Ok(()) => {
            println!("{}: made for {}", dir.join("cert.pem").display(), NAMES.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("cannot make a certificate in {}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn is_current(dir: &Path) -> bool {
    FILES.iter().all(|name| {
        let made = fs::metadata(dir.join(name)).and_then(|meta| meta.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age < RENEW_AT))
    })
}

fn make(dir: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let now = SystemTime::now();
    // A clock that is a little behind must not refuse what was made this minute.
    let (from, until) = (now - DAY, now + VALID);

    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "spooky development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (from.into(), until.into());
    let authority_key = KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let mut leaf = CertificateParams::new(NAMES.map(str::to_owned))?;
    leaf.distinguished_name.push(DnType::CommonName, "localhost");
    leaf.use_authority_key_identifier_extension = true;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = (from.into(), until.into());
    let leaf_key = KeyPair::generate()?;
    let leaf_certificate = leaf.signed_by(&leaf_key, &issuer)?;

    let spki = base64(&Sha256::digest(leaf_key.subject_public_key_info()));
    let chain = format!("{}{}", leaf_certificate.pem(), authority_certificate.pem());
    fs::write(dir.join("ca.pem"), authority_certificate.pem())?;
    fs::write(dir.join("cert.pem"), chain)?;
    write_secret(&dir.join("key.pem"), &leaf_key.serialize_pem())?;
    fs::write(dir.join("spki.txt"), format!("{spki}\n"))?;
    Ok(())
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    // A file that is there keeps its mode, so the old one goes first.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}

/// Base64 of RFC 4648 section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let six = (word >> (18 - 6 * place)) & 0x3f;
            let letter = if place <= chunk.len() { ALPHABET[six as usize] } else { b'=' };
            text.push(char::from(letter));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4648 section 10.
    #[test]
    fn base64_is_that_of_the_rfc() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
