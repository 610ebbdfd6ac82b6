//! One request and its answer: methods, fields, statuses, trailers, interim responses, early responses.

use serde_json::{Value, json};

use spooky_tests::scene::{LONG, SOON, Scene, assert_ok, body_json, field, fields};

fn answers(scene: &Scene, requests: Value) -> Vec<Value> {
    let mut result = scene.target.run("requests", json!({ "requests": requests }), SOON);
    assert_eq!(result["closed_with"], Value::Null, "the connection stays open");
    match result["answers"].take() {
        Value::Array(answers) => answers,
        other => panic!("not a list of answers: {other}"),
    }
}

#[test]
fn a_get_is_forwarded_and_counted() {
    let scene = Scene::new(1);
    let before = scene.spooky.metrics();
    let answer = scene.target.fetch("/");
    assert_ok(&answer);
    assert_eq!(field(&answer, "x-origin"), Some("b1"));
    assert!(answer["body"].as_str().is_some_and(|body| body.contains("Hello from b1")));
    let after = scene.spooky.metrics();
    let grew = |name, labels: &[(&str, &str)]| after.growth(&before, name, labels);
    assert_eq!(grew("spooky_requests_total", &[("route", "all"), ("status", "2xx")]), 1.0);
    assert_eq!(grew("spooky_handshakes_completed_total", &[]), 1.0);
    assert_eq!(grew("spooky_connections_accepted_total", &[]), 1.0);
    assert!(scene.stop().success());
}

#[test]
fn a_post_reaches_the_backend_whole_with_its_fields() {
    let scene = Scene::new(1);
    let headers = json!([
        ["x-custom", "first"],
        ["x-custom", "second"],
        ["content-type", "text/plain"],
        ["x-forwarded-for", "203.0.113.9"],
        ["x-forwarded-proto", "gopher"],
        ["x-forwarded-host", "evil.example"],
    ]);
    let request = json!([{ "method": "POST", "path": "/echo?a=b&c=%20d", "headers": headers, "body": "hello" }]);
    let answer = answers(&scene, request).remove(0);
    assert_ok(&answer);
    let seen = body_json(&answer);
    assert_eq!(seen["method"], "POST");
    assert_eq!(seen["path"], "/echo?a=b&c=%20d");
    assert_eq!(seen["authority"], "localhost");
    assert_eq!(seen["length"], 5);
    assert_eq!(fields(&seen, "x-custom"), ["first", "second"]);
    assert_eq!(field(&seen, "content-type"), Some("text/plain"));
    // What the client claimed of itself is replaced by what the proxy knows.
    assert_eq!(fields(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(fields(&seen, "x-forwarded-proto"), ["https"]);
    assert_eq!(fields(&seen, "x-forwarded-host"), ["localhost"]);
    assert!(fields(&seen, "via").iter().any(|via| via.starts_with("3 ")), "{seen:#}");
}

#[test]
fn head_has_the_length_and_no_body() {
    let scene = Scene::new(1);
    let answer = answers(&scene, json!([{ "method": "HEAD", "path": "/bytes/1000" }])).remove(0);
    assert_ok(&answer);
    assert_eq!(field(&answer, "content-length"), Some("1000"));
    assert_eq!(answer["length"], 0);
}

#[test]
fn every_final_status_passes_through() {
    let scene = Scene::new(1);
    let statuses = [200, 201, 204, 206, 301, 304, 400, 401, 404, 418, 429, 500, 503, 599];
    let paths: Vec<Value> =
        statuses.iter().map(|status| json!({ "path": format!("/status/{status}") })).collect();
    for (status, answer) in statuses.iter().zip(answers(&scene, json!(paths))) {
        assert_eq!(answer["status"], *status);
        assert_eq!(answer["end"], "clean", "status {status}");
        assert_eq!(answer["length"], 0);
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
//= type=test
//# After sending a final response, the server MUST close the stream for
//# sending.
#[test]
fn an_answer_of_one_field_section_ends_the_stream() {
    let scene = Scene::new(1);
    let call = json!({
        "method": "POST", "path": "/trailers-only", "body": "\u{0}\u{0}\u{0}\u{0}\u{0}",
        "headers": [["te", "trailers"], ["content-type", "application/grpc"]],
    });
    let answers = answers(&scene, json!([call]));
    let answer = &answers[0];
    assert_ok(answer);
    assert_eq!((field(answer, "grpc-status"), &answer["length"]), (Some("5"), &json!(0)));
    // grpc-status must stay where it is: in the only field section there is, not in trailers.
    assert_eq!(answer["trailers"], Value::Null, "{answer:#}");
}

#[test]
fn trailers_pass_both_ways() {
    let scene = Scene::new(1);
    let upload = json!({
        "method": "POST", "path": "/echo", "body": "x",
        "headers": [["te", "trailers"]], "trailers": [["x-digest", "abc"]],
    });
    let answers = answers(&scene, json!([{ "path": "/trailers" }, upload]));
    assert_ok(&answers[0]);
    assert_eq!(answers[0]["body"], "body before trailers\n");
    let trailers = json!([["x-checksum", "c0ffee"], ["x-origin-trailer", "b1"]]);
    assert_eq!(answers[0]["trailers"], trailers);
    assert_ok(&answers[1]);
    assert_eq!(body_json(&answers[1])["trailers"], json!([["x-digest", "abc"]]));
}

#[test]
fn a_backend_that_sends_interim_responses_without_end_is_cut_off() {
    let scene = Scene::new(1);
    let answers = answers(&scene, json!([{ "path": "/early/16" }, { "path": "/early/17" }]));
    let interim = |answer: &Value| answer["informational"].as_array().map_or(0, Vec::len);
    assert_ok(&answers[0]);
    assert_eq!(interim(&answers[0]), 16);
    assert_eq!(
        (&answers[1]["status"], interim(&answers[1])),
        (&json!(502), 16),
        "{:#}",
        answers[1]
    );
}

#[test]
fn interim_responses_come_before_the_final_one() {
    let scene = Scene::new(1);
    let upload = json!({ "method": "POST", "path": "/continue", "body": "x" });
    let answers = answers(&scene, json!([{ "path": "/early" }, upload]));
    assert_ok(&answers[0]);
    assert_eq!(answers[0]["informational"][0]["status"], 103);
    let hint = json!([["link", "</style.css>; rel=preload"]]);
    assert_eq!(answers[0]["informational"][0]["headers"], hint);
    assert_ok(&answers[1]);
    assert_eq!(answers[1]["informational"][0]["status"], 100);
}

#[test]
fn many_fields_pass_in_one_response() {
    let scene = Scene::new(1);
    let answer = answers(&scene, json!([{ "path": "/headers/90" }])).remove(0);
    assert_ok(&answer);
    for index in [0, 45, 89] {
        let value = format!("value-{index}");
        assert_eq!(field(&answer, &format!("x-field-{index}")), Some(value.as_str()));
    }
}

#[test]
fn a_hundred_requests_share_a_connection_at_once() {
    let scene = Scene::new(2);
    let paths: Vec<Value> =
        (0..100).map(|n| json!({ "path": format!("/bytes/{}?seed={n}", n * 977) })).collect();
    let args = json!({ "requests": paths, "concurrent": true, "keep": false });
    let result = scene.target.run("requests", args, SOON);
    for (n, answer) in result["answers"].as_array().into_iter().flatten().enumerate() {
        assert_ok(answer);
        let expected = spooky_tests::origin::body::Content::sha256(n as u64, n as u64 * 977);
        assert_eq!(answer["sha256"], expected, "request {n}");
    }
    assert_eq!(result["handshakes"], 1);
}

#[test]
fn curl_gets_the_same_answers() {
    let scene = Scene::new(1);
    let paths =
        json!({ "paths": ["/", "/trailers", "/early", "/status/404", "/bytes/100000?seed=4"] });
    let result = scene.target.curl("get", paths, SOON);
    let answers = result["answers"].as_array().cloned().unwrap_or_default();
    let statuses: Vec<_> = answers.iter().map(|answer| answer["status"].as_u64()).collect();
    assert_eq!(statuses, [200, 200, 200, 404, 200].map(Some), "{result:#}");
    for answer in &answers {
        assert_eq!((&answer["error"], &answer["version"]), (&Value::Null, &json!(30)));
    }
    assert!(answers[0]["body"].as_str().is_some_and(|body| body.contains("Hello from b1")));
    assert_eq!(answers[4]["length"], 100_000);
}

#[test]
fn each_request_leaves_a_line_in_the_access_log() {
    let scene = Scene::with(spooky_tests::scene::Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/access_log", json!({ "path": "stdout", "format": "json" }))
    });
    assert_ok(&scene.target.fetch("/?tag=access-log-test"));
    let line = spooky_tests::wait::until("an access log line", SOON, || {
        let log = scene.spooky.log();
        log.lines().find(|line| line.contains("access-log-test")).map(str::to_owned)
    });
    let entry: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(entry["status"], 200, "{entry:#}");
    assert_eq!(entry["method"], "GET");
    assert!(entry["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{entry:#}");
}

#[test]
fn small_answers_do_not_wait_for_a_large_one_of_their_connection() {
    let scene = Scene::new(1);
    let mut requests = vec![json!({ "path": "/bytes/30000000", "keep": false })];
    requests.extend((0..10).map(|_| json!({ "path": "/bytes/20000", "keep": false })));
    let args = json!({ "requests": requests, "concurrent": true });
    let answers = scene.target.run("requests", args, LONG)["answers"].take();
    let seconds = |answer: &Value| answer["seconds"].as_f64().unwrap_or(f64::MAX);
    let large = seconds(&answers[0]);
    assert_eq!(answers[0]["length"], 30_000_000, "{:#}", answers[0]);
    for small in answers.as_array().into_iter().flatten().skip(1) {
        assert_ok(small);
        assert!(seconds(small) < large / 2.0, "{} s beside {large} s", seconds(small));
    }
}
