//! "Did you mean": the nearest of the words that would have been accepted. Imports nothing of the crate.

/// The candidate that is a likely slip of the pen away from `text`.
pub(crate) fn nearest<'a>(
    text: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = text.to_ascii_lowercase().replace('-', "_");
    let allowed = (folded.chars().count() / 3).clamp(1, 3);
    candidates
        .map(|candidate| (distance(&folded, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance with transpositions (optimal string alignment). Keys are short; a long text is far from all of them.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    // Three rows of the table of distances between beginnings: this one and the two above it.
    let first: Vec<usize> = (0..=b.len()).collect();
    let (mut above, mut row) = (Vec::new(), first);
    let mut before = None;
    for (i, &of_a) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        let mut before_b = None;
        for (j, &of_b) in b.iter().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&row, j) + usize::from(of_a != of_b);
            let mut least = replaced.min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            if before == Some(of_b) && before_b == Some(of_a) && j > 0 {
                least = least.min(at(&above, j - 1) + 1);
            }
            next.push(least);
            before_b = Some(of_b);
        }
        (above, row) = (row, next);
        before = Some(of_a);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_slips() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("form", "from", 1),
            ("kitten", "sitting", 3),
            ("ca", "abc", 3),
            ("timeout", "timeuot", 1),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn what_is_far_is_not_suggested() {
        let keys = ["idle_timeout", "max_streams"];
        assert_eq!(nearest("idle-timeuot", keys.into_iter()), Some("idle_timeout"));
        assert_eq!(nearest("certificates", keys.into_iter()), None);
    }
}
