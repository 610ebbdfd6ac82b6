//! `/lists`: block, allow, remove, and what there is. Imports its parent, boot's state, lists.

use std::time::{Duration, Instant, UNIX_EPOCH};

use http::StatusCode;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Answer, Ask, Reply};
use crate::controlplane::boot::Running;
use crate::controlplane::config;
use crate::controlplane::config::units::parse_duration;
use crate::controlplane::kernel::Running as Kernel;
use crate::controlplane::lists::enforce::enforce;
use crate::controlplane::lists::show::{Cursor, Row};
use crate::controlplane::lists::{By, List, Origin, Put, Refusal, Request};
use crate::dataplane::worker::inbox::Order;

/// Lines of a page.
const PAGE: usize = 500;
/// How long workers may take to count their connections.
const COUNT_TIME_MAX: Duration = Duration::from_millis(500);
/// Orders that are left free for reloads.
const ROOM_MIN: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    prefix: String,
    #[serde(default)]
    ttl: Option<String>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unwanted {
    prefix: String,
    #[serde(default)]
    list: Option<String>,
}

pub(super) fn block(running: &mut Running, ask: Ask, reply: Reply) {
    put(running, List::Deny, &ask, reply);
}

pub(super) fn allow(running: &mut Running, ask: Ask, reply: Reply) {
    put(running, List::Allow, &ask, reply);
}

fn put(running: &mut Running, list: List, ask: &Ask, reply: Reply) {
    let began = Instant::now();
    let request = match request(list, ask) {
        Ok(request) => request,
        Err(answer) => return reply.send(answer),
    };
    let (ttl, dry_run, reason) = (request.ttl, request.dry_run, request.reason.clone());
    let outcome = match running.lists.put(request, began) {
        Ok(outcome) => outcome,
        Err(refusal) => return reply.send(refused(&refusal)),
    };
    let full = enforce(running, began);
    running.lists.took(began);
    let prefix = outcome.prefix;
    tracing::info!(
        list = list.word(), %prefix, ttl = ttl.map(|ttl| ttl.as_secs()), enforced = outcome.enforced, reason,
        uid = ask.asker.uid, pid = ask.asker.pid, "access: entry by ctl"
    );
    let mut notes = Vec::new();
    if list == List::Deny {
        for net in &outcome.allowed {
            notes.push(format!("{net} is allowed, and allow wins: what both hold is still let in"));
        }
        if outcome.loopback {
            notes.push("it holds loopback addresses: clients on this host are refused".to_owned());
        }
    }
    if !outcome.enforced {
        notes.push(if dry_run {
            "dry run: nothing is refused; spooky_access_spared_total counts whom it would refuse"
                .to_owned()
        } else {
            "access.dry_run is on: nothing is refused".to_owned()
        });
    }
    if outcome.enforced && running.lists.is_fixed(list, &prefix) {
        notes.push(
            "the configuration or a file lists it as well; it stays when this entry ends"
                .to_owned(),
        );
    }
    let body = json!({
        "prefix": prefix.to_string(),
        "list": list.word(),
        "outcome": match outcome.put { Put::Added => "added", Put::Updated => "updated" },
        "enforced": outcome.enforced,
        "expires_in": ttl.map(|ttl| ttl.as_secs_f64()),
        "kernel": in_kernel(running, outcome.enforced, &full, prefix),
        "notes": notes,
    });
    answer(running, body, prefix, reply);
}

fn request(list: List, ask: &Ask) -> Result<Request, Answer> {
    let Wanted { prefix, ttl, reason, dry_run } = ask.read()?;
    let bad =
        |what: &str, message: String| Answer::refused(StatusCode::BAD_REQUEST, what, &message);
    let prefix = config::network(&prefix).map_err(|message| bad("prefix", message))?;
    let wrong = |text: &str| {
        format!("\"{}\" is not a time; write one such as 30s, 10m, 2h", text.escape_debug())
    };
    let ttl = match ttl {
        Some(text) => Some(parse_duration(&text).map_err(|_unit| bad("ttl", wrong(&text)))?),
        None => None,
    };
    let by = Some(By { uid: ask.asker.uid, pid: ask.asker.pid });
    Ok(Request { list, prefix, ttl, reason, dry_run, origin: Origin::Ctl, by })
}

pub(super) fn unblock(running: &mut Running, ask: Ask, reply: Reply) {
    let began = Instant::now();
    let Unwanted { prefix, list } = match ask.read() {
        Ok(unwanted) => unwanted,
        Err(answer) => return reply.send(answer),
    };
    let list = match list.as_deref() {
        None | Some("deny") => List::Deny,
        Some("allow") => List::Allow,
        Some(_) => {
            let answer = Answer::refused(StatusCode::BAD_REQUEST, "list", "list is allow or deny");
            return reply.send(answer);
        }
    };
    let prefix = match config::network(&prefix) {
        Ok(prefix) => prefix,
        Err(message) => {
            return reply.send(Answer::refused(StatusCode::BAD_REQUEST, "prefix", &message));
        }
    };
    let entry = match running.lists.remove(list, prefix) {
        Ok(entry) => entry,
        Err(refusal) => return reply.send(refused(&refusal)),
    };
    enforce(running, began);
    running.lists.took(began);
    tracing::info!(
        list = list.word(), %prefix, uid = ask.asker.uid, pid = ask.asker.pid, "access: entry removed by ctl"
    );
    let others = running.lists.matching(entry.prefix);
    let others = others.iter().filter(|row| row.list == list && row.enforced);
    let notes: Vec<String> = others
        .map(|row| format!("{} of {} holds it as well: {}", row.prefix, origin(row), stays(list)))
        .collect();
    let body = json!({
        "prefix": entry.prefix.to_string(),
        "list": list.word(),
        "outcome": "removed",
        "notes": notes,
    });
    answer(running, body, entry.prefix, reply);
}

fn stays(list: List) -> &'static str {
    match list {
        List::Allow => "it stays allowed",
        List::Deny => "it stays blocked",
    }
}

pub(super) fn list(running: &mut Running, ask: Ask, reply: Reply) {
    let now = Instant::now();
    let bad = |what: &str, message: &str| Answer::refused(StatusCode::BAD_REQUEST, what, message);
    let lists = &running.lists;
    if let Some(text) = ask.value("match") {
        let net = match config::network(text) {
            Ok(net) => net,
            Err(message) => return reply.send(bad("match", &message)),
        };
        let rows: Vec<Value> = lists.matching(net).iter().map(|row| line(row, now)).collect();
        let one = net.prefix_len() == net.max_prefix_len();
        let permitted = one.then(|| lists.permits(net.addr()));
        return reply.send(Answer::done(json!({"entries": rows, "permitted": permitted})));
    }
    let after = match ask.value("after").map(str::parse::<Cursor>) {
        None => None,
        Some(Ok(cursor)) => Some(cursor),
        Some(Err(())) => return reply.send(bad("after", "this is no `next` of an earlier page")),
    };
    let (rows, next) = lists.page(after, PAGE);
    let rows: Vec<Value> = rows.iter().map(|row| line(row, now)).collect();
    let next = next.map(|cursor| cursor.to_string());
    reply.send(Answer::done(json!({"entries": rows, "next": next})));
}

fn line(row: &Row, now: Instant) -> Value {
    let mut line = json!({
        "list": row.list.word(),
        "prefix": row.prefix.to_string(),
        "origin": row.origin.word(),
        "enforced": row.enforced,
    });
    let Some(fields) = line.as_object_mut() else { return line };
    if let Some(file) = &row.file {
        fields.insert("file".into(), file.display().to_string().into());
    }
    if let Some(entry) = &row.entry {
        let since = entry.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let left = entry.until.map(|until| until.saturating_duration_since(now).as_secs_f64());
        fields.insert("dry_run".into(), entry.dry_run.into());
        fields.insert("reason".into(), entry.reason.clone().into());
        fields.insert("since".into(), since.into());
        fields.insert("expires_in".into(), left.into());
        fields.insert("uid".into(), entry.by.map(|by| by.uid).into());
        fields.insert("pid".into(), entry.by.and_then(|by| by.pid).into());
    }
    line
}

fn origin(row: &Row) -> String {
    match &row.file {
        Some(file) => format!("the file {}", file.display()),
        None => row.origin.word().to_owned(),
    }
}

/// `listed`, `full`, `not listed`, or nothing where XDP does not run.
fn in_kernel(
    running: &Running,
    enforced: bool,
    full: &[IpNet],
    prefix: IpNet,
) -> Option<&'static str> {
    match running.supervisor.kernel().running() {
        Kernel::Off | Kernel::Reuseport => None,
        Kernel::XdpNative | Kernel::XdpGeneric if full.contains(&prefix) => Some("full"),
        Kernel::XdpNative | Kernel::XdpGeneric if enforced => Some("listed"),
        Kernel::XdpNative | Kernel::XdpGeneric => Some("not listed"),
    }
}

fn refused(refusal: &Refusal) -> Answer {
    let status = match refusal {
        Refusal::Full { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Refusal::Reason | Refusal::Ttl => StatusCode::BAD_REQUEST,
        Refusal::Trusted(_) | Refusal::NotOurs(_) => StatusCode::CONFLICT,
        Refusal::Unknown => StatusCode::NOT_FOUND,
    };
    Answer::refused(status, refusal.word(), &refusal.to_string())
}

/// Answers when the workers have counted the open connections that match, and the change is on the disk or will not be.
fn answer(running: &mut Running, mut body: Value, prefix: IpNet, reply: Reply) {
    let (kept, keeping) = oneshot::channel();
    running.lists.when_kept(Box::new(move |result| {
        let _ = kept.send(result.map_err(str::to_owned));
    }));
    let mut counts = Vec::new();
    for worker in running.workers.iter().filter(|worker| !worker.has_ended()) {
        if worker.inbox.room() > ROOM_MIN {
            let (reply, count) = oneshot::channel();
            worker.inbox.give(vec![Order::Count { network: prefix, reply }]);
            counts.push(count);
        }
    }
    let workers = running.workers.len();
    tokio::task::spawn_local(async move {
        let counting = async {
            let mut sum = 0;
            let whole = counts.len() == workers;
            for count in counts {
                sum += count.await.ok()?;
            }
            whole.then_some(sum)
        };
        let connections = tokio::time::timeout(COUNT_TIME_MAX, counting).await.ok().flatten();
        let kept = keeping.await.unwrap_or_else(|_ended| Err("the daemon ends".to_owned()));
        if let Some(fields) = body.as_object_mut() {
            // Nothing when a worker has not answered in time: a part of the sum would be a wrong number.
            fields.insert("connections".into(), connections.into());
            fields.insert("kept".into(), kept.is_ok().into());
            fields.insert("not_kept".into(), kept.err().into());
        }
        reply.send(Answer::done(body));
    });
}
