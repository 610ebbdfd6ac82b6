//! `spooky ctl status`. Imports its parent.

use serde_json::Value;

use super::attack::summary;
use super::client::{Client, Failure};
use super::{Shown, number, table, text};

pub(super) fn status(client: &Client<'_>) -> Result<Shown, Failure> {
    let json = client.ask("GET", "/status", None)?;
    let mut state = text(&json, "/state").to_owned();
    if let Some(why) = json.get("why").and_then(Value::as_str) {
        state.push_str(": ");
        state.push_str(why);
    }
    let mut kernel = text(&json, "/kernel/running").to_owned();
    if let Some(lost) = json.pointer("/kernel/lost").and_then(Value::as_str) {
        kernel.push_str(" only: ");
        kernel.push_str(lost);
    }
    let workers = (number(&json, "/workers/alive"), number(&json, "/workers/configured"));
    let mut rows = vec![
        ("state".to_owned(), state),
        ("version".to_owned(), text(&json, "/version").to_owned()),
        ("pid".to_owned(), number(&json, "/pid").to_string()),
        (
            "configuration".to_owned(),
            format!(
                "{} (version {})",
                text(&json, "/configuration"),
                number(&json, "/configuration_version")
            ),
        ),
        ("workers".to_owned(), format!("{} of {} run", workers.0, workers.1)),
        ("kernel".to_owned(), kernel),
        ("attack mode".to_owned(), json.get("attack").map(summary).unwrap_or_default()),
    ];
    for listener in json.get("listeners").and_then(Value::as_array).into_iter().flatten() {
        rows.push((
            format!("listener {}", text(listener, "/name")),
            format!("udp {}", text(listener, "/address")),
        ));
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name, value]).collect();
    Ok(Shown { text: table(&rows), json })
}
