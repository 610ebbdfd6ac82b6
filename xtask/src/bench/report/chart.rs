//! Charts as SVG: horizontal bars with a whisker from min to max. Text has no background of its own and a colour that
//! is read on a light and on a dark page. Numbers in, text out; imports `stats` and `subject`.

use crate::bench::stats::Summary;
use crate::bench::subject::is_own;
use std::fmt::Write as _;

/// One scenario within a chart: its own scale.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    pub(super) title: String,
    pub(super) bars: Vec<(String, Summary)>,
    /// A line across all bars, with its name.
    pub(super) mark: Option<(String, f64)>,
}

const WIDTH: f64 = 760.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 230.0;
const LONGEST: f64 = 400.0;
const ROW: f64 = 22.0;
const BAR: f64 = 13.0;
const HEAD: f64 = 50.0;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#57606a}.title{font-weight:600}.own{fill:#1f7a8c}\
.other{fill:#8c959f}.floor{fill:#c29b38}.whisker{stroke:#24292f;stroke-width:1.2}\
.mark{stroke:#b35900;stroke-width:1.2;stroke-dasharray:4 3}\
@media (prefers-color-scheme:dark){text{fill:#b4bcc6}.own{fill:#4fb3c6}.other{fill:#6e7681}\
.floor{fill:#d9b450}.whisker{stroke:#e6edf3}.mark{stroke:#ffa657}}";

pub(super) fn draw(panels: &[Panel]) -> String {
    let height: f64 = panels.iter().map(|it| HEAD + ROW * it.bars.len() as f64 + 10.0).sum();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\"><style>{STYLE}</style>\n"
    );
    let mut top = 0.0;
    for panel in panels {
        top = panel.draw(&mut svg, top);
    }
    svg.push_str("</svg>\n");
    svg
}

impl Panel {
    /// Draws below `top`, and gives where it ends.
    fn draw(&self, svg: &mut String, top: f64) -> f64 {
        let most = self.bars.iter().map(|(_, it)| it.max.max(it.median)).fold(0.0, f64::max);
        let most = most.max(self.mark.as_ref().map_or(0.0, |(_, value)| *value));
        let at = |value: f64| LEFT + if most > 0.0 { value / most * LONGEST } else { 0.0 };
        // Writing to a String does not fail.
        let _ = writeln!(
            svg,
            "<text class=\"title\" x=\"8\" y=\"{:.1}\">{}</text>",
            top + 22.0,
            escaped(&self.title)
        );
        let first = top + HEAD;
        for (index, (name, summary)) in self.bars.iter().enumerate() {
            let y = first + ROW * index as f64;
            let middle = y + BAR / 2.0;
            let (x, end) = (at(summary.median), at(summary.max).max(at(summary.median)));
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{}\" x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\"/>\
                 <line class=\"whisker\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 8.0,
                y + 11.0,
                escaped(name),
                class(name),
                x - LEFT,
                at(summary.min),
                at(summary.max),
                end + 8.0,
                y + 11.0,
                figure(summary.median),
            );
        }
        let bottom = first + ROW * self.bars.len() as f64;
        if let Some((name, value)) = &self.mark {
            let x = at(*value);
            let _ = writeln!(
                svg,
                "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} {}</text>",
                first - 4.0,
                bottom - 4.0,
                first - 8.0,
                escaped(name),
                figure(*value),
            );
        }
        bottom + 10.0
    }
}

fn class(name: &str) -> &'static str {
    match name {
        "floor" | "backend" => "floor",
        name if is_own(name) => "own",
        _ => "other",
    }
}

fn figure(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        assert_eq!(escaped("a<b> & \"c's\""), "a&lt;b&gt; &amp; &quot;c&#39;s&quot;");
    }

    #[test]
    fn the_longest_bar_is_as_long_as_there_is_room() {
        let of = |median| Summary { median, min: median, max: median };
        let bars = vec![("spooky-off".to_owned(), of(10.0)), ("a&b".to_owned(), of(40.0))];
        let panel = Panel { title: "x < y".to_owned(), bars, mark: Some(("F".to_owned(), 20.0)) };
        let svg = draw(&[panel]);
        assert!(svg.contains("class=\"own\" x=\"230\" y=\"50.0\" width=\"100.0\""), "{svg}");
        assert!(svg.contains("class=\"other\" x=\"230\" y=\"72.0\" width=\"400.0\""), "{svg}");
        assert!(svg.contains("a&amp;b") && svg.contains("x &lt; y") && svg.contains(">F 20.0<"));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn nothing_measured_is_an_empty_chart() {
        assert_eq!(draw(&[]).matches("<rect").count(), 0);
        let none = Panel { title: String::new(), bars: Vec::new(), mark: None };
        assert!(draw(&[none]).contains("</svg>"));
    }
}
