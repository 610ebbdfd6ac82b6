//! First flights that are sent again: early data of a request is not read at all (RFC 8446 §8, RFC 8470 §3). Row A16.

use serde_json::{Value, json};
use spooky_tests::scene::{LONG, Scene, Turn, assert_ok};

#[test]
fn a16_early_data_is_executed_by_nobody() {
    let mut scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/listeners/0/quic", json!({ "handshake_timeout": "1s" }))
    });
    let executed = |scene: &Scene| {
        let stats = scene.backends[0].stats();
        ["/bytes/7", "/hash"].map(|path| stats["paths"][path].as_u64().unwrap_or(0))
    };
    let mut client =
        scene.target.start("early_data", json!({ "replays": 3, "handshake_timeout": 1.2 }));
    let captured = client.event("captured", LONG);
    // GET and POST, three times from one address and once from another. Some come while the handshake of the one before is not
    // forgotten: that is answered where it began.
    let first = captured["answered"].as_u64();
    assert!(captured["sent"] == 8 && first >= Some(2), "answered with a handshake: {captured}");
    assert_eq!(executed(&scene), [0, 0], "GET, POST");
    let honest = client.event("carried_through", LONG);
    for handshake in honest["honest"].as_array().into_iter().flatten() {
        assert_eq!(*handshake, json!({ "resumed": true, "accepted": false }));
    }
    assert_eq!(executed(&scene), [1, 1], "once the handshake is over");
    scene.restart();
    client.stop();
    let result = client.result(LONG);
    assert_eq!(result["offered"], Value::Null, "no ticket says that early data is taken");
    for packets in result["early_packets"].as_array().into_iter().flatten() {
        assert!(packets.as_u64() > Some(0), "there was early data in the flights: {result}");
    }
    assert!(result["sent"] == 16 && result["answered"].as_u64() >= first.map(|it| it + 2));
    assert_eq!(executed(&scene), [1, 1], "after a restart");
    println!("A16: 16 flights with early data sent again, 0 executed");
    assert_ok(&scene.target.fetch("/"));
}
