//! Configuration files: whatever is in one, it is either taken, the same each time, and compiles, or refused with problems that
//! have a place and a remedy, in file order. `spooky check` and a start call the same function.
//!
//! Input: the file; `@` in it is a folder with `cert.pem`, `key.pem` and list files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::{cell::OnceCell, fs};

use spooky_user::controlplane::config::{self, Config, ConfigErrors};
use spooky_user::telemetry::metrics::Registry;

/// A folder with what configurations name.
pub(super) struct Folder(tempfile::TempDir);

pub(super) fn run(input: &[u8]) {
    with_folder(|folder| {
        let Some(text) = folder.text(input) else { return };
        match folder.load("one.yaml", &text) {
            Ok(config) => {
                assert_eq!(folder.load("one.yaml", &text).as_ref(), Ok(&config), "the same twice");
                compiles(&config);
            }
            Err(errors) => refused(&errors, text.len()),
        }
    });
}

/// Nothing after a check can find a configuration wrong.
pub(super) fn compiles(config: &Config) {
    let names: Vec<Option<Arc<str>>> =
        config.listeners.iter().map(|listener| Some(Arc::clone(&listener.name))).collect();
    let snapshot = config::compile(config, names, None, &Registry::new(1));
    assert_eq!(snapshot.routes.routes().len(), config.routes.len());
    assert_eq!(snapshot.clusters.len(), config.upstreams.len());
    for route in snapshot.routes.routes() {
        assert!(snapshot.cluster(route.cluster).is_some_and(|it| !it.endpoints.is_empty()));
    }
}

/// A refusal says something that helps.
pub(super) fn refused(errors: &ConfigErrors, size: usize) {
    let problems = errors.problems();
    assert!(!problems.is_empty(), "refused for nothing");
    assert!(problems.is_sorted_by_key(|problem| (&problem.file, problem.place)), "not in order");
    for problem in problems {
        assert!(
            !problem.message.is_empty() && problem.to_string().lines().count() == 1,
            "{problem:?}"
        );
        assert!(problem.place.line <= size + 1, "{problem:?}");
    }
    assert!(errors.to_string().len() < 64 << 10, "more than anybody reads");
}

thread_local! {
    static FOLDER: OnceCell<Folder> = const { OnceCell::new() };
}

/// Lends this thread's folder.
pub(super) fn with_folder(use_it: impl FnOnce(&Folder)) {
    FOLDER.with(|folder| use_it(folder.get_or_init(Folder::new)));
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let pair = rcgen::generate_simple_self_signed(["example.com".to_owned()]).expect("a pair");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("the folder can be written");
            // Keys are refused that others can read.
            let own = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&path, own).expect("the folder's own file");
        };
        write("cert.pem", &pair.cert.pem());
        write("ca.pem", &pair.cert.pem());
        write("key.pem", &pair.signing_key.serialize_pem());
        write("cid.key", &"0123456789abcdef".repeat(4));
        write("deny.txt", "192.0.2.0/24\n2001:db8::/32\n");
        Self(folder)
    }

    /// The input with the folder's path; `None` when it names hosts: these are looked up, and an answer from elsewhere is not
    /// the input's doing.
    pub(super) fn text(&self, input: &[u8]) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(input);
        let mut addresses = text.split("address").skip(1);
        let named = |rest: &str| {
            let value = rest.lines().next().unwrap_or_default();
            let value = value.split(['}', ',']).next().unwrap_or_default();
            value.chars().any(|c| c.is_ascii_alphabetic() && !c.is_ascii_hexdigit())
        };
        if addresses.any(named) {
            return None;
        }
        let here = self.0.path().to_string_lossy();
        let parts: Vec<&[u8]> = input.split(|octet| *octet == b'@').collect();
        Some(parts.join(here.as_bytes()))
    }

    pub(super) fn load(&self, name: &str, text: &[u8]) -> Result<Config, ConfigErrors> {
        let path: PathBuf = self.0.path().join(name);
        fs::write(&path, text).expect("the folder can be written");
        config::load(&path)
    }
}
