//! Inputs as lines of text: a verb and its words. Any octets are some script, so that a mutation is hardly ever wasted, and
//! a corpus can be read and written by hand.
//!
//! Words are parted by single spaces; `\` and two hexadecimal digits stand for any octet, spaces and line ends among them.

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Line<'i> {
    raw: &'i [u8],
}

/// The lines of an input, at most `most` of them. Empty ones are passed over.
pub(crate) fn lines(input: &[u8], most: usize) -> impl Iterator<Item = Line<'_>> {
    let lines = input.split(|octet| *octet == b'\n').filter(|line| !line.is_empty());
    lines.map(|raw| Line { raw }).take(most)
}

// === impl Line ===

impl Line<'_> {
    /// The first word.
    pub(crate) fn verb(&self) -> Vec<u8> {
        self.word(0)
    }

    /// A word by its place, the verb is 0; empty where there is none.
    pub(crate) fn word(&self, place: usize) -> Vec<u8> {
        self.raw.split(|octet| *octet == b' ').nth(place).map(plain).unwrap_or_default()
    }

    /// All behind the verb, spaces included.
    pub(crate) fn rest(&self) -> Vec<u8> {
        let space = self.raw.iter().position(|octet| *octet == b' ');
        space.and_then(|at| self.raw.get(at + 1..)).map(plain).unwrap_or_default()
    }

    /// A word as a number; of one that is none, the sum of its octets.
    pub(crate) fn number(&self, place: usize) -> u64 {
        let word = self.word(place);
        let text = std::str::from_utf8(&word).unwrap_or_default();
        text.parse().unwrap_or_else(|_none| word.iter().map(|octet| u64::from(*octet)).sum())
    }

    /// A word as a number below `end`.
    pub(crate) fn below(&self, place: usize, end: usize) -> usize {
        usize::try_from(self.number(place) % end.max(1) as u64).unwrap_or(0)
    }

    /// Which of `verbs` this line begins with; of one that is none of them, any.
    pub(crate) fn choice(&self, verbs: &[&'static str]) -> &'static str {
        let verb = self.verb();
        let known = verbs.iter().find(|known| known.as_bytes() == verb);
        known.or_else(|| verbs.get(self.below(0, verbs.len()))).copied().unwrap_or_default()
    }
}

/// A word without its escapes.
fn plain(word: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let escaped = (*first == b'\\').then(|| after.first_chunk::<2>().and_then(octet)).flatten();
        out.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    out
}

/// Hexadecimal digits as an octet.
fn octet(digits: &[u8; 2]) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(digits[0])? << 4 | digit(digits[1])?).ok()
}

/// A string of hexadecimal digits as octets; what is no digit is passed over.
pub(crate) fn hex(text: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = text.iter().copied().filter(u8::is_ascii_hexdigit).collect();
    digits.as_chunks::<2>().0.iter().filter_map(octet).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_words_and_escapes() {
        let input = b"data 4 a\\00b\\20c d\n\n\xff\xfe\nx 12x";
        let all: Vec<Line<'_>> = lines(input, 9).collect();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].verb(), all[0].number(1)), (b"data".to_vec(), 4));
        assert_eq!(all[0].word(2), b"a\0b c");
        assert_eq!(all[0].rest(), b"4 a\0b c d");
        assert_eq!(all[1].choice(&["a", "b"]), ["a", "b"][(0xff + 0xfe) % 2]);
        assert_eq!(all[2].number(1), u64::from(b'1') + u64::from(b'2') + u64::from(b'x'));
        assert_eq!(hex(b"00ff 1G2"), [0, 0xff, 0x12]);
    }
}
