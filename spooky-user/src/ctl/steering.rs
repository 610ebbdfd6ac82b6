//! `spooky ctl steering`. Imports its parent.

use serde_json::Value;

use super::client::{Client, Failure};
use super::{Shown, number, table, text};

/// What stands over the workers' table.
const WORKERS: [&str; 9] = [
    "worker",
    "connections",
    "right",
    "forwarded",
    "received",
    "unknown",
    "old generation",
    "owner gone",
    "ring full",
];

pub(super) fn steering(client: &Client<'_>) -> Result<Shown, Failure> {
    let json = client.ask("GET", "/steering", None)?;
    let mut out = format!("kernel programs: {}\n", text(&json, "/running"));
    let mut rows = Vec::new();
    for queue in list(&json, "queues") {
        let name = format!("queue {}", number(queue, "/queue"));
        reasons(&mut rows, &name, queue.get("frames"));
    }
    section(&mut out, "frames at the interface, by receive queue", &rows);
    rows.clear();
    reasons(&mut rows, "sockets", json.get("sockets"));
    section(&mut out, "packets at the socket groups (a joined train counts once)", &rows);
    let mut rows = vec![WORKERS.map(str::to_owned).to_vec()];
    for worker in list(&json, "workers") {
        let keys = WORKERS.map(|column| format!("/{}", column.replace(' ', "_")));
        rows.push(keys.iter().map(|key| number(worker, key).to_string()).collect());
    }
    section(&mut out, "datagrams in the workers", &rows);
    Ok(Shown { text: out, json })
}

fn list<'a>(json: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    json.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A row for each reason: who, verdict, reason, count.
fn reasons(rows: &mut Vec<Vec<String>>, who: &str, verdicts: Option<&Value>) {
    for (verdict, reasons) in verdicts.and_then(Value::as_object).into_iter().flatten() {
        for (reason, count) in reasons.as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or_default().to_string();
            rows.push(vec![who.to_owned(), verdict.clone(), reason.clone(), count]);
        }
    }
}

fn section(out: &mut String, title: &str, rows: &[Vec<String>]) {
    if !rows.is_empty() {
        out.push_str(&format!("\n{title}\n{}", table(rows)));
    }
}
