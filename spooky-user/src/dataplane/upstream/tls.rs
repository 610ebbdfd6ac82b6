//! TLS towards backends: a rustls client configuration, made once for each upstream when the configuration is compiled.
//!
//! Reads files, so only the control plane calls [`Connector::new`]; workers share the result. Imports nothing of the crate
//! but the settings.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::cluster::{TlsSettings, TlsVersion};

/// The ALPN identifier of HTTP/2 over TLS (RFC 9113 §3.1). A backend that does not select it is refused.
pub const ALPN_H2: &[u8] = b"h2";

/// The newest first.
static ALL_VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// How to open TLS connections for one upstream. Cheap to clone.
///
/// Two are equal when their settings are and the authorities read at the time were the same, so a CA file that changed on
/// disk makes a reload open new pools.
#[derive(Clone)]
pub struct Connector(Arc<Compiled>);

struct Compiled {
    settings: TlsSettings,
    /// SHA-256 over the accepted authorities.
    trust: Vec<u8>,
    name: Option<ServerName<'static>>,
    client: Arc<ClientConfig>,
}

/// Why TLS settings cannot be used. Found when the configuration is loaded, never at a request.
#[derive(Debug)]
pub enum TlsError {
    /// The CA file cannot be read or is not PEM.
    CaFile {
        /// The path in the configuration.
        path: PathBuf,
        /// What the system or the PEM reader said.
        source: pem::Error,
    },
    /// The CA file holds no certificate.
    CaFileEmpty {
        /// The path in the configuration.
        path: PathBuf,
    },
    /// A certificate in the CA file cannot be an authority.
    CaRejected {
        /// The path in the configuration.
        path: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The system has no usable authorities.
    NoSystemAuthorities {
        /// What was tried and failed, as rustls-native-certs tells it; empty when the store is merely empty.
        failures: Vec<rustls_native_certs::Error>,
    },
    /// `sni` is neither a DNS name nor an IP address.
    Name {
        /// The value in the configuration.
        sni: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// The cryptography provider cannot do TLS 1.2 and 1.3.
    Provider(rustls::Error),
}

// === impl Connector ===

impl Connector {
    /// Reads the authorities and builds the client: TLS 1.3 and, if allowed, 1.2, ALPN `h2`, the certificate verified unless told otherwise.
    ///
    /// Blocks on files; `verify: false` is logged as a warning here, once for each load.
    ///
    /// # Errors
    /// When a file or a name is unusable. The caller refuses the configuration: there is no falling back to less trust.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsError> {
        let name = settings.sni.as_deref().map(server_name).transpose()?;
        let versions: &[&rustls::SupportedProtocolVersion] = match settings.min_version {
            TlsVersion::Tls12 => &ALL_VERSIONS,
            TlsVersion::Tls13 => &ALL_VERSIONS[..1],
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(TlsError::Provider)?;
        let (mut client, trust) = if settings.verify {
            let (roots, trust) = authorities(settings)?;
            (builder.with_root_certificates(roots).with_no_client_auth(), trust)
        } else {
            tracing::warn!(
                sni = settings.sni.as_deref(),
                "backend certificates are not verified: whoever answers at the address is believed; set tls.verify: true"
            );
            let anyone = Arc::new(AcceptAnyone { provider });
            let builder = builder.dangerous().with_custom_certificate_verifier(anyone);
            (builder.with_no_client_auth(), Vec::new())
        };
        client.alpn_protocols = vec![ALPN_H2.to_vec()];
        let client = Arc::new(client);
        Ok(Self(Arc::new(Compiled { settings: settings.clone(), trust, name, client })))
    }

    /// What it was made from.
    #[must_use]
    pub fn settings(&self) -> &TlsSettings {
        &self.0.settings
    }

    /// The rustls configuration, shared by all connections so that sessions are resumed.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.0.client)
    }

    /// The name to verify and, if it is a DNS name, to send as SNI: the configured one, else the endpoint's address.
    pub(crate) fn name(&self, address: IpAddr) -> ServerName<'static> {
        self.0.name.clone().unwrap_or_else(|| ServerName::IpAddress(address.into()))
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.settings == other.0.settings && self.0.trust == other.0.trust)
    }
}

impl Eq for Connector {}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connector").field(&self.0.settings).finish()
    }
}

fn server_name(sni: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(sni.to_owned())
        .map_err(|source| TlsError::Name { sni: sni.to_owned(), source })
}

/// The accepted authorities and a digest of them.
fn authorities(settings: &TlsSettings) -> Result<(RootCertStore, Vec<u8>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut digest = ::ring::digest::Context::new(&::ring::digest::SHA256);
    let Some(path) = &settings.ca_file else {
        let found = rustls_native_certs::load_native_certs();
        // Distributions ship the odd certificate that no verifier takes; one usable authority is enough to start.
        for certificate in found.certs {
            digest.update(&certificate);
            roots.add_parsable_certificates([certificate]);
        }
        if roots.is_empty() {
            return Err(TlsError::NoSystemAuthorities { failures: found.errors });
        }
        return Ok((roots, digest.finish().as_ref().to_vec()));
    };
    let unreadable = |source| TlsError::CaFile { path: path.clone(), source };
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        let certificate = certificate.map_err(unreadable)?;
        digest.update(&certificate);
        roots
            .add(certificate)
            .map_err(|source| TlsError::CaRejected { path: path.clone(), source })?;
    }
    if roots.is_empty() {
        return Err(TlsError::CaFileEmpty { path: path.clone() });
    }
    Ok((roots, digest.finish().as_ref().to_vec()))
}

// === impl TlsError ===

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaFile { path, source } => {
                write!(f, "cannot read the PEM file {}: {source}", path.display())
            }
            Self::CaFileEmpty { path } => write!(
                f,
                "{} holds no certificate: put at least one PEM `CERTIFICATE` block in it",
                path.display()
            ),
            Self::CaRejected { path, source } => write!(
                f,
                "a certificate in {} cannot be used as an authority: {source}",
                path.display()
            ),
            Self::NoSystemAuthorities { failures } => {
                f.write_str(
                    "the system has no certificate authorities: install ca-certificates, or name a ca_file",
                )?;
                failures.iter().try_for_each(|failure| write!(f, "; {failure}"))
            }
            Self::Name { sni, source } => {
                write!(f, "`{sni}` is neither a DNS name nor an IP address: {source}")
            }
            Self::Provider(source) => {
                write!(f, "the cryptography provider cannot do TLS 1.2 and 1.3: {source}")
            }
        }
    }
}

impl std::error::Error for TlsError {}

// === impl AcceptAnyone ===

/// The verifier of `verify: false`.
#[derive(Debug)]
struct AcceptAnyone {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
