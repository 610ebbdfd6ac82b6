//! Micro benches of what every request or packet passes through in user space: `cargo bench -p spooky-tests --bench micro`
//! (words after `--` choose among them; `--quick` is shorter). Medians in nanoseconds go to `bench/micro.json` below the
//! target directory, for the tables of `cargo xtask bench`.

mod balance;
mod codec;
mod packet;
mod report;
mod route;

use criterion::Criterion;

fn main() {
    let dir = report::dir();
    let mut criterion =
        Criterion::default().output_directory(&dir.join("criterion")).configure_from_args();
    codec::benches(&mut criterion);
    route::benches(&mut criterion);
    balance::benches(&mut criterion);
    packet::benches(&mut criterion);
    criterion.final_summary();
    report::write(&dir);
}
