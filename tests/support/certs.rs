//! A certificate authority of the test's own, with leaves of both key types that are in use.
//!
//! RSA keys are kept as test data in `keys/`: to make one takes a second, and the `ring` backend of rcgen cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

const RSA_KEY: &str = include_str!("keys/rsa-2048.pem");

/// Type of a leaf's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    /// P-256.
    Ecdsa,
    /// 2048 bits.
    Rsa,
}

/// The authority, its files in a directory of its own.
#[derive(Debug)]
pub struct Authority {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// PEM files of a leaf: chain (leaf, authority) and key.
#[derive(Debug, Clone)]
pub struct Leaf {
    pub cert: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A new authority.
    ///
    /// # Panics
    /// When files cannot be written.
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let key = KeyPair::generate().expect("a P-256 key can be made");
        let mut params = CertificateParams::new([]).expect("no name can be wrong");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "spooky test authority");
        let certificate = params.self_signed(&key).expect("an authority signs itself");
        write(&directory.path().join("ca.pem"), &certificate.pem());
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// The certificate that clients trust.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A leaf for these names (DNS names or addresses); `file` is the stem of its files.
    ///
    /// # Panics
    /// When a name is not a DNS name or address, or files cannot be written.
    pub fn leaf(&self, file: &str, names: &[&str], key_type: KeyType) -> Leaf {
        self.leaf_with(file, names, key_type, |_params| {})
    }

    /// The same with something about it that is not as it should be.
    ///
    /// # Panics
    /// As [`Authority::leaf`].
    pub fn leaf_with(
        &self,
        file: &str,
        names: &[&str],
        key_type: KeyType,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let key = match key_type {
            KeyType::Ecdsa => KeyPair::generate().expect("a P-256 key can be made"),
            KeyType::Rsa => KeyPair::from_pem(RSA_KEY).expect("the kept key is PKCS #8"),
        };
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let common_name = names.first().cloned().unwrap_or_default();
        let mut params = CertificateParams::new(names).expect("names are DNS names or addresses");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer).expect("the authority signs a leaf");
        let chain =
            leaf.pem() + &fs::read_to_string(self.file()).expect("the authority is on disk");
        self.keep(file, &chain, &key)
    }

    /// A leaf that nobody but itself vouches for.
    ///
    /// # Panics
    /// As [`Authority::leaf`].
    pub fn self_signed(&self, file: &str, name: &str) -> Leaf {
        let key = KeyPair::generate().expect("a P-256 key can be made");
        let params = CertificateParams::new([name.to_owned()]).expect("a DNS name or address");
        let leaf = params.self_signed(&key).expect("a leaf signs itself");
        self.keep(file, &leaf.pem(), &key)
    }

    fn keep(&self, file: &str, chain: &str, key: &KeyPair) -> Leaf {
        let files = Leaf {
            cert: self.directory.path().join(format!("{file}.pem")),
            key: self.directory.path().join(format!("{file}.key")),
        };
        write(&files.cert, chain);
        write(&files.key, &key.serialize_pem());
        files
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, mode).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
