//! `fuzz`: the targets of `tests/fuzz` under libFuzzer, led by coverage and watched by AddressSanitizer. What it finds new stays
//! below the target directory; what fails is told with what to do about it. Imports `command` and `sanitized`.

use crate::command::{Failure, cannot_start, root, say, step, target_dir};
use crate::sanitized::{self, nightly_cargo};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// For each target, unless told otherwise.
const TIME: Duration = Duration::from_secs(60);
/// No input is longer; each target cuts off what is more than it wants.
const INPUT_MAX: usize = 8192;

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let all = targets()?;
    let (mut chosen, mut time) = (Vec::new(), TIME);
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--time" => time = duration(arguments.next().map_or("", String::as_str))?,
            name if all.iter().any(|target| target == name) => chosen.push(name.to_owned()),
            other if other.starts_with('-') => return Err(Failure::unknown_argument(other)),
            other => {
                let names = all.join(", ");
                return Err(Failure::usage(format!("`{other}` is no target; there are {names}")));
            }
        }
    }
    if chosen.is_empty() {
        chosen = all;
    }
    each(&chosen, time)
}

/// Builds, and fuzzes all targets one after the other.
///
/// # Errors
/// The build failed, or a target did.
pub(crate) fn each(chosen: &[String], time: Duration) -> Result<(), Failure> {
    let mut build = nightly_cargo("build")?;
    build.args(["--manifest-path", "tests/fuzz/libfuzzer/Cargo.toml"]);
    step("build for libFuzzer", &mut build)?;
    let mut failed = Vec::new();
    for target in chosen {
        say(format_args!("==> fuzz {target} for {time:?}"));
        if !one(target, time)? {
            failed.push(target.as_str());
        }
    }
    if failed.is_empty() {
        say(format_args!("{} targets, no failure", chosen.len()));
        return Ok(());
    }
    Err(Failure::new(format!("failed: {}", failed.join(", "))))
}

/// Every target has a corpus.
///
/// # Errors
/// There are no corpora.
pub(crate) fn targets() -> Result<Vec<String>, Failure> {
    let folder = root().join("tests/fuzz/corpus");
    let entries = folder
        .read_dir()
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", folder.display())))?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Fuzzes one target; whether nothing failed.
fn one(target: &str, time: Duration) -> Result<bool, Failure> {
    let found = target_dir().join("fuzz-corpus").join(target);
    let crashes = target_dir().join("fuzz-crashes");
    for folder in [&found, &crashes] {
        std::fs::create_dir_all(folder)
            .map_err(|error| Failure::new(format!("cannot make {}: {error}", folder.display())))?;
    }
    let before = kept(&crashes, target);
    let mut fuzz = Command::new(sanitized::programs().join("spooky-fuzz"));
    fuzz.current_dir(root())
        .env("SPOOKY_FUZZ_TARGET", target)
        // Reports belong on this screen.
        .env("ASAN_OPTIONS", sanitized::OPTIONS)
        .args([found.as_path(), &root().join("tests/fuzz/corpus").join(target)])
        .arg(format!("-max_total_time={}", time.as_secs().max(1)))
        .arg(format!("-max_len={INPUT_MAX}"))
        .arg(format!("-artifact_prefix={}/{target}-", crashes.display()))
        .args(["-timeout=30", "-rss_limit_mb=4096", "-detect_leaks=0", "-verbosity=1"])
        .args(["-use_value_profile=1", "-print_final_stats=1"]);
    let status = fuzz.status().map_err(|error| cannot_start(&fuzz, &error))?;
    for crash in kept(&crashes, target).iter().filter(|crash| !before.contains(crash)) {
        say(format_args!(
            "{0}\n  once it is understood: cp {0} tests/fuzz/corpus/{target}/WHAT-IT-SHOWS",
            crash.display()
        ));
    }
    Ok(status.success())
}

/// Inputs that have failed.
fn kept(crashes: &Path, target: &str) -> Vec<PathBuf> {
    let entries = crashes.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    let prefix = format!("{target}-");
    let ours = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    entries.filter(ours).collect()
}

/// `90s`, `10m`, `1h`.
///
/// # Errors
/// It is none of these.
pub(crate) fn duration(text: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::usage(format!("`{text}` is no time; write 90s, 10m or 1h"));
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| text.strip_suffix(name).map(|number| (number, unit)))
        .ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_no_number| wrong())?;
    Ok(Duration::from_secs(number.saturating_mul(*unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("90s").ok(), Some(Duration::from_secs(90)));
        assert_eq!(duration("2h").ok(), Some(Duration::from_secs(7200)));
        for wrong in ["", "9", "s", "1d", "-1s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_corpus_is_a_target() {
        let list = std::fs::read_to_string(root().join("tests/fuzz/targets/mod.rs"));
        let list = list.expect("the list of targets");
        for target in targets().expect("corpora") {
            assert!(list.contains(&format!("{target}: ")), "{target}");
        }
    }
}
