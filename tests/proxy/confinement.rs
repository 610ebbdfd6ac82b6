//! What is left of the process's rights once it serves: rows I01 to I04. Everything that serving needs afterwards, a reload, a
//! new port, a worker that is started again, goes on without them.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;
use serde_json::{Value, json};
use spooky_tests::process::Process;
use spooky_tests::scene::{SOON, Scene, Turn, assert_ok};
use spooky_tests::{SANITIZED, ports, privilege, programs, wait};
use spooky_user::sys::sandbox;

use crate::reload::reload;

/// `nobody` of most systems; it need not be in the user database.
pub(crate) const NOBODY: u32 = 65_534;

/// `/proc/PID/task/*/status` of every thread, one field each.
fn of_every_thread(process: u32, field: &str) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("a process has threads");
    let status = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" "))
    });
    status.collect()
}

#[track_caller]
fn all_are(process: u32, field: &str, wanted: &str) {
    let values = of_every_thread(process, field);
    assert!(values.len() >= 3, "{values:?}");
    assert!(values.iter().all(|value| value == wanted), "{field} of each thread: {values:?}");
}

/// True where rights are there to be given up, and what is watched is spooky alone.
#[track_caller]
pub(crate) fn possible(test: &str) -> bool {
    if SANITIZED {
        println!("SKIPPED {test}: AddressSanitizer makes calls of its own, so there is no sandbox");
        return false;
    }
    privilege::kernel(test)
}

/// With the kernel's programs.
pub(crate) fn scene(privileges: Value) -> Scene {
    Scene::with(Turn::shared(), 1, |config, backends| {
        config
            .forward(backends)
            .set("/workers/count", json!(2))
            .set("/ebpf", json!({ "mode": "reuseport", "on_failure": "abort" }))
            .set("/privileges", privileges)
    })
}

/// What the log says of it.
fn line(scene: &Scene) -> String {
    let log = scene.spooky.log();
    let line = log.lines().find(|line| line.contains("privileges: ")).unwrap_or_default();
    line.split("privileges: ").nth(1).unwrap_or_default().to_owned()
}

/// One more listener, at this address.
fn listen_further(config: &mut Value, at: SocketAddr) {
    let mut listener = config["listeners"][0].clone();
    listener["name"] = json!(format!("further-{}", at.port()));
    listener["bind"] = json!(at.to_string());
    config["listeners"].as_array_mut().expect("a list").push(listener);
}

fn map_writes(scene: &Scene) -> f64 {
    scene.spooky.metrics().sum("spooky_ebpf_map_writes_total", &[])
}

#[test]
fn i01_no_thread_has_a_capability_and_the_maps_follow() {
    if !possible("i01_no_thread_has_a_capability_and_the_maps_follow") {
        return;
    }
    let mut scene = scene(json!({ "sandbox": "required" }));
    let process = scene.spooky.process().id();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        all_are(process, set, "0000000000000000");
    }
    all_are(process, "NoNewPrivs", "1");
    all_are(process, "Seccomp", "2");
    assert_ok(&scene.target.fetch("/"));
    let before = map_writes(&scene);
    let further = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    reload(&mut scene.spooky, "taken", |config| {
        config["access"] = json!({ "deny": ["192.0.2.0/24"] });
        listen_further(config, further);
    });
    wait::until_true("the kernel's maps follow", SOON, || map_writes(&scene) > before);
    assert_ok(&scene.target.at(further).fetch("/"));
    assert_eq!(scene.spooky.metrics().sum("spooky_ebpf_map_failures_total", &[]), 0.0);
    println!("I01: {}", line(&scene));
}

#[test]
fn i01_another_user_serves_when_root_has_started_it() {
    if !possible("i01_another_user_serves_when_root_has_started_it") {
        return;
    }
    let mut scene = scene(json!({ "user": NOBODY, "sandbox": "required" }));
    let process = scene.spooky.process().id();
    for id in ["Uid", "Gid"] {
        all_are(process, id, "65534 65534 65534 65534");
    }
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        all_are(process, set, "0000000000000000");
    }
    assert_ok(&scene.target.fetch("/"));
    // The test's files are root's: that a reload would fail is said at start, and it fails without harm.
    let log = scene.spooky.log();
    assert!(log.contains("a reload will be refused: user 65534 cannot read"), "{log}");
    reload(&mut scene.spooky, "refused", |config| config["access"] = json!({}));
    assert_ok(&scene.target.fetch("/"));
}

/// A port below 1024 that nobody has.
fn low_port(taken: &[u16]) -> Option<SocketAddr> {
    let mut ports = (600..1024).filter(|port| !taken.contains(port));
    ports.find_map(|port| std::net::UdpSocket::bind(("127.0.0.1", port)).ok()?.local_addr().ok())
}

#[test]
fn i01_low_ports_are_kept_where_there_was_one() {
    let name = "i01_low_ports_are_kept_where_there_was_one";
    let unprivileged = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if !possible(name) {
        return;
    }
    if unprivileged.is_ok_and(|text| text.trim() != "1024") {
        println!("SKIPPED {name}: everybody may bind to low ports here");
        return;
    }
    let first = low_port(&[]).expect("a free port below 1024");
    let second = low_port(&[first.port()]).expect("a free port below 1024");
    let mut without = scene(json!({ "sandbox": "required" }));
    reload(&mut without.spooky, "refused", |config| listen_further(config, first));
    let log = without.spooky.log();
    let told = "which spooky keeps only if a listener had such a port when it started: restart it";
    assert!(log.contains(told), "{log}");
    assert_ok(&without.target.fetch("/"));
    drop(without);

    let mut with = Scene::with(Turn::shared(), 1, |config, backends| {
        let mut listener = config.listener();
        listener["name"] = json!("low");
        listener["bind"] = json!(first.to_string());
        config
            .forward(backends)
            .set("/privileges", json!({ "user": NOBODY, "sandbox": "required" }))
            .add_listener(listener)
    });
    let process = with.spooky.process().id();
    for set in ["CapPrm", "CapEff"] {
        // CAP_NET_BIND_SERVICE is the tenth.
        all_are(process, set, "0000000000000400");
    }
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        all_are(process, set, "0000000000000000");
    }
    assert!(line(&with).contains("CAP_NET_BIND_SERVICE alone"), "{}", line(&with));
    assert_ok(&with.target.at(first).fetch("/"));
    let folder = with.spooky.config_file();
    let folder = folder.parent().expect("a file is in a folder").to_owned();
    give_away(&folder);
    give_away(with.authority.directory());
    reload(&mut with.spooky, "taken", |config| listen_further(config, second));
    assert_ok(&with.target.at(second).fetch("/"));
}

/// Makes a folder and its files the property of the user that serves.
fn give_away(folder: &Path) {
    let files = fs::read_dir(folder).expect("a folder of the test's own").flatten();
    for path in files.map(|file| file.path()).chain([folder.to_owned()]) {
        std::os::unix::fs::chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    }
}

/// Row I02, the whole: everything that a running spooky is asked to do, in a sandbox that is all there. Where strace is
/// installed it watches, and what was called is compared with the list.
#[test]
fn i02_a_reload_a_new_log_and_a_new_worker_need_no_more_than_the_list() {
    let name = "i02_a_reload_a_new_log_and_a_new_worker_need_no_more_than_the_list";
    if !possible(name) {
        return;
    }
    let logs = tempfile::tempdir().expect("a temporary directory can be made");
    let log = logs.path().join("access.log");
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config
            .forward(backends)
            .set("/workers", json!({ "count": 2, "pin": true }))
            .set("/access_log", json!({ "path": log }))
            .set("/ebpf", json!({ "mode": "reuseport", "on_failure": "abort" }))
            .set("/privileges", json!({ "sandbox": "required" }))
    });
    let watch = Watch::begin(scene.spooky.process().id(), logs.path());
    everything(&mut scene, &log);
    scene.spooky.terminate();
    let status = scene.spooky.process().wait(SOON);
    assert!(status.success(), "{status}: {}", scene.spooky.log());
    match watch {
        Some(watch) => watch.compare(),
        None => println!("SKIP I02 the comparison with strace, which is not installed"),
    }
}

fn everything(scene: &mut Scene, log: &Path) {
    assert_ok(&scene.target.fetch("/"));
    let lines = |path: &Path| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    wait::until_true("the request is in the log", SOON, || lines(log) == 1);
    // A reload: lists, a port, certificates, and a backend by its name.
    let further = SocketAddr::from(([127, 0, 0, 1], ports::free()));
    let before = map_writes(scene);
    let port = scene.backends[0].address().port();
    reload(&mut scene.spooky, "taken", |config| {
        config["access"] = json!({ "deny": ["192.0.2.0/24"] });
        listen_further(config, further);
        for (_, upstream) in config["upstreams"].as_object_mut().expect("a mapping") {
            upstream["endpoints"][0]["address"] = json!(format!("localhost:{port}"));
        }
    });
    wait::until_true("the kernel's maps follow", SOON, || map_writes(scene) > before);
    assert_ok(&scene.target.at(further).fetch("/"));
    // Health checks reach it, and it serves.
    let healthy = |scene: &Scene| scene.spooky.metrics().sum("spooky_endpoint_healthy", &[]);
    wait::until_true("the backend is healthy", SOON, || healthy(scene) >= 1.0);
    // The log is rotated.
    let rotated = log.with_extension("1");
    fs::rename(log, &rotated).expect("the test's own file");
    scene.spooky.process().signal(Signal::USR1);
    wait::until_true("there is a new log", SOON, || log.exists());
    assert_ok(&scene.target.fetch("/"));
    wait::until_true("the request is in the new log", SOON, || lines(log) >= 1);
    // A worker ends, and another takes its place.
    let end = json!({ "requests": [{ "path": "/fault/worker" }], "answer_timeout": 1.0 });
    let _fate = scene.target.start("requests", end);
    wait::until_true("the worker is there again", SOON, || {
        scene.spooky.metrics().sum("spooky_worker_restarts_total", &[]) >= 1.0
    });
    for _ in 0..4 {
        assert_ok(&scene.target.fetch("/"));
    }
    assert_eq!(scene.spooky.metrics().sum("spooky_ebpf_map_failures_total", &[]), 0.0);
}

/// strace on a process, from now until its end.
struct Watch {
    strace: Process,
    file: std::path::PathBuf,
}

impl Watch {
    /// `None` where there is no strace.
    fn begin(process: u32, folder: &Path) -> Option<Self> {
        let installed = Command::new("strace").arg("-V").stdout(Stdio::null()).status();
        if !installed.is_ok_and(|status| status.success()) {
            return None;
        }
        let file = folder.join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-p", &process.to_string(), "-o"]).arg(&file);
        let strace = Process::start("strace", &mut command);
        wait::until_true("strace watches every thread", SOON, || {
            let tracers = of_every_thread(process, "TracerPid");
            !tracers.is_empty() && tracers.iter().all(|tracer| *tracer == strace.id().to_string())
        });
        Some(Self { strace, file })
    }

    fn compare(mut self) {
        let _status = self.strace.wait(SOON);
        let trace = fs::read_to_string(&self.file).expect("strace has written");
        let listed: Vec<&str> = sandbox::calls().collect();
        let refused: Vec<&str> = trace.lines().filter(|it| it.contains("= -1 EPERM")).collect();
        assert!(refused.is_empty(), "{refused:#?}");
        let mut called: Vec<&str> = trace.lines().filter_map(call).collect();
        called.sort_unstable();
        called.dedup();
        let unlisted: Vec<_> = called.iter().filter(|it| !listed.contains(it)).collect();
        let unused: Vec<_> = listed.iter().filter(|it| !called.contains(it)).collect();
        println!("I02: {} of {} calls used; not here: {unused:?}", called.len(), listed.len());
        assert!(called.len() > 30, "strace has seen little: {called:?}");
        assert!(unlisted.is_empty(), "{unlisted:?}");
    }
}

/// `4711 name(arguments) = result`, or `4711 <... name resumed> ...`.
fn call(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(' ')?;
    let rest = rest.trim_start().trim_start_matches("<... ");
    let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')?;
    let (name, after) = rest.split_at(end);
    (!name.is_empty() && (after.starts_with('(') || after.starts_with(" resumed"))).then_some(name)
}

/// A list that is not where the configuration's files are is not read, whoever may read it.
#[test]
fn i03_files_that_the_configuration_does_not_name_are_closed() {
    if SANITIZED {
        println!("SKIPPED i03: AddressSanitizer writes files of its own, so there is no sandbox");
        return;
    }
    let elsewhere = tempfile::tempdir().expect("a temporary directory can be made");
    let list = elsewhere.path().join("deny.txt");
    fs::write(&list, "192.0.2.0/24\n").expect("a file of the test's own");
    let open = fs::Permissions::from_mode(0o644);
    fs::set_permissions(&list, open).expect("a file of the test's own");
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/privileges", json!({ "sandbox": "required" }))
    });
    for file in [list.to_str().expect("a plain name"), "/etc/shadow"] {
        reload(&mut scene.spooky, "refused", |config| {
            config["access"] = json!({ "deny_files": [file] });
        });
        let log = scene.spooky.log();
        let told = format!("{file} cannot be read: permission denied");
        assert!(log.contains(&told), "{log}");
    }
    assert_ok(&scene.target.fetch("/"));
}

#[test]
fn i04_the_unit_file_asks_for_little() {
    let unit = programs::repository().join("config/deploy/spooky.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--threshold=20"]).arg(&unit);
    let Ok(output) = command.output() else {
        println!("SKIP I04 systemd-analyze is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("I04: {}", text.lines().last().unwrap_or_default());
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

/// systemd's sets of calls by name, as `systemd-analyze syscall-filter` prints them; a set may name others.
fn call_sets(text: &str) -> HashMap<&str, Vec<&str>> {
    let mut sets: HashMap<&str, Vec<&str>> = HashMap::new();
    let mut current = None;
    for line in text.lines() {
        if line.starts_with('@') {
            current = line.split_whitespace().next();
        } else if let Some(set) = current
            && line.starts_with("    ")
        {
            sets.entry(set).or_default().push(line.trim());
        }
    }
    sets
}

fn expanded<'a>(name: &'a str, sets: &HashMap<&'a str, Vec<&'a str>>) -> Vec<&'a str> {
    if !name.starts_with('@') {
        return vec![name];
    }
    let members = sets.get(name).unwrap_or_else(|| panic!("systemd has no set {name}"));
    members.iter().flat_map(|member| expanded(member, sets)).collect()
}

/// What the start needs besides what serving needs.
const AT_START: [&str; 9] = [
    "capset",
    "execve",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "listen",
    "readlink",
    "sched_setaffinity",
    "seccomp",
];

#[test]
fn i04_the_unit_file_allows_every_call_of_a_start_and_of_serving() {
    let mut command = Command::new("systemd-analyze");
    let Ok(output) = command.arg("syscall-filter").output() else {
        println!("SKIP I04 systemd-analyze is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let sets = call_sets(&text);
    let unit = programs::repository().join("config/deploy/spooky.service");
    let unit = fs::read_to_string(unit).expect("the unit file");
    // systemd.exec(5): the first line says that this is a list of what is allowed, later ones add and take away in order.
    let mut allowed: HashSet<&str> = expanded("@default", &sets).into_iter().collect();
    let mut lines = 0;
    for filter in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (takes_away, names) = match filter.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, filter),
        };
        for call in names.split_whitespace().flat_map(|name| expanded(name, &sets)) {
            if takes_away {
                allowed.remove(call)
            } else {
                allowed.insert(call)
            };
        }
        lines += 1;
    }
    assert_eq!(lines, 3, "{unit}");
    let needed: Vec<&str> = sandbox::calls().chain(AT_START).collect();
    let missing: Vec<_> = needed.iter().filter(|call| !allowed.contains(**call)).collect();
    println!("I04: {} calls needed, {} allowed by the unit", needed.len(), allowed.len());
    assert!(missing.is_empty(), "{missing:?}");
    assert!(
        !allowed.contains("ptrace")
            && !allowed.contains("mount")
            && !allowed.contains("kexec_load")
    );
}
