//! What every measurement of one bench shares: programs, certificate, files of the backend, cores, the wish to stop.
//! Imports `command`, `options`, `peers` and the signals of `run`.

use super::options::{Extent, Options, Part};
use super::peers::{self, Peers};
use crate::command::{
    Failure, Privilege, cannot_start, cargo, output, root, say, step, target_dir, which,
};
use crate::run::Stop;
use crate::setup::{self, Scope};
use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Octets of the small and of the large body.
pub(crate) const SMALL: usize = 1024;
pub(crate) const LARGE: usize = 1 << 20;

/// The HTTP/2 server behind the proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Of nghttp2: 3 µs a request, so never what limits.
    Nghttpd,
    /// The project's own, which is always there.
    Origin,
}

/// Which cores are whose, as `taskset -c` takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) available: usize,
    /// Proxy of one worker, and its backend.
    pub(crate) proxy: String,
    /// Proxy of two workers.
    pub(crate) proxy_of_two: String,
    pub(crate) client: String,
}

#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) extent: Extent,
    /// Where the project's own programs are.
    pub(crate) bin: PathBuf,
    /// Everything that is written while measuring; removed at the end.
    pub(crate) dir: PathBuf,
    pub(crate) backend: Backend,
    pub(crate) cores: Cores,
    pub(crate) peers: Peers,
    pub(crate) stop: Stop,
    /// What is left for repeating rounds that do not count: a bench has to end on a busy machine too.
    pub(crate) for_repeating: Cell<Duration>,
}

impl Cores {
    pub(crate) fn of(available: usize) -> Self {
        let text = |core: usize| core.min(available.saturating_sub(1)).to_string();
        let proxy_of_two = match available {
            0 | 1 => "0".to_owned(),
            // The second worker shares the client's core: throughput says nothing then.
            2 => "0,1".to_owned(),
            _ => "0,2".to_owned(),
        };
        Self { available, proxy: text(0), proxy_of_two, client: text(1) }
    }

    /// Whether two workers have a core each that is not the client's.
    pub(crate) fn are_enough_for_two(&self) -> bool {
        self.available > 2
    }
}

impl Lab {
    /// Builds, installs and makes what is needed.
    ///
    /// # Errors
    /// Not root, a build failed, or a directory cannot be written.
    pub(crate) fn new(options: &Options) -> Result<Self, Failure> {
        match Privilege::find() {
            Privilege::Root => {}
            Privilege::Sudo => return Err(under_sudo(options)),
            Privilege::None => {
                return Err(Failure::new(
                    "the bench needs root: every proxy has a network namespace of its own",
                ));
            }
        }
        let shape = options.extent == Extent::Shape;
        if !shape {
            setup::ensure(Scope::Bench)?;
        }
        let bin = match &options.bin {
            Some(bin) => bin.clone(),
            None => build()?,
        };
        let peers =
            if shape || options.part == Part::Kernel { Peers::default() } else { peers::find() };
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        if available < 2 {
            say(
                "one core: the load generator shares it with proxy and backend, and its cost is in every time",
            );
        }
        let lab = Self {
            extent: options.extent,
            bin,
            dir: std::env::temp_dir().join(format!("spooky-bench-{}", std::process::id())),
            backend: if shape { Backend::Origin } else { Backend::Nghttpd },
            cores: Cores::of(available),
            peers,
            stop: Stop::install()?,
            for_repeating: Cell::new(for_repeating(options.extent)),
        };
        lab.furnish()?;
        Ok(lab)
    }

    fn furnish(&self) -> Result<(), Failure> {
        for program in ["ip", "taskset", "setpriv"] {
            which(program).ok_or_else(|| Failure::new(format!("`{program}` is missing")))?;
        }
        let bodies = self.www().join("bytes");
        let cannot = |error| Failure::new(format!("cannot write {}: {error}", bodies.display()));
        fs::create_dir_all(&bodies).map_err(cannot)?;
        for size in [SMALL, LARGE] {
            fs::write(bodies.join(size.to_string()), body(size)).map_err(cannot)?;
        }
        let certificate = output(Command::new(self.program("spooky-devcert")).arg(self.certs()));
        certificate.map(drop).ok_or_else(|| Failure::new("spooky-devcert failed: no certificate"))
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    pub(crate) fn www(&self) -> PathBuf {
        self.dir.join("www")
    }

    pub(crate) fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    /// # Errors
    /// Somebody asked this program to end.
    pub(crate) fn go_on(&self) -> Result<(), Failure> {
        if self.stop.asked() { Err(stopped()) } else { Ok(()) }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Nothing of it is worth a failure: it lies in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Ctrl-C or SIGTERM.
pub(crate) fn stopped() -> Failure {
    Failure::new("stopped by a signal")
}

/// Octets that do not compress and are the same in every run.
fn body(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut octets = Vec::with_capacity(size);
    while octets.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        octets.extend_from_slice(&state.to_le_bytes());
    }
    octets.truncate(size);
    octets
}

const fn for_repeating(extent: Extent) -> Duration {
    match extent {
        Extent::Full => Duration::from_secs(5 * 60),
        Extent::Quick => Duration::from_secs(20),
        Extent::Shape => Duration::ZERO,
    }
}

/// Builds and installs as the user, then becomes the same bench as root. Gives why that is not possible.
fn under_sudo(options: &Options) -> Failure {
    use std::os::unix::process::CommandExt as _;
    let ready = || -> Result<(PathBuf, PathBuf), Failure> {
        setup::ensure(Scope::Bench)?;
        let bin = build()?;
        peers::find();
        let missing = |error| Failure::new(format!("cannot make {}: {error}", bin.display()));
        fs::create_dir_all(results_dir()).map_err(missing)?;
        Ok((std::env::current_exe().map_err(missing)?, bin))
    };
    match ready() {
        Err(failure) => failure,
        Ok((xtask, bin)) => {
            say("sudo: every proxy gets a network namespace of its own");
            let mut sudo = Command::new("sudo");
            sudo.arg("-E").arg(xtask).arg("bench").args(&options.arguments).arg("--bin").arg(bin);
            let error = sudo.exec();
            cannot_start(&sudo, &error)
        }
    }
}

fn build() -> Result<PathBuf, Failure> {
    let mut build = cargo();
    build.args(["build", "--release", "--bins", "-p", "spooky-user", "-p", "spooky-tests"]);
    step("build with full optimisation", &mut build)?;
    Ok(target_dir().join("release"))
}

/// What was measured: the commit, with `+` when files differ from it.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| output(Command::new("git").current_dir(root()).args(arguments));
    let Some(hash) = git(&["rev-parse", "--short=10", "HEAD"]) else { return "unknown".to_owned() };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]);
    let mark = if changed.is_some_and(|text| !text.is_empty()) { "+" } else { "" };
    format!("{}{mark}", hash.trim())
}

/// Where results go.
pub(crate) fn results_dir() -> PathBuf {
    target_dir().join("bench")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_out() {
        let of = |available| {
            let cores = Cores::of(available);
            (cores.proxy, cores.proxy_of_two, cores.client)
        };
        let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(of(1), text("0", "0", "0"));
        assert_eq!(of(2), text("0", "0,1", "1"));
        assert_eq!(of(8), text("0", "0,2", "1"));
        assert!(!Cores::of(2).are_enough_for_two() && Cores::of(3).are_enough_for_two());
    }

    #[test]
    fn bodies_have_their_size_and_repeat() {
        assert_eq!(body(SMALL).len(), SMALL);
        assert_eq!(body(13), body(SMALL)[..13]);
    }
}
