//! Messages in every spelling, seen at a real backend: what is passed on, what is refused. The rows are those of
//! docs/codex/requirements.md.

use serde_json::{Value, json};

use spooky_tests::scene::{LONG, SOON, Scene, Turn, assert_ok, body_json};

const H3_MESSAGE_ERROR: u64 = 0x10e;

/// A client here is refused more often than a real one may be.
fn scene(count: usize) -> Scene {
    Scene::with(Turn::shared(), count, |config, backends| {
        let budget = json!({ "percent": 100, "requests": 1_000_000, "per_second": 1_000_000 });
        let config = config.forward(&backends[..1]).set("/listeners/0/http3/resets", budget);
        match backends.get(1..) {
            Some(locked) if !locked.is_empty() => config.upstream("locked", locked).route(
                "locked",
                json!({ "path_prefix": "/admin" }),
                "locked",
            ),
            _ => config,
        }
    })
}

fn refused(case: &Value) -> bool {
    case["status"] == 400 && case["end"] == "clean" || case["reset_code"] == H3_MESSAGE_ERROR
}

/// Row C02: lengths that lie, in every shape. No short body is ever presented as complete.
#[test]
fn c02_lengths_that_lie() {
    let scene = scene(1);
    let good = [
        ("right", json!(["5"]), "12345", "body"),
        ("two_equal", json!(["5", "5"]), "12345", "body"),
        ("zeros_before", json!(["0005"]), "12345", "body"),
        ("none", json!([]), "12345", "body"),
        ("fin_alone", json!(["5"]), "12345", "own_packet"),
        ("nothing_on_head", json!(["0"]), "", "head"),
        ("length_in_trailers", json!(["5"]), "12345", "trailers"),
    ];
    let bad = [
        ("shorter", json!(["6"]), "12345", "body"),
        ("longer", json!(["4"]), "12345", "body"),
        ("shorter_fin_alone", json!(["6"]), "12345", "own_packet"),
        ("bare_fin", json!(["40"]), "", "own_packet"),
        ("fin_on_head", json!(["5"]), "", "head"),
        ("shorter_before_trailers", json!(["6"]), "12345", "trailers"),
        ("two_different", json!(["5", "6"]), "12345", "body"),
        ("list", json!(["5, 5"]), "12345", "body"),
        ("plus", json!(["+5"]), "12345", "body"),
        ("minus", json!(["-5"]), "12345", "body"),
        ("hexadecimal", json!(["0x5"]), "12345", "body"),
        ("empty", json!([""]), "12345", "body"),
        ("fraction", json!(["5.0"]), "12345", "body"),
        ("two_to_63", json!(["9223372036854775808"]), "12345", "body"),
        ("two_to_64", json!(["18446744073709551616"]), "12345", "body"),
    ];
    let cases: Vec<Value> =
        good.iter().chain(&bad).map(|(n, v, b, s)| json!([n, v, b, s])).collect();
    let result = scene.target.run("lengths", json!({ "cases": cases }), LONG);
    let answers = result["cases"].as_array().cloned().unwrap_or_default();
    let wrong: Vec<&Value> = answers
        .iter()
        .enumerate()
        .filter(|(index, case)| {
            let passed = case["status"] == 200 && case["end"] == "clean";
            // More than any route takes: who hears the head alone in one turn says so before the end can prove the lie.
            let too_large = case["name"] == "two_to_63" && case["status"] == 413;
            if *index < good.len() { !passed } else { !refused(case) && !too_large }
        })
        .map(|(_, case)| case)
        .collect();
    println!("C02: {} cases", answers.len());
    assert!(answers.len() == cases.len() && wrong.is_empty(), "{wrong:#?}");
    assert_ok(&result["after"]);
    // The backend saw each of those that were only wrong at their end as reset, and kept its connection.
    let stats = scene.backends[0].stats();
    let seen = stats["paths"]["/hash"].as_u64().unwrap_or(0);
    assert_eq!(seen - stats["resets_received"].as_u64().unwrap_or(0), good.len() as u64);
    assert_eq!(scene.spooky.metrics().sum("spooky_pool_connections_closed_total", &[]), 0.0);
}

/// Row C03: 256 bytes in seven places.
#[test]
fn c03_every_byte_in_every_place() {
    let scene = scene(1);
    let result = scene.target.run("every_byte", json!({}), LONG);
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let value = |byte: u8| byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
    let places: [(&str, &dyn Fn(u8) -> bool); 7] = [
        ("name", &|byte| token(byte) && !byte.is_ascii_uppercase() && byte != b'_'),
        ("value", &value),
        ("value_edge", &|byte| value(byte) && !b" \t".contains(&byte)),
        ("path", &|byte| (0x21..=0x7e).contains(&byte) && !b"#%\\".contains(&byte)),
        ("authority", &|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
        ("method", &token),
        ("scheme", &|_| false),
    ];
    for (place, allowed) in places {
        let want: Vec<u8> = (0..=u8::MAX).filter(|byte| allowed(*byte)).collect();
        assert_eq!(result["accepted"][place], json!(want), "{place}");
    }
    println!("C03: 7 x 256 as the grammar has it");
    assert_ok(&result["after"]);
}

/// Row C05: one host, in one normal form, and the same for both who say it.
#[test]
fn c05_authorities() {
    let scene = scene(1);
    let good = [
        (json!("localhost"), json!(null), "localhost"),
        (json!("LocalHost:443"), json!(["localhost"]), "localhost"),
        (json!("localhost."), json!(null), "localhost"),
        (json!(null), json!(["localhost"]), "localhost"),
        (json!("[::1]:8443"), json!(null), "[::1]:8443"),
        (json!("localhost:0"), json!(null), "localhost:0"),
    ];
    let bad = [
        (json!("localhost"), json!(["other.example"])),
        (json!("localhost"), json!(["localhost", "localhost"])),
        (json!("localhost,other"), json!(null)),
        (json!("user@localhost"), json!(null)),
        (json!("localhost#a"), json!(null)),
        (json!("local host"), json!(null)),
        (json!("localhost:"), json!(null)),
        (json!("localhost:65536"), json!(null)),
        (json!(""), json!(null)),
        (json!(null), json!(null)),
        (json!("a..b"), json!(null)),
        (json!("127.1"), json!(null)),
    ];
    let cases: Vec<Value> = good
        .iter()
        .map(|(a, h, _)| json!([a, h]))
        .chain(bad.iter().map(|(a, h)| json!([a, h])))
        .collect();
    let result = scene.target.run("authorities", json!({ "cases": cases }), LONG);
    for (index, (authority, _, want)) in good.iter().enumerate() {
        let echo = body_json(&result[index]);
        assert_eq!(echo["authority"], *want, "{authority}: {}", result[index]);
        let hosts = echo["headers"]
            .as_array()
            .map_or(0, |all| all.iter().filter(|field| field[0] == "host").count());
        assert_eq!(hosts, 0, "one host, as :authority: {echo}");
    }
    for (index, (authority, _)) in bad.iter().enumerate() {
        let case = &result[good.len() + index];
        assert!(refused(case), "{authority}: {case}");
    }
    println!("C05: {} of {} refused", bad.len(), cases.len());
}

/// Row C05: over a connection to one tenant's name nobody asks for another's.
#[test]
fn c05_another_name_than_the_connections_is_misdirected() {
    let scene = Scene::with(Turn::shared(), 1, |config, backends| {
        config.forward(backends).set("/listeners/0/http3/authority_must_match_sni", json!(true))
    });
    let cases = json!([
        ["localhost", null],
        ["LOCALHOST.:8443", null],
        ["other.example", null],
        ["localhost.example", null]
    ]);
    let result = scene.target.run("authorities", json!({ "cases": cases }), LONG);
    let status: Vec<&Value> = (0..4).map(|index| &result[index]["status"]).collect();
    assert_eq!(status, [&json!(200), &json!(200), &json!(421), &json!(421)]);
    let counted =
        scene.spooky.metrics().sum("spooky_requests_malformed_total", &[("reason", "misdirected")]);
    assert_eq!(counted, 2.0);
}

/// Ways to write `/admin`, and some that only look so.
const LOCKED: [&str; 46] = [
    "/admin",
    "/admin/",
    "/admin/x",
    "/admin?x",
    "/a/../admin",
    "//admin",
    "///admin//x",
    "/./admin",
    "/%61dmin",
    "/%61%64%6d%69%6e",
    "/a/%2e%2e/admin",
    "/a/%2E%2e/admin",
    "/a/.%2e/admin",
    "/a/%2e./admin",
    "/a//../admin",
    "/a/b/../../admin",
    "/admin/.",
    "/admin/./x",
    "/admin/../admin",
    "/admin/..//admin",
    "/%2e/admin",
    "/admin%2f",
    "/admin%2Fx",
    "/a%2f..%2fadmin",
    "/a/..;p=1/admin",
    "/..;/admin",
    "/a/..%3b/admin",
    "/a\\..\\admin",
    "/\\admin",
    "/a/%5c../admin",
    "/admin%00",
    "/%00/admin",
    "/admin%zz",
    "/admin#f",
    "/a#/../admin",
    "*",
    "",
    "https://localhost/admin",
    "admin",
    "/../admin",
    "/a/../../admin",
    "/%c0%ae%c0%ae/admin",
    "/%e0%80%afadmin",
    "/%252e%252e/admin",
    "/admin ",
    "/ADMIN/../admin",
];

/// Row C06: the path that chose the route is the path that is forwarded: nothing that is locked is reached another way.
#[test]
fn c06_no_spelling_passes_a_locked_route() {
    let scene = scene(2);
    let long = format!("/{}/../admin", "a".repeat(16_000));
    let variants: Vec<&str> = LOCKED.into_iter().chain([long.as_str()]).collect();
    let result = scene.target.run("paths", json!({ "paths": variants }), LONG);
    let (mut locked, mut refusals, mut open) = (0, 0, Vec::new());
    for case in result.as_array().into_iter().flatten() {
        match case["origin"].as_str() {
            Some("b2") => locked += 1,
            Some(_) => open.push(case["path"].as_str().unwrap_or_default().to_owned()),
            None => {
                assert!(refused(case), "{case}");
                refusals += 1;
            }
        }
    }
    println!(
        "C06: {} variants, {locked} locked, {refusals} refused, elsewhere: {open:?}",
        variants.len()
    );
    assert_eq!(locked + refusals + open.len(), variants.len());
    // Encoded twice is encoded once to the backend too, and not its way to the locked path.
    assert_eq!(open, ["/%252e%252e/admin"]);
    let paths = scene.backends[0].stats()["paths"].clone();
    let seen: Vec<&String> = paths.as_object().map(|all| all.keys().collect()).unwrap_or_default();
    assert!(!seen.iter().any(|path| path.starts_with("/admin")), "{seen:?}");
}

/// Rows C04, C07, C08: who the client is, is what its address says; nothing that frames or routes comes in trailers.
#[test]
fn c07_c08_what_a_client_says_of_itself() {
    let scene = scene(1);
    let spoofed = [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-request-id",
        "via",
        "early-data",
        "x-forwarded-client-cert",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "client-cert",
        "cdn-loop",
    ];
    let twice =
        spoofed.iter().flat_map(|name| [json!([name, "10.0.0.1"]), json!([name, "10.0.0.2"])]);
    let trailers: Vec<Value> = spoofed
        .iter()
        .chain(&["content-length", "host", "authorization", "cookie", "te", "content-type"])
        .map(|name| json!([name, if *name == "te" { "trailers" } else { "4" }]))
        .chain([json!(["x-checksum", "kept"])])
        .collect();
    let args = json!({ "fields": twice.collect::<Vec<_>>(), "body": "body", "trailers": trailers });
    let answer = scene.target.run("fields_and_trailers", args, SOON);
    assert_ok(&answer);
    let echo = body_json(&answer);
    let values = |name: &str| -> Vec<String> {
        let all = echo["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter()
            .filter(|f| f[0] == name)
            .filter_map(|f| f[1].as_str())
            .map(str::to_owned)
            .collect()
    };
    assert_eq!(values("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values("x-forwarded-proto"), ["https"]);
    assert_eq!(values("x-forwarded-host"), ["localhost"]);
    assert_eq!((values("via").len(), values("x-request-id").len()), (1, 1));
    assert!(!echo["headers"].to_string().contains("10.0.0."), "{echo}");
    assert_eq!(echo["trailers"], json!([["x-checksum", "kept"]]), "{echo}");
    for field in [
        ["x_forwarded_for", "10.0.0.1"],
        ["X-Forwarded-For", "10.0.0.1"],
        ["connection", "x-auth"],
        ["keep-alive", "5"],
        ["proxy-connection", "close"],
        ["transfer-encoding", "chunked"],
        ["upgrade", "h2c"],
        ["te", "gzip"],
    ] {
        let answer = scene.target.run(
            "fields_and_trailers",
            json!({ "fields": [field], "body": "b" }),
            SOON,
        );
        assert!(refused(&answer), "{field:?}: {answer}");
    }
}

/// Row C09: bodies where none is usual, and methods nobody knows.
#[test]
fn c09_methods_and_bodies() {
    let scene = scene(1);
    for (method, body) in [
        ("GET", "a body"),
        ("GET", ""),
        ("DELETE", "a body"),
        ("OPTIONS", ""),
        ("PURGE", "x"),
        ("PUT", ""),
        ("PATCH", "p"),
    ] {
        let args =
            json!({ "method": method, "fields": [["expect", "100-continue"]], "body": body });
        let answer = scene.target.run("fields_and_trailers", args, SOON);
        assert_ok(&answer);
        let echo = body_json(&answer);
        assert_eq!(
            (&echo["method"], &echo["length"]),
            (&json!(method), &json!(body.len())),
            "{echo}"
        );
    }
    for status in [204, 205, 304] {
        let answer = scene.target.fetch(&format!("/status/{status}"));
        assert_eq!(
            (&answer["status"], &answer["end"], &answer["length"]),
            (&json!(status), &json!("clean"), &json!(0))
        );
    }
}
