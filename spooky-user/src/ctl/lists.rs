//! `spooky ctl block`, `allow`, `unblock`, `list`. Imports its parent.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, Failure};
use super::{Shown, table, text};

/// An entry to be made.
#[derive(Debug, Args)]
pub(super) struct Put {
    /// A network, such as 192.0.2.0/24 or 2001:db8::/32, or one address.
    #[arg(value_name = "PREFIX")]
    prefix: String,
    /// For how long, such as 10m or 2h. Without it until it is removed.
    #[arg(long, value_name = "TIME")]
    ttl: Option<String>,
    /// Why, for whoever looks at it later; 256 octets at most.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Refuse nobody; only count whom it would refuse.
    #[arg(long)]
    dry_run: bool,
}

/// An entry to be removed.
#[derive(Debug, Args)]
pub(super) struct Remove {
    /// The network as it is listed, or one address.
    #[arg(value_name = "PREFIX")]
    prefix: String,
    /// Remove what `allow` has made, not what `block` has.
    #[arg(long)]
    allowed: bool,
}

/// What to show.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Only what holds this address or network, and whether it may connect.
    #[arg(long = "match", value_name = "ADDRESS")]
    matching: Option<String>,
}

pub(super) fn put(client: &Client<'_>, verb: &str, put: &Put) -> Result<Shown, Failure> {
    let content = json!({
        "prefix": put.prefix, "ttl": put.ttl, "reason": put.reason, "dry_run": put.dry_run,
    });
    let json = client.ask("POST", &format!("/lists/{verb}"), Some(&content))?;
    let enforced = field(&json, "enforced").as_bool() != Some(false);
    let done = if enforced { "" } else { "dry run, not " };
    let word = if verb == "block" { "blocked" } else { "allowed" };
    let time = match field(&json, "expires_in").as_f64() {
        Some(seconds) => format!("for {}", duration(seconds)),
        None => "until it is removed".to_owned(),
    };
    let place = match text(&json, "/kernel") {
        "listed" => ", in the kernel and in spooky",
        "full" => ", in spooky alone: the kernel's list is full",
        _ => "",
    };
    let mut shown = format!("{done}{word} {} {time}{place}\n", text(&json, "/prefix"));
    notes(&json, &mut shown);
    Ok(Shown { text: shown, json })
}

pub(super) fn remove(client: &Client<'_>, remove: &Remove) -> Result<Shown, Failure> {
    let list = if remove.allowed { "allow" } else { "deny" };
    let content = json!({"prefix": remove.prefix, "list": list});
    let json = client.ask("POST", "/lists/unblock", Some(&content))?;
    let mut shown = format!("removed {} from the {list} list\n", text(&json, "/prefix"));
    notes(&json, &mut shown);
    Ok(Shown { text: shown, json })
}

/// A field, null when it is missing.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    value.get(name).unwrap_or(&Value::Null)
}

fn notes(json: &Value, shown: &mut String) {
    if let Some(count) = field(json, "connections").as_u64() {
        let plural = if count == 1 { "connection matches" } else { "connections match" };
        shown.push_str(&format!("{count} open {plural}\n"));
    }
    for note in field(json, "notes").as_array().into_iter().flatten().filter_map(Value::as_str) {
        shown.push_str(&format!("note: {note}\n"));
    }
    if let Some(why) = field(json, "not_kept").as_str() {
        shown.push_str(&format!("note: a restart forgets this: {why}\n"));
    }
}

pub(super) fn list(client: &Client<'_>, list: &List) -> Result<Shown, Failure> {
    let mut json = match &list.matching {
        Some(address) => client.ask("GET", &format!("/lists?match={}", target(address)?), None)?,
        None => client.ask("GET", "/lists", None)?,
    };
    let mut next = field(&json, "next").as_str().map(str::to_owned);
    while let Some(after) = next {
        let page = client.ask("GET", &format!("/lists?after={}", target(&after)?), None)?;
        let more = field(&page, "entries").as_array().cloned().unwrap_or_default();
        if let Some(entries) = json.get_mut("entries").and_then(Value::as_array_mut) {
            entries.extend(more);
        }
        next = field(&page, "next").as_str().map(str::to_owned);
    }
    if let Some(fields) = json.as_object_mut() {
        fields.remove("next");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let heading = ["list", "prefix", "origin", "expires", "since", "by", "reason"];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let users = users();
    for entry in field(&json, "entries").as_array().into_iter().flatten() {
        rows.push(row(entry, now, &users));
    }
    let mut shown = table(&rows);
    if rows.len() == 1 {
        shown = "no entries\n".to_owned();
    }
    match field(&json, "permitted").as_bool() {
        Some(true) => shown.push_str("it may connect\n"),
        Some(false) => shown.push_str("it may not connect\n"),
        None => {}
    }
    Ok(Shown { text: shown, json })
}

/// As part of a target; a space would end it.
fn target(text: &str) -> Result<&str, Failure> {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b".:/-".contains(&octet);
    if text.bytes().all(plain) { Ok(text) } else { Err(Failure::NotAnAddress(text.to_owned())) }
}

fn row(entry: &Value, now: u64, users: &[(u32, String)]) -> Vec<String> {
    let mut list = text(entry, "/list").to_owned();
    if field(entry, "enforced").as_bool() == Some(false) {
        list.push_str(" (dry run)");
    }
    let dynamic = field(entry, "since").as_u64();
    let expires = match (dynamic, field(entry, "expires_in").as_f64()) {
        (Some(_), Some(seconds)) => format!("in {}", duration(seconds)),
        (Some(_), None) => "never".to_owned(),
        (None, _) => "-".to_owned(),
    };
    let since = dynamic.map_or("-".to_owned(), |since| {
        format!("{} ago", duration(now.saturating_sub(since) as f64))
    });
    let by = match (field(entry, "uid").as_u64(), field(entry, "pid").as_i64()) {
        (None, _) => "-".to_owned(),
        (Some(uid), pid) => {
            let name = users.iter().find(|(id, _)| u64::from(*id) == uid);
            let name = name.map_or_else(|| format!("uid {uid}"), |(_, name)| name.clone());
            pid.map_or(name.clone(), |pid| format!("{name} (pid {pid})"))
        }
    };
    let origin = match text(entry, "/file") {
        "" => text(entry, "/origin").to_owned(),
        file => file.to_owned(),
    };
    let prefix = text(entry, "/prefix").to_owned();
    vec![list, prefix, origin, expires, since, by, text(entry, "/reason").to_owned()]
}

/// Names of this machine's users; a user without one is shown by number.
fn users() -> Vec<(u32, String)> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    };
    text.lines().filter_map(user).collect()
}

/// Two units at most: what people read.
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, size) in units {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        } else if !parts.is_empty() {
            break;
        }
        if parts.len() == 2 {
            break;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_people_say_them() {
        for (seconds, said) in [
            (0.0, "0s"),
            (59.6, "1m"),
            (90.0, "1m 30s"),
            (3_600.0, "1h"),
            (86_400.0 + 30.0, "1d"),
            (90_061.0, "1d 1h"),
        ] {
            assert_eq!(duration(seconds), said);
        }
    }

    #[test]
    fn nothing_that_ends_a_target_gets_into_one() {
        assert!(target("2001:db8::/32").is_ok());
        assert!(target("192.0.2.1 HTTP/1.1\r\n").is_err());
    }
}
