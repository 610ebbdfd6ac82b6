//! What the kernel part says: tables on the terminal, JSON, docs/performance-kernel.md, written whole. Reads results,
//! measures nothing.

use super::grid::{self, Grid, NOTHING, number, spread};
use super::{against, machine, write};
use crate::bench::kernel::flood::{Client, Honest, Outcome};
use crate::bench::kernel::{Measured, SOCKETS};
use crate::bench::lab::{self, Lab};
use crate::bench::options::{Extent, Options};
use crate::bench::place::Place;
use crate::bench::probe::SYSTEM_CALLS;
use crate::bench::results::{Results, Table};
use crate::bench::sample::Figure;
use crate::bench::stats::{Summary, median};
use crate::command::{Failure, root, say};
use serde_json::Value;

/// How much longer a p99 may take beside a flood than in quiet times.
const P99_MAX: f64 = 2.0;

/// # Errors
/// A result cannot be written, or the one to compare with cannot be read.
pub(crate) fn everything(lab: &Lab, options: &Options, measured: &Measured) -> Result<(), Failure> {
    if lab.extent == Extent::Shape {
        return Ok(());
    }
    let results = &measured.results;
    for table in &results.tables {
        say(format_args!("\n{}", of_table(table, results).text()));
        say(grid::about_rounds(table));
    }
    if !measured.floods.is_empty() {
        say(format_args!("\n{}", of_floods(&measured.floods).text()));
    }
    let text = format!("{:#}\n", json(measured));
    let name = format!("kernel-{}.json", machine::stamp());
    for file in [Some(lab::results_dir().join(name)), options.json.clone()].into_iter().flatten() {
        write(&file, &text)?;
        say(format_args!("\nresult: {}", file.display()));
    }
    if let Some(file) = &options.against {
        say(format_args!("\n{}", against::compare(file, results)?));
    }
    if options.write_docs && results.is_partial {
        say("docs/performance-kernel.md is left as it was: this result is a part");
    } else if options.write_docs {
        write(&root().join("docs/performance-kernel.md"), &page(measured))?;
        say("written: docs/performance-kernel.md");
    }
    Ok(())
}

fn json(measured: &Measured) -> Value {
    let mut json = measured.results.json();
    json["floods"] = measured.floods.iter().map(Outcome::json).collect();
    json
}

fn page(measured: &Measured) -> String {
    let results = &measured.results;
    let mut page = String::from(include_str!("kernel-head.txt"));
    page.push_str("\n| | |\n|---|---|\n");
    let without = ["peers"];
    for (name, value) in results.machine.iter().filter(|(it, _)| !without.contains(&it.as_str())) {
        page.push_str(&format!("| {name} | {} |\n", value.replace('|', "\\|")));
    }
    page.push_str("\n## The way past the stack, beside plain sockets\n");
    page.push_str(include_str!("kernel-ways.txt"));
    for table in &results.tables {
        let (grid, rounds) = (of_table(table, results), grid::about_rounds(table));
        page.push_str(&format!("\n### {}\n\n{}\n{rounds}.\n", grid.title, grid.markdown()));
    }
    page.push_str(include_str!("kernel-card.txt"));
    page.push_str("\n## Floods\n");
    page.push_str(include_str!("kernel-floods.txt"));
    page.push_str(&format!("\n{}", of_floods(&measured.floods).markdown()));
    for missing in &results.missing {
        page.push_str(&format!("\nNot measured: {}\n", missing.lines().next().unwrap_or_default()));
    }
    page.push_str(include_str!("kernel-tail.txt"));
    page
}

fn of_table(table: &Table, results: &Results) -> Grid {
    let large = table.scenario.drive.is_large();
    let (unit, rest) = if large { ("ms", "MiB/s") } else { ("µs", "requests/s") };
    let head = [
        String::new(),
        format!("spooky {unit}/request (min-max)"),
        format!("receiving {unit}"),
        format!("both {unit}"),
        "both, of sockets (min-max)".to_owned(),
        format!("machine {unit}"),
        "machine, of sockets".to_owned(),
        rest.to_owned(),
        "p50 ms".to_owned(),
        "p99 ms".to_owned(),
        "system calls".to_owned(),
        "datagrams in/out".to_owned(),
        "failed".to_owned(),
    ];
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let mut grid = Grid::new(table.scenario.title, &head);
    for name in table.everybody() {
        grid.rows.push(row(table, results, &name));
    }
    grid
}

fn row(table: &Table, results: &Results, name: &str) -> Vec<String> {
    let large = table.scenario.drive.is_large();
    let (scale, digits) = if large { (1000.0, 2) } else { (1.0, 1) };
    let of = |figure| table.summary(name, figure);
    let middle = |figure| of(figure).map(|it: Summary| it.median);
    let time = |figure| number(middle(figure).map(|it| it / scale), digits);
    let ratio = |figure| table.ratio(name, SOCKETS, figure);
    let both = ratio(Figure::Together)
        .map_or(NOTHING.to_owned(), |it| format!("{:.2} ({:.2}-{:.2})", it.median, it.min, it.max));
    let ms = |figure| number(middle(figure).map(|it| it / 1000.0), 2);
    let datagrams = middle(Figure::DatagramsIn).zip(middle(Figure::DatagramsOut));
    vec![
        name.to_owned(),
        spread(of(Figure::Cost), scale),
        time(Figure::Receive),
        time(Figure::Together),
        both,
        time(Figure::Machine),
        number(ratio(Figure::Machine).map(|it| it.median), 2),
        number(middle(Figure::Rate), 0),
        ms(Figure::P50),
        ms(Figure::P99),
        number(results.count(SYSTEM_CALLS, table.scenario.id, name), 2),
        // What the client received the proxy has sent.
        datagrams.map_or(NOTHING.to_owned(), |(i, o)| format!("{o:.1} / {i:.1}")),
        table.failures(name).to_string(),
    ]
}

/// A row for each flood and subject, over all rounds.
fn of_floods(outcomes: &[Outcome]) -> Grid {
    let head = [
        "flood",
        "received on the core of",
        "against",
        "senders",
        "frames/s",
        "dropped by XDP",
        "reached workers",
        "spooky / receiving, of a core",
        "kept: answered",
        "p99 ms",
        "quiet p99 ms",
        "new: answered",
        "p99 ms",
        "quiet p99 ms",
        "honest clients keep 100 % and twice the p99",
    ];
    let mut grid = Grid::new("floods", &head);
    let mut rows: Vec<Row> = Vec::new();
    for outcome in outcomes {
        let row = row_of(outcome);
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    for row in rows {
        let of = |it: &&Outcome| row_of(it) == row;
        grid.rows.push(flood_row(row, &outcomes.iter().filter(of).collect::<Vec<_>>()));
    }
    grid
}

/// Flood, place, subject, senders.
type Row = (&'static str, Place, &'static str, usize);

fn row_of(outcome: &Outcome) -> Row {
    (outcome.flood, outcome.place, outcome.subject, outcome.senders)
}

fn flood_row((flood, place, subject, senders): Row, of: &[&Outcome]) -> Vec<String> {
    let middle = |what: &dyn Fn(&Outcome) -> f64| {
        median(&of.iter().map(|it| what(it)).collect::<Vec<_>>()).unwrap_or_default()
    };
    let percent = |what: &dyn Fn(&Outcome) -> f64| format!("{:.0} %", 100.0 * middle(what));
    let (daemon, receiver) = (percent(&|it| it.during.daemon), percent(&|it| it.during.receiver));
    let mut row = vec![
        flood.to_owned(),
        if place == Place::Card { "proxy" } else { "sender" }.to_owned(),
        subject.to_owned(),
        senders.to_string(),
        format!("{:.0}", middle(&|it| it.rate)),
        percent(&|it| it.dropped),
        percent(&|it| it.reached),
        format!("{daemon} / {receiver}"),
    ];
    let mut holds = true;
    let kinds: [fn(&Honest) -> Client; 2] = [|it| it.kept, |it| it.fresh];
    for kind in kinds {
        let (quiet, during) =
            (together(of, &|it| kind(&it.quiet)), together(of, &|it| kind(&it.during)));
        row.push(format!("{:.2} %", during.success()));
        row.push(number(during.p99, 2));
        row.push(number(quiet.p99, 2));
        let slower =
            during.p99.zip(quiet.p99).is_none_or(|(during, quiet)| during > P99_MAX * quiet);
        holds &= during.lost == 0 && !slower;
    }
    row.push(if holds { "yes" } else { "no" }.to_owned());
    row
}

/// Requests of all rounds, and the median of their p99. A round without an answer counts as longer than any other.
fn together(of: &[&Outcome], client: &dyn Fn(&Outcome) -> Client) -> Client {
    let clients: Vec<Client> = of.iter().map(|it| client(it)).collect();
    let mut p99: Vec<f64> = clients.iter().map(|it| it.p99.unwrap_or(f64::INFINITY)).collect();
    p99.sort_by(f64::total_cmp);
    Client {
        requests: clients.iter().map(|it| it.requests).sum(),
        lost: clients.iter().map(|it| it.lost).sum(),
        p99: p99.get(p99.len() / 2).copied().filter(|it| it.is_finite()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::table_of;

    fn outcome(subject: &'static str, round: usize, lost: u64, p99: Option<f64>) -> Outcome {
        let client = |lost, p99| Client { requests: 100, lost, p99 };
        let honest = |lost, p99| Honest::of(client(lost, p99), client(0, Some(3.0)));
        Outcome {
            subject,
            flood: "short",
            senders: 2,
            place: Place::Veth,
            round,
            rate: 1e6,
            dropped: 1.0,
            reached: 0.0,
            quiet: honest(0, Some(1.0)),
            during: honest(lost, p99),
        }
    }

    #[test]
    fn rounds_of_a_flood_are_one_row_and_its_judgement() {
        let outcomes = [
            outcome("xdp", 0, 0, Some(1.0)),
            outcome("sockets", 0, 50, None),
            outcome("xdp", 1, 0, Some(1.9)),
            outcome("sockets", 1, 50, None),
        ];
        let grid = of_floods(&outcomes);
        let rows: Vec<Vec<&str>> =
            grid.rows.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
        assert_eq!(rows[0][..6], ["short", "sender", "xdp", "2", "1000000", "100 %"]);
        assert_eq!(rows[0][8..], ["100.00 %", "1.90", "1.00", "100.00 %", "3.00", "3.00", "yes"]);
        assert_eq!(rows[1][8..10], ["50.00 %", NOTHING]);
        assert_eq!(rows[1].last(), Some(&"no"));
    }

    #[test]
    fn the_page_has_its_tables() {
        let tables = vec![table_of("get", &[&[("sockets", 10.0), ("af_xdp-copy", 15.0)]])];
        let results = Results { tables, ..Results::default() };
        let measured = Measured { results, floods: vec![outcome("xdp", 0, 0, Some(1.0))] };
        let page = page(&measured);
        for part in
            ["### GET 1 KiB", "| af_xdp-copy | 15.0 (15.0-15.0) |", "| short | sender | xdp | 2 |"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(json(&measured)["floods"][0]["senders"], serde_json::json!(2));
    }
}
