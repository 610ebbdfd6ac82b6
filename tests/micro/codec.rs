//! Field sections and request targets, as clients send them.

use std::hint::black_box;

use spooky_user::codec::{
    authority::Authority,
    field::{Limits, request_head, response_head},
    path::Target,
};

use crate::stopwatch::Stopwatch;

type Field = (&'static [u8], &'static [u8]);

/// What a load generator sends.
const SHORT: [Field; 5] = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"localhost"),
    (b":path", b"/bytes/1024"),
    (b"user-agent", b"load"),
];

/// What a browser sends.
const BROWSER: [Field; 16] = [
    (b":method", b"GET"),
    (b":authority", b"www.example.com"),
    (b":scheme", b"https"),
    (b":path", b"/assets/app/main.js?v=20261122&theme=dark"),
    (b"sec-ch-ua-platform", b"\"Linux\""),
    (
        b"user-agent",
        b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0",
    ),
    (b"sec-ch-ua", b"\"Chromium\";v=\"140\", \"Not=A?Brand\";v=\"24\""),
    (b"sec-ch-ua-mobile", b"?0"),
    (b"accept", b"*/*"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"no-cors"),
    (b"sec-fetch-dest", b"script"),
    (b"referer", b"https://www.example.com/"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"cookie", b"session=0123456789abcdef0123456789abcdef; seen=1"),
];

const RESPONSE: [Field; 6] = [
    (b":status", b"200"),
    (b"server", b"origin"),
    (b"date", b"Sun, 22 Nov 2026 02:00:00 GMT"),
    (b"content-type", b"application/javascript"),
    (b"content-length", b"1024"),
    (b"cache-control", b"max-age=3600"),
];

pub(crate) fn benches(stopwatch: &mut Stopwatch) {
    let limits = Limits::default();
    for (name, fields) in
        [("codec/request, 5 fields", &SHORT[..]), ("codec/request, 16 fields", &BROWSER[..])]
    {
        stopwatch.time(name, || request_head(black_box(fields).iter().copied(), &limits));
    }
    let fields = &RESPONSE[..];
    stopwatch.time("codec/response, 6 fields", || {
        response_head(black_box(fields).iter().copied(), &limits)
    });
    for (name, target) in [
        ("codec/target, normal", &b"/assets/app/main.js?v=20261122"[..]),
        ("codec/target, to be normalised", b"/a/./b/../%7euser//x%2Fy?q=%41"),
    ] {
        stopwatch.time(name, || Target::parse(black_box(target)));
    }
    stopwatch.time("codec/authority", || Authority::parse(black_box(b"www.example.com:8443"), 443));
}
