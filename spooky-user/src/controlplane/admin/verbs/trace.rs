//! Captures: `POST /trace/begin`, `GET /trace`, `POST /trace/end`. One at a time; its frames stay until they are fetched or another
//! begins. Imports its parent, boot's state, trace.

use std::time::Instant;

use http::StatusCode;
use serde::Deserialize;
use serde_json::json;

use super::steering::unreadable;
use super::{Answer, Ask, Reply};
use crate::controlplane::boot::Running;
use crate::controlplane::trace::session::{FRAMES_MAX, SECONDS_MAX, Wanted};

/// What a capture is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    frames: usize,
    seconds: u64,
    every: u32,
}

pub(super) fn begin(running: &mut Running, ask: Ask, reply: Reply) {
    let Begin { frames, seconds, every } = match ask.read() {
        Ok(begin) => begin,
        Err(answer) => return reply.send(answer),
    };
    let wanted = Wanted { frames, seconds, every };
    if !wanted.is_valid() {
        let bounds = format!(
            "frames 1 to {FRAMES_MAX}, seconds 1 to {SECONDS_MAX}, every from 1; asked for {wanted:?}"
        );
        return reply.send(Answer::refused(StatusCode::BAD_REQUEST, "bounds", &bounds));
    }
    let supervisor = &mut running.supervisor;
    if !supervisor.kernel().captures() {
        let why = "no XDP program is attached, and frames are captured there: see ebpf.mode and `spooky ctl status`";
        return reply.send(Answer::refused(StatusCode::CONFLICT, "no_xdp", why));
    }
    if supervisor.capture().is_some_and(|it| !it.is_over()) {
        let why = "another capture is under way; it ends by itself";
        return reply.send(Answer::refused(StatusCode::CONFLICT, "busy", why));
    }
    tracing::info!(frames, seconds, every, uid = ask.asker.uid, "frames are captured");
    reply.send(match supervisor.begin_capture(wanted, Instant::now()) {
        Ok(()) => Answer::done(json!({})),
        Err(error) => unreadable(&error),
    });
}

pub(super) fn progress(running: &mut Running, _ask: Ask, reply: Reply) {
    reply.send(match running.supervisor.capture() {
        Some(session) => Answer::done(json!({"frames": session.len(), "over": session.is_over()})),
        None => none(),
    });
}

pub(super) fn end(running: &mut Running, _ask: Ask, reply: Reply) {
    reply.send(match running.supervisor.end_capture() {
        Some(Ok(trace)) => {
            let mut file = Vec::new();
            // Memory takes everything.
            let _ = trace.write(&mut file);
            let file = String::from_utf8_lossy(&file);
            Answer::done(json!({"frames": trace.frames.len(), "lost": trace.lost, "trace": file}))
        }
        Some(Err(error)) => unreadable(&error),
        None => none(),
    });
}

fn none() -> Answer {
    Answer::refused(StatusCode::NOT_FOUND, "no_capture", "no capture has begun")
}
