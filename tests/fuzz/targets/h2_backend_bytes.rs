//! A backend that sends any octets to a worker's pool: every request that is under way comes to an end, every place in the
//! pool comes back, and the next connection serves as if nothing had been.
//!
//! Input: `head STREAM FLAGS NAME VALUE ...`, `data STREAM FLAGS SIZE`, `rst STREAM CODE`, `goaway LAST CODE`,
//! `settings HEX`, `window STREAM INCREMENT`, `ping HEX`, `frame TYPE FLAGS STREAM HEX`, `raw HEX`. The backend's SETTINGS come
//! first, and at the end it closes.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, Version};
use spooky_tests::hostile::{field, frame};
use spooky_user::dataplane::exchange::error::Kind;
use spooky_user::dataplane::upstream::cluster::Endpoint;
use spooky_user::dataplane::upstream::{Pools, classify};
use spooky_user::id::WorkerId;
use spooky_user::telemetry::metrics::WorkerMetrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, spawn_local};

use crate::script::{self, Line};
use crate::upstream::{endpoint, on_worker, until};

const OPERATIONS: [&str; 9] =
    ["head", "data", "rst", "goaway", "settings", "window", "ping", "frame", "raw"];
/// Requests under way, and the places there are for them.
const REQUESTS: u32 = 3;
/// Content of one response that is read at most: what fits into all windows many times.
const CONTENT_MAX: usize = 4 << 20;

pub(super) fn run(input: &[u8]) {
    let octets: Vec<u8> = script::lines(input, 60).flat_map(|line| frame_of(&line)).collect();
    on_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its number");
        let honest = Rc::new(Cell::new(false));
        spawn_local(backend(listener, octets, Rc::clone(&honest)));
        let metrics = Arc::new(WorkerMetrics::new());
        let pools = Rc::new(Pools::new(WorkerId(0), Arc::clone(&metrics)));
        let endpoint = endpoint(address, REQUESTS);
        let under_way: Vec<_> = (0..REQUESTS + 2).map(|_| get(&pools, &endpoint)).collect();
        for request in under_way {
            // However it ends: it ends.
            let _outcome = request.await.expect("it does not panic");
        }
        assert_eq!(metrics.pool_pending.value(), 0, "somebody waits");
        honest.set(true);
        until("lost connections are forgotten", || pools.connections() == 0).await;
        works_again(&pools, &endpoint, address).await;
        pools.drain();
        until("connections end", || pools.connections() == 0).await;
    });
}

/// All places at once, twice over; a place that was lost would keep one of them waiting.
async fn works_again(pools: &Rc<Pools>, endpoint: &Arc<Endpoint>, address: SocketAddr) {
    let mut left = 2 * REQUESTS;
    let mut tries = 0;
    while left > 0 {
        let all: Vec<_> = (0..left).map(|_| get(pools, endpoint)).collect();
        for request in all {
            match request.await.expect("it does not panic") {
                Ok(content) => {
                    assert_eq!(content, "well");
                    left -= 1;
                }
                // A connection that was opened before the backend meant well, or the pause after one that failed.
                Err(Kind::ConnectFailed | Kind::ConnectionLost | Kind::StreamRefused) => {}
                Err(kind) => panic!("{kind:?} from a backend at {address} that means well"),
            }
        }
        tries += 1;
        assert!(tries < 200_000, "it never recovers");
        tokio::task::yield_now().await;
    }
}

/// A request in a task of its own, as the proxy makes it.
fn get(pools: &Rc<Pools>, endpoint: &Arc<Endpoint>) -> JoinHandle<Result<Bytes, Kind>> {
    let (pools, endpoint) = (Rc::clone(pools), Arc::clone(endpoint));
    spawn_local(async move {
        let mut lease = pools.lease(&endpoint).await.map_err(|error| error.kind)?;
        let request = Request::get("http://backend.test/").version(Version::HTTP_2).body(());
        let (response, _) = lease.send(request.expect("a request"), true).map_err(|it| it.kind)?;
        let failed = |error: h2::Error| classify(&error).kind;
        let mut body = response.await.map_err(failed)?.into_body();
        let mut content = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(failed)?;
            content.extend_from_slice(&data);
            assert!(content.len() < CONTENT_MAX, "content without end");
            body.flow_control().release_capacity(data.len()).map_err(failed)?;
        }
        body.trailers().await.map_err(failed)?;
        drop(body);
        lease.finished();
        Ok(content.into())
    })
}

/// One line as octets of HTTP/2 (RFC 9113 §4.1).
fn frame_of(line: &Line<'_>) -> Vec<u8> {
    let word = |place: usize| line.number(place) as u32;
    let (kind, flags, stream, payload) = match line.choice(&OPERATIONS) {
        "head" => {
            let words: Vec<Vec<u8>> = (3..33).map(|place| line.word(place)).collect();
            let fields = words.as_chunks::<2>().0.iter().filter(|[name, _]| !name.is_empty());
            let block = fields.flat_map(|[name, value]| field(name, value)).collect();
            (frame::HEADERS, line.number(2) as u8, word(1), block)
        }
        "data" => (frame::DATA, line.number(2) as u8, word(1), vec![b'd'; line.below(3, 20_000)]),
        "rst" => (frame::RST_STREAM, 0, word(1), word(2).to_be_bytes().to_vec()),
        "goaway" => {
            let payload = [word(1).to_be_bytes(), word(2).to_be_bytes()].concat();
            (frame::GOAWAY, 0, 0, payload)
        }
        "settings" => (frame::SETTINGS, 0, 0, script::hex(&line.word(1))),
        "window" => (frame::WINDOW_UPDATE, 0, word(1), word(2).to_be_bytes().to_vec()),
        "ping" => (frame::PING, 0, 0, script::hex(&line.word(1))),
        "frame" => {
            (line.number(1) as u8, line.number(2) as u8, word(3), script::hex(&line.word(4)))
        }
        _ => return script::hex(&line.word(1)),
    };
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Sends the octets on every connection as soon as a request has come, and closes; later on it means well.
async fn backend(listener: TcpListener, octets: Vec<u8>, honest: Rc<Cell<bool>>) {
    while let Ok((stream, _)) = listener.accept().await {
        if honest.get() {
            spawn_local(serve(stream));
        } else {
            spawn_local(misbehave(stream, octets.clone()));
        }
    }
}

async fn misbehave(mut stream: TcpStream, octets: Vec<u8>) {
    let mut buffer = vec![0; 16 << 10];
    let settings = [0, 0, 0, frame::SETTINGS, 0, 0, 0, 0, 0];
    for answer in [settings.as_slice(), &octets] {
        let Ok(1..) = stream.read(&mut buffer).await else { return };
        let Ok(()) = stream.write_all(answer).await else { return };
    }
    let Ok(()) = stream.shutdown().await else { return };
    // Unread octets would turn the end into a reset, and what was sent before it would be lost.
    while let Ok(1..) = stream.read(&mut buffer).await {}
}

async fn serve(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
            // Nobody cancels here.
            let _ = stream.send_data(Bytes::from_static(b"well"), true);
        }
    }
}
