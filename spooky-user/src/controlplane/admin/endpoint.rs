//! One request to the admin port and its response. Imports `codec::authority`, telemetry and its parent.

use std::net::{IpAddr, SocketAddr};

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Bytes};

use super::verbs::{VERBS, Verb};
use super::{Readiness, State};
use crate::codec::authority::Authority;
use crate::telemetry::metrics;

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers from the state alone.
pub(super) type Show = fn(&State) -> Response<Full<Bytes>>;

const LIST: &str = "\
spooky admin port

/health   200 when ready, 503 with the reason otherwise
/metrics  Prometheus text

on the control socket (admin.socket) also:

";

/// Answers one request. `local` is the address the port is bound to.
pub(super) fn respond<B: Body>(
    request: &Request<B>,
    local: SocketAddr,
    state: &State,
) -> Response<Full<Bytes>> {
    if !host_is_ours(request, local) {
        return text(
            StatusCode::FORBIDDEN,
            "the Host is not this loopback address and port: use http://127.0.0.1 or http://localhost\n",
        );
    }
    if !request.body().is_end_stream() {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "no request here has content\n");
    }
    match shown(request.uri().path()) {
        Some(answer) => show(request, state, answer),
        None => text(StatusCode::NOT_FOUND, "no such endpoint; / lists them\n"),
    }
}

/// What a path shows; on the control socket as well.
pub(super) fn shown(path: &str) -> Option<Show> {
    match path {
        "/" => Some(|_state| text(StatusCode::OK, list())),
        "/health" => Some(health),
        "/metrics" => Some(metrics),
        _ => None,
    }
}

/// Answers with what a path shows.
pub(super) fn show<B>(request: &Request<B>, state: &State, answer: Show) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    answer(state)
}

fn list() -> String {
    let rows = VERBS.iter().map(|verb| {
        let Verb { method, path, help, .. } = verb;
        format!("{method:<4} {path:<16}  {help}\n")
    });
    let rows: String = rows.collect();
    format!("{LIST}{rows}")
}

fn health(state: &State) -> Response<Full<Bytes>> {
    match state.readiness() {
        Readiness::Ready => text(StatusCode::OK, "ok\n"),
        Readiness::Starting => text(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Readiness::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Readiness::Degraded(reason) => {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("degraded: {reason}\n"))
        }
    }
}

fn metrics(state: &State) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::OK, state.registry().render());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Exactly one `Host`, and an authority in the target if there is one, that name loopback and the port: a page whose name
/// resolves to 127.0.0.1 (DNS rebinding) sends its own name.
fn host_is_ours<B>(request: &Request<B>, local: SocketAddr) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let target = request.uri().authority();
    authority_is_ours(host.as_bytes(), local)
        && target.is_none_or(|target| authority_is_ours(target.as_str().as_bytes(), local))
}

fn authority_is_ours(authority: &[u8], local: SocketAddr) -> bool {
    const DEFAULT_PORT: u16 = 80;
    let Ok(authority) = Authority::parse(authority, DEFAULT_PORT) else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    loopback && authority.port().unwrap_or(DEFAULT_PORT) == local.port()
}
