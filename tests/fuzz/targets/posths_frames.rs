//! What a client may do after a true handshake: frames of HTTP/3 whole, cut, of every type, in any order, on any stream. A
//! worker holds no more than its limits say, whatever is kept of a stream goes with it, and the connection ends or works.
//!
//! Input: `request STREAM METHOD PATH [LENGTH]`, `fields STREAM NAME VALUE ...`, `data STREAM SIZE`, `frame STREAM TYPE HEX`,
//! `raw STREAM HEX`, `fin STREAM`, `reset STREAM CODE`, `stop STREAM CODE`, `wait MILLISECONDS`, `answer PLACE SIZE`,
//! `take PLACE`, `abort PLACE`, `settle`. Streams are `4`, `8`, ... or `u2`, `u6`, ...; a place counts open exchanges.

use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use spooky_user::dataplane::exchange::link::{AbortCode, BUFFER_SIZE, Inbound, Outbound};
use spooky_user::dataplane::quic::settings::QuicSettings;

use crate::rig::{self, Pair, Server};
use crate::script::{self, Line};

const OPERATIONS: [&str; 13] = [
    "request", "fields", "data", "frame", "raw", "fin", "reset", "stop", "wait", "answer", "take",
    "abort", "settle",
];
const STREAMS_MAX: u64 = 8;
/// Octets a client may have in flight on one stream; small, so that a script can fill it.
const WINDOW: u64 = 32 << 10;
/// The stream of the request at the end: above all that a script uses.
const HONEST: u64 = 4 * 200;

pub(super) fn run(input: &[u8]) {
    let quic = QuicSettings { max_streams: 300, ..QuicSettings::default() };
    let mut pair = Pair::established(Server::usual(quic), WINDOW);
    for line in script::lines(input, 60) {
        follow(&mut pair, &line);
        within_limits(&mut pair);
    }
    pair.settle();
    within_limits(&mut pair);
    if !pair.is_over() {
        still_works(&mut pair);
    }
    if let Some(key) = pair.key {
        pair.server.close(key);
    }
    pair.opened.clear();
    assert_eq!(pair.server.ready.buffered(), 0, "nothing is kept of a connection that is gone");
    assert_eq!(pair.server.metrics.requests_active.value(), 0);
    assert!(pair.server.endpoint.is_empty());
}

fn stream(line: &Line<'_>) -> u64 {
    let word = line.word(1);
    if word.first() == Some(&b'u') {
        return 2 + 4 * (word.get(1).map_or(0, |digit| u64::from(*digit)) % 16);
    }
    4 * (line.number(1) / 4 % (STREAMS_MAX * 4))
}

fn follow(pair: &mut Pair, line: &Line<'_>) {
    let id = stream(line);
    let place = line.below(1, pair.opened.len());
    match line.choice(&OPERATIONS) {
        "request" => {
            let (method, path, length) = (line.word(2), line.word(3), line.word(4));
            let mut fields: Vec<(&[u8], &[u8])> = vec![
                (b":method", &method),
                (b":scheme", b"https"),
                (b":authority", b"localhost"),
                (b":path", &path),
            ];
            if !length.is_empty() {
                fields.push((b"content-length", &length));
            }
            pair.write(id, &rig::frame(1, &rig::section(&fields)), false);
        }
        "fields" => {
            let words: Vec<Vec<u8>> = (2..40).map(|place| line.word(place)).collect();
            let pairs = words.as_chunks::<2>().0.iter().filter(|[name, _]| !name.is_empty());
            let fields: Vec<(&[u8], &[u8])> =
                pairs.map(|[name, value]| (name.as_slice(), value.as_slice())).collect();
            pair.write(id, &rig::frame(1, &rig::section(&fields)), false);
        }
        "data" => {
            pair.write(id, &rig::frame(0, &vec![b'd'; line.below(2, 40_000)]), false);
        }
        "frame" => {
            pair.write(
                id,
                &rig::frame(line.number(2) & (u64::MAX >> 2), &script::hex(&line.word(3))),
                false,
            );
        }
        "raw" => {
            pair.write(id, &script::hex(&line.word(2)), false);
        }
        "fin" => {
            pair.write(id, &[], true);
        }
        verb @ ("reset" | "stop") => {
            let direction =
                if verb == "reset" { quiche::Shutdown::Write } else { quiche::Shutdown::Read };
            // Of a stream that is not open there is nothing to shut.
            let _ = pair.client.stream_shutdown(id, direction, line.number(2) & (u64::MAX >> 2));
        }
        "wait" => pair.server.now += Duration::from_millis(line.number(1) % 40_000),
        verb => serve(pair, verb, place, line),
    }
}

/// What a serving task might do.
fn serve(pair: &mut Pair, verb: &str, place: usize, line: &Line<'_>) {
    let Some(exchange) = pair.opened.get(place) else {
        pair.settle();
        return;
    };
    let link = std::rc::Rc::clone(&exchange.link);
    match verb {
        "answer" => {
            link.send(Outbound::Head(StatusCode::OK, HeaderMap::new(), false));
            let mut left = line.below(2, 300_000);
            while left > 0 && link.has_response_room() {
                let piece = left.min(16 << 10);
                link.send(Outbound::Data(Bytes::from(vec![b'a'; piece])));
                left -= piece;
            }
            link.send(Outbound::End);
            drop(pair.opened.remove(place));
        }
        "abort" => {
            link.abort(AbortCode::Internal);
            drop(pair.opened.remove(place));
        }
        "take" => while let Poll::Ready(Ok(Inbound::Data(_))) = link.poll_request() {},
        _ => drop(pair.settle()),
    }
}

/// A connection holds what its links may hold and no more.
fn within_limits(pair: &mut Pair) {
    // A piece that was let in when there was room for one octet may be a frame long.
    let link = 2 * (BUFFER_SIZE + (32 << 10));
    let open = pair.session().map_or(0, |session| session.open_streams());
    let links = open + pair.opened.len();
    let buffered = pair.server.ready.buffered();
    assert!(buffered <= links * link, "{buffered} octets in {links} links");
    assert!(open <= 300, "{open} streams");
}

/// A request that means well is answered, or there is a reason why it cannot be sent.
fn still_works(pair: &mut Pair) {
    let fields: [(&[u8], &[u8]); 4] = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"localhost"),
        (b":path", b"/honest"),
    ];
    pair.write(HONEST, &rig::frame(1, &rig::section(&fields)), true);
    pair.settle();
    // The window of the connection may be full of what stands on other streams.
    if pair.is_over() || pair.waits(HONEST) {
        return;
    }
    let honest = pair.opened.iter().position(|exchange| exchange.head.target.path() == "/honest");
    let honest = pair.opened.remove(honest.expect("the honest request is served"));
    honest.link.send(Outbound::Head(StatusCode::OK, HeaderMap::new(), true));
    drop(honest);
    pair.settle();
    if pair.is_over() {
        return;
    }
    let received = pair.received.get(&HONEST).expect("an answer");
    assert!(received.fin && received.reset.is_none(), "{received:?}");
    assert_eq!(rig::answer(&received.octets).map(|(status, _)| status), Some(200));
}
