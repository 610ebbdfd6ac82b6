//! `bench`: what spooky costs, beside other proxies and beside what no proxy can be cheaper than. Parses the arguments
//! and hands over to one of the [`Part`]s; each is a module of its own. Nothing of spooky is linked in: programs are
//! started, and their output is read.

mod options;
mod place;
mod process;

use crate::command::Failure;
use options::{Options, Part};

pub(crate) use options::HELP;

pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let options = Options::parse(arguments)?;
    match options.part {
        Part::Load => {
            Err(Failure::new("the load part is being moved here from tests/load/compare.py"))
        }
    }
}
