//! Certificates for downstream handshakes: loaded and checked at start, chosen per ClientHello by SNI and key type.
//!
//! One [`CertificateStore`] per listener, shared by all workers and swapped whole on reload. Knows files and TLS, no
//! connection and no configuration syntax. Must not import anything outside `quic`.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use boring::pkey::{Id, PKey, Private};
use boring::ssl::{
    ClientHello, ExtensionType, NameType, SelectCertError, SslContextBuilder, SslMethod, SslRef,
};
use boring::x509::X509;

/// Where one certificate chain and its key are, and the names it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Lower-case host names, exact or `*.example.com`; empty: the names inside the certificate are not looked at and
    /// it serves whoever asks for a name nobody else has, or for none.
    pub sni: Vec<String>,
    /// PEM: the leaf, then its intermediates.
    pub cert: PathBuf,
    /// PEM: the leaf's private key, RSA or ECDSA.
    pub key: PathBuf,
}

/// All certificates of one listener.
pub struct CertificateStore {
    chains: Vec<Chain>,
    exact: HashMap<String, Vec<usize>>,
    /// Keyed by what follows `*.`; matches one label more (RFC 9525 §6.3).
    wildcard: HashMap<String, Vec<usize>>,
    /// For no SNI and for unknown names.
    default: Vec<usize>,
}

/// Why a certificate cannot be used. The message names the remedy.
#[derive(Debug)]
pub enum CertificateError {
    /// A file could not be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The certificate file has no PEM certificate.
    NoCertificate {
        /// Which file.
        path: PathBuf,
    },
    /// The key file has no PEM private key that BoringSSL understands.
    NoKey {
        /// Which file.
        path: PathBuf,
    },
    /// The key is neither RSA (2048 bits or more) nor ECDSA on P-256, P-384 or P-521.
    KeyType {
        /// Which file.
        path: PathBuf,
    },
    /// The key does not belong to the leaf certificate.
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
}

/// The key of session tickets: name, HMAC and AES keys as BoringSSL takes them.
#[derive(Clone)]
pub struct TicketKey(pub [u8; 48]);

struct Chain {
    leaf: X509,
    intermediates: Vec<X509>,
    key: PKey<Private>,
    /// SignatureScheme code points (RFC 8446 §4.2.3) of which the client must offer one.
    schemes: &'static [u16],
}

/// rsa_pss_rsae_sha256, _sha384, _sha512.
const RSA: &[u16] = &[0x0804, 0x0805, 0x0806];
const ECDSA_P256: &[u16] = &[0x0403];
const ECDSA_P384: &[u16] = &[0x0503];
const ECDSA_P521: &[u16] = &[0x0603];

// === impl CertificateStore ===

impl CertificateStore {
    /// Reads and checks every chain.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with its index in `files`.
    pub fn load(files: &[CertificateFiles]) -> Result<Self, Vec<(usize, CertificateError)>> {
        let mut store = Self {
            chains: Vec::with_capacity(files.len()),
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: Vec::new(),
        };
        let mut errors = Vec::new();
        for (index, entry) in files.iter().enumerate() {
            match Chain::load(entry) {
                Ok(chain) => store.insert(chain, &entry.sni),
                Err(error) => errors.push((index, error)),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        // Somebody has to answer a client that sends no name: without an explicit default, the first.
        if store.default.is_empty() && !store.chains.is_empty() {
            store.default.push(0);
        }
        Ok(store)
    }

    fn insert(&mut self, chain: Chain, names: &[String]) {
        let index = self.chains.len();
        self.chains.push(chain);
        if names.is_empty() {
            self.default.push(index);
        }
        for name in names {
            match name.strip_prefix("*.") {
                Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default().push(index),
                None => self.exact.entry(name.clone()).or_default().push(index),
            }
        }
    }

    /// The chains for a name, best first: exact, then wildcard, then the default.
    fn chains_for(&self, name: Option<&str>) -> &[usize] {
        let Some(name) = name else { return &self.default };
        let name = name.to_ascii_lowercase();
        if let Some(found) = self.exact.get(&name) {
            return found;
        }
        name.split_once('.')
            .and_then(|(_, suffix)| self.wildcard.get(suffix))
            .map_or(&self.default, Vec::as_slice)
    }

    fn select(&self, hello: &ClientHello<'_>) -> Option<&Chain> {
        let candidates = self.chains_for(hello.servername(NameType::HOST_NAME));
        let offered = hello.get_extension(ExtensionType::SIGNATURE_ALGORITHMS).unwrap_or_default();
        candidates
            .iter()
            .filter_map(|index| self.chains.get(*index))
            .find(|chain| offers_one_of(offered, chain.schemes))
            // No common scheme: let the handshake fail with the alert the RFC wants, not silently.
            .or_else(|| candidates.first().and_then(|index| self.chains.get(*index)))
    }
}

impl fmt::Debug for CertificateStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateStore")
            .field("chains", &self.chains.len())
            .field("exact", &self.exact)
            .field("wildcard", &self.wildcard)
            .finish_non_exhaustive()
    }
}

/// A context whose handshakes take their certificate from whatever `store` holds at that moment.
///
/// # Errors
///
/// Only when BoringSSL cannot allocate.
pub fn context(
    store: Arc<ArcSwap<CertificateStore>>,
) -> Result<SslContextBuilder, boring::error::ErrorStack> {
    let mut builder = SslContextBuilder::new(SslMethod::tls())?;
    builder.set_select_certificate_callback(move |mut hello| {
        let store = store.load();
        let chain = store.select(&hello).ok_or(SelectCertError::ERROR)?;
        chain.install(hello.ssl_mut()).map_err(|error| {
            tracing::warn!(%error, "a certificate that loaded cannot be installed");
            SelectCertError::ERROR
        })
    });
    Ok(builder)
}

// === impl TicketKey ===

impl TicketKey {
    /// A fresh key that lives as long as the process.
    ///
    /// # Panics
    ///
    /// When the system has no randomness.
    #[must_use]
    pub fn random() -> Self {
        let mut key = [0; 48];
        let filled = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut key);
        assert!(filled.is_ok(), "the system's random source failed");
        Self(key)
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey")
    }
}

// === impl Chain ===

impl Chain {
    fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let pem = read(&files.cert)?;
        let mut certificates = X509::stack_from_pem(&pem)
            .ok()
            .filter(|stack| !stack.is_empty())
            .ok_or_else(|| CertificateError::NoCertificate { path: files.cert.clone() })?;
        let leaf = certificates.remove(0);
        let pem = read(&files.key)?;
        let key = PKey::private_key_from_pem(&pem)
            .map_err(|_unhelpful| CertificateError::NoKey { path: files.key.clone() })?;
        let schemes = schemes_of(&key)
            .ok_or_else(|| CertificateError::KeyType { path: files.key.clone() })?;
        let matches = leaf.public_key().is_ok_and(|public| public.public_eq(&key));
        if !matches {
            return Err(CertificateError::Mismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            });
        }
        Ok(Self { leaf, intermediates: certificates, key, schemes })
    }

    fn install(&self, ssl: &mut SslRef) -> Result<(), boring::error::ErrorStack> {
        ssl.set_certificate(&self.leaf)?;
        ssl.set_private_key(&self.key)?;
        for certificate in &self.intermediates {
            ssl.add_chain_cert(certificate)?;
        }
        Ok(())
    }
}

fn read(path: &PathBuf) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|error| CertificateError::Unreadable { path: path.clone(), error })
}

fn schemes_of(key: &PKey<Private>) -> Option<&'static [u16]> {
    match (key.id(), key.bits()) {
        (Id::RSA, bits) if bits >= 2048 => Some(RSA),
        (Id::EC, 256) => Some(ECDSA_P256),
        (Id::EC, 384) => Some(ECDSA_P384),
        (Id::EC, 521) => Some(ECDSA_P521),
        _ => None,
    }
}

/// `extension` is the body of signature_algorithms: a two-byte length, then two bytes a scheme.
fn offers_one_of(extension: &[u8], schemes: &[u16]) -> bool {
    extension
        .get(2..)
        .unwrap_or_default()
        .chunks_exact(2)
        .filter_map(|pair| pair.try_into().ok().map(u16::from_be_bytes))
        .any(|offered| schemes.contains(&offered))
}

// === impl CertificateError ===

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, error } => {
                write!(f, "{} cannot be read: {error}", path.display())
            }
            Self::NoCertificate { path } => write!(
                f,
                "{} holds no PEM certificate; expected the leaf, then its intermediates, each \
                 between BEGIN CERTIFICATE and END CERTIFICATE",
                path.display()
            ),
            Self::NoKey { path } => write!(
                f,
                "{} holds no unencrypted PEM private key (PKCS#8, PKCS#1 or SEC1)",
                path.display()
            ),
            Self::KeyType { path } => write!(
                f,
                "{} is not usable for TLS 1.3: use RSA with at least 2048 bits, or ECDSA on P-256, \
                 P-384 or P-521",
                path.display()
            ),
            Self::Mismatch { cert, key } => write!(
                f,
                "{} is not the key of the first certificate in {}",
                key.display(),
                cert.display()
            ),
        }
    }
}

impl std::error::Error for CertificateError {}
