//! Runs a target: over its corpus, then over mutations of it for a while. A failure is kept below the target directory and
//! told with what to do about it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs};

use crate::mutate::Mutator;
use crate::targets::{self, Target};

/// How long one target mutates in the ordinary test run.
const TIME: Duration = Duration::from_millis(900);
/// Folders whose files are inputs of a target, too.
const MORE: [(&str, &str); 1] = [("config_load", "config/bad")];
/// An input that takes longer is a failure: no datagram, request or file may keep its reader that long.
const INPUT_TIME_MAX: Duration = Duration::from_secs(10);

/// Replays the corpus of a target and mutates it for about a second; `SPOOKY_FUZZ_SECONDS` makes it longer, `SPOOKY_SEED`
/// repeats a run.
pub(crate) fn ordinary(name: &str) {
    let target = targets::ALL.iter().find(|target| target.name == name).expect("it is listed");
    let corpus = corpus(target);
    for (file, input) in &corpus {
        run(target, input, &format!("{}", file.display()));
    }
    let variable = |name: &str| env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = variable("SPOOKY_SEED").unwrap_or_else(|| fastrand::u64(..));
    let time = variable("SPOOKY_FUZZ_SECONDS").map_or(TIME, Duration::from_secs);
    println!("{name}: {} inputs replayed, SPOOKY_SEED={seed}", corpus.len());
    let inputs = corpus.into_iter().map(|(_, input)| input).collect();
    let mut mutator = Mutator::new(seed, inputs, target.size_max);
    let start = Instant::now();
    let mut runs = 0_u32;
    while start.elapsed() < time {
        run(target, &mutator.next(), &format!("seed {seed}, run {runs}"));
        runs += 1;
    }
    let rate = f64::from(runs) / start.elapsed().as_secs_f64();
    println!("{name}: {runs} runs, {rate:.0} a second");
}

/// Runs one input, and says where it is when it fails.
fn run(target: &Target, input: &[u8], which: &str) {
    let guard = Failed { target, input, which };
    let start = Instant::now();
    (target.run)(input);
    let took = start.elapsed();
    assert!(took < INPUT_TIME_MAX, "{which} took {took:?}");
    std::mem::forget(guard);
}

/// Tells of an input when it is dropped, which is only when its run has panicked.
struct Failed<'i> {
    target: &'i Target,
    input: &'i [u8],
    which: &'i str,
}

impl Drop for Failed<'_> {
    fn drop(&mut self) {
        let name = self.target.name;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz");
        let number = self.input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |state, octet| {
            (state ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
        });
        let file = folder.join(format!("{name}-{number:016x}"));
        let kept = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, self.input));
        println!("{name} failed at {}: {}", self.which, self.input.escape_ascii());
        match kept {
            Ok(()) => println!(
                "kept as {0}; once it is understood: cp {0} tests/fuzz/corpus/{name}/WHAT-IT-SHOWS",
                file.display()
            ),
            Err(error) => println!("{} cannot be written: {error}", file.display()),
        }
    }
}

/// The inputs of a target, by name of file.
fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let own = format!("fuzz/corpus/{}", target.name);
    let mut inputs = Vec::new();
    let more = MORE.iter().filter(|(name, _)| *name == target.name).map(|(_, folder)| *folder);
    for folder in std::iter::once(own.as_str()).chain(more) {
        let folder = tests.join(folder);
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
        for entry in entries {
            let path = entry.expect("a readable entry").path();
            if path.is_file() && path.extension().is_none_or(|extension| extension != "txt") {
                let input = fs::read(&path).expect("a readable input");
                inputs.push((path, input));
            }
        }
    }
    inputs.sort();
    assert!(!inputs.is_empty(), "{} has no corpus", target.name);
    inputs
}
