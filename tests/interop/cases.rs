//! The cases of `tests/clients/cases.yaml`: who asks, for what, over which path; and how one is run and judged.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};
use spooky_tests::clients::Target;
use spooky_tests::origin::body::Content;
use spooky_tests::relay::{Impairment, Relay};
use spooky_tests::scene::{Scene, Turn, loopback};
use spooky_tests::{ports, programs, soak};

/// Beyond the deadline of a case: for a client to say that it has passed.
const GRACE: Duration = Duration::from_secs(30);

/// Seconds that a client waits for one connection and all its answers.
const PATIENCE: u64 = 60;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    clients: Vec<Client>,
    cases: Vec<Case>,
}

/// One HTTP/3 client that `interop.py` knows.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Client {
    pub(crate) name: String,
    /// A program it cannot run without, and the package that has it.
    needs: Option<String>,
    package: Option<String>,
}

/// One line of the matrix; the head of the file says what the fields mean.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) row: String,
    pub(crate) name: String,
    objects: Vec<u64>,
    #[serde(default = "one")]
    count: u64,
    #[serde(default)]
    concurrent: bool,
    #[serde(default)]
    path: String,
    #[serde(default)]
    listener: Listener,
    #[serde(default = "a_minute")]
    within: u64,
    connections: Option<Connections>,
    cipher: Option<String>,
    #[serde(default)]
    key_updates: u64,
    #[serde(default)]
    pub(crate) resume: bool,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    without: BTreeMap<String, String>,
    ordinary: Option<Vec<String>>,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Listener {
    #[default]
    Edge,
    Ipv6,
    Retry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Connections {
    ordinary: u64,
    soak: u64,
    at_once: u64,
}

/// How a case went for a client.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: String,
    pub(crate) seconds: f64,
    pub(crate) connections: Vec<Value>,
    pub(crate) relay: Option<String>,
}

fn one() -> u64 {
    1
}

fn a_minute() -> u64 {
    60
}

fn list() -> &'static List {
    static LIST: OnceLock<List> = OnceLock::new();
    LIST.get_or_init(|| {
        let file = programs::repository().join("tests/clients/cases.yaml");
        let text = std::fs::read_to_string(&file).expect("the list of cases can be read");
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    })
}

/// The cases of a row, in order.
pub(crate) fn of_row(row: &str) -> Vec<&'static Case> {
    let cases: Vec<&Case> = list().cases.iter().filter(|case| case.row == row).collect();
    assert!(!cases.is_empty(), "no case is of row {row}");
    cases
}

/// One case by name.
pub(crate) fn named(name: &str) -> &'static Case {
    let case = list().cases.iter().find(|case| case.name == name);
    case.unwrap_or_else(|| panic!("no case is called {name}"))
}

/// A client by name.
pub(crate) fn client(name: &str) -> &'static Client {
    let client = list().clients.iter().find(|client| client.name == name);
    client.unwrap_or_else(|| panic!("no client is called {name}"))
}

impl Client {
    /// Why it cannot run here.
    pub(crate) fn missing(&self) -> Option<String> {
        let needs = self.needs.as_ref()?;
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).any(|directory| directory.join(needs).exists());
        let package = self.package.as_deref().unwrap_or(needs);
        (!found).then(|| format!("{needs} (package {package}) is not installed"))
    }
}

/// A daemon with a listener for each kind of case.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    ipv6: Target,
    retry: Target,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let ipv6 = std::net::SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, ports::free()));
        let retry = loopback();
        let scene = Scene::with(Turn::shared(), 1, |config, backends| {
            let mut config = config.forward(backends);
            for (name, address, mode) in [("ipv6", ipv6, "adaptive"), ("retry", retry, "always")] {
                let mut listener = config.listener();
                listener["name"] = json!(name);
                listener["bind"] = json!(address.to_string());
                listener["quic"] = json!({ "address_validation": { "mode": mode } });
                config = config.add_listener(listener);
            }
            config
        });
        let [ipv6, retry] = [ipv6, retry].map(|address| scene.target.at(address));
        Self { scene, ipv6, retry }
    }

    fn target(&self, listener: Listener) -> &Target {
        match listener {
            Listener::Edge => &self.scene.target,
            Listener::Ipv6 => &self.ipv6,
            Listener::Retry => &self.retry,
        }
    }
}

impl Case {
    /// Runs it with every client that takes part in this run, all at once, each over a path of its own.
    pub(crate) fn run_all(&self, stage: &Stage, seed: u64) -> Vec<Outcome> {
        let clients: Vec<&Client> = list().clients.iter().filter(|c| self.takes(c)).collect();
        std::thread::scope(|scope| {
            let run = |client: &'static Client| scope.spawn(|| self.run(stage, client, seed));
            let running: Vec<_> = clients.into_iter().map(run).collect();
            let outcome = |thread: std::thread::ScopedJoinHandle<'_, Outcome>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            running.into_iter().map(outcome).collect()
        })
    }

    /// Whether a client takes part; says aloud why not.
    fn takes(&self, client: &Client) -> bool {
        let ordinary = self.ordinary.as_ref().is_none_or(|names| names.contains(&client.name));
        let why = if !ordinary && !soak() {
            return false;
        } else if let Some(why) = self.without.get(&client.name) {
            why.clone()
        } else if let Some(why) = client.missing() {
            why
        } else {
            return true;
        };
        println!("SKIP {}/{}/{}: {why}", self.row, self.name, client.name);
        false
    }

    /// Runs it with one client and asserts that every octet came.
    pub(crate) fn run(&self, stage: &Stage, client: &Client, seed: u64) -> Outcome {
        let what = format!("{}/{}/{}, seed {seed}", self.row, self.name, client.name);
        let target = stage.target(self.listener);
        let relay = (!self.path.is_empty()).then(|| {
            let impairment: Impairment = self.path.parse().unwrap_or_else(|error| {
                panic!("{what}: {error}");
            });
            Relay::start(target.address, Impairment { seed, ..impairment })
        });
        let target = relay.as_ref().map_or(target.clone(), |relay| target.at(relay.address()));
        let started = Instant::now();
        let running = target.start_interop(&client.name, self.request());
        let result = running.result(Duration::from_secs(self.within) + GRACE);
        let seconds = started.elapsed().as_secs_f64();
        let relay = relay.map(|relay| format!("{:?}", relay.tally()));
        let connections = result.as_array().cloned().unwrap_or_default();
        let outcome = Outcome { client: client.name.clone(), seconds, connections, relay };
        self.judge(&what, &outcome);
        println!("{what}: {seconds:.2} s {}", outcome.relay.as_deref().unwrap_or_default());
        outcome
    }

    /// How many connections each client makes.
    pub(crate) fn connections(&self) -> u64 {
        let connections = self.connections.as_ref();
        let asked = connections.map_or(1, |c| if soak() { c.soak } else { c.ordinary });
        asked * if self.resume { 2 } else { 1 }
    }

    fn request(&self) -> Value {
        json!({
            "paths": self.objects().map(|(length, seed)| path(length, seed)).collect::<Vec<_>>(),
            "concurrent": self.concurrent,
            "connections": self.connections() / if self.resume { 2 } else { 1 },
            "at_once": self.connections.as_ref().map_or(1, |connections| connections.at_once),
            "cipher": self.cipher,
            "key_updates": self.key_updates,
            "total": self.octets(),
            "resume": self.resume,
            "again": self.again,
            "timeout": self.within.min(PATIENCE),
        })
    }

    /// Length and seed of each body.
    fn objects(&self) -> impl Iterator<Item = (u64, u64)> {
        let each = self.objects.iter().flat_map(|length| (0..self.count).map(|_| *length));
        each.zip(1..)
    }

    /// Octets of all bodies of a connection.
    pub(crate) fn octets(&self) -> u64 {
        self.objects.iter().sum::<u64>() * self.count
    }

    fn judge(&self, what: &str, outcome: &Outcome) {
        assert_eq!(outcome.connections.len() as u64, self.connections(), "{what}: {outcome:?}");
        for connection in &outcome.connections {
            assert_eq!(connection["error"], Value::Null, "{what}: {connection}");
            self.judge_facts(what, &connection["facts"]);
            let answers = connection["answers"].as_array().map(Vec::as_slice).unwrap_or_default();
            assert_eq!(answers.len(), self.objects().count(), "{what}: every request is answered");
            for (length, seed) in self.objects() {
                let path = path(length, seed);
                let answer = answers.iter().find(|answer| answer["path"] == path.as_str());
                let answer = answer.unwrap_or_else(|| panic!("{what}: no answer to {path}"));
                // A client may not tell the status; the octets are told by each.
                let complete = matches!(answer["status"].as_u64(), None | Some(200))
                    && answer["error"].is_null()
                    && answer["sha256"] == Content::sha256(seed, length);
                assert!(complete, "{what}: {answer}");
            }
        }
        let attempts = outcome.connections.iter().filter_map(|c| c["attempts"].as_u64());
        let extra = attempts.sum::<u64>() - self.connections();
        if extra > 0 {
            println!("{what}: {extra} connections were made anew");
        }
        assert!(extra * 4 <= self.connections(), "{what}: {extra} connections made anew");
        assert!(outcome.seconds <= self.within as f64, "{what}: {:.1} s", outcome.seconds);
    }
}

impl Case {
    /// What the client can tell of itself is what was asked of it.
    fn judge_facts(&self, what: &str, facts: &Value) {
        let updates = facts["key_updates"].as_u64();
        assert!(updates.is_none_or(|made| made == self.key_updates), "{what}: {facts}");
        if let (Some(wanted), Some(cipher)) = (&self.cipher, facts["cipher"].as_str()) {
            assert!(cipher.to_lowercase().contains(wanted), "{what}: {facts}");
        }
    }
}

/// Ends differently for each body, for clients that save it under that.
fn path(length: u64, seed: u64) -> String {
    format!("/bytes/{length}?seed={seed}")
}
