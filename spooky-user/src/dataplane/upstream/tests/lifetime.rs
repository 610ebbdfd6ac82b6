//! When connections end: idle, GOAWAY, reload, drain, silence.

use std::time::Duration;

use h2::Reason;

use super::super::cluster::Keepalive;
use super::backend::{Backend, Command};
use super::*;

#[test]
fn an_idle_connection_is_closed_and_the_next_request_opens_another() {
    on_worker(async {
        let backend = Backend::prompt(100).await;
        let settings = Settings { idle_timeout: Duration::from_millis(50), ..settings() };
        let endpoint = endpoint(backend.address, settings);
        let client = Client::new();
        outcome(client.get(&endpoint)).await.unwrap();
        until("the backend sees it closed", || backend.ended.get() == 1).await;
        until("the pool too", || client.pools.connections() == 0).await;
        assert_eq!(client.metrics.pool_connections_closed.value(), 1);
        outcome(client.get(&endpoint)).await.unwrap();
        assert_eq!(backend.accepted.get(), 2);
    });
}

#[test]
fn a_used_connection_is_not_idle() {
    on_worker(async {
        let backend = Backend::held(100).await;
        let idle_timeout = Duration::from_millis(20);
        let endpoint = endpoint(backend.address, Settings { idle_timeout, ..settings() });
        let client = Client::new();
        let long = client.get(&endpoint);
        until("the stream is open", || backend.active.get() == 1).await;
        let start = tokio::time::Instant::now();
        until("five idle timeouts passed", || start.elapsed() > idle_timeout * 5).await;
        assert_eq!((backend.ended.get(), client.pools.connections()), (0, 1));
        backend.release();
        outcome(long).await.unwrap();
        let end = tokio::time::Instant::now();
        until("it is closed once it is", || client.pools.connections() == 0).await;
        assert!(end.elapsed() >= idle_timeout / 2, "not at the end of the stream");
    });
}

#[test]
fn goaway_ends_no_stream_and_starts_none() {
    on_worker(async {
        let backend = Backend::held(100).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let before: Vec<_> = (0..5).map(|_| client.get(&endpoint)).collect();
        until("five streams", || backend.active.get() == 5).await;
        let unused = client.lease(&endpoint).await.unwrap();
        backend.command(Command::GoAway);
        until("the pool has noticed", || !unused_is_open(&client, &endpoint)).await;
        let error = exchange(unused).await.unwrap_err();
        assert_eq!(error.kind, Kind::GoingAway, "nothing was sent: safe to send again");
        let after = client.get(&endpoint);
        until("a new connection", || backend.accepted.get() == 2 && backend.active.get() == 6)
            .await;
        backend.release();
        for task in before {
            outcome(task).await.expect("streams below GOAWAY end in peace");
        }
        outcome(after).await.unwrap();
        until("the old one is closed", || backend.ended.get() == 1).await;
        assert_eq!(client.metrics.pool_connections_active.value(), 1);
    });
}

/// Is the endpoint's only connection one that takes streams?
fn unused_is_open(client: &Client, endpoint: &Arc<Endpoint>) -> bool {
    client.pools.pool(endpoint, false).try_lease().is_some()
}

#[test]
fn a_connection_the_backend_aborts_takes_its_streams_along_but_no_more() {
    on_worker(async {
        let backend = Backend::held(100).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let before: Vec<_> = (0..5).map(|_| client.get(&endpoint)).collect();
        until("five streams", || backend.active.get() == 5).await;
        backend.command(Command::Abort(Reason::ENHANCE_YOUR_CALM));
        for task in before {
            let kind = outcome(task).await.unwrap_err();
            assert!(matches!(kind, Kind::ConnectionLost | Kind::GoingAway), "{kind:?}");
        }
        backend.release();
        outcome(client.get(&endpoint)).await.unwrap();
        assert_eq!(backend.accepted.get(), 2);
    });
}

#[test]
fn pools_of_endpoints_that_are_gone_drain_and_vanish() {
    on_worker(async {
        let (old, new) = (Backend::held(100).await, Backend::prompt(100).await);
        let gone = endpoint(old.address, settings());
        let kept = endpoint(new.address, settings());
        let client = Client::new();
        let long = client.get(&gone);
        outcome(client.get(&kept)).await.unwrap();
        until("the stream is open", || old.active.get() == 1).await;
        // The same endpoint in a new snapshot: other allocations, equal settings.
        let again = endpoint(new.address, settings());
        client.pools.retain(&[cluster(&again)]);
        outcome(client.get(&again)).await.unwrap();
        assert_eq!((new.accepted.get(), client.pools.connections()), (1, 1));
        assert_eq!(old.ended.get(), 0, "its stream goes on");
        old.release();
        outcome(long).await.unwrap();
        until("then it is closed", || old.ended.get() == 1).await;
        assert_eq!(client.metrics.pool_connections_active.value(), 1);
    });
}

#[test]
fn changed_settings_make_a_new_pool() {
    on_worker(async {
        let backend = Backend::prompt(100).await;
        let before = endpoint(backend.address, settings());
        let after = endpoint(backend.address, Settings { max_streams: 5, ..settings() });
        let client = Client::new();
        outcome(client.get(&before)).await.unwrap();
        client.pools.retain(&[cluster(&after)]);
        until("the old connection is closed", || backend.ended.get() == 1).await;
        outcome(client.get(&after)).await.unwrap();
        assert_eq!(backend.accepted.get(), 2);
    });
}

#[test]
fn waiters_of_a_removed_endpoint_are_still_served() {
    on_worker(async {
        let backend = Backend::held(1).await;
        let endpoint = endpoint(backend.address, settings());
        let client = Client::new();
        let tasks: Vec<_> = (0..4).map(|_| client.get(&endpoint)).collect();
        until("three wait", || {
            backend.active.get() == 1 && client.metrics.pool_pending.value() == 3
        })
        .await;
        client.pools.retain(&[]);
        backend.release();
        for task in tasks {
            outcome(task).await.unwrap();
        }
        until("then its connection is closed", || backend.ended.get() == 1).await;
        assert_eq!(backend.accepted.get(), 1);
    });
}

#[test]
fn a_drain_closes_what_is_unused_now_and_the_rest_when_it_is() {
    on_worker(async {
        let (idle, busy) = (Backend::prompt(100).await, Backend::held(100).await);
        let (quiet, loud) =
            (endpoint(idle.address, settings()), endpoint(busy.address, settings()));
        let client = Client::new();
        outcome(client.get(&quiet)).await.unwrap();
        let long = client.get(&loud);
        until("the stream is open", || busy.active.get() == 1).await;
        client.pools.drain();
        until("the idle one is closed", || idle.ended.get() == 1).await;
        assert_eq!(busy.ended.get(), 0);
        // An exchange accepted before the drain that asks only now.
        outcome(client.get(&quiet)).await.unwrap();
        busy.release();
        outcome(long).await.unwrap();
        until("nothing is left", || client.pools.connections() == 0).await;
        until("and the backends know", || busy.ended.get() == 1 && idle.ended.get() == 2).await;
    });
}

#[test]
fn a_silent_backend_is_given_up_by_keepalive() {
    on_worker(async {
        let backend = Backend::held(100).await;
        let (interval, timeout) = (Duration::from_millis(20), Duration::from_millis(50));
        let keepalive = Some(Keepalive { interval, timeout });
        let endpoint = endpoint(backend.address, Settings { keepalive, ..settings() });
        let client = Client::new();
        let task = client.get(&endpoint);
        until("the stream is open", || backend.active.get() == 1).await;
        // SETTINGS, HEADERS and WINDOW_UPDATE are read; from here only PINGs (17 octets each) can come.
        let before = backend.octets.get();
        until("five PINGs were answered", || backend.octets.get() >= before + 5 * 17).await;
        assert!(!task.is_finished());
        backend.command(Command::Freeze);
        assert_eq!(outcome(task).await.unwrap_err(), Kind::ConnectionLost);
        until("it is forgotten", || client.pools.connections() == 0).await;
    });
}

#[test]
fn a_backend_that_says_goaway_every_fifty_requests_loses_none() {
    on_worker(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = endpoint(listener.local_addr().unwrap(), settings());
        spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                spawn_local(async move {
                    let mut connection = h2::server::handshake(tcp).await.unwrap();
                    let mut streams = 0;
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        streams += 1;
                        if streams == 50 {
                            connection.graceful_shutdown();
                        }
                        respond.send_response(http::Response::new(()), true).unwrap();
                    }
                });
            }
        });
        let client = Client::new();
        let mut refused = 0;
        let mut waiting: Vec<_> = (0..5000).map(|_| client.get(&endpoint)).collect();
        while !waiting.is_empty() {
            let mut again = Vec::new();
            for task in waiting {
                match outcome(task).await {
                    Ok(_) => {}
                    // Above the last stream of GOAWAY: not processed, so the same endpoint may be asked again.
                    Err(Kind::GoingAway) => again.push(client.get(&endpoint)),
                    Err(kind) => panic!("{kind:?}"),
                }
            }
            refused += again.len();
            waiting = again;
        }
        let opened = client.metrics.pool_connections_opened.value();
        assert!((25..=100).contains(&opened), "{opened} connections, {refused} refused");
    });
}
