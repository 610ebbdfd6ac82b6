//! The configuration as an operator meets it: every file in `config/` loads, the reference is current, and every mistake gets
//! the message that is written down beside it.

mod bad;
mod files;
mod good;
mod limits;
mod shipped;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use spooky_user::controlplane::config::{Config, ConfigErrors, load};

/// A folder with what configurations name: `cert.pem`, `key.pem`, another key, `ca.pem`, list and key files. `@` in a text stands
/// for it.
struct Folder(tempfile::TempDir);

// === impl Folder ===

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().expect("a temporary folder"));
        let pair = rcgen::generate_simple_self_signed(["example.com".to_owned()]).expect("a pair");
        let other = rcgen::KeyPair::generate().expect("a key");
        folder.write("cert.pem", pair.cert.pem());
        folder.write("ca.pem", pair.cert.pem());
        folder.write("key.pem", pair.signing_key.serialize_pem());
        folder.write("other.pem", other.serialize_pem());
        folder.write("garbage.pem", "no PEM at all\n");
        folder.write("cid.key", format!("# made by hand\n{}\n", "0123456789abcdef".repeat(4)));
        folder.write("short.key", "0123456789abcdef\n");
        folder.write("deny.txt", "# bad neighbours\n192.0.2.0/24\n\n2001:db8::/32 # all of it\n");
        folder.write("wrong.txt", "192.0.2.0/24\n192.0.2.256\n# fine\n10.0.0.1/8\n  nonsense\n");
        fs::create_dir(folder.path().join("folder")).expect("a folder");
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, text).expect("the temporary folder can be written");
        // Keys are refused that others can read.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("our own file");
        path
    }

    fn load(&self, text: &str) -> Result<Config, ConfigErrors> {
        let text = text.replace('@', self.path().to_str().expect("temporary paths are UTF-8"));
        load(&self.write("spooky.yaml", text))
    }

    /// What [`ConfigErrors`] prints, with `@` for the folder.
    fn messages(&self, text: &str) -> String {
        match self.load(text) {
            Ok(config) => panic!("loads without a problem: {config:#?}"),
            Err(errors) => self.shorten(&errors.to_string()),
        }
    }

    /// The folder as `@`, and not which interfaces this machine has.
    fn shorten(&self, text: &str) -> String {
        let text = text.replace(self.path().to_str().expect("temporary paths are UTF-8"), "@");
        let mut parts = text.split("(this machine has: ");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| {
            let rest = part.split_once(')').map_or("", |(_, rest)| rest);
            text + "(this machine has: ...)" + rest
        })
    }
}

/// The top of the repository.
fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the top")
}

/// Compares a kept file with what it should be; with `SPOOKY_BLESS=1` writes it instead.
fn compare(path: &Path, wanted: &str) -> Result<(), String> {
    if std::env::var_os("SPOOKY_BLESS").is_some() {
        fs::write(path, wanted).expect("the repository can be written");
        return Ok(());
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    if kept == wanted {
        return Ok(());
    }
    Err(format!(
        "{} is stale; look at what changed, then run SPOOKY_BLESS=1 cargo test -p spooky-tests \
         --test config\n--- kept\n{kept}\n--- now\n{wanted}",
        path.display()
    ))
}
