//! HTTP/3 requests through a session, the proxy and a pool to an HTTP/2 backend and back: what was sent whole arrives whole, in
//! order, once, and is answered whole; what was cut, reset or lied about its length is never seen to end.
//!
//! Input: `request STREAM METHOD ANSWER-SIZE [CONTENT-LENGTH]`, `data STREAM SIZE`, `pieces STREAM SIZE STEP`, `unknown STREAM`,
//! `trailers STREAM VALUE`, `fin STREAM`, `reset STREAM`, `settle`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use spooky_user::dataplane::proxy::{self, Context};
use spooky_user::dataplane::quic::settings::QuicSettings;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;

use crate::rig::{self, Pair, Server};
use crate::script::{self, Line};
use crate::upstream::{context, endpoint, on_worker, until};

const OPERATIONS: [&str; 8] =
    ["request", "data", "pieces", "unknown", "trailers", "fin", "reset", "settle"];
/// Fits into a stream's first window, so that a script need not wait for credit.
const BODY_MAX: usize = 40_000;
const WINDOW: u64 = 1 << 20;

/// What the client has done on one stream.
#[derive(Debug, Default)]
struct Plan {
    answer: usize,
    length: Option<u64>,
    body: Vec<u8>,
    end: End,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Fin,
    Trailers(Vec<u8>),
    Reset,
}

/// What the backend has seen of one request.
#[derive(Debug, Default)]
struct Seen {
    times: usize,
    body: Vec<u8>,
    /// With its trailers, if the end was one.
    clean: Option<HeaderMap>,
    over: bool,
}

type Log = Rc<RefCell<BTreeMap<u64, Seen>>>;

pub(super) fn run(input: &[u8]) {
    on_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let log: Log = Rc::default();
        spawn_local(listen(listener, Rc::clone(&log)));
        let mut pair = Pair::established(Server::usual(QuicSettings::default()), WINDOW);
        pair.open_control();
        let context = context(&endpoint(address, 100), &pair.server.metrics);
        let mut plans = BTreeMap::new();
        for line in script::lines(input, 40) {
            follow(&mut pair, &mut plans, &line);
            turn(&mut pair, &context);
            if line.verb() == b"settle" {
                tokio::task::yield_now().await;
            }
        }
        answered(&mut pair, &plans, &context).await;
        // The client goes: what is still open can only be cut.
        if let Some(key) = pair.key {
            pair.server.close(key);
        }
        until("tasks end", || context.serving() == 0).await;
        context.pools.drain();
        until("the backend sees an end", || log.borrow().values().all(|seen| seen.over)).await;
        assert_eq!(pair.server.ready.buffered(), 0);
        for (id, plan) in &plans {
            compare(*id, plan, log.borrow().get(id), &pair);
        }
        assert!(log.borrow().keys().all(|id| plans.contains_key(id)), "out of nothing");
    });
}

fn follow(pair: &mut Pair, plans: &mut BTreeMap<u64, Plan>, line: &Line<'_>) {
    let id = 4 * (line.number(1) / 4 % 8);
    let verb = line.choice(&OPERATIONS);
    if verb == "request" && !plans.contains_key(&id) {
        plans.insert(id, request(pair, id, line));
        return;
    }
    let Some(plan) = plans.get_mut(&id).filter(|plan| plan.end == End::Open) else { return };
    match verb {
        "data" | "pieces" => {
            let size = line.below(2, BODY_MAX).min(BODY_MAX - plan.body.len());
            let step = if verb == "data" { size } else { line.below(3, size) }.max(size / 20 + 1);
            let from = plan.body.len();
            plan.body.extend(pattern(id, from).take(size));
            for piece in plan.body[from..].chunks(step) {
                pair.write(id, &rig::frame(0, piece), false);
            }
        }
        "unknown" => pair.write(id, &rig::frame(0x21, b"to be ignored"), false),
        "trailers" => {
            let value: Vec<u8> =
                line.word(2).into_iter().filter(u8::is_ascii_alphanumeric).collect();
            pair.write(id, &rig::frame(1, &rig::section(&[(b"x-sum", &value)])), true);
            plan.end = End::Trailers(value);
        }
        "fin" => {
            pair.write(id, &[], true);
            plan.end = End::Fin;
        }
        "reset" => {
            // Of a stream that the server has stopped there is nothing to reset.
            let _ = pair.client.stream_shutdown(id, quiche::Shutdown::Write, 0x10c);
            plan.end = End::Reset;
        }
        _ => {}
    }
}

fn request(pair: &mut Pair, id: u64, line: &Line<'_>) -> Plan {
    let methods: [&[u8]; 4] = [b"GET", b"POST", b"PUT", b"DELETE"];
    let answer = line.below(3, 100_000);
    let length = (!line.word(4).is_empty()).then(|| line.number(4) % BODY_MAX as u64);
    let (path, name) = (format!("/{answer}"), id.to_string());
    let text = length.map(|length| length.to_string());
    let mut fields: Vec<(&[u8], &[u8])> = vec![
        (b":method", methods[line.below(2, 4)]),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", path.as_bytes()),
        (b"x-id", name.as_bytes()),
    ];
    if let Some(text) = &text {
        fields.push((b"content-length", text.as_bytes()));
    }
    pair.write(id, &rig::frame(1, &rig::section(&fields)), false);
    Plan { answer, length, ..Plan::default() }
}

/// The octets of a body: each tells of its stream and place.
fn pattern(id: u64, from: usize) -> impl Iterator<Item = u8> {
    (from..).map(move |place| (place as u64 * 31 + id) as u8)
}

/// The connection's turn: what it opened is served.
fn turn(pair: &mut Pair, context: &Rc<Context>) {
    pair.settle();
    for exchange in pair.opened.drain(..) {
        spawn_local(proxy::serve(exchange, Rc::clone(context)));
    }
}

/// Turns until every request that ended has its answer.
async fn answered(pair: &mut Pair, plans: &BTreeMap<u64, Plan>, context: &Rc<Context>) {
    let done = |pair: &Pair, id: u64| {
        let received = pair.received.get(&id);
        received.is_some_and(|received| received.fin || received.reset.is_some())
    };
    until("every request is answered", || {
        turn(pair, context);
        let ended =
            plans.iter().filter(|(_, plan)| matches!(plan.end, End::Fin | End::Trailers(_)));
        pair.is_over() || ended.into_iter().all(|(id, _)| done(pair, *id))
    })
    .await;
    assert!(!pair.is_over(), "the connection ended: {:?}", pair.client.peer_error());
}

fn compare(id: u64, plan: &Plan, seen: Option<&Seen>, pair: &Pair) {
    let honest = plan.length.is_none_or(|length| length == plan.body.len() as u64);
    let ended = matches!(plan.end, End::Fin | End::Trailers(_));
    let received = pair.received.get(&id);
    let answer = received.and_then(|it| rig::answer(&it.octets).filter(|_| it.fin));
    if !(honest && ended) {
        assert!(answer.is_none_or(|(status, _)| status >= 400), "{plan:?} was answered well");
        if let Some(seen) = seen {
            assert!(seen.clean.is_none(), "{plan:?} was seen to end");
            assert!(plan.body.starts_with(&seen.body), "{plan:?} became something else");
            let most = plan.length.unwrap_or(u64::MAX);
            assert!(seen.body.len() as u64 <= most, "more than was declared");
        }
        return;
    }
    let seen = seen.unwrap_or_else(|| panic!("{plan:?} never arrived"));
    assert_eq!(seen.times, 1);
    assert!(seen.body == plan.body, "{} octets of {}", seen.body.len(), plan.body.len());
    let trailers = seen.clean.as_ref().unwrap_or_else(|| panic!("{plan:?} was cut"));
    match &plan.end {
        End::Trailers(value) => {
            assert_eq!(trailers.get("x-sum").map(|v| v.as_bytes()), Some(&value[..]))
        }
        _ => assert!(trailers.is_empty()),
    }
    let (status, content) = answer.unwrap_or_else(|| panic!("{plan:?} got {received:?}"));
    assert_eq!(status, 200);
    assert!(content.into_iter().eq(pattern(id, 0).take(plan.answer)), "another answer");
}

// === the backend ===

async fn listen(listener: TcpListener, log: Log) {
    while let Ok((stream, _)) = listener.accept().await {
        spawn_local(serve(stream, Rc::clone(&log)));
    }
}

async fn serve(stream: TcpStream, log: Log) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        spawn_local(answer(request, respond, Rc::clone(&log)));
    }
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, log: Log) {
    let (head, mut body) = request.into_parts();
    let id = head.headers.get("x-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let id = id.expect("every request has its number");
    log.borrow_mut().entry(id).or_default().times += 1;
    let seen = |change: &dyn Fn(&mut Seen)| change(log.borrow_mut().entry(id).or_default());
    let mut cut = false;
    while let Some(data) = body.data().await {
        let Ok(data) = data else {
            cut = true;
            break;
        };
        seen(&|seen| seen.body.extend_from_slice(&data));
        let _ = body.flow_control().release_capacity(data.len());
    }
    if !cut && let Ok(trailers) = body.trailers().await {
        let trailers = trailers.unwrap_or_default();
        seen(&|seen| seen.clean = Some(trailers.clone()));
        let size = head.uri.path()[1..].parse().unwrap_or(0);
        let content: Vec<u8> = pattern(id, 0).take(size).collect();
        if let Ok(mut stream) = respond.send_response(Response::new(()), size == 0)
            && size > 0
        {
            // What the client does not want any more is not sent.
            let _ = stream.send_data(content.into(), true);
        }
    }
    seen(&|seen| seen.over = true);
}
