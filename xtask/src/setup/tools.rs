//! What has to be on the machine, why, and which Debian package brings it. Looks at files only:
//! starting every tool to ask for its version would cost more than the whole check may take.

use super::{Scope, clients};
use crate::command::{output, which};
use std::path::{Path, PathBuf};
use std::process::Command;

/// One thing that has to be there.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) name: &'static str,
    pub(crate) why: &'static str,
    pub(crate) package: &'static str,
    pub(crate) scope: Scope,
    /// Without it some tests say that they are skipped, and nothing else is lost.
    pub(crate) optional: bool,
    found: Found,
}

/// How to see that it is there.
#[derive(Debug)]
enum Found {
    Program(&'static str),
    Libclang,
    PythonVenv,
}

const fn program(
    name: &'static str,
    package: &'static str,
    scope: Scope,
    why: &'static str,
) -> Need {
    Need { name, why, package, scope, optional: false, found: Found::Program(name) }
}

const fn client(name: &'static str, package: &'static str, why: &'static str) -> Need {
    let found = Found::Program(name);
    Need { name, why, package, scope: Scope::Test, optional: true, found }
}

const NEEDS: &[Need] = &[
    program("c++", "g++", Scope::Build, "compiles BoringSSL, quiche's TLS library"),
    program("cmake", "cmake", Scope::Build, "configures the BoringSSL build"),
    program("make", "make", Scope::Build, "runs the BoringSSL build"),
    program("git", "git", Scope::Build, "applies patches to BoringSSL while it is built"),
    Need {
        name: "libclang",
        why: "reads BoringSSL's headers (bindgen)",
        package: "libclang-dev",
        scope: Scope::Build,
        optional: false,
        found: Found::Libclang,
    },
    program("ip", "iproute2", Scope::Bench, "makes the network namespaces of the bench"),
    program("nghttpd", "nghttp2-server", Scope::Bench, "the backend of the bench"),
    program("h2load", "nghttp2-client", Scope::Bench, "measures that backend by itself"),
    program("valgrind", "valgrind", Scope::Bench, "counts instructions and allocations"),
    program("ip", "iproute2", Scope::Test, "makes the network namespaces of the kernel tests"),
    program("ethtool", "ethtool", Scope::Test, "sets queues and offloads of their interfaces"),
    program("python3", "python3", Scope::Test, "runs the HTTP/3 clients that are not quiche"),
    Need {
        name: "python3 venv",
        why: "keeps those clients in target/venv",
        package: "python3-venv",
        scope: Scope::Test,
        optional: false,
        found: Found::PythonVenv,
    },
    client("gtlsclient", "ngtcp2-client", "an HTTP/3 client of the matrix, on ngtcp2 and GnuTLS"),
    client("chromium", "chromium", "a browser over forced QUIC"),
];

impl Need {
    pub(crate) fn is_there(&self) -> bool {
        match self.found {
            Found::Program(name) => which(name).is_some(),
            Found::Libclang => has_libclang(),
            // Starting Python takes longer than all other checks: not once the clients are there.
            Found::PythonVenv => clients::are_there() || python_with_venv().is_some(),
        }
    }
}

/// All that `scope` needs.
pub(crate) fn needed(scope: Scope) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| scope.includes(need.scope)).collect()
}

pub(crate) fn missing(scope: Scope) -> Vec<&'static Need> {
    needed(scope).into_iter().filter(|need| !need.optional && !need.is_there()).collect()
}

/// What is not there and would be used if it were.
pub(crate) fn wanted(scope: Scope) -> Vec<&'static Need> {
    needed(scope).into_iter().filter(|need| need.optional && !need.is_there()).collect()
}

/// A Python that can make a virtual environment: the one on PATH, else the system's.
pub(crate) fn python_with_venv() -> Option<PathBuf> {
    let candidates = which("python3").into_iter().chain([PathBuf::from("/usr/bin/python3")]);
    candidates.filter(|python| python.exists()).find(|python| {
        output(Command::new(python).args(["-c", "import venv, ensurepip"])).is_some()
    })
}

/// bindgen loads libclang.so at run time and needs the compiler's own headers (stddef.h) beside it.
fn has_libclang() -> bool {
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut dirs: Vec<PathBuf> =
        ["/usr/lib", "/usr/lib64", "/usr/local/lib", &multiarch].map(PathBuf::from).into();
    dirs.extend(std::env::var_os("LIBCLANG_PATH").map(PathBuf::from));
    let llvm = children("/usr/lib").filter(|dir| starts(dir, "llvm")).map(|dir| dir.join("lib"));
    dirs.extend(llvm);
    let library = dirs.iter().flat_map(children).any(|file| is_libclang(&file));
    let headers = dirs
        .iter()
        .flat_map(|dir| children(dir.join("clang")))
        .any(|version| version.join("include/stddef.h").exists());
    library && headers
}

fn is_libclang(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    // Not libclang-cpp, which is another library.
    name == "libclang.so"
        || name.starts_with("libclang.so.")
        || (name.strip_prefix("libclang-")).is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains(".so")
        })
}

fn starts(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

fn children(dir: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    dir.as_ref().read_dir().into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_told_from_its_neighbours() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so.14.0.6"] {
            assert!(is_libclang(Path::new(name)), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclang.a", "libclang-14.a", "libclangBasic.so"] {
            assert!(!is_libclang(Path::new(name)), "{name}");
        }
    }
}
