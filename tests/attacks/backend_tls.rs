//! Backends that are not who they should be: row D08. They get no octet of a request, and the client gets 502.

use std::fs::File;
use std::io::{BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ServerConfig, ServerConnection, StreamOwned, SupportedProtocolVersion};
use serde_json::{Value, json};
use spooky_tests::backend::LocalBackend;
use spooky_tests::certs::{Authority, KeyType, Leaf};
use spooky_tests::config::Config;
use spooky_tests::origin::{Options, TlsFiles};
use spooky_tests::scene::{Scene, Turn, assert_ok, field, loopback};
use spooky_tests::spooky::Spooky;

/// The name that is asked for.
const NAME: &str = "backend.test";

/// A TLS server that counts what comes over its connections, and never says a word of HTTP/2.
struct Counting {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
    octets: Arc<AtomicU64>,
}

impl Counting {
    fn start(leaf: &Leaf, alpn: &[&str], version: &'static SupportedProtocolVersion) -> Self {
        let chain = CertificateDer::pem_reader_iter(BufReader::new(open(&leaf.cert)));
        let chain = chain.collect::<Result<Vec<_>, _>>().expect("a chain in PEM");
        let key = PrivateKeyDer::from_pem_file(&leaf.key).expect("a key in PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).expect("ring has both");
        let mut config =
            builder.with_no_client_auth().with_single_cert(chain, key).expect("key and chain fit");
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of the test's own");
        let address = listener.local_addr().expect("bound");
        let (connections, octets) = (Arc::default(), Arc::default());
        let server =
            Self { address, connections: Arc::clone(&connections), octets: Arc::clone(&octets) };
        // Ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Relaxed);
                let (config, octets) = (Arc::clone(&config), Arc::clone(&octets));
                std::thread::spawn(move || count(stream, config, &octets));
            }
        });
        server
    }
}

/// Until the connection ends, however it does.
fn count(stream: TcpStream, config: Arc<ServerConfig>, octets: &AtomicU64) {
    let _set = stream.set_read_timeout(Some(Duration::from_secs(10)));
    let connection = ServerConnection::new(config).expect("the configuration is good");
    let mut stream = StreamOwned::new(connection, stream);
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        octets.fetch_add(read as u64, Relaxed);
    }
}

fn open(path: &PathBuf) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An upstream at `address` with these keys under `tls`, and a route `/NAME` to it. No health checks: the request itself has to
/// fail.
fn behind(config: Config, name: &str, address: SocketAddr, tls: &Value) -> Config {
    let upstream = json!({
        "endpoints": [{ "name": "tls1", "address": address.to_string() }],
        "tls": tls,
        "timeouts": { "connect": "2s", "response_header": "2s" },
    });
    let matching = json!({ "path_prefix": format!("/{name}") });
    config.set(&format!("/upstreams/{name}"), upstream).route(name, matching, name)
}

#[test]
fn d08_a_backend_with_the_right_certificate_is_used() {
    let authority = Authority::new();
    let leaf = authority.leaf("backend", &[NAME], KeyType::Ecdsa);
    let backend = LocalBackend::start(Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        name: "tls1".into(),
        tls: Some(TlsFiles { cert: leaf.cert, key: leaf.key }),
        max_streams: None,
        goaway_after: None,
    });
    let tls = json!({ "verify": true, "sni": NAME, "ca_file": authority.file() });
    let scene = Scene::with(Turn::shared(), 0, |config, _| {
        behind(config, "bytes", backend.address(), &tls)
    });
    let answer = scene.target.fetch("/bytes/10");
    assert_ok(&answer);
    assert_eq!(field(&answer, "x-origin"), Some("tls1"));
}

#[test]
fn d08_a_backend_that_is_not_who_it_should_be_gets_no_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = || authority.leaf("good", &[NAME], KeyType::Ecdsa);
    let dated = |file: &str, from: i32, to: i32| {
        authority.leaf_with(file, &[NAME], KeyType::Ecdsa, |params| {
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
        })
    };
    let h2 = &["h2"][..];
    let cases = [
        ("wrong-host", authority.leaf("other", &["other.test"], KeyType::Ecdsa), h2, &TLS13),
        ("expired", dated("expired", 2019, 2020), h2, &TLS13),
        ("not-yet", dated("early", 2090, 2091), h2, &TLS13),
        ("self-signed", authority.self_signed("self", NAME), h2, &TLS13),
        ("unknown-authority", stranger.leaf("backend", &[NAME], KeyType::Ecdsa), h2, &TLS13),
        ("no-alpn", good(), &[][..], &TLS13),
        ("http-1-alone", good(), &["http/1.1"][..], &TLS13),
        ("tls-1.2", good(), h2, &TLS12),
    ];
    let servers =
        cases.map(|(name, leaf, alpn, version)| (name, Counting::start(&leaf, alpn, version)));
    let tls = json!({ "sni": NAME, "ca_file": authority.file() });
    let old = Counting::start(&good(), h2, &TLS12);
    let scene = Scene::with(Turn::shared(), 0, |config, _| {
        let mut older = tls.clone();
        older["min_version"] = json!("tls1.2");
        let config = behind(config, "old", old.address, &older);
        let each =
            |config, (name, server): &(&str, Counting)| behind(config, name, server.address, &tls);
        servers.iter().fold(config, each)
    });
    for (name, server) in &servers {
        let answer = scene.target.fetch(&format!("/{name}"));
        let (connections, octets) = (server.connections.load(Relaxed), server.octets.load(Relaxed));
        println!(
            "D08 {name}: {}, {octets} octets over {connections} connections",
            answer["status"]
        );
        assert_eq!((&answer["status"], &answer["end"]), (&json!(502), &json!("clean")), "{name}");
        assert!(connections >= 1 && octets == 0, "{name}: {octets} octets over {connections}");
    }
    let failures = [("kind", "tls_failed")];
    let metrics = scene.spooky.metrics();
    assert!(metrics.sum("spooky_pool_connect_failures_total", &failures) >= servers.len() as f64);
    // Where it is allowed, that one gets the preface of HTTP/2: so octets are counted here at all.
    scene.target.fetch("/old");
    assert!(old.octets.load(Relaxed) >= 24);
}

#[test]
fn d08_without_its_authorities_nothing_starts() {
    let authority = Authority::new();
    let leaf = authority.leaf("edge", &["localhost"], KeyType::Ecdsa);
    let missing = authority.directory().join("missing.pem");
    let config = Config::new(loopback(), loopback(), &leaf);
    let config = behind(config, "vault", loopback(), &json!({ "sni": NAME, "ca_file": missing }));
    let refusal = Spooky::refused(&config.text());
    assert_eq!(refusal.code, Some(2), "{}", refusal.text);
    assert!(refusal.text.contains("tls.ca_file: ") && refusal.text.contains("missing.pem"));
}
