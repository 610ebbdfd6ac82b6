//! New inputs from old ones: octets, numbers, words, lines. What it puts in are the words and lines of the corpus itself, so a
//! seed that shows an operation is all a target has to give. By a seed, so that a run can be had again.

use fastrand::Rng;

/// Mutates the inputs of one corpus.
pub(crate) struct Mutator {
    random: Rng,
    corpus: Vec<Vec<u8>>,
    words: Vec<Vec<u8>>,
    size_max: usize,
}

/// Numbers at which something may change.
const NUMBERS: [&str; 14] = [
    "0",
    "1",
    "2",
    "3",
    "16",
    "63",
    "64",
    "255",
    "1200",
    "16384",
    "65535",
    "4294967295",
    "18446744073709551615",
    "-1",
];

/// The longest piece of the corpus that is put in as a word.
const WORD_MAX: usize = 40;

impl Mutator {
    /// `corpus` should not be empty. Inputs are of `size_max` octets at most.
    pub(crate) fn new(seed: u64, corpus: Vec<Vec<u8>>, size_max: usize) -> Self {
        let pieces = corpus.iter().flat_map(|input| input.split(|octet| b" \n".contains(octet)));
        let mut words: Vec<Vec<u8>> = pieces
            .filter(|word| (1..=WORD_MAX).contains(&word.len()))
            .map(<[u8]>::to_vec)
            .chain(NUMBERS.iter().map(|number| number.as_bytes().to_vec()))
            .collect();
        words.sort();
        words.dedup();
        Self { random: Rng::with_seed(seed), corpus, words, size_max }
    }

    /// The next input.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let mut input = self.any_input();
        for _ in 0..1 + self.random.usize(..6) {
            if self.random.bool() {
                self.mutate_octets(&mut input);
            } else {
                self.mutate_lines(&mut input);
            }
        }
        input.truncate(self.size_max);
        input
    }

    fn any_input(&mut self) -> Vec<u8> {
        self.random.choice(&self.corpus).cloned().unwrap_or_default()
    }

    fn place(&mut self, length: usize) -> usize {
        self.random.usize(..=length)
    }

    fn mutate_octets(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input.len().saturating_sub(1)).min(input.len());
        let end = (at + 1 + self.random.usize(..8)).min(input.len());
        match self.random.u8(..8) {
            0 if at < input.len() => input[at] ^= 1 << self.random.u8(..8),
            1 if at < input.len() => input[at] = self.random.u8(..),
            2 => input.insert(at, self.random.u8(..)),
            3 => drop(input.drain(at..end)),
            4 => {
                let again = input[at..end].to_vec();
                drop(input.splice(at..at, again));
            }
            5 if at < input.len() => {
                input[at] = *self.random.choice(b" \n\\/.:%;,=@0A{}[]-_").unwrap_or(&b' ');
            }
            6 => {
                let word = self.word();
                drop(input.splice(at..at, word));
            }
            _ => self.replace_word(input, at),
        }
    }

    fn word(&mut self) -> Vec<u8> {
        self.random.choice(&self.words).cloned().unwrap_or_default()
    }

    /// Another word in the place of the one at `at`.
    fn replace_word(&mut self, input: &mut Vec<u8>, at: usize) {
        let is_end = |octet: &u8| b" \n/.:,".contains(octet);
        let start = input[..at].iter().rposition(is_end).map_or(0, |end| end + 1);
        let end = input[at..].iter().position(is_end).map_or(input.len(), |length| at + length);
        let word = self.word();
        drop(input.splice(start..end, word));
    }

    fn mutate_lines(&mut self, input: &mut Vec<u8>) {
        let mut lines: Vec<&[u8]> = input.split(|octet| *octet == b'\n').collect();
        let (from, to) = (self.random.usize(..lines.len()), self.random.usize(..lines.len()));
        let other = self.any_input();
        match self.random.u8(..5) {
            0 => drop(lines.remove(from)),
            1 => lines.swap(from, to),
            2 => {
                let times = if self.random.u8(..8) == 0 { self.random.usize(..40) } else { 1 };
                let line = lines[from];
                drop(lines.splice(to..to, std::iter::repeat_n(line, times)));
            }
            3 => {
                let theirs: Vec<&[u8]> = other.split(|octet| *octet == b'\n').collect();
                lines.insert(to, self.random.choice(&theirs).copied().unwrap_or_default());
                *input = lines.join(&b'\n');
                return;
            }
            _ => lines.truncate(to.max(1)),
        }
        *input = lines.join(&b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_it_all_and_no_input_is_too_long() {
        let corpus = vec![b"one two\nthree 4".to_vec(), Vec::new()];
        let run = |seed| {
            let mut mutator = Mutator::new(seed, corpus.clone(), 64);
            (0..2000).map(|_| mutator.next()).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).iter().all(|input| input.len() <= 64));
    }
}
