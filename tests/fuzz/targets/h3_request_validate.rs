//! Field sections: accepted exactly when the oracle accepts them, within the limits. What is accepted stays what it is when it
//! is read again, is a URI, and comes out of HTTP/2 as it went in.
//!
//! Input: `request`, `response` or `trailers`, then a line a field: name, space, value.

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use spooky_user::codec::field::{self, Limits, Malformed, RequestHead};

use crate::oracle::{self, Line};
use crate::script;

pub(super) fn run(input: &[u8]) {
    let mut lines = script::lines(input, 160).peekable();
    let kinds = ["request", "response", "trailers"];
    let kind = lines.next().map_or("request", |line| line.choice(&kinds));
    let fields: Vec<Line> = lines.map(|line| (line.word(0), line.rest())).collect();
    let limits = Limits { max_fields: 100, max_section_size: 3000, max_name: 256, max_value: 500 };
    let borrowed = || fields.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let within = fields.len() <= limits.max_fields
        && oracle::size(&fields) <= limits.max_section_size
        && fields
            .iter()
            .all(|(name, value)| name.len() <= limits.max_name && value.len() <= limits.max_value);
    let (expected, got) = match kind {
        "request" => {
            let head = field::request_head(borrowed(), &limits);
            if let Ok(head) = &head {
                stays_the_same(head);
            }
            (oracle::request(&fields), head.map(|head| head.headers))
        }
        "response" => {
            let head = field::response_head(borrowed(), &limits);
            (oracle::response(&fields), head.map(|head| head.headers))
        }
        _ => (oracle::trailers(&fields), field::trailers(borrowed(), &limits)),
    };
    judge(expected && within, within, &got, kind);
    if let Ok(headers) = got {
        kept(&fields, &headers, kind);
    }
}

fn judge(expected: bool, within: bool, got: &Result<HeaderMap, Malformed>, kind: &str) {
    match got {
        Ok(headers) => assert!(expected, "a {kind} that is none was accepted: {headers:?}"),
        Err(error) => {
            assert!(!expected, "a good {kind} was refused: {error:?}");
            assert!(!within || !error.is_too_large(), "within the limits, and {error:?}");
        }
    }
}

/// What was kept came, in its order; what frames or routes is not in trailers.
fn kept(fields: &[Line], headers: &HeaderMap, kind: &str) {
    for name in headers.keys() {
        let sent = fields.iter().filter(|(n, _)| n == name.as_str().as_bytes()).map(|(_, v)| v);
        let sent: Vec<&[u8]> = sent.map(Vec::as_slice).collect();
        let kept: Vec<&[u8]> = headers.get_all(name).iter().map(|value| value.as_bytes()).collect();
        match name.as_str() {
            "content-length" | "te" => assert_eq!(kept.len(), 1, "{name}"),
            _ => assert_eq!(kept, sent, "{name}"),
        }
    }
    for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "proxy-connection"] {
        assert!(!headers.contains_key(name));
    }
    if kind == "trailers" {
        for name in ["content-length", "host", "te", "cookie", "authorization", "x-forwarded-for"] {
            assert!(!headers.contains_key(name), "{name} in trailers");
        }
    }
    assert!(kind != "request" || !headers.contains_key("host"));
}

/// Read again it is the same, and HTTP/2 carries it as it is.
fn stays_the_same(head: &RequestHead) {
    let (method, authority, path) =
        (head.method.as_str(), head.authority.as_str(), head.target.as_str());
    let mut lines: Vec<(&[u8], &[u8])> = vec![
        (b":method", method.as_bytes()),
        (b":scheme", head.scheme.as_str().as_bytes()),
        (b":authority", authority.as_bytes()),
        (b":path", path.as_bytes()),
    ];
    lines.extend(
        head.headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())),
    );
    let unlimited = Limits { max_section_size: usize::MAX, ..Limits::default() };
    let again = field::request_head(lines.iter().copied(), &unlimited).expect("it was accepted");
    assert_eq!(
        (&again.method, &again.authority, &again.target),
        (&head.method, &head.authority, &head.target)
    );
    assert_eq!((&again.headers, again.content_length), (&head.headers, head.content_length));
    assert_eq!(field::content_length(&head.headers), Ok(head.content_length));

    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(authority.parse().expect("a checked authority is one to http"));
    parts.path_and_query = Some(path.try_into().expect("a checked target is one to http"));
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = parts.try_into().expect("the parts fit");
    *request.headers_mut() = head.headers.clone();
    let received = over_http2(request.clone(), head.content_length.unwrap_or(0) == 0);
    assert_eq!(received.method(), request.method());
    assert_eq!(received.headers(), request.headers());
    assert_eq!(received.uri().authority().map(|it| it.as_str()), Some(authority));
    assert_eq!(received.uri().path_and_query().map_or("", |it| it.as_str()), path);
}

/// The request as an HTTP/2 server reads it; `end` when there is no content.
fn over_http2(request: Request<()>, end: bool) -> Request<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let client = async {
            let (mut sender, connection) = h2::client::handshake(ours).await.expect("a preface");
            let (_response, _body) = sender.send_request(request, end).expect("h2 takes it");
            // Until the server is gone.
            let _ended = connection.await;
        };
        let server = async {
            let mut connection: h2::server::Connection<_, Bytes> =
                h2::server::handshake(theirs).await.expect("a preface");
            let (request, _answer) =
                connection.accept().await.expect("a request").expect("a good one");
            request.map(drop)
        };
        tokio::select! {
            biased;
            request = server => request,
            () = client => panic!("the client ended first"),
        }
    })
}
