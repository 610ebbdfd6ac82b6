//! Who waits, for how long, and who is turned away.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::backend::{Answer, Backend, Command};
use super::*;

#[test]
fn a_backend_with_one_stream_is_served_in_order_of_arrival() {
    on_worker(async {
        let backend = Backend::prompt(1).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let tasks: Vec<_> = (0..50).map(|_| client.get(&endpoint)).collect();
        for (index, task) in tasks.into_iter().enumerate() {
            let body = outcome(task).await.unwrap();
            assert_eq!(
                body,
                (index + 1).to_string(),
                "streams are opened in the order of the queue"
            );
        }
        assert_eq!((backend.accepted.get(), backend.active_max.get()), (1, 1));
        assert_eq!(client.metrics.pool_pending.value(), 0);
    });
}

#[test]
fn five_thousand_requests_pass_through_one_stream() {
    on_worker(async {
        let backend = Backend::prompt(1).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let tasks: Vec<_> = (0..5000).map(|_| client.get(&endpoint)).collect();
        for task in tasks {
            outcome(task).await.expect("no request fails");
        }
        assert_eq!((backend.accepted.get(), backend.active_max.get()), (1, 1));
        assert_eq!(backend.streams.get(), 5000);
    });
}

#[test]
fn our_own_stream_limit_holds_where_the_backend_allows_more() {
    on_worker(async {
        let backend = Backend::held(1000).await;
        let settings = Settings { max_streams: 3, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let tasks: Vec<_> = (0..9).map(|_| client.get(&endpoint)).collect();
        until("three streams", || backend.active.get() == 3).await;
        assert_eq!(client.metrics.pool_pending.value(), 6);
        backend.release();
        for task in tasks {
            outcome(task).await.unwrap();
        }
        assert_eq!(backend.active_max.get(), 3);
    });
}

#[test]
fn a_backend_that_asks_for_calm_gets_half_and_no_more_connections() {
    on_worker(async {
        let backend = Backend::held(4).await;
        let settings = Settings { max_connections: 3, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let mut leases = Vec::new();
        for _ in 0..8 {
            leases.push(client.pools.lease(&endpoint).await.unwrap());
        }
        leases[0].asked_for_calm();
        leases.truncate(3);
        leases.push(client.pools.lease(&endpoint).await.unwrap());
        let fifth = client.pools.lease(&endpoint);
        let mut fifth = std::pin::pin!(fifth);
        assert!(timeout(Duration::from_millis(50), &mut fifth).await.is_err(), "it has four");
        assert_eq!(backend.accepted.get(), 2);
        leases.pop();
        assert!(fifth.await.is_ok(), "the place of one that ended");
    });
}

#[test]
fn further_connections_are_opened_when_the_first_is_full_and_never_too_many() {
    on_worker(async {
        let backend = Backend::held(2).await;
        let settings = Settings { max_connections: 3, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let mut tasks = vec![client.get(&endpoint), client.get(&endpoint)];
        until("two streams", || backend.active.get() == 2).await;
        assert_eq!(backend.accepted.get(), 1, "one connection carries both");
        tasks.push(client.get(&endpoint));
        until("a third stream", || backend.active.get() == 3).await;
        assert_eq!(backend.accepted.get(), 2);
        tasks.extend((0..20).map(|_| client.get(&endpoint)));
        until("all places taken", || backend.active.get() == 6).await;
        assert_eq!(backend.accepted.get(), 3);
        backend.release();
        for task in tasks {
            outcome(task).await.unwrap();
        }
        assert_eq!((backend.accepted.get(), backend.active_max.get()), (3, 6));
        assert_eq!(client.metrics.pool_connections_active.value(), 3);
    });
}

#[test]
fn a_burst_opens_no_more_connections_than_it_needs() {
    on_worker(async {
        let backend = Backend::held(100).await;
        let settings = Settings { max_connections: 50, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let tasks: Vec<_> = (0..150).map(|_| client.get(&endpoint)).collect();
        until("all streams", || backend.active.get() == 150).await;
        assert_eq!(backend.accepted.get(), 2, "150 streams of 100 each need two");
        backend.release();
        for task in tasks {
            outcome(task).await.unwrap();
        }
    });
}

#[test]
fn a_full_queue_turns_requests_away() {
    on_worker(async {
        let backend = Backend::held(1).await;
        let settings = Settings { max_pending: 2, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let mut tasks = vec![client.get(&endpoint)];
        until("the only stream is taken", || backend.active.get() == 1).await;
        tasks.extend([client.get(&endpoint), client.get(&endpoint)]);
        until("two wait", || client.metrics.pool_pending.value() == 2).await;
        assert_eq!(client.lease(&endpoint).await.unwrap_err(), Kind::PoolFull);
        assert_eq!(client.metrics.pool_full.value(), 1);
        backend.release();
        for task in tasks {
            outcome(task).await.unwrap();
        }
    });
}

#[test]
fn nobody_waits_longer_than_the_pending_timeout() {
    on_worker(async {
        let backend = Backend::held(1).await;
        let settings = Settings { pending_timeout: Duration::from_millis(50), ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let first = client.get(&endpoint);
        until("the only stream is taken", || backend.active.get() == 1).await;
        let start = Instant::now();
        assert_eq!(client.lease(&endpoint).await.unwrap_err(), Kind::PoolTimeout);
        assert!(start.elapsed() >= Duration::from_millis(50));
        assert_eq!(client.metrics.pool_timeouts.value(), 1);
        assert_eq!(client.metrics.pool_pending.value(), 0, "its place is free again");
        backend.release();
        outcome(first).await.unwrap();
    });
}

#[test]
fn waiters_that_give_up_leave_no_trace() {
    on_worker(async {
        let backend = Backend::held(1).await;
        let settings = Settings { max_pending: 3, ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        let first = client.get(&endpoint);
        until("the only stream is taken", || backend.active.get() == 1).await;
        for _ in 0..100 {
            let gone = client.get(&endpoint);
            until("it waits", || client.metrics.pool_pending.value() == 1).await;
            gone.abort();
            until("it is forgotten", || client.metrics.pool_pending.value() == 0).await;
        }
        // One that gives up in the middle of the queue does not move the others.
        let waiting: Vec<_> = (0..3).map(|_| client.get(&endpoint)).collect();
        until("three wait", || client.metrics.pool_pending.value() == 3).await;
        waiting[1].abort();
        until("two wait", || client.metrics.pool_pending.value() == 2).await;
        backend.release();
        outcome(first).await.unwrap();
        for (index, task) in waiting.into_iter().enumerate() {
            match index {
                1 => assert!(task.await.unwrap_err().is_cancelled()),
                _ => drop(outcome(task).await.unwrap()),
            }
        }
        assert_eq!(backend.streams.get(), 3);
    });
}

#[test]
fn a_lease_that_is_not_used_gives_its_place_back_at_once() {
    on_worker(async {
        let backend = Backend::prompt(1).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        for _ in 0..100 {
            drop(client.lease(&endpoint).await.unwrap());
        }
        let held = client.lease(&endpoint).await.unwrap();
        let waiting = client.get(&endpoint);
        until("one waits", || client.metrics.pool_pending.value() == 1).await;
        drop(held);
        assert_eq!(client.metrics.pool_pending.value(), 0, "granted in the same turn");
        outcome(waiting).await.unwrap();
        assert_eq!((backend.accepted.get(), backend.streams.get()), (1, 1));
    });
}

#[test]
fn a_refused_connection_fails_those_who_waited_for_it_and_is_not_tried_again_at_once() {
    on_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let endpoint = endpoint(address, settings());
        let client = Client::new();
        let tasks: Vec<_> = (0..10).map(|_| client.get(&endpoint)).collect();
        for task in tasks {
            assert_eq!(outcome(task).await.unwrap_err(), Kind::ConnectFailed);
        }
        assert_eq!(client.metrics.pool_connect_failures.total(), 1);
        for _ in 0..100 {
            let error = client.lease(&endpoint).await.unwrap_err();
            assert_eq!(error, Kind::ConnectFailed);
        }
        let attempts = client.metrics.pool_connect_failures.total();
        assert!(attempts <= 3, "{attempts} attempts in a moment");
        assert_eq!(client.metrics.pool_pending.value(), 0);
        let listener = TcpListener::bind(address).await.unwrap();
        let backend = Backend::on(listener, 100, Answer::Body, None, true);
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = outcome(client.get(&endpoint)).await {
            assert_eq!(error, Kind::ConnectFailed);
            assert!(Instant::now() < deadline, "it is tried again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(backend.accepted.get(), 1);
    });
}

#[test]
fn a_backend_that_says_nothing_is_a_connect_timeout() {
    on_worker(async {
        // The kernel completes the TCP handshake; nobody answers the preface.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = Settings {
            connect_timeout: Duration::from_millis(100),
            pending_timeout: Duration::from_millis(10),
            ..settings()
        };
        let endpoint = endpoint(listener.local_addr().unwrap(), settings);
        let client = Client::new();
        let tasks: Vec<_> = (0..3).map(|_| client.get(&endpoint)).collect();
        for task in tasks {
            assert_eq!(outcome(task).await.unwrap_err(), Kind::ConnectTimeout);
        }
        let failures: Vec<_> = client.metrics.pool_connect_failures.values().collect();
        assert_eq!(failures, [("connect_timeout", 1)]);
        assert_eq!(client.pools.connections(), 0);
    });
}

#[test]
fn a_backend_that_does_not_speak_http2_gets_no_request() {
    on_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap(), settings());
        let client = Client::new();
        let task = client.get(&endpoint);
        let (mut tcp, _) = listener.accept().await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut tcp, b"HTTP/1.1 400 Bad Request\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(outcome(task).await.unwrap_err(), Kind::ConnectFailed);
    });
}

#[test]
fn waiters_outlive_the_connection_they_waited_for() {
    on_worker(async {
        let backend = Backend::held(1).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let first = client.get(&endpoint);
        until("the only stream is taken", || backend.active.get() == 1).await;
        let waiting: Vec<_> = (0..3).map(|_| client.get(&endpoint)).collect();
        until("three wait", || client.metrics.pool_pending.value() == 3).await;
        backend.command(Command::Cut);
        assert_eq!(outcome(first).await.unwrap_err(), Kind::ConnectionLost);
        backend.release();
        for task in waiting {
            outcome(task).await.expect("served on another connection");
        }
        assert_eq!(backend.accepted.get(), 2);
    });
}

#[test]
fn waiters_fail_when_the_backend_is_gone_with_the_connection() {
    on_worker(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap(), settings());
        let client = Client::new();
        let first = client.get(&endpoint);
        let (tcp, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::Builder::new()
            .max_concurrent_streams(1)
            .handshake::<_, Bytes>(tcp)
            .await
            .unwrap();
        let stream = connection.accept().await.unwrap().unwrap();
        let waiting: Vec<_> = (0..3).map(|_| client.get(&endpoint)).collect();
        until("three wait", || client.metrics.pool_pending.value() == 3).await;
        drop(listener);
        drop((stream, connection));
        assert_eq!(outcome(first).await.unwrap_err(), Kind::ConnectionLost);
        for task in waiting {
            assert_eq!(outcome(task).await.unwrap_err(), Kind::ConnectFailed);
        }
    });
}

#[test]
fn endpoints_with_equal_settings_share_and_others_do_not() {
    on_worker(async {
        let backend = Backend::prompt(100).await;
        let client = Client::new();
        let one = endpoint(backend.address, settings());
        let same = endpoint(backend.address, settings());
        let other = endpoint(backend.address, Settings { max_streams: 7, ..settings() });
        for endpoint in [&one, &same, &one] {
            outcome(client.get(endpoint)).await.unwrap();
        }
        assert_eq!(backend.accepted.get(), 1);
        outcome(client.get(&other)).await.unwrap();
        assert_eq!(backend.accepted.get(), 2);
        assert_eq!((Arc::strong_count(&one), Rc::strong_count(&client.pools)), (1, 1));
    });
}
