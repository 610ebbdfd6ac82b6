//! What holds for any field section. What may be accepted at all, an oracle of its own says: `tests/fuzz/oracle.rs`.

use proptest::prelude::*;

use super::tests::{GET, Line, borrowed, lines, parse};
use super::*;

/// Field lines that are often valid and often nearly so.
fn any_line() -> impl Strategy<Value = Line> {
    let names = vec![
        ":method",
        ":scheme",
        ":path",
        ":authority",
        ":status",
        ":protocol",
        "host",
        "te",
        "cookie",
        "content-length",
        "connection",
        "accept",
        "x-a",
        "X-A",
        "x_a",
        "",
        "a b",
        ":",
    ];
    let values = vec![
        "GET",
        "OPTIONS",
        "CONNECT",
        "https",
        "http",
        "/",
        "/a/../b",
        "/..",
        "*",
        "/%2e%2e/x",
        "/%zz",
        "example.com",
        "example.com:443",
        "EXAMPLE.com",
        "u@h",
        "[::1]",
        "trailers",
        "5",
        "05",
        "+5",
        "",
        " x",
        "x\u{0}",
        "b\u{e9}",
        "/a?b#c",
        "/x/..;/y",
    ];
    let any = prop::collection::vec(any::<u8>(), 0..6);
    (
        prop_oneof![9 => prop::sample::select(names).prop_map(Vec::from), 1 => any.clone()],
        prop_oneof![9 => prop::sample::select(values).prop_map(Vec::from), 1 => any],
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_accepted_has_its_host_and_length_in_one_place(
        seed in prop::collection::vec(any_line(), 0..4),
        changed in prop::collection::vec((0_usize..4, any_line()), 0..2),
    ) {
        let mut all = lines(&GET);
        for (at, (_, value)) in changed {
            all[at].1 = value;
        }
        all.extend(seed);
        if let Ok(head) = parse(&all) {
            prop_assert!(!head.headers.contains_key("host"));
            prop_assert_eq!(content_length(&head.headers), Ok(head.content_length));
        }
    }

    #[test]
    fn accepted_trailers_frame_nothing(
        all in prop::collection::vec(any_line(), 0..5),
    ) {
        if let Ok(kept) = trailers(borrowed(&all), &Limits::default()) {
            for name in ["content-length", "host", "te", "cookie", "transfer-encoding"] {
                prop_assert!(!kept.contains_key(name));
            }
        }
    }

    #[test]
    fn any_bytes_do_not_panic(all in prop::collection::vec(any_line(), 0..12)) {
        let _ = parse(&all);
        let _ = response_head(borrowed(&all), &Limits::default());
        let _ = trailers(borrowed(&all), &Limits::default());
    }
}
