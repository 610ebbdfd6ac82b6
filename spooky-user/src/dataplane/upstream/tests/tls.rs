//! Whom we believe over TLS.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use super::super::cluster::{TlsSettings, TlsVersion};
use super::super::tls::{Connector, TlsError};
use super::backend::Backend;
use super::*;

/// An authority, its certificate in a file.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    file: tempfile::NamedTempFile,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// A server for `name` that offers these protocols.
    fn server(
        &self,
        name: &str,
        alpn: &[&[u8]],
        version: &'static rustls::SupportedProtocolVersion,
    ) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    fn settings(&self, sni: Option<&str>) -> TlsSettings {
        TlsSettings {
            verify: true,
            sni: sni.map(str::to_owned),
            ca_file: Some(self.file.path().to_owned()),
            min_version: TlsVersion::Tls12,
        }
    }
}

/// One request to a server with `acceptor`, trusting what `trust` says.
fn attempt(acceptor: TlsAcceptor, trust: &TlsSettings) -> Result<Bytes, Kind> {
    let tls = Some(Connector::new(trust).expect("the settings are usable"));
    on_worker(async {
        let backend = Backend::tls(acceptor).await;
        let endpoint = endpoint(backend.address, Settings { tls, ..settings() });
        let result = outcome(Client::new().get(&endpoint)).await;
        assert_eq!(
            backend.streams.get(),
            usize::from(result.is_ok()),
            "no request reaches a stranger"
        );
        result
    })
}

#[test]
fn a_name_signed_by_the_authority_is_believed_with_tls_1_2_and_1_3() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let server = authority.server("backend.test", &[b"h2"], version);
        attempt(server, &authority.settings(Some("backend.test"))).unwrap();
    }
}

#[test]
fn without_a_name_the_address_is_verified() {
    let authority = Authority::new();
    let server = authority.server("127.0.0.1", &[b"h2"], &TLS13);
    attempt(server, &authority.settings(None)).unwrap();
    let server = authority.server("backend.test", &[b"h2"], &TLS13);
    assert_eq!(attempt(server, &authority.settings(None)).unwrap_err(), Kind::TlsFailed);
}

#[test]
fn another_name_is_not_believed() {
    let authority = Authority::new();
    let server = authority.server("other.test", &[b"h2"], &TLS13);
    let trust = authority.settings(Some("backend.test"));
    assert_eq!(attempt(server, &trust).unwrap_err(), Kind::TlsFailed);
}

#[test]
fn an_unknown_authority_is_not_believed() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = authority.server("backend.test", &[b"h2"], &TLS13);
    let trust = other.settings(Some("backend.test"));
    assert_eq!(attempt(server, &trust).unwrap_err(), Kind::TlsFailed);
}

#[test]
fn a_backend_that_does_not_select_h2_is_refused() {
    let authority = Authority::new();
    let trust = authority.settings(Some("backend.test"));
    for alpn in [&[][..], &[&b"http/1.1"[..]]] {
        let server = authority.server("backend.test", alpn, &TLS13);
        assert_eq!(attempt(server, &trust).unwrap_err(), Kind::TlsFailed, "{alpn:?}");
    }
}

#[test]
fn without_verification_anyone_is_believed() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let server = authority.server("other.test", &[b"h2"], version);
        let trust = TlsSettings {
            verify: false,
            sni: Some("backend.test".to_owned()),
            ca_file: None,
            min_version: TlsVersion::Tls12,
        };
        attempt(server, &trust).unwrap();
    }
}

#[test]
fn a_handshake_that_is_never_answered_is_a_connect_timeout() {
    let authority = Authority::new();
    let tls = Some(Connector::new(&authority.settings(Some("backend.test"))).unwrap());
    on_worker(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect_timeout = Duration::from_millis(50);
        let settings = Settings { tls, connect_timeout, ..settings() };
        let endpoint = endpoint(listener.local_addr().unwrap(), settings);
        let kind = outcome(Client::new().get(&endpoint)).await.unwrap_err();
        assert_eq!(kind, Kind::ConnectTimeout);
    });
}

#[test]
fn unusable_settings_are_found_when_they_are_read() {
    let trust = |ca_file: &Path, sni: &str| TlsSettings {
        verify: true,
        sni: Some(sni.to_owned()),
        ca_file: Some(ca_file.to_owned()),
        min_version: TlsVersion::Tls13,
    };
    let missing = Path::new("/nonexistent/ca.pem");
    let error = Connector::new(&trust(missing, "backend.test")).unwrap_err();
    assert!(matches!(error, TlsError::CaFile { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");

    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Connector::new(&trust(file.path(), "backend.test")).unwrap_err();
    assert!(matches!(error, TlsError::CaFileEmpty { .. }), "{error}");

    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(file.path(), not_der).unwrap();
    let error = Connector::new(&trust(file.path(), "backend.test")).unwrap_err();
    assert!(matches!(error, TlsError::CaRejected { .. }), "{error}");

    let authority = Authority::new();
    let error = Connector::new(&trust(authority.file.path(), "not a name")).unwrap_err();
    assert!(matches!(error, TlsError::Name { .. }), "{error}");
}

#[test]
fn a_changed_ca_file_makes_another_connector() {
    let (authority, other) = (Authority::new(), Authority::new());
    let trust = authority.settings(Some("backend.test"));
    let before = Connector::new(&trust).unwrap();
    assert_eq!(before, Connector::new(&trust).unwrap());
    std::fs::write(authority.file.path(), other.issuer.pem()).unwrap();
    assert_ne!(before, Connector::new(&trust).unwrap());
}
