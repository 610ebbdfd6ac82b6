//! `cargo xtask`: everything a person does with spooky at a desk. This file only dispatches; each
//! command is a module of its name. No module here may need more than Rust and a C linker to compile.

mod bench;
mod ci;
mod command;
mod ebpf;
mod fuzz;
mod nightly;
mod run;
mod sanitized;
mod setup;
mod test;
mod tidy;

use std::process::ExitCode;

use command::Failure;

const HELP: &str = "\
cargo xtask <command>

Using it
  run              Build spooky, make a development certificate, start two sample backends and
                   spooky in front of them, and print how to try it. Ctrl-C ends all of it.
                     --no-sudo     do not ask for root; serve without the kernel programs
                     --release     build with full optimisation (several minutes more, once)
  test             Build everything and run every test. The last line is
                   `N passed, M failed, K skipped`. Words after `--` go to the test binaries.
                     --no-sudo     skip what needs root, and say so
                     --soak        at full size, with every seed: hours

Getting ready (run and test do this by themselves)
  setup            Install what is missing to build and to test, after saying what and why.
                     --check       only tell; exit 1 if something is missing
                     --build       only what building needs, without the test clients

Measuring it (as root)
  bench            spooky beside Envoy, Caddy and the floor, in interleaved rounds; about 25 minutes.
                     --quick          a few scenarios and rounds, in less than 3 minutes
                     --rounds N       rounds that have to count (5; quick: 2)
                     --only A,B       only these scenarios; `--only list` names them
                     --peer NAME=FILE one more proxy: tests/load/peers/README.md
                     --json FILE      the result goes there as well as to target/bench/
                     --against FILE   what moved by more than the noise since that result
                     --write-docs     write docs/performance.md and its charts
                     --kernel         plain sockets, XDP and AF_XDP beside each other instead, and
                                      floods; twelve minutes; --write-docs writes
                                      docs/performance-kernel.md
                     --gate           instructions a request instead, by callgrind, against
                                      tests/load/baseline.json; two minutes; needs no root
                     --gate --bless   write that baseline; the commit says why

Looking for defects (with a nightly compiler; each builds everything once more, ten minutes)
  fuzz [TARGET]    The targets of tests/fuzz under libFuzzer and AddressSanitizer.
                     --time 60s    for each target
  nightly          Units, corpora and attacks with AddressSanitizer; every fuzz target
                   for longer; the table of attacks at full size. Hours.
                     --only A,B    of asan, fuzz, soak
                     --time 30m    for each fuzz target

Working on it
  ci               Every gate in order: format, lints, layers and sizes, eBPF object, docs,
                   licences, tests.
                     --gate        and at the end `bench --gate`, which builds for release
  tidy             Layers, file and function size, panics, unsafe, links, top level.
  build-ebpf       Rebuild spooky-user/bpf/ from spooky-ebpf/.
                     --check       only tell whether source and object belong together

When something is wrong
  `cargo xtask setup --check`       is a tool or library missing?
  `cargo run -- check FILE`         is the configuration right? Prints every error at once.
  `curl 127.0.0.1:9901/health`      is a running spooky serving?
  `curl 127.0.0.1:9901/metrics`     what is it doing? Each metric has its meaning above it.

Exit codes: 0 done, 1 something failed (the last line says what), 2 wrong arguments.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) = match arguments.split_first() {
        Some((name, rest)) => (name.as_str(), rest),
        None => ("help", &[][..]),
    };
    let outcome = match name {
        "setup" => setup::run(rest),
        "build-ebpf" => build_ebpf(rest),
        "run" => run::run(rest),
        // Not for people: `run` starts itself again under sudo with it.
        run::SERVE => run::serve(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "ci" => ci::run(rest),
        "tidy" => tidy::run(rest),
        "fuzz" => fuzz::run(rest),
        "nightly" => nightly::run(rest),
        "help" | "--help" | "-h" => {
            command::say(HELP.trim_end());
            Ok(())
        }
        _ => Err(Failure::usage(format!("there is no command `{name}`"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_told() {
                eprintln!("xtask {name}: {failure}");
            }
            ExitCode::from(failure.exit_code())
        }
    }
}

fn build_ebpf(arguments: &[String]) -> Result<(), Failure> {
    let mut check = false;
    for argument in arguments {
        match argument.as_str() {
            "--check" => check = true,
            other => return Err(Failure::unknown_argument(other)),
        }
    }
    ebpf::run(check).map_err(Failure::new)
}
