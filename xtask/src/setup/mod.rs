//! `setup [--check] [--build|--bench]`: finds out what a build or a test run lacks, says what and why, and
//! installs it. Does nothing in well under a second when all is there. Imports `command` only.
//!
//! Nothing is installed that the calling command does not need: `run` asks for [`Scope::Build`],
//! `test` for [`Scope::Test`], `bench` for [`Scope::Bench`].

mod clients;
mod tools;

use crate::command::{Failure, Privilege, output, say, step, which};
use std::process::Command;
use tools::Need;

pub(crate) use clients::{are_there as has_clients, ensure as ensure_clients, python};
pub(crate) use tools::python_with_venv;

/// How much is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// To compile spooky.
    Build,
    /// To compile it and to run its tests: network tools and HTTP/3 clients as well.
    Test,
    /// To compile it and to measure it: a backend, its generator, a simulator that counts.
    Bench,
}

impl Scope {
    /// Whether what is needed for `part` is needed here.
    fn includes(self, part: Self) -> bool {
        part == Self::Build || part == self
    }
}

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let mut check = false;
    let mut scope = Scope::Test;
    for argument in arguments {
        match argument.as_str() {
            "--check" => check = true,
            "--build" => scope = Scope::Build,
            "--bench" => scope = Scope::Bench,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    if check {
        return report(scope);
    }
    ensure(scope)?;
    say("setup: everything is there");
    Ok(())
}

/// Installs what `scope` lacks; silent when nothing is missing.
///
/// # Errors
/// Neither root nor sudo (the message has the one command to run), or an installation failed.
pub(crate) fn ensure(scope: Scope) -> Result<(), Failure> {
    let missing = tools::missing(scope);
    if !missing.is_empty() {
        install(&missing)?;
        let still = tools::missing(scope);
        if !still.is_empty() {
            return Err(Failure::new(format!("still missing after installing: {}", names(&still))));
        }
    }
    if scope == Scope::Test && !clients::are_there() {
        clients::ensure()?;
    }
    for need in tools::wanted(scope) {
        // Not every release has it, and nobody is asked for a password for it alone.
        let here = Privilege::find() == Privilege::Root && has_candidate(need.package);
        if !here || install(&[need]).is_err() {
            say(format_args!("setup: no {}, {}: its tests are skipped", need.name, need.why));
        }
    }
    Ok(())
}

/// Whether the Python clients can be made without installing anything on the system.
pub(crate) fn can_make_clients() -> bool {
    tools::python_with_venv().is_some()
}

/// `--check`: what is there and what is not, one line each.
fn report(scope: Scope) -> Result<(), Failure> {
    let mut lacking = Vec::new();
    for need in tools::needed(scope) {
        let found = need.is_there();
        let mark = match (found, need.optional) {
            (true, _) => "ok     ",
            (false, true) => "without",
            (false, false) => "MISSING",
        };
        say(format_args!("{mark} {:<22} {}", need.name, need.why));
        if !found && !need.optional {
            lacking.push(need);
        }
    }
    let clients = scope != Scope::Test || clients::are_there();
    if scope == Scope::Test {
        let mark = if clients { "ok     " } else { "MISSING" };
        say(format_args!("{mark} {:<22} {}", clients::NAME, clients::WHY));
    }
    if lacking.is_empty() && clients {
        return Ok(());
    }
    let mut remedy = "`cargo xtask setup` installs what is missing".to_owned();
    if !lacking.is_empty() {
        remedy = format!("{remedy}; by hand: {}", by_hand(&packages(&lacking)));
    }
    Err(Failure::new(remedy))
}

fn install(missing: &[&Need]) -> Result<(), Failure> {
    say("setup: this is missing:");
    for need in missing {
        say(format_args!("  {:<22} {} (package {})", need.name, need.why, need.package));
    }
    let hand = by_hand(&packages(missing));
    if which("apt-get").is_none() {
        return Err(Failure::new(format!(
            "no apt-get on this machine; install these by your own package manager, the names are \
             Debian's: {}",
            packages(missing).join(" ")
        )));
    }
    let privilege = Privilege::find();
    let (Some(mut update), Some(mut install)) =
        (privilege.command("env"), privilege.command("env"))
    else {
        return Err(Failure::new(format!("neither root nor sudo here; as root run: {hand}")));
    };
    if privilege == Privilege::Sudo {
        say("setup: asking sudo for the right to install packages");
    }
    update.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "update"]);
    if step("package lists", &mut update).is_err() {
        // One broken third-party source fails the whole update; the lists of the others are new.
        say("    some package list could not be read; going on with what there is");
    }
    let chosen: Vec<String> = packages(missing).into_iter().map(choose).collect();
    install
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "install", "-y"])
        .args(["--no-install-recommends", "-o", "DPkg::Lock::Timeout=120"])
        .args(&chosen);
    step(&format!("installing {}", chosen.join(" ")), &mut install)
        .map_err(|failure| Failure::new(format!("{failure}\nby hand, as root: {hand}")))
}

/// The package as it is called on this release: libclang-dev follows the release's default LLVM and
/// is on every Debian and Ubuntu, but not in every mirror's selection.
fn choose(package: &str) -> String {
    if package != "libclang-dev" || has_candidate(package) {
        return package.to_owned();
    }
    let listed = output(Command::new("apt-cache").args(["pkgnames", "libclang-"]));
    newest_libclang(&listed.unwrap_or_default()).unwrap_or_else(|| package.to_owned())
}

fn has_candidate(package: &str) -> bool {
    let policy = output(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"));
    policy.is_some_and(|text| {
        text.lines()
            .filter_map(|line| line.trim().strip_prefix("Candidate:"))
            .any(|candidate| candidate.trim() != "(none)")
    })
}

fn newest_libclang(names: &str) -> Option<String> {
    let version =
        |name: &str| name.strip_prefix("libclang-")?.strip_suffix("-dev")?.parse::<u32>().ok();
    let newest = names.lines().filter_map(|name| version(name.trim())).max()?;
    Some(format!("libclang-{newest}-dev"))
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn by_hand(packages: &[&str]) -> String {
    format!("apt-get install -y --no-install-recommends {}", packages.join(" "))
}

fn names(needs: &[&Need]) -> String {
    needs.iter().map(|need| need.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_libclang_is_chosen_by_number() {
        let names = "libclang-14-dev\nlibclang-9-dev\nlibclang-common-22-dev\nlibclang-22-dev\n";
        assert_eq!(newest_libclang(names).as_deref(), Some("libclang-22-dev"));
        assert_eq!(newest_libclang("libclang1-14\n"), None);
    }

    #[test]
    fn a_package_is_named_once() {
        let all = tools::needed(Scope::Test);
        let packages = packages(&all);
        let mut unique = packages.clone();
        unique.dedup();
        assert_eq!(packages, unique);
        assert!(by_hand(&packages).contains(" cmake "), "{packages:?}");
    }

    #[test]
    fn measuring_needs_no_test_clients() {
        let bench: Vec<&str> = tools::needed(Scope::Bench).iter().map(|need| need.name).collect();
        assert!(bench.contains(&"nghttpd") && bench.contains(&"cmake"), "{bench:?}");
        assert!(!bench.contains(&"python3 venv"), "{bench:?}");
        assert!(!tools::needed(Scope::Test).iter().any(|need| need.name == "nghttpd"));
    }

    #[test]
    fn building_needs_no_test_tools() {
        let build = tools::needed(Scope::Build);
        assert!(build.iter().all(|need| need.scope == Scope::Build));
        assert!(tools::needed(Scope::Test).len() > build.len());
    }
}
