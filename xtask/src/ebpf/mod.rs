//! `build-ebpf [--check]`: the eBPF object in spooky-user/bpf/ and whether it belongs to its source.
//!
//! Two toolchain routes lead to the object: Debian's rustc-web with its prebuilt `core` for `bpfel-unknown-none`, or
//! rustup's nightly with rust-src. Beside the object lies a manifest: a digest of the sources it was built from, one
//! of the object itself, and the toolchain. `--check` compares the digests everywhere, and where the same toolchain is
//! installed it builds again and compares the code. Builds run in a staged copy ([`stage`]), so that the same source
//! and toolchain give the same octets in every checkout.

mod section;
mod stage;

use section::code_sections;
use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest as _, Sha256};

const OBJECT: &str = "spooky-user/bpf/spooky.bpf.o";
const MANIFEST: &str = "spooky-user/bpf/spooky.bpf.manifest";
const TARGET: &str = "bpfel-unknown-none";

/// Debian's compiler, by path: rustup's comes first in most people's PATH.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";

/// Folders of the object's source, and in them the one file the kernel side does not compile.
const SOURCES: [&str; 2] = ["spooky-ebpf", "spooky-common/src"];
const NOT_COMPILED: &str = "spooky-common/src/pod.rs";

const INSTALL: &str = "\
install one of
  Debian, Ubuntu  apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev zlib1g-dev libzstd-dev
                  LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version 0.13.0 --no-default-features --features llvm-22
  rustup          rustup toolchain install nightly --component rust-src --component llvm-tools
                  cargo install bpf-linker
the committed object is used as it is until then; nothing but a change of the kernel programs needs this";

/// A compiler for the kernel programs.
#[derive(Debug)]
enum Route {
    Debian,
    Rustup,
}

/// What the manifest says.
#[derive(Debug, PartialEq, Eq)]
struct Manifest {
    sources: String,
    object: String,
    toolchain: String,
}

/// Why the object could not be built or does not belong to its source.
#[derive(Debug)]
pub(crate) enum Error {
    NoToolchain { missing: Vec<String> },
    Read { path: PathBuf, error: io::Error },
    Write { path: PathBuf, error: io::Error },
    Run { command: String, error: io::Error },
    Failed { command: String },
    ManifestIncomplete,
    SourcesChanged,
    ObjectChanged,
    CodeDiffers { sections: Vec<String> },
    NotElf { path: PathBuf },
    NotStaged { path: PathBuf, missing: &'static str },
}

/// Builds the object, or with `check` tells whether the committed one belongs to the source.
///
/// # Errors
/// [`Error`]; its text says what to do.
pub(crate) fn run(check: bool) -> Result<(), Error> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    if check { check_object(root) } else { build_object(root) }
}

fn build_object(root: &Path) -> Result<(), Error> {
    let route = Route::find()?;
    let toolchain = route.versions()?;
    println!("build-ebpf: {toolchain}");
    let built = route.build(root)?;
    let object = root.join(OBJECT);
    let octets = read(&built)?;
    write(&object, &octets)?;
    let manifest = Manifest { sources: digest_sources(root)?, object: digest(&octets), toolchain };
    write(&root.join(MANIFEST), manifest.to_string().as_bytes())?;
    println!("build-ebpf: wrote {OBJECT}, {} octets", octets.len());
    Ok(())
}

fn check_object(root: &Path) -> Result<(), Error> {
    let manifest = Manifest::read(&root.join(MANIFEST))?;
    let committed = read(&root.join(OBJECT))?;
    if manifest.sources != digest_sources(root)? {
        return Err(Error::SourcesChanged);
    }
    if manifest.object != digest(&committed) {
        return Err(Error::ObjectChanged);
    }
    let route = match Route::find() {
        Ok(route) => route,
        Err(Error::NoToolchain { .. }) => {
            println!("build-ebpf: source and object belong together (no toolchain to build again)");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let toolchain = route.versions()?;
    if toolchain != manifest.toolchain {
        println!("build-ebpf: source and object belong together by their digests");
        println!(
            "build-ebpf: code not compared: built with {}, here is {toolchain}",
            manifest.toolchain
        );
        return Ok(());
    }
    let built = route.build(root)?;
    let fresh = code_sections(&read(&built)?).ok_or(Error::NotElf { path: built })?;
    let kept = code_sections(&committed).ok_or(Error::NotElf { path: root.join(OBJECT) })?;
    let mut sections: Vec<String> = fresh
        .keys()
        .chain(kept.keys())
        .filter(|name| fresh.get(*name) != kept.get(*name))
        .cloned()
        .collect();
    sections.sort();
    sections.dedup();
    if !sections.is_empty() {
        return Err(Error::CodeDiffers { sections });
    }
    println!(
        "build-ebpf: source and object belong together; built again, {} code sections equal",
        kept.len()
    );
    Ok(())
}

// === impl Route ===

impl Route {
    fn find() -> Result<Self, Error> {
        let mut missing = Vec::new();
        if !found("bpf-linker") {
            missing.push("bpf-linker".to_owned());
        }
        if strip_tool().is_none() {
            missing.push("llvm-strip (of any LLVM)".to_owned());
        }
        let debian = debian_core();
        let rustup = !debian && rustup_source();
        if !debian && !rustup {
            missing.push(format!(
                "`core` for {TARGET}: Debian's libstd-rust-web-dev-bpf or rustup's rust-src"
            ));
        }
        if !missing.is_empty() {
            return Err(Error::NoToolchain { missing });
        }
        Ok(if debian { Self::Debian } else { Self::Rustup })
    }

    /// One line that tells whether two builds can be compared.
    fn versions(&self) -> Result<String, Error> {
        let rustc = match self {
            Self::Debian => output(Command::new(DEBIAN_RUSTC).arg("-vV"))?,
            Self::Rustup => {
                output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]))?
            }
        };
        let name = rustc.lines().next().unwrap_or("rustc").to_owned();
        let llvm =
            rustc.lines().find(|line| line.starts_with("LLVM version")).unwrap_or("LLVM unknown");
        let linker = output(Command::new("bpf-linker").arg("--version"))?;
        Ok(format!("{name}, {llvm}, {}", linker.trim()))
    }

    /// Compiles, strips the DWARF (BTF stays) and returns where the object is.
    fn build(&self, root: &Path) -> Result<PathBuf, Error> {
        let target_dir = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("target"), |dir| root.join(dir))
            .join("ebpf");
        let staged = target_dir.join("source");
        stage::write_tree(root, &staged)?;
        // Unpacked first: the flags name the folders of the registries.
        status(self.cargo(&staged).args(["fetch", "--locked"]))?;
        let mut build = self.cargo(&staged);
        build.args(["build", "--release", "--locked", "--target", TARGET]);
        if matches!(self, Self::Rustup) {
            build.args(["-Z", "build-std=core"]);
        }
        build
            .env("CARGO_TARGET_DIR", &target_dir)
            .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&staged).join("\u{1f}"));
        status(&mut build)?;
        let linked = target_dir.join(TARGET).join("release/spooky");
        let stripped = target_dir.join("spooky.bpf.o");
        let strip =
            strip_tool().ok_or(Error::NoToolchain { missing: vec!["llvm-strip".to_owned()] })?;
        status(Command::new(strip).arg("--strip-debug").arg("-o").arg(&stripped).arg(&linked))?;
        Ok(stripped)
    }

    /// Cargo of this route in `folder`, without the caller's settings.
    fn cargo(&self, folder: &Path) -> Command {
        let mut cargo = match self {
            Self::Debian => {
                // Stable features are not enough for a target without std; Debian's compiler is a release.
                let mut cargo = Command::new(DEBIAN_CARGO);
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
            Self::Rustup => {
                let mut cargo = Command::new("rustup");
                cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
                cargo
            }
        };
        cargo
            .current_dir(folder)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_BUILD_TARGET")
            .env_remove("RUSTC_WRAPPER");
        cargo
    }
}

/// The flags of every build. Paths are rewritten, so that the object does not depend on where it was built.
fn rustflags(staged: &Path) -> Vec<String> {
    let mut flags: Vec<String> = [
        "-Clinker=bpf-linker",
        "-Cdebuginfo=2",
        // Instruction set 3 (32-bit subregisters, kernel 5.1) and unaligned loads: what the verifier allows on every
        // 64-bit target with efficient unaligned access, x86-64 and arm64 among them.
        "-Ctarget-cpu=v3",
        "-Clink-arg=--btf",
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access",
    ]
    .map(str::to_owned)
    .into();
    flags.push(format!("--remap-path-prefix={}=.", staged.display()));
    // Dependencies: one folder a registry, named by its host.
    let registries = cargo_home().and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    for registry in registries.into_iter().flatten().flatten() {
        flags.push(format!("--remap-path-prefix={}=crates", registry.path().display()));
    }
    flags
}

fn cargo_home() -> Option<PathBuf> {
    std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

fn debian_core() -> bool {
    output(Command::new(DEBIAN_RUSTC).args(["--print", "sysroot"]))
        .is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).is_dir())
        && Path::new(DEBIAN_CARGO).exists()
}

fn rustup_source() -> bool {
    output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_ok_and(|sysroot| {
            Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
        })
}

fn strip_tool() -> Option<PathBuf> {
    let mut names: Vec<String> = vec!["llvm-strip".to_owned()];
    names.extend((15..=24).rev().map(|version| format!("llvm-strip-{version}")));
    let in_path = names.iter().find(|name| found(name)).map(PathBuf::from);
    in_path.or_else(|| {
        let sysroot =
            output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
                .ok()?;
        let tools = Path::new(sysroot.trim()).join("lib/rustlib");
        let hosts = fs::read_dir(tools).ok()?;
        hosts.flatten().map(|host| host.path().join("bin/llvm-strip")).find(|tool| tool.exists())
    })
}

fn found(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

// === digests ===

/// SHA-256 over the paths and contents of the sources, in order of path.
fn digest_sources(root: &Path) -> Result<String, Error> {
    let mut files = Vec::new();
    for folder in SOURCES {
        walk(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for path in files {
        let name = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().replace('\\', "/");
        if name == NOT_COMPILED {
            continue;
        }
        let octets = read(&path)?;
        let compiled = before_tests(&octets);
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(&name);
        hasher.update((compiled.len() as u64).to_le_bytes());
        hasher.update(compiled);
    }
    Ok(hex(&hasher.finalize()))
}

/// A file without its unit tests, which stand last and are not compiled for the kernel.
fn before_tests(octets: &[u8]) -> &[u8] {
    let marker = b"\n#[cfg(test)]\nmod tests {";
    let at = octets.windows(marker.len()).position(|window| window == marker);
    at.and_then(|at| octets.get(..at)).unwrap_or(octets)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let entries =
        fs::read_dir(folder).map_err(|error| Error::Read { path: folder.to_owned(), error })?;
    for entry in entries {
        let path = entry.map_err(|error| Error::Read { path: folder.to_owned(), error })?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                walk(&path, files)?;
            }
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn digest(octets: &[u8]) -> String {
    hex(&Sha256::digest(octets))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

// === impl Manifest ===

impl Manifest {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(&read(path)?).into_owned();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().to_owned())
        };
        let (Some(sources), Some(object), Some(toolchain)) =
            (field("sources:"), field("object:"), field("toolchain:"))
        else {
            return Err(Error::ManifestIncomplete);
        };
        Ok(Self { sources, object, toolchain })
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "# Written by `cargo xtask build-ebpf`: what spooky.bpf.o was built from. SHA-256."
        )?;
        writeln!(f, "sources: {}", self.sources)?;
        writeln!(f, "object: {}", self.object)?;
        writeln!(f, "toolchain: {}", self.toolchain)
    }
}

// === processes and files ===

fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.output().map_err(|error| Error::Run { command: text(command), error })?;
    if !output.status.success() {
        return Err(Error::Failed { command: text(command) });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn status(command: &mut Command) -> Result<(), Error> {
    let status = command.status().map_err(|error| Error::Run { command: text(command), error })?;
    if status.success() { Ok(()) } else { Err(Error::Failed { command: text(command) }) }
}

fn text(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy().into_owned()));
    words.join(" ")
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|error| Error::Read { path: path.to_owned(), error })
}

fn write(path: &Path, octets: &[u8]) -> Result<(), Error> {
    fs::write(path, octets).map_err(|error| Error::Write { path: path.to_owned(), error })
}

// === impl Error ===

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoToolchain { missing } => {
                write!(f, "missing: {}; {INSTALL}", missing.join(", "))
            }
            Self::Read { path, error } => write!(f, "cannot read {}: {error}", path.display()),
            Self::Write { path, error } => write!(f, "cannot write {}: {error}", path.display()),
            Self::Run { command, error } => write!(f, "cannot run `{command}`: {error}"),
            Self::Failed { command } => write!(f, "`{command}` failed"),
            Self::ManifestIncomplete => {
                write!(f, "{MANIFEST} is incomplete; run `cargo xtask build-ebpf`")
            }
            Self::SourcesChanged => write!(
                f,
                "spooky-ebpf or spooky-common changed since {OBJECT} was built; run `cargo xtask build-ebpf` and \
                 commit the object with the source"
            ),
            Self::ObjectChanged => write!(
                f,
                "{OBJECT} is not the one its manifest describes; run `cargo xtask build-ebpf`"
            ),
            Self::CodeDiffers { sections } => write!(
                f,
                "{OBJECT} differs from a fresh build in {}; run `cargo xtask build-ebpf` and commit the result",
                sections.join(", ")
            ),
            Self::NotElf { path } => {
                write!(f, "{} is not a 64-bit little-endian ELF file", path.display())
            }
            Self::NotStaged { path, missing } => write!(
                f,
                "{} no longer says `{missing}`; teach xtask/src/ebpf/stage.rs its new form",
                path.display()
            ),
        }
    }
}

impl From<Error> for String {
    fn from(error: Error) -> Self {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_tests_do_not_count_as_source() {
        let source = b"code\n\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(before_tests(source), b"code\n");
        assert_eq!(before_tests(b"code\n"), b"code\n");
    }

    #[test]
    fn a_manifest_reads_back() {
        let manifest = Manifest {
            sources: digest(b"a"),
            object: digest(b"b"),
            toolchain: "rustc 1.96.0, LLVM 22".to_owned(),
        };
        let path = std::env::temp_dir().join(format!("spooky-manifest-{}", std::process::id()));
        write(&path, manifest.to_string().as_bytes()).expect("write");
        assert_eq!(Manifest::read(&path).expect("read"), manifest);
        write(&path, b"sources: 1\n").expect("write");
        assert!(matches!(Manifest::read(&path), Err(Error::ManifestIncomplete)));
        fs::remove_file(&path).expect("remove");
    }
}
