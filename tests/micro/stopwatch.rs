//! Nanoseconds of one call. No benchmark library: each of them brings features of `serde` or `clap` that would have every
//! dependency compiled a second time for the tests (docs/codex/decisions/0008).
//!
//! A call is repeated until a sample takes a millisecond, and the median of many samples counts, so that an interruption
//! spoils a sample and not the figure. Least and greatest are told beside it.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

/// Long enough that reading the clock is nothing.
const SAMPLE: Duration = Duration::from_millis(1);
const SAMPLES: usize = 101;

/// Measures, and keeps what it measured.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    /// Empty is all.
    only: Vec<String>,
    figures: Map<String, Value>,
}

impl Stopwatch {
    /// `arguments` are words of names; cargo's own `--bench` is none.
    pub(crate) fn new(arguments: impl Iterator<Item = String>) -> Self {
        let only = arguments.filter(|word| !word.starts_with("--")).collect();
        Self { only, figures: Map::new() }
    }

    /// Whether somebody wants it: what takes long to set up may be left out.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    /// Measures `call` under `name`.
    pub(crate) fn time<R>(&mut self, name: &str, mut call: impl FnMut() -> R) {
        if !self.wants(name) {
            return;
        }
        let mut sample = |calls: u32| {
            let begun = Instant::now();
            for _ in 0..calls {
                black_box(call());
            }
            begun.elapsed()
        };
        let mut calls = 1;
        while sample(calls) < SAMPLE && calls < 1 << 30 {
            calls *= 2;
        }
        let each = |time: Duration| time.as_secs_f64() * 1e9 / f64::from(calls);
        let mut samples: Vec<f64> = (0..SAMPLES).map(|_| each(sample(calls))).collect();
        samples.sort_by(f64::total_cmp);
        let (least, median, most) = (samples[0], samples[SAMPLES / 2], samples[SAMPLES - 1]);
        println!("{name:<44} {median:>10.1} ns  ({least:.1} to {most:.1})");
        let round = |value: f64| (value * 10.0).round() / 10.0;
        let figure = json!({ "median": round(median), "min": round(least), "max": round(most) });
        self.figures.insert(name.to_owned(), figure);
    }

    /// Writes what was measured. A choice by name does not overwrite the whole.
    pub(crate) fn write(self) {
        if !self.only.is_empty() {
            return;
        }
        let dir = dir();
        let text = format!("{:#}\n", json!({ "unit": "ns", "figures": self.figures }));
        let file = dir.join("micro.json");
        if let Err(error) = fs::create_dir_all(&dir).and_then(|()| fs::write(&file, text)) {
            eprintln!("cannot write {}: {error}", file.display());
        }
    }
}

/// Beside the other results of the bench.
fn dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(target).join("bench")
}
