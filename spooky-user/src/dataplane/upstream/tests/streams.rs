//! What happens on one connection: sharing, failures and whose they are, cancelled streams.

use h2::Reason;

use super::super::resets;
use super::backend::{Answer, Backend};
use super::*;

#[test]
fn many_streams_share_one_connection() {
    on_worker(async {
        let backend = Backend::held(100).await;
        let settings = Settings { max_connections: 10, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let tasks: Vec<_> = (0..100).map(|_| client.get(&endpoint)).collect();
        until("all streams", || backend.active.get() == 100).await;
        backend.release();
        for task in tasks {
            outcome(task).await.unwrap();
        }
        assert_eq!(backend.accepted.get(), 1);
        assert_eq!(client.metrics.pool_connections_opened.value(), 1);
    });
}

#[test]
fn failures_are_told_apart() {
    on_worker(async {
        let cases = [
            (Answer::Reset(Reason::REFUSED_STREAM), Kind::StreamRefused),
            (Answer::Reset(Reason::CANCEL), Kind::StreamReset),
            (Answer::Reset(Reason::INTERNAL_ERROR), Kind::StreamReset),
            (Answer::Reset(Reason::ENHANCE_YOUR_CALM), Kind::Overloaded),
            (Answer::Cut(Reason::INTERNAL_ERROR), Kind::StreamReset),
        ];
        for (answer, expected) in cases {
            let backend = Backend::with(answer).await;
            let endpoint = endpoint(backend.address, settings());
            let client = Client::new();
            for _ in 0..20 {
                assert_eq!(
                    outcome(client.get(&endpoint)).await.unwrap_err(),
                    expected,
                    "{answer:?}"
                );
            }
            assert_eq!(backend.accepted.get(), 1, "{answer:?} ends the stream, not the connection");
        }
    });
}

#[test]
fn the_end_of_the_request_half_is_told_apart() {
    let kind = |reason| super::super::classify_reset(reason).map(|error| error.kind);
    assert_eq!(kind(Reason::NO_ERROR), None);
    assert_eq!(kind(Reason::REFUSED_STREAM), Some(Kind::StreamRefused));
    assert_eq!(kind(Reason::CANCEL), Some(Kind::StreamReset));
}

#[test]
fn a_malformed_response_ends_its_stream_alone() {
    on_worker(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap(), settings());
        let client = Client::new();
        let task = client.get(&endpoint);
        let (mut tcp, _) = listener.accept().await.unwrap();
        // SETTINGS, empty; then HEADERS on stream 1 whose only field is `server: x`, no :status (RFC 9113 §8.3.2).
        let frames = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x04\x01\x05\x00\x00\x00\x01\x0f\x27\x01x";
        let (settings, headers) = frames.split_at(9);
        tokio::io::AsyncWriteExt::write_all(&mut tcp, settings).await.unwrap();
        until("the request is sent", || client.metrics.pool_pending.value() == 0).await;
        read_until_headers(&mut tcp).await;
        tokio::io::AsyncWriteExt::write_all(&mut tcp, headers).await.unwrap();
        assert_eq!(outcome(task).await.unwrap_err(), Kind::UpstreamProtocol);
        assert_eq!(client.pools.connections(), 1);
    });
}

/// Reads frames until HEADERS (type 1) came.
async fn read_until_headers(tcp: &mut tokio::net::TcpStream) {
    use tokio::io::AsyncReadExt;
    let mut preface = [0; 24];
    tcp.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        tcp.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        tcp.read_exact(&mut vec![0; size]).await.unwrap();
        if head[3] == 1 {
            return;
        }
    }
}

#[test]
fn a_request_that_http2_cannot_carry_is_refused_without_harm() {
    on_worker(async {
        let backend = Backend::prompt(100).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let mut lease = client.lease(&endpoint).await.unwrap();
        let mut bad = request();
        bad.headers_mut().insert("connection", "close".parse().unwrap());
        assert_eq!(lease.send(bad, true).unwrap_err().kind, Kind::ClientMalformed);
        drop(lease);
        outcome(client.get(&endpoint)).await.unwrap();
        assert_eq!(backend.accepted.get(), 1);
    });
}

#[test]
fn clients_that_cancel_do_not_break_the_connection_they_share() {
    on_worker(async {
        // A server with the guards h2 has by default: 20 streams reset before they were accepted end the connection.
        let backend = Backend::held(200).await;
        let settings = Settings { max_connections: 4, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let honest = client.get(&endpoint);
        until("the honest stream is open", || backend.active.get() == 1).await;
        for count in 0..1000 {
            let mut lease = client.lease(&endpoint).await.unwrap();
            let sent = lease.send(request(), true);
            assert!(sent.is_ok(), "request {count}");
            drop(sent);
            drop(lease);
        }
        assert!(
            client.metrics.pool_connections_opened.value() > 1,
            "worn connections are replaced"
        );
        backend.release();
        outcome(honest).await.expect("the honest stream saw nothing of it");
        outcome(client.get(&endpoint)).await.unwrap();
    });
}

#[test]
fn the_places_of_cancelled_streams_come_back() {
    on_worker(async {
        let backend = Backend::held(1).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        for _ in 0..20 {
            let mut lease = client.lease(&endpoint).await.unwrap();
            let handles = lease.send(request(), true).unwrap();
            drop(handles);
            let start = tokio::time::Instant::now();
            drop(lease);
            drop(client.lease(&endpoint).await.unwrap());
            assert!(start.elapsed() >= resets::HELD_FOR, "not before the backend can have seen it");
        }
        assert_eq!(backend.accepted.get(), 1);
        assert_eq!(client.metrics.pool_pending.value(), 0);
    });
}
