//! Micro benches of what every request or packet passes through in user space: `cargo bench -p spooky-tests --bench micro`
//! (words after `--` choose those whose names have one of them). Nanoseconds go to stdout, and to `bench/micro.json` below
//! the target directory for the tables of `cargo xtask bench`.

mod balance;
mod codec;
mod packet;
mod route;
mod stopwatch;

use stopwatch::Stopwatch;

fn main() {
    let mut stopwatch = Stopwatch::new(std::env::args().skip(1));
    codec::benches(&mut stopwatch);
    route::benches(&mut stopwatch);
    balance::benches(&mut stopwatch);
    packet::benches(&mut stopwatch);
    stopwatch.write();
}
