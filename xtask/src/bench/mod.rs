//! `bench`: what spooky costs, beside other proxies and beside what no proxy can be cheaper than. Parses the arguments
//! and hands over to one of the [`Part`]s; each is a module of its own. Nothing of spooky is linked in: programs are
//! started, and their output is read.

mod gate;
mod instance;
mod kernel;
mod lab;
mod options;
mod peers;
mod place;
mod probe;
mod process;
mod recipe;
mod report;
mod results;
mod sample;
mod scenario;
mod session;
mod stats;
mod subject;

use crate::command::Failure;
use options::{Options, Part};

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = Options::parse(arguments)?;
    match options.part {
        Part::Load => session::run(&options),
        Part::Kernel => kernel::run(&options),
        Part::Gate { bless } => gate::run(&options, bless),
    }
}
