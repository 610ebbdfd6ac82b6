//! The medians that criterion left on disk, gathered in one file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Beside the other results of the bench.
pub(crate) fn dir() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root.join(target).join("bench")
}

/// Writes `micro.json`. Nothing measured (a list of names, a test run) writes nothing.
pub(crate) fn write(dir: &Path) {
    let mut medians = Map::new();
    collect(&dir.join("criterion"), &mut medians);
    if medians.is_empty() {
        return;
    }
    let text = format!("{:#}\n", json!({ "unit": "ns", "median": medians }));
    if let Err(error) = fs::write(dir.join("micro.json"), text) {
        eprintln!("cannot write {}: {error}", dir.join("micro.json").display());
    }
}

fn collect(dir: &Path, medians: &mut Map<String, Value>) {
    let Ok(entries) = dir.read_dir() else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        let path = entry.path();
        if entry.file_name() == "new" {
            medians.extend(one(&path));
        } else {
            collect(&path, medians);
        }
    }
}

/// Name and median of the benchmark whose newest run lies in `dir`.
fn one(dir: &Path) -> Option<(String, Value)> {
    let read = |name: &str| -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(dir.join(name)).ok()?).ok()
    };
    let name = read("benchmark.json")?["full_id"].as_str()?.to_owned();
    let median = read("estimates.json")?["median"]["point_estimate"].as_f64()?;
    Some((name, json!((median * 10.0).round() / 10.0)))
}
