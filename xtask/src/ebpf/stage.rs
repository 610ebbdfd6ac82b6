//! A copy of the kernel programs' source whose build does not depend on where the checkout lies. Imports `std` and the
//! error of this folder.
//!
//! Cargo gives each crate a hash (`-C metadata`), the compiler makes symbol names of it, and their order decides the
//! order of functions and so which registers the code uses. For a crate below the workspace root Cargo hashes the path
//! from that root, for any other the absolute path (`SourceId::stable_hash`). `spooky-common` lies beside
//! `spooky-ebpf`, in no workspace with it: built in place, each checkout has its own code. Here both lie below one root.
//!
//! The compiler runs in the copy's root, where the rewritten paths (`./spooky-ebpf/src/main.rs`) exist: so the BTF holds
//! the text of the source lines.
//!
//! ```text
//! Cargo.toml         spooky-ebpf/Cargo.toml, its two paths rewritten
//! Cargo.lock         spooky-ebpf/Cargo.lock
//! .cargo/            spooky-ebpf/.cargo/
//! spooky-ebpf/src/   as in the checkout
//! spooky-common/     src/ as in the checkout, and a manifest without what only user space and tests need
//! ```

use super::{Error, read, walk, write};
use std::{fs, path::Path};

/// What the root manifest says in `spooky-ebpf/Cargo.toml`, and what in the copy.
const REWRITTEN: [(&str, &str); 2] = [
    ("path = \"src/main.rs\"", "path = \"spooky-ebpf/src/main.rs\""),
    ("path = \"../spooky-common\"", "path = \"spooky-common\""),
];

/// Makes `staged` what the sources below `root` are. A file that is right already keeps its time, so Cargo builds only
/// what changed; one whose original is gone stays, and nothing names it.
///
/// # Errors
/// [`Error::Read`], [`Error::Write`]; [`Error::NotStaged`] when a manifest lacks what the copy needs.
pub(super) fn write_tree(root: &Path, staged: &Path) -> Result<(), Error> {
    let mut files = Vec::new();
    for folder in ["spooky-ebpf/src", "spooky-common/src"] {
        walk(&root.join(folder), &mut files)?;
    }
    for file in files {
        keep(&staged.join(file.strip_prefix(root).unwrap_or(&file)), &read(&file)?)?;
    }
    for name in ["Cargo.lock", ".cargo/config.toml"] {
        keep(&staged.join(name), &read(&root.join("spooky-ebpf").join(name))?)?;
    }
    let manifest = programs_manifest(&root.join("spooky-ebpf/Cargo.toml"))?;
    keep(&staged.join("Cargo.toml"), manifest.as_bytes())?;
    let manifest = common_manifest(&root.join("Cargo.toml"))?;
    keep(&staged.join("spooky-common/Cargo.toml"), manifest.as_bytes())
}

/// The manifest of the copy's root.
fn programs_manifest(path: &Path) -> Result<String, Error> {
    let mut manifest = String::from_utf8_lossy(&read(path)?).into_owned();
    for (missing, replacement) in REWRITTEN {
        if !manifest.contains(missing) {
            return Err(Error::NotStaged { path: path.to_owned(), missing });
        }
        manifest = manifest.replace(missing, replacement);
    }
    Ok(manifest)
}

/// A manifest for `spooky-common` with the version and edition that it takes from the workspace, whose manifest is at
/// `path`. Without optional and test dependencies: as a member of the copy it would bring them into the lock file.
fn common_manifest(path: &Path) -> Result<String, Error> {
    let workspace = String::from_utf8_lossy(&read(path)?).into_owned();
    let field = |name: &'static str| {
        let mut lines = workspace.lines().skip_while(|line| *line != "[workspace.package]").skip(1);
        lines
            .by_ref()
            .take_while(|line| !line.starts_with('['))
            .find(|line| line.starts_with(name))
            .ok_or(Error::NotStaged { path: path.to_owned(), missing: name })
    };
    let (version, edition) = (field("version = ")?, field("edition = ")?);
    Ok(format!(
        "[package]\nname = \"spooky-common\"\n{version}\n{edition}\n\n[features]\nuser = []\n"
    ))
}

/// Writes a file that is not there or differs.
fn keep(path: &Path, octets: &[u8]) -> Result<(), Error> {
    if fs::read(path).is_ok_and(|present| present == octets) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)
            .map_err(|error| Error::Write { path: folder.to_owned(), error })?;
    }
    write(path, octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_names_nothing_outside_itself_and_is_not_written_twice() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("workspace");
        let staged = std::env::temp_dir().join(format!("spooky-stage-{}", std::process::id()));
        write_tree(root, &staged).expect("stage");
        for name in ["Cargo.toml", "spooky-common/Cargo.toml"] {
            let manifest = fs::read_to_string(staged.join(name)).expect("manifest");
            assert!(!manifest.contains("../"), "{name}: {manifest}");
            assert!(!manifest.contains(".workspace"), "{name}: {manifest}");
        }
        for name in ["spooky-ebpf/src/main.rs", "spooky-common/src/lib.rs"] {
            let copy = fs::read(staged.join(name)).expect("copy");
            assert_eq!(copy, fs::read(root.join(name)).expect("original"), "{name}");
        }

        let library = staged.join("spooky-common/src/lib.rs");
        let written =
            |path: &Path| fs::metadata(path).and_then(|data| data.modified()).expect("time");
        let before = written(&library);
        fs::write(staged.join("Cargo.lock"), b"another").expect("write");
        write_tree(root, &staged).expect("stage again");
        assert_eq!(written(&library), before);
        let lock = fs::read(root.join("spooky-ebpf/Cargo.lock")).expect("lock");
        assert_eq!(fs::read(staged.join("Cargo.lock")).expect("copy"), lock);
        fs::remove_dir_all(&staged).expect("remove");
    }

    #[test]
    fn a_manifest_of_another_form_is_refused() {
        let path = std::env::temp_dir().join(format!("spooky-form-{}.toml", std::process::id()));
        fs::write(&path, "[workspace.package]\nversion = \"0.1.0\"\n[x]\nedition = \"2024\"\n")
            .expect("write");
        let missing = |result: Result<String, Error>| match result {
            Err(Error::NotStaged { missing, .. }) => missing,
            other => panic!("{other:?}"),
        };
        assert_eq!(missing(common_manifest(&path)), "edition = ");
        assert_eq!(missing(programs_manifest(&path)), "path = \"src/main.rs\"");
        fs::remove_file(&path).expect("remove");
    }
}
