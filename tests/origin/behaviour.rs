//! What each path answers. `?name=value` after the path; sizes are bytes, times milliseconds.
//!
//! | path | answer |
//! |---|---|
//! | `/` | a page that names the origin |
//! | `/pictures/N` | a page with N pictures, each of them at `/picture/I` |
//! | `/healthz` | 200, or 500 after `/control/healthy?value=false` |
//! | `/bytes/N?seed=S` | N bytes of seeded content ([`super::body::Content`]); `&rate=R` bytes a second |
//! | `/hash` | reads the body: its length and SHA-256 as JSON |
//! | `/slow-read?rate=R` | as `/hash`, reading R bytes a second |
//! | `/echo` | method, path, field lines, trailers and length of the body as JSON |
//! | `/echo-body` | the body, streamed back |
//! | `/status/NNN` | that status, empty body |
//! | `/headers/N` | N field lines `x-field-I` |
//! | `/trailers` | a body and the trailers `x-checksum`, `x-origin-trailer` |
//! | `/trailers-only` | one field section with `grpc-status: 5`, and no DATA frame, as gRPC answers errors |
//! | `/early`, `/early/N` | one 103 with `link`, or N, then 200 |
//! | `/continue` | 100, then as `/hash` |
//! | `/early-response` | 413 at once; the body is never read |
//! | `/delay/MS` | 200 after a time |
//! | `/hang` | headers never come |
//! | `/hang-body/N` | N bytes, then silence |
//! | `/reset-after/N` | N bytes, then RST_STREAM INTERNAL_ERROR |
//! | `/refuse` | RST_STREAM REFUSED_STREAM at once |
//! | `/refuse-once/KEY` | REFUSED_STREAM for the first request with KEY, then 200 |
//! | `/die-after/N` | N bytes, then the TCP connection is closed |
//! | `/lie-length/N` | `content-length: N`, but half of it and a clean end |
//! | `/control/...` | `stats`, `healthy?value=BOOL`, `goaway` |

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::body::{self, Content, Ended};
use super::server::{Command, Shared};

/// One stream with everything a behaviour needs.
struct Exchange<'a> {
    request: Request<RecvStream>,
    reply: SendResponse<Bytes>,
    shared: &'a Shared,
    commands: &'a mpsc::Sender<Command>,
}

/// Answers one request and counts how it ended.
pub(super) async fn answer(
    request: Request<RecvStream>,
    reply: SendResponse<Bytes>,
    shared: &Shared,
    commands: &mpsc::Sender<Command>,
) {
    let counter = match (Exchange { request, reply, shared, commands }).run().await {
        Ok(()) => &shared.stats.answered,
        Err(Ended::ByPeer) => &shared.stats.resets_received,
        Err(Ended::ByUs) => &shared.stats.resets_sent,
    };
    counter.fetch_add(1, Relaxed);
}

impl Exchange<'_> {
    async fn run(mut self) -> Result<(), Ended> {
        let path = self.request.uri().path().to_owned();
        let mut segments = path.trim_start_matches('/').splitn(2, '/');
        let (verb, rest) = (segments.next().unwrap_or(""), segments.next().unwrap_or(""));
        let number: u64 = rest.parse().unwrap_or(0);
        match verb {
            "" => self.page().await,
            "pictures" => self.pictures(number).await,
            "picture" => self.picture(number).await,
            "healthz" => self.health().await,
            "bytes" => self.bytes(number).await,
            "hash" | "slow-read" => self.hash().await,
            "echo" => self.echo().await,
            "echo-body" => self.echo_body().await,
            "status" => self.status(u16::try_from(number).unwrap_or(0)).await,
            "headers" => self.headers(number).await,
            "trailers" => self.trailers().await,
            "trailers-only" => self.trailers_only().await,
            "early" => self.early(number.max(1)).await,
            "continue" => self.go_on().await,
            "early-response" => self.text(413, "too large\n").await,
            "delay" => self.delay(Duration::from_millis(number)).await,
            "hang" => Err(gone(&mut self.reply).await),
            "hang-body" => self.hang_body(number).await,
            "reset-after" => self.reset_after(number).await,
            "refuse" => self.refuse(),
            "refuse-once" => self.refuse_once(&path).await,
            "die-after" => self.die_after(number).await,
            "lie-length" => self.lie_length(number).await,
            "control" => self.control(rest).await,
            _ => self.text(404, "no such behaviour\n").await,
        }
    }

    // === answers ===

    async fn page(self) -> Result<(), Ended> {
        let name = &self.shared.options.name;
        let field = |field| self.request.headers().get(field).and_then(|value| value.to_str().ok());
        let page = format!(
            "<!doctype html><title>{name}</title>\n<h1>Hello from {name}</h1>\n\
             <p>You came over {} from {}.</p>\n",
            escaped(field("x-forwarded-proto").unwrap_or("HTTP/2")),
            escaped(field("x-forwarded-for").unwrap_or("somewhere")),
        );
        let response = self.response(200, "text/html; charset=utf-8");
        self.whole(response, page.into()).await
    }

    async fn pictures(self, count: u64) -> Result<(), Ended> {
        let pictures: String =
            (0..count.min(10_000)).map(|n| format!("<img src=\"/picture/{n}\">\n")).collect();
        let page = format!("<!doctype html><title>{count} pictures</title>\n{pictures}");
        let response = self.response(200, "text/html; charset=utf-8");
        self.whole(response, page.into()).await
    }

    async fn picture(self, number: u64) -> Result<(), Ended> {
        let mut response = self.response(200, "image/svg+xml");
        response.headers_mut().insert("cache-control", HeaderValue::from_static("no-store"));
        let picture = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"20\" height=\"20\"><title>{number}</title>\
             <circle cx=\"10\" cy=\"10\" r=\"9\"/></svg>"
        );
        self.whole(response, picture.into()).await
    }

    async fn health(self) -> Result<(), Ended> {
        let healthy = self.shared.stats.healthy.load(Relaxed);
        self.text(if healthy { 200 } else { 500 }, if healthy { "ok\n" } else { "ill\n" }).await
    }

    async fn bytes(mut self, length: u64) -> Result<(), Ended> {
        let (seed, rate) = (self.query("seed").unwrap_or(0), self.query("rate"));
        let mut response = self.response(200, "application/octet-stream");
        response.headers_mut().insert("content-length", length.into());
        if self.request.method() == http::Method::HEAD || length == 0 {
            return self.reply.send_response(response, true).map(drop).map_err(by_peer);
        }
        let mut stream = self.reply.send_response(response, false).map_err(by_peer)?;
        let (started, mut sent) = (Instant::now(), 0);
        for chunk in Content::new(seed, length) {
            sent += chunk.len() as u64;
            body::send(&mut stream, chunk, sent == length, &self.shared.stats).await?;
            if let Some(rate) = rate {
                let due = started + Duration::from_millis(sent.saturating_mul(1000) / rate.max(1));
                tokio::time::sleep_until(due).await;
            }
        }
        Ok(())
    }

    async fn hash(mut self) -> Result<(), Ended> {
        let rate = self.query("rate");
        let stats = &self.shared.stats;
        let (length, sha256) = body::hash(self.request.body_mut(), rate, stats).await?;
        self.json(json!({ "length": length, "sha256": sha256 })).await
    }

    async fn echo(mut self) -> Result<(), Ended> {
        let (length, sha256) =
            body::hash(self.request.body_mut(), None, &self.shared.stats).await?;
        let trailers = self.request.body_mut().trailers().await.map_err(by_peer)?;
        let uri = self.request.uri();
        let value = json!({
            "origin": self.shared.options.name,
            "method": self.request.method().as_str(),
            "scheme": uri.scheme_str(),
            "authority": uri.authority().map(http::uri::Authority::as_str),
            "path": uri.path_and_query().map(http::uri::PathAndQuery::as_str),
            "headers": fields(self.request.headers()),
            "trailers": trailers.as_ref().map(fields),
            "length": length,
            "sha256": sha256,
        });
        self.json(value).await
    }

    async fn echo_body(mut self) -> Result<(), Ended> {
        let mut response = self.response(200, "application/octet-stream");
        if let Some(id) = self.request.headers().get("x-request-tag") {
            response.headers_mut().insert("x-request-tag", id.clone());
        }
        let mut stream = self.reply.send_response(response, false).map_err(by_peer)?;
        while let Some(data) = body::receive(self.request.body_mut(), &self.shared.stats).await? {
            body::send(&mut stream, data, false, &self.shared.stats).await?;
        }
        match self.request.body_mut().trailers().await.map_err(by_peer)? {
            Some(trailers) => stream.send_trailers(trailers).map_err(by_peer),
            None => stream.send_data(Bytes::new(), true).map_err(by_peer),
        }
    }

    async fn status(mut self, status: u16) -> Result<(), Ended> {
        let mut response = self.response(200, "text/plain");
        match StatusCode::from_u16(status) {
            Ok(status) if !status.is_informational() => *response.status_mut() = status,
            _ => return self.text(400, "not a final status\n").await,
        }
        self.reply.send_response(response, true).map(drop).map_err(by_peer)
    }

    async fn headers(self, count: u64) -> Result<(), Ended> {
        let mut response = self.response(200, "text/plain");
        for index in 0..count.min(10_000) {
            let name = http::HeaderName::try_from(format!("x-field-{index}"));
            let value = HeaderValue::try_from(format!("value-{index}"));
            if let (Ok(name), Ok(value)) = (name, value) {
                response.headers_mut().insert(name, value);
            }
        }
        self.whole(response, "fields\n".into()).await
    }

    async fn trailers(mut self) -> Result<(), Ended> {
        let response = self.response(200, "text/plain");
        let mut stream = self.reply.send_response(response, false).map_err(by_peer)?;
        let text = Bytes::from_static(b"body before trailers\n");
        body::send(&mut stream, text, false, &self.shared.stats).await?;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("c0ffee"));
        trailers.insert("x-origin-trailer", self.name());
        stream.send_trailers(trailers).map_err(by_peer)
    }

    async fn trailers_only(mut self) -> Result<(), Ended> {
        let mut response = self.response(200, "application/grpc");
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        self.reply.send_response(response, true).map(drop).map_err(by_peer)
    }

    async fn early(mut self, times: u64) -> Result<(), Ended> {
        for _ in 0..times {
            self.informational(103, Some("</style.css>; rel=preload"))?;
        }
        self.text(200, "after early hints\n").await
    }

    async fn go_on(mut self) -> Result<(), Ended> {
        self.informational(100, None)?;
        self.hash().await
    }

    async fn delay(mut self, time: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            ended = gone(&mut self.reply) => return Err(ended),
        }
        self.text(200, "late\n").await
    }

    // === faults ===

    async fn hang_body(mut self, length: u64) -> Result<(), Ended> {
        let mut stream = self.part(length, None).await?;
        match poll_fn(|cx| stream.poll_reset(cx)).await {
            Ok(_) | Err(_) => Err(Ended::ByPeer),
        }
    }

    async fn reset_after(mut self, length: u64) -> Result<(), Ended> {
        let mut stream = self.part(length, None).await?;
        self.written().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
        Err(Ended::ByUs)
    }

    async fn die_after(mut self, length: u64) -> Result<(), Ended> {
        let _stream = self.part(length, None).await?;
        self.written().await;
        // A full channel means that another stream has asked for the same.
        let _asked = self.commands.try_send(Command::Die);
        Err(Ended::ByUs)
    }

    async fn lie_length(mut self, length: u64) -> Result<(), Ended> {
        let mut stream = self.part(length / 2, Some(length)).await?;
        stream.send_data(Bytes::new(), true).map_err(by_peer)
    }

    fn refuse(mut self) -> Result<(), Ended> {
        self.reply.send_reset(Reason::REFUSED_STREAM);
        Err(Ended::ByUs)
    }

    async fn refuse_once(self, path: &str) -> Result<(), Ended> {
        // The path was counted when the stream opened: one means that this is the first.
        match self.shared.stats.path_count(path) {
            0 | 1 => self.refuse(),
            _ => self.text(200, "second time\n").await,
        }
    }

    // === control ===

    async fn control(self, verb: &str) -> Result<(), Ended> {
        match verb {
            "stats" => {
                let stats = self.shared.stats.to_json();
                self.json(stats).await
            }
            "healthy" => {
                let value = self.query_text("value").is_none_or(|value| value == "true");
                self.shared.stats.healthy.store(value, Relaxed);
                self.json(json!({ "healthy": value })).await
            }
            "goaway" => {
                self.shared.goaway.send_modify(|count| *count += 1);
                self.text(200, "going away\n").await
            }
            _ => self.text(404, "no such control\n").await,
        }
    }

    // === parts of an answer ===

    fn name(&self) -> HeaderValue {
        HeaderValue::try_from(&self.shared.options.name)
            .unwrap_or_else(|_| HeaderValue::from_static("unnamed"))
    }

    fn response(&self, status: u16, content_type: &'static str) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
        response.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
        response.headers_mut().insert("x-origin", self.name());
        response
    }

    async fn text(self, status: u16, text: &'static str) -> Result<(), Ended> {
        let response = self.response(status, "text/plain; charset=utf-8");
        self.whole(response, text.into()).await
    }

    async fn json(self, value: Value) -> Result<(), Ended> {
        let response = self.response(200, "application/json");
        self.whole(response, format!("{value}\n").into()).await
    }

    /// A response with a body that is known whole, and its length; without the body for HEAD.
    async fn whole(mut self, mut response: Response<()>, text: Bytes) -> Result<(), Ended> {
        response.headers_mut().insert("content-length", text.len().into());
        let empty = self.request.method() == http::Method::HEAD || text.is_empty();
        let mut stream = self.reply.send_response(response, empty).map_err(by_peer)?;
        if empty {
            return Ok(());
        }
        body::send(&mut stream, text, true, &self.shared.stats).await
    }

    /// Headers and the first `length` bytes of a body that is not ended.
    async fn part(
        &mut self,
        length: u64,
        content_length: Option<u64>,
    ) -> Result<SendStream<Bytes>, Ended> {
        let mut response = self.response(200, "application/octet-stream");
        if let Some(content_length) = content_length {
            response.headers_mut().insert("content-length", content_length.into());
        }
        let mut stream = self.reply.send_response(response, false).map_err(by_peer)?;
        for chunk in Content::new(0, length) {
            body::send(&mut stream, chunk, false, &self.shared.stats).await?;
        }
        Ok(stream)
    }

    /// Lets the connection's task write what is queued: h2 throws queued frames of a stream away when it is reset.
    async fn written(&self) {
        for _turn in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    fn informational(&mut self, status: u16, link: Option<&'static str>) -> Result<(), Ended> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::CONTINUE);
        if let Some(link) = link {
            response.headers_mut().insert("link", HeaderValue::from_static(link));
        }
        self.reply.send_informational(response).map_err(by_peer)
    }

    fn query(&self, name: &str) -> Option<u64> {
        self.query_text(name)?.parse().ok()
    }

    fn query_text(&self, name: &str) -> Option<&str> {
        let pairs = self.request.uri().query()?.split('&');
        pairs.filter_map(|pair| pair.split_once('=')).find(|pair| pair.0 == name).map(|pair| pair.1)
    }
}

/// Waits until the peer gives the stream up.
async fn gone(reply: &mut SendResponse<Bytes>) -> Ended {
    match poll_fn(|cx| reply.poll_reset(cx)).await {
        Ok(_) | Err(_) => Ended::ByPeer,
    }
}

fn by_peer(_cause: h2::Error) -> Ended {
    Ended::ByPeer
}

/// Field lines as a list of pairs: order and repetition are part of what is witnessed.
fn fields(map: &HeaderMap) -> Value {
    let pair = |(name, value): (&http::HeaderName, &HeaderValue)| {
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    };
    Value::Array(map.iter().map(pair).collect())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
