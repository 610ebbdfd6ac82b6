//! `spooky ctl attack`. Imports its parent.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::{Shown, number, table, text};

/// What to do about it.
#[derive(Debug, Args)]
pub(super) struct Attack {
    /// When it is to be on, until the next start or a reload that changes ebpf.attack_mode.mode. Without it attack mode is shown.
    mode: Option<Mode>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// While there is a load that only an attack makes.
    Auto,
    /// From now on.
    On,
    /// Not from now on.
    Off,
}

pub(super) fn attack(client: &Client<'_>, attack: &Attack) -> Result<Shown, Failure> {
    let json = match attack.mode {
        None => client.ask("GET", "/attack", None)?,
        Some(mode) => {
            let mode = match mode {
                Mode::Auto => "auto",
                Mode::On => "on",
                Mode::Off => "off",
            };
            client.ask("POST", "/attack", Some(&json!({"mode": mode})))?
        }
    };
    let by = if json.get("by_hand") == Some(&Value::Bool(true)) { "by hand" } else { "configured" };
    let load = |name: &str| {
        let part = |part: &str| number(&json, &format!("/{name}/{part}"));
        format!("{} (attack from {})", part("now"), part("threshold"))
    };
    let rows = [
        ("attack mode", summary(&json)),
        ("mode", format!("{} ({by})", text(&json, "/mode"))),
        ("handshakes under way", load("half_open")),
        ("packets of nobody a second", load("drops_per_second")),
    ];
    let rows: Vec<_> = rows.map(|(name, value)| vec![name.to_owned(), value]).into();
    Ok(Shown { text: table(&rows), json })
}

/// On or off, since when, why and for how long; what the kernel has to do with it.
pub(super) fn summary(json: &Value) -> String {
    if json.get("on") != Some(&Value::Bool(true)) {
        return "off".to_owned();
    }
    let cause = match text(json, "/cause") {
        "half_open" => "handshakes under way",
        "drops" => "packets of nobody",
        "configuration" => "the configuration says so",
        "command" => "by hand",
        other => other,
    };
    let mut line = format!("on for {} s: {cause}", number(json, "/for_seconds"));
    if let Some(left) = json.get("ends_in_seconds").and_then(Value::as_u64) {
        line.push_str(&format!("; quiet, ends in {left} s"));
    }
    if json.get("in_kernel") == Some(&Value::Bool(false)) {
        line.push_str("; without XDP nothing is dropped, new clients have to prove their address");
    }
    line
}
