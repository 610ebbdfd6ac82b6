//! Attack mode, over a veth pair: entered by hand and by load, what it drops in the kernel and whom it leaves alone, and how it
//! ends. The stage is that of `steering`, the floods are those of `flood`.

use std::time::Duration;

use serde_json::{Value, json};
use spooky_tests::config::Config;
use spooky_tests::control::Control;
use spooky_tests::netns::client_v4;
use spooky_tests::scene::{LONG, SOON};
use spooky_tests::wait;

use crate::control;
use crate::flood::{FLOOD, flood};
use crate::steering::{Stage, stage};

/// The honest client's address, another than that of the witness beside a flood.
const HONEST: u8 = 2;

/// A stage with a control socket, over which answers to the flood's addresses would find their way.
fn attacked(test: &str, control: &Control, mode: Value) -> Option<Stage> {
    let stage =
        stage(test, |config: Config| control.configure(config).set("/ebpf/attack_mode", mode))?;
    stage.pair.server.ip(&["route", "add", FLOOD, "via", &client_v4(0).to_string()]);
    Some(stage)
}

/// A new connection and a request on it.
fn ask(stage: &Stage) {
    let answer = stage.v4.from(client_v4(HONEST)).curl("get", json!({ "paths": ["/"] }), SOON);
    assert_eq!(answer["answers"][0]["status"], 200, "{answer:#}");
}

#[test]
fn h01_attack_mode_by_hand() {
    let test = "h01_attack_mode_by_hand";
    let control = Control::new();
    let Some(stage) = attacked(test, &control, json!({ "strangers": { "rate": 5, "burst": 20 } }))
    else {
        return;
    };
    let peace = stage.spooky.metrics();
    assert_eq!(peace.sum("spooky_attack_mode", &[]), 0.0);
    ask(&stage);
    // A connection from before, which stays in use throughout.
    let mut load = stage.v6.start(
        "load",
        json!({ "connections": 1, "parallel": 1, "report_every": 10, "path": "/bytes/2000" }),
    );
    load.event("progress", LONG);

    let shown = control.ctl(&["attack", "on"]);
    assert!(shown.stdout.contains("on for 0 s: by hand"), "{shown:?}");
    let on = stage.spooky.metrics();
    assert_eq!(on.sum("spooky_attack_mode", &[]), 1.0);
    assert_eq!(on.sum("spooky_attack_mode_entered_total", &[("cause", "command")]), 1.0);
    assert_eq!(on.growth(&peace, "spooky_retries_sent_total", &[]), 0.0);

    // Packets of nobody end in the kernel, and nobody notices.
    let nobodys = flood(&stage, "short", 20_000, 1);
    println!("short headers: {}", nobodys.said());
    assert_eq!(nobodys.failures, 0, "{nobodys:?}");
    assert!(nobodys.dropped >= nobodys.frames * 0.5, "{nobodys:?}");
    // Of strangers' packets the share of their prefix gets through.
    let strangers = flood(&stage, "initial", 20_000, 1);
    println!("Initials: {}", strangers.said());
    assert_eq!(strangers.failures, 0, "{strangers:?}");
    assert!(strangers.dropped >= strangers.frames * 0.5, "{strangers:?}");
    let after = stage.spooky.metrics();
    println!("{}", after.changes(&on));
    let dropped = |reason| {
        let labels = [("verdict", "drop"), ("reason", reason)];
        after.growth(&on, "spooky_xdp_frames_total", &labels)
    };
    assert!(dropped("unknown_short") >= nobodys.frames * 0.5);
    assert!(dropped("no_token") >= strangers.frames * 0.5);
    assert_eq!(after.growth(&on, "spooky_steer_unknown_total", &[]), 0.0);
    // 20 at once and 5 a second, for longer than the flood takes; and the witness's.
    let initials = after.growth(&on, "spooky_initials_total", &[]);
    assert!(initials <= 20.0 + 5.0 * 20.0, "{initials} Initials of strangers");

    // Who is new proves its address, and the one from before goes on.
    let before = stage.spooky.metrics();
    ask(&stage);
    let asked = stage.spooky.metrics();
    for name in ["spooky_retries_sent_total", "spooky_addresses_validated_total"] {
        assert_eq!(asked.growth(&before, name, &[]), 1.0, "{name}");
    }
    load.event("progress", SOON);
    load.stop();
    let result = load.result(SOON);
    assert_eq!(result["outcome"].as_object().map(serde_json::Map::len), Some(1), "{result:#}");

    let shown = control.ctl(&["attack", "off"]);
    assert!(shown.stdout.contains("attack mode") && shown.stdout.contains("off"), "{shown:?}");
    let before = stage.spooky.metrics();
    ask(&stage);
    let off = stage.spooky.metrics();
    assert_eq!(off.sum("spooky_attack_mode", &[]), 0.0);
    assert_eq!(off.growth(&before, "spooky_retries_sent_total", &[]), 0.0);
    assert_eq!(control.json(&["attack", "auto"])["mode"], "auto");
    assert_eq!(control.ctl(&["attack", "perhaps"]).code, 2);
}

/// What XDP cannot tell from the workers' word alone, it is told: enough of what is nobody's, and it ends there; and when it is
/// quiet again, so is XDP.
#[test]
fn h01_attack_mode_by_load() {
    let test = "h01_attack_mode_by_load";
    let control = Control::new();
    let mode = json!({ "drops_per_second": 2000, "leave_after": "1s" });
    let Some(stage) = attacked(test, &control, mode) else { return };
    let outcome = flood(&stage, "short", 20_000, 3);
    println!("{}", outcome.said());
    let metrics = stage.spooky.metrics();
    assert_eq!(outcome.failures, 0, "{outcome:?}");
    assert_eq!(metrics.sum("spooky_attack_mode_entered_total", &[("cause", "drops")]), 1.0);
    // Until it was seen the workers had them.
    assert!(outcome.received > 500.0, "{outcome:?}");
    assert!(outcome.dropped > outcome.received, "{outcome:?}");
    wait::until_true("attack mode ends", SOON, || {
        stage.spooky.metrics().sum("spooky_attack_mode", &[]) == 0.0
    });
    let log = stage.spooky.log();
    for line in ["attack mode is on (drops)", "attack mode is off again"] {
        assert!(log.contains(line), "{line}: {log}");
    }
    assert_eq!(control.json(&["attack"])["on"], false);
}

/// Without XDP clients still prove their address; and what only XDP can do is refused by name.
#[test]
fn attack_mode_without_xdp() {
    let control = Control::new();
    let mut scene = control::scene(&control);
    let status = control.json(&["attack", "on"]);
    assert_eq!((&status["on"], &status["in_kernel"]), (&json!(true), &json!(false)));
    assert!(control.ctl(&["status"]).stdout.contains("without XDP nothing is dropped"));
    let before = scene.spooky.metrics();
    let answer = scene.target.curl("get", json!({ "paths": ["/"] }), SOON);
    assert_eq!(answer["answers"][0]["status"], 200, "{answer:#}");
    let validated =
        |before| scene.spooky.metrics().growth(before, "spooky_addresses_validated_total", &[]);
    assert_eq!(validated(&before), 1.0);
    // A reload that says something else takes the word back.
    scene.spooky.reload("refused", |config| config["ebpf"]["attack_mode"] = json!({"mode": "on"}));
    assert_eq!(control.json(&["attack"])["on"], true);
    scene.spooky.reload("taken", |config| config["ebpf"]["attack_mode"] = json!({"mode": "off"}));
    wait::until_true("attack mode ends", Duration::from_secs(5), || {
        control.json(&["attack"])["on"] == false
    });
    assert_eq!(control.json(&["attack"])["by_hand"], false);
}
