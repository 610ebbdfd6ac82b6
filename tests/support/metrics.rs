//! Prometheus text as values: scrape, look up, compare. A test asserts what changed, not what is. Imports nothing.

use std::collections::BTreeMap;

/// One scrape: series by name and labels in alphabetical order.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    series: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Metrics {
    /// Reads the text exposition format.
    ///
    /// # Panics
    /// At a line that is neither a comment nor a sample: the page is part of what is tested.
    pub fn parse(page: &str) -> Self {
        let samples = page.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let sample =
            |line| sample(line).unwrap_or_else(|| panic!("not a metrics sample: {line:?}"));
        Self { series: samples.map(sample).collect() }
    }

    /// The sum of every series of this name that has these labels; 0 when there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |series: &BTreeMap<String, String>| {
            labels.iter().all(|(key, value)| series.get(*key).is_some_and(|found| found == value))
        };
        let found = self.series.iter().filter(|((key, series), _)| key == name && fits(series));
        found.map(|(_, value)| value).sum()
    }

    /// Whether there is any series of this name.
    pub fn has(&self, name: &str) -> bool {
        self.series.keys().any(|(key, _)| key == name)
    }

    /// How much the sum grew since `before`.
    pub fn growth(&self, before: &Self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(name, labels) - before.sum(name, labels)
    }

    /// Every series that differs from `before`, one a line, for messages.
    pub fn changes(&self, before: &Self) -> String {
        let mut text = String::new();
        for ((name, labels), value) in &self.series {
            let key = (name.clone(), labels.clone());
            let old = before.series.get(&key).copied().unwrap_or(0.0);
            let changed = (value - old).abs() > f64::EPSILON;
            if changed && !name.ends_with("_bucket") {
                text.push_str(&format!("{name}{labels:?} {old} -> {value}\n"));
            }
        }
        text
    }
}

type Sample = ((String, BTreeMap<String, String>), f64);

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = series.split_once('{') else {
        return Some(((series.to_owned(), BTreeMap::new()), value));
    };
    let mut labels = BTreeMap::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (key, after) = rest.split_once("=\"")?;
        let (label, after) = quoted(after)?;
        labels.insert(key.trim_start_matches(',').to_owned(), label);
        rest = after;
    }
    Some(((name.to_owned(), labels), value))
}

/// A label value up to its closing quote, unescaped, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_compares_series() {
        let before =
            Metrics::parse("# HELP a b\na_total{x=\"1\",y=\"p\"} 3\na_total{x=\"2\"} 4\nb 1\n");
        let after = Metrics::parse("a_total{x=\"1\",y=\"p\"} 5\na_total{x=\"2\"} 4\nb 1\n");
        assert_eq!(before.sum("a_total", &[]), 7.0);
        assert_eq!(before.sum("a_total", &[("x", "1")]), 3.0);
        assert_eq!(after.growth(&before, "a_total", &[]), 2.0);
        assert!(after.changes(&before).starts_with("a_total"));
        assert!(before.has("b") && !before.has("c"));
    }

    #[test]
    fn label_values_may_hold_quotes_commas_and_braces() {
        let metrics = Metrics::parse(r#"a{x="q\"},\\",y="2"} 1"#);
        assert_eq!(metrics.sum("a", &[("x", r#"q"},\"#), ("y", "2")]), 1.0);
    }
}
