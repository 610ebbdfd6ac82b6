//! One target under libFuzzer, the one that `SPOOKY_FUZZ_TARGET` names. Arguments are libFuzzer's. Started by
//! `cargo xtask fuzz`, which knows where the corpora are.

#![no_main]

#[path = "../oracle.rs"]
mod oracle;
#[path = "../rig.rs"]
mod rig;
#[path = "../script.rs"]
mod script;
#[path = "../targets/mod.rs"]
mod targets;
#[path = "../upstream.rs"]
mod upstream;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

use targets::Target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("SPOOKY_FUZZ_TARGET").unwrap_or_default();
    let target = targets::ALL.iter().find(|target| target.name == name);
    let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
    target.unwrap_or_else(|| panic!("SPOOKY_FUZZ_TARGET is one of {names:?}"))
});

fuzz_target!(|input: &[u8]| {
    (TARGET.run)(input.get(..TARGET.size_max).unwrap_or(input));
});
