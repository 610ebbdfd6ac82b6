//! What callgrind's file says: instructions in all, and how often memory was asked for. Knows the file's format as the
//! valgrind manual describes it ("Callgrind Format Specification"). Imports nothing.

use std::collections::HashMap;

/// Functions of the C library that give out memory; those of mimalloc begin with `mi_`.
const ALLOCATORS: [&str; 7] =
    ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign", "valloc"];

/// One run of a program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    pub(crate) instructions: u64,
    /// Calls of an allocating function by anything that is not one.
    pub(crate) allocations: u64,
}

impl Profile {
    /// `None` when the file is not whole.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut profile = Self::default();
        let mut names: HashMap<&str, &str> = HashMap::new();
        let (mut caller, mut callee) = ("", "");
        let mut summary = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                caller = resolve(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = resolve(&mut names, name);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                if allocates(callee) && !allocates(caller) {
                    profile.allocations += calls.split_whitespace().next()?.parse::<u64>().ok()?;
                }
            } else if let Some(sum) =
                line.strip_prefix("summary: ").or_else(|| line.strip_prefix("totals: "))
            {
                summary = Some(sum.trim().parse().ok()?);
            }
        }
        profile.instructions = summary?;
        Some(profile)
    }
}

/// A name is written once, behind its number in brackets; later there is only the number.
fn resolve<'a>(names: &mut HashMap<&'a str, &'a str>, written: &'a str) -> &'a str {
    let Some((number, name)) = written.split_once(')') else { return written };
    match name.trim_start() {
        "" => names.get(number).copied().unwrap_or_default(),
        name => {
            names.insert(number, name);
            name
        }
    }
}

fn allocates(function: &str) -> bool {
    // A recursion is written with its depth behind an apostrophe.
    let name = function.split_once('\'').map_or(function, |(name, _)| name);
    ALLOCATORS.contains(&name) || (name.starts_with("mi_") && name.contains("alloc"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_from_outside_of_the_allocator() {
        let text = "\
summary: 900
fn=(1) main
1 5
cfn=(2) malloc
calls=7 0
1 70
cfn=(3) free
calls=7 0
1 7
fn=(4) realloc
cfn=(2)
calls=3 0
1 9
fn=(5) mi_zalloc_aligned
cfn=(6) mi_malloc
calls=3 0
1 9
fn=(1)
cfn=(5)
calls=2 0
1 1
totals: 1000
";
        assert_eq!(Profile::parse(text), Some(Profile { instructions: 1000, allocations: 9 }));
        assert_eq!(Profile::parse("fn=(1) main\n"), None);
    }
}
