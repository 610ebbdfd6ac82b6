//! What `bench` was asked to do. Imports `command` only.

use crate::command::Failure;
use std::path::PathBuf;

/// The parts of the bench that are started by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Proxies under load, beside the floors.
    Load,
    /// spooky in its modes against each other on a veth pair, and under floods.
    Kernel,
    /// Instructions a request against the baseline in the repository, or a new baseline.
    Gate { bless: bool },
}

/// How much of the load part is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    Full,
    /// Less than three minutes.
    Quick,
    /// Seconds: it ends and no request fails; nothing is said of time.
    Shape,
}

/// One call of `cargo xtask bench`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) part: Part,
    pub(crate) extent: Extent,
    /// Rounds that have to count; `None` is the extent's own number.
    pub(crate) rounds: Option<usize>,
    /// Identifiers of scenarios, and `flood` in the kernel part; empty is all of them.
    pub(crate) only: Vec<String>,
    /// Name and recipe file of further proxies.
    pub(crate) peers: Vec<(String, PathBuf)>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) against: Option<PathBuf>,
    pub(crate) write_docs: bool,
    /// Where the programs are, already built; `None`: they are built first.
    pub(crate) bin: Option<PathBuf>,
    /// As they were given.
    pub(crate) arguments: Vec<String>,
}

impl Options {
    /// # Errors
    /// An argument is unknown, lacks its value, or has one that does not fit.
    pub(crate) fn parse(arguments: &[String]) -> Result<Self, Failure> {
        let mut options = Self {
            part: Part::Load,
            extent: Extent::Full,
            rounds: None,
            only: Vec::new(),
            peers: Vec::new(),
            json: None,
            against: None,
            write_docs: false,
            bin: None,
            arguments: arguments.to_vec(),
        };
        let mut arguments = arguments.iter();
        while let Some(flag) = arguments.next() {
            let mut value = || {
                let value = arguments.next().cloned();
                value.ok_or_else(|| Failure::usage(format!("{flag} wants a value")))
            };
            match flag.as_str() {
                "--quick" => options.extent = Extent::Quick,
                "--shape" => options.extent = Extent::Shape,
                "--rounds" => options.rounds = Some(rounds(&value()?)?),
                "--only" => options.only = value()?.split(',').map(str::to_owned).collect(),
                "--peer" => options.peers.push(peer(&value()?)?),
                "--json" => options.json = Some(value()?.into()),
                "--against" => options.against = Some(value()?.into()),
                "--write-docs" => options.write_docs = true,
                "--bin" => options.bin = Some(value()?.into()),
                "--kernel" => options.part = Part::Kernel,
                "--gate" if matches!(options.part, Part::Gate { .. }) => {}
                "--gate" => options.part = Part::Gate { bless: false },
                "--bless" => options.part = Part::Gate { bless: true },
                other => return Err(Failure::unknown_argument(other)),
            }
        }
        Ok(options)
    }
}

fn rounds(value: &str) -> Result<usize, Failure> {
    match value.parse() {
        Ok(rounds @ 1..=100) => Ok(rounds),
        _ => Err(Failure::usage(format!("--rounds: {value:?} is no number from 1 to 100"))),
    }
}

fn peer(value: &str) -> Result<(String, PathBuf), Failure> {
    let wanted = || Failure::usage(format!("--peer wants NAME=FILE, not {value:?}"));
    let (name, file) = value.split_once('=').ok_or_else(wanted)?;
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || file.is_empty() || !name.chars().all(is_name) {
        return Err(wanted());
    }
    Ok((name.to_owned(), file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Failure> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn everything_has_its_place() {
        let line = "--quick --rounds 3 --only get,down --peer nginx=a/b --json c --against d --write-docs --bin e";
        let options = parse(line).expect("known options");
        assert_eq!(options.extent, Extent::Quick);
        assert_eq!((options.rounds, options.write_docs), (Some(3), true));
        assert_eq!(options.only, ["get", "down"]);
        assert_eq!(options.peers, [("nginx".to_owned(), PathBuf::from("a/b"))]);
        assert_eq!((options.json, options.against), (Some("c".into()), Some("d".into())));
        assert_eq!(options.bin, Some("e".into()));
    }

    #[test]
    fn gate_and_kernel_are_parts_of_their_own() {
        let part = |line| parse(line).map(|options| options.part).ok();
        assert_eq!(part("--kernel --only flood"), Some(Part::Kernel));
        assert_eq!(part("--gate"), Some(Part::Gate { bless: false }));
        assert_eq!(part("--gate --bless"), Some(Part::Gate { bless: true }));
        assert_eq!(part("--bless --gate"), Some(Part::Gate { bless: true }));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for line in ["--nothing", "--rounds", "--rounds 0", "--peer x", "--peer =f", "--peer A=f"] {
            assert!(parse(line).is_err_and(|failure| failure.exit_code() == 2), "{line:?}");
        }
    }
}
