//! Tables from RFC 9114 §4 and the messages that a bare transport library lets through.

use super::*;

pub(super) const GET: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":authority", "example.com"), (":path", "/")];

/// A field line.
pub(super) type Line = (Vec<u8>, Vec<u8>);

pub(super) fn lines(fields: &[(&str, &str)]) -> Vec<Line> {
    fields.iter().map(|(n, v)| (n.as_bytes().to_vec(), v.as_bytes().to_vec())).collect()
}

pub(super) fn parse(lines: &[Line]) -> Result<RequestHead, Malformed> {
    request_head(borrowed(lines), &Limits::default())
}

pub(super) fn borrowed(lines: &[Line]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
}

/// A GET for `/` with more fields behind.
fn get(more: &[(&str, &str)]) -> Result<RequestHead, Malformed> {
    parse(&lines(&[&GET, more].concat()))
}

/// A GET whose pseudo-header field `name` has another value, or is gone.
fn get_with(name: &str, value: Option<&[u8]>) -> Result<RequestHead, Malformed> {
    let mut all = lines(&GET);
    let at = all.iter().position(|(n, _)| n == name.as_bytes()).unwrap();
    match value {
        Some(value) => all[at].1 = value.to_vec(),
        None => drop(all.remove(at)),
    }
    parse(&all)
}

#[test]
fn a_plain_request_passes() {
    let head = get(&[("accept", "*/*"), ("cookie", "a=1"), ("cookie", "b=2"), ("te", "Trailers")])
        .unwrap();
    assert_eq!(head.method, Method::GET);
    assert_eq!(head.scheme, Scheme::Https);
    assert_eq!(head.authority.as_str(), "example.com");
    assert_eq!(head.target.as_str(), "/");
    assert_eq!(head.content_length, None);
    let crumbs: Vec<_> = head.headers.get_all("cookie").iter().collect();
    assert_eq!(crumbs, ["a=1", "b=2"]);
    assert_eq!(head.headers["te"], "trailers");
    assert_eq!(head.headers.len(), 4);
}

/// The fifteen malformed messages that quiche hands to its application as good requests.
#[test]
fn fifteen_malformed_messages() {
    let heads: [(&str, Result<RequestHead, Malformed>, Malformed); 12] = [
        ("duplicate", get_first(":method", "GET"), Malformed::PseudoRepeated),
        ("missing", get_with(":path", None), Malformed::PseudoMissing),
        ("prohibited", get_first(":status", "200"), Malformed::PseudoUnknown),
        ("late", late(":path", "/"), Malformed::PseudoLate),
        ("upper-case name", get(&[("X-Upper", "1")]), Malformed::FieldName),
        ("CR LF in a value", get(&[("a", "b\r\nc: d")]), Malformed::FieldValue),
        ("NUL in a value", get(&[("a", "b\0")]), Malformed::FieldValue),
        ("connection", get(&[("connection", "close")]), Malformed::ConnectionSpecific),
        (
            "transfer-encoding",
            get(&[("transfer-encoding", "chunked")]),
            Malformed::ConnectionSpecific,
        ),
        ("te: gzip", get(&[("te", "gzip")]), Malformed::Te),
        ("host differs", get(&[("host", "other.example")]), Malformed::HostMismatch),
        (
            "two content-length",
            get(&[("content-length", "1"), ("content-length", "2")]),
            Malformed::ContentLength,
        ),
    ];
    for (what, got, want) in heads {
        assert_eq!(got.map(|_| ()), Err(want), "{what}");
    }
    let promised = |length: &str| {
        let head = get(&[("content-length", length)]).unwrap();
        Content::new(head.content_length)
    };
    let mut shorter = promised("10");
    assert_eq!(shorter.data(9), Ok(()));
    assert_eq!(shorter.finish(), Err(Malformed::ContentMismatch), "shorter");
    let mut longer = promised("10");
    assert_eq!(longer.data(10), Ok(()));
    assert_eq!(longer.data(1), Err(Malformed::ContentMismatch), "longer");
    assert_eq!(promised("40").finish(), Err(Malformed::ContentMismatch), "bare FIN");
}

fn get_first(name: &str, value: &str) -> Result<RequestHead, Malformed> {
    parse(&lines(&[&[(name, value)], &GET[..]].concat()))
}

fn late(name: &str, value: &str) -> Result<RequestHead, Malformed> {
    let mut all = lines(&GET);
    all.retain(|(n, _)| n != name.as_bytes());
    all.extend(lines(&[("accept", "*/*"), (name, value)]));
    parse(&all)
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
//= type=test
//# Pseudo-header fields defined for requests MUST NOT appear in responses;
//# pseudo-header fields defined for responses MUST NOT appear in requests.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
//= type=test
//# Endpoints MUST treat a request or response that contains undefined or
//# invalid pseudo-header fields as malformed.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
//= type=test
//# All pseudo-header fields MUST appear in the header section before
//# regular header fields.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
//= type=test
//# Any request or response that contains a pseudo-header field that appears
//# in a header section after a regular header field MUST be treated as
//# malformed.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//= type=test
//# All HTTP/3 requests MUST include exactly one value for the :method,
//# :scheme, and :path pseudo-header fields, unless the request is a CONNECT
//# request; see Section 4.4.
#[test]
fn pseudo_header_fields() {
    for name in [":method", ":scheme", ":path", ":authority"] {
        assert_eq!(get_with(name, None).unwrap_err(), Malformed::PseudoMissing, "{name}");
        assert_eq!(get_first(name, "x").unwrap_err(), Malformed::PseudoRepeated, "{name}");
        assert_eq!(late(name, "x").unwrap_err(), Malformed::PseudoLate, "{name}");
    }
    for name in [":status", ":", ":Method", ":unknown", ":path "] {
        assert_eq!(get_first(name, "x").unwrap_err(), Malformed::PseudoUnknown, "{name}");
    }
    assert_eq!(get_first(":protocol", "websocket").unwrap_err(), Malformed::PseudoProhibited);
    for scheme in ["", "http", "ftp", "https:", "https "] {
        let got = get_with(":scheme", Some(scheme.as_bytes()));
        assert_eq!(got.unwrap_err(), Malformed::Scheme, "{scheme}");
    }
    assert!(get_with(":scheme", Some(b"HTTPS")).is_ok());
    assert_eq!(parse(&[]).unwrap_err(), Malformed::PseudoMissing);
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.4
//= type=test
//# A CONNECT request MUST be constructed as follows:
#[test]
fn connect_is_told_apart() {
    let connect = [(":method", "CONNECT"), (":authority", "example.com:443")];
    let parse = |more: &[(&str, &str)]| parse(&lines(&[&connect, more].concat())).unwrap_err();
    assert_eq!(parse(&[]), Malformed::Connect);
    assert_eq!(parse(&[]).answer(), Answer::Status(StatusCode::NOT_IMPLEMENTED));
    assert_eq!(
        parse(&[(":protocol", "websocket"), (":scheme", "https"), (":path", "/")]),
        Malformed::Connect
    );
    assert_eq!(parse(&[(":path", "/")]), Malformed::PseudoProhibited);
    assert_eq!(parse(&[(":scheme", "https")]), Malformed::PseudoProhibited);
    assert_eq!(parse(&[(":protocol", "websocket")]), Malformed::PseudoMissing);
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//= type=test
//# The authority MUST NOT include the deprecated userinfo subcomponent for
//# URIs of scheme "http" or "https".
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//= type=test
//# If the :scheme pseudo-header field identifies a scheme that has a
//# mandatory authority component (including "http" and "https"), the
//# request MUST contain either an :authority pseudo-header field or a Host
//# header field.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//= type=test
//# If these fields are present, they MUST NOT be empty.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//= type=test
//# If both fields are present, they MUST contain the same value.
#[test]
fn host_and_authority() {
    for (host, ok) in [
        ("example.com", true),
        ("EXAMPLE.com:443", true),
        ("example.com.", true),
        ("example.com:8443", false),
        ("example.org", false),
    ] {
        let got = get(&[("host", host)]);
        assert_eq!(got.as_ref().err(), (!ok).then_some(&Malformed::HostMismatch), "{host}");
        assert!(got.is_err() || !got.unwrap().headers.contains_key("host"));
    }
    assert_eq!(
        get(&[("host", "example.com"), ("host", "example.com")]).unwrap_err(),
        Malformed::HostRepeated
    );
    let mut without = lines(&GET);
    without.retain(|(name, _)| name != b":authority");
    without.extend(lines(&[("host", "Only.Example:444")]));
    assert_eq!(parse(&without).unwrap().authority.as_str(), "only.example:444");
    for bad in ["", "user@example.com", "a,b", "a b", "example.com:99999"] {
        let got = get_with(":authority", Some(bad.as_bytes())).unwrap_err();
        assert!(matches!(got, Malformed::Authority(_)), "{bad}: {got:?}");
        assert_eq!(got.answer(), Answer::Status(StatusCode::BAD_REQUEST));
        assert!(matches!(get(&[("host", bad)]).unwrap_err(), Malformed::Authority(_)), "{bad}");
    }
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.1
//= type=test
//# This pseudo-header field MUST NOT be empty for "http" or "https" URIs;
//# "http" or "https" URIs that do not contain a path component MUST include
//# a value of / (ASCII 0x2f).
#[test]
fn targets() {
    assert!(matches!(get_with(":path", Some(b"*")), Err(Malformed::Path(_))));
    let mut options = lines(&GET);
    options[0].1 = b"OPTIONS".to_vec();
    options[3].1 = b"*".to_vec();
    assert!(parse(&options).unwrap().target.is_asterisk());
    let head = get_with(":path", Some(b"/a/../%61dmin?x")).unwrap();
    assert_eq!((head.target.path(), head.target.query()), ("/admin", Some("x")));
    for bad in [&b""[..], b"/..", b"/%2f", b"https://example.com/", b"/a#b", b"/ "] {
        let got = get_with(":path", Some(bad)).unwrap_err();
        assert_eq!(got.answer(), Answer::Status(StatusCode::BAD_REQUEST), "{bad:?}");
    }
}

#[test]
fn content_lengths() {
    let max = u64::MAX.to_string();
    for (value, want) in [
        ("0", Some(0)),
        ("42", Some(42)),
        ("0042", Some(42)),
        (max.as_str(), Some(u64::MAX)),
        ("18446744073709551616", None),
        ("18446744073709551620", None),
        ("", None),
        ("5, 5", None),
        ("5,5", None),
        ("+5", None),
        ("-5", None),
        ("0x5", None),
        ("5 5", None),
        ("5.0", None),
        ("\u{0665}", None),
    ] {
        match (get(&[("content-length", value)]), want) {
            (Ok(head), Some(want)) => {
                assert_eq!(head.content_length, Some(want), "{value}");
                assert_eq!(head.headers["content-length"], want.to_string().as_str());
            }
            (Err(got), None) => assert_eq!(got, Malformed::ContentLength, "{value}"),
            (got, want) => panic!("{value}: {got:?}, not {want:?}"),
        }
    }
    let twice = get(&[("content-length", "7"), ("content-length", "07")]).unwrap();
    assert_eq!(twice.content_length, Some(7));
    assert_eq!(content_length(&twice.headers), Ok(Some(7)));
    let mut headers = HeaderMap::new();
    assert_eq!(content_length(&headers), Ok(None));
    for value in ["1", "2"] {
        headers.append(CONTENT_LENGTH, value.parse().unwrap());
    }
    assert_eq!(content_length(&headers), Err(Malformed::ContentLength));
}

/// Row C03: 256 bytes in each of six places, alone and in the middle.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//= type=test
//# A request or response containing uppercase characters in field names
//# MUST be treated as malformed.
#[test]
fn every_byte_in_every_place() {
    for byte in 0..=u8::MAX {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let name_ok = token && !byte.is_ascii_uppercase() && byte != b'_';
        for name in [vec![byte], vec![b'a', byte, b'b']] {
            let all = [lines(&GET), vec![(name.clone(), b"v".to_vec())]].concat();
            assert_eq!(parse(&all).is_ok(), name_ok, "name {name:?}");
        }
        let inside_ok = byte == b'\t' || (byte >= 0x20 && byte != 0x7f);
        for (value, ok) in [
            (vec![b'a', byte, b'b'], inside_ok),
            (vec![byte], inside_ok && !b" \t".contains(&byte)),
            (vec![byte, b'b'], inside_ok && !b" \t".contains(&byte)),
            (vec![b'a', byte], inside_ok && !b" \t".contains(&byte)),
        ] {
            let all = [lines(&GET), vec![(b"n".to_vec(), value.clone())]].concat();
            assert_eq!(parse(&all).is_ok(), ok, "value {value:?}");
        }
        assert_eq!(get_with(":method", Some(&[b'A', byte])).is_ok(), token, "method {byte:#04x}");
        assert!(get_with(":scheme", Some(&[b"https".as_slice(), &[byte]].concat())).is_err());
        let host = byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        assert_eq!(get_with(":authority", Some(&[b'a', byte, b'b'])).is_ok(), host, "{byte:#04x}");
        let path = (0x21..=0x7e).contains(&byte) && !b"#%\\".contains(&byte);
        assert_eq!(get_with(":path", Some(&[b'/', byte])).is_ok(), path, "path {byte:#04x}");
    }
    assert!(get(&[("", "v")]).is_err());
    assert!(get(&[("n", "")]).is_ok());
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
//= type=test
//# Transfer codings (see Section 7 of [HTTP/1.1]) are not defined for
//# HTTP/3; the Transfer-Encoding header field MUST NOT be used.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//= type=test
//# any message containing connection-specific fields MUST be treated as
//# malformed.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.2
//= type=test
//# The only exception to this is the TE header field, which MAY be present
//# in an HTTP/3 request header; when it is, it MUST NOT contain any value
//# other than "trailers".
#[test]
fn connection_specific_fields_and_underscores() {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert_eq!(get(&[(name, "x")]).unwrap_err(), Malformed::ConnectionSpecific);
    }
    for value in ["gzip", "trailers, gzip", "", "trailers;q=1"] {
        assert_eq!(get(&[("te", value)]).unwrap_err(), Malformed::Te, "{value}");
    }
    assert_eq!(get(&[("x_forwarded_for", "1")]).unwrap_err(), Malformed::FieldUnderscore);
}

#[test]
fn limits_are_exact() {
    let limits = Limits { max_fields: 6, max_section_size: 300, max_name: 8, max_value: 20 };
    let parse = |more: &[(&str, &str)]| {
        let short = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a")];
        request_head(borrowed(&lines(&[&short, more].concat())), &limits)
    };
    // 7+3 + 7+5 + 5+1 + 4+1 = 33, and 4 * 32 = 128: 161 of 300 bytes.
    assert!(parse(&[("a", "b"), ("c", "d")]).is_ok());
    let too_many = parse(&[("a", "b"), ("c", "d"), ("e", "f")]).unwrap_err();
    assert_eq!(too_many, Malformed::TooManyFields);
    assert!(parse(&[("x2345678", "v")]).is_ok());
    assert_eq!(parse(&[("x23456789", "v")]).unwrap_err(), Malformed::NameTooLong);
    assert!(parse(&[("n", &"v".repeat(20))]).is_ok());
    assert_eq!(parse(&[("n", &"v".repeat(21))]).unwrap_err(), Malformed::ValueTooLong);
    // One more field has its 32 bytes and ten: a name of one and a value of nine.
    let limits = Limits { max_section_size: 161 + 32 + 10, ..limits };
    let parse = |value: &str| {
        let short = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("host", "a")];
        request_head(borrowed(&lines(&[&short[..], &[("n", value)]].concat())), &limits)
    };
    assert!(parse("123456789").is_ok());
    let error = parse("1234567890").unwrap_err();
    assert_eq!(error, Malformed::SectionTooLarge);
    assert!(error.is_too_large());
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3.2
//= type=test
//# This pseudo-header field MUST be included in all responses; otherwise,
//# the response is malformed (see Section 4.1.2).
#[test]
fn responses() {
    let parse =
        |fields: &[(&str, &str)]| response_head(borrowed(&lines(fields)), &Limits::default());
    let head = parse(&[(":status", "204"), ("x_own", "1"), ("content-length", "0")]).unwrap();
    assert_eq!((head.status, head.content_length), (StatusCode::NO_CONTENT, Some(0)));
    assert_eq!(head.headers.len(), 2);
    for status in ["", "0", "99", "099", "101", "600", "999", "2000", "20x", "+20", " 200"] {
        assert_eq!(parse(&[(":status", status)]).unwrap_err(), Malformed::Status, "{status}");
    }
    assert!(parse(&[(":status", "100")]).is_ok() && parse(&[(":status", "599")]).is_ok());
    assert_eq!(parse(&[]).unwrap_err(), Malformed::PseudoMissing);
    let twice = [(":status", "200"), (":status", "200")];
    assert_eq!(parse(&twice).unwrap_err(), Malformed::PseudoRepeated);
    assert_eq!(parse(&[("a", "b"), (":status", "200")]).unwrap_err(), Malformed::PseudoLate);
    let path = [(":status", "200"), (":path", "/")];
    assert_eq!(parse(&path).unwrap_err(), Malformed::PseudoUnknown);
    let hop = [(":status", "200"), ("connection", "close")];
    assert_eq!(parse(&hop).unwrap_err(), Malformed::ConnectionSpecific);
}

//= https://www.rfc-editor.org/rfc/rfc9114#section-4.1
//= type=test
//# On a given stream, receipt of multiple requests or receipt of an
//# additional HTTP response following a final HTTP response MUST be treated
//# as malformed.
//= https://www.rfc-editor.org/rfc/rfc9114#section-4.3
//= type=test
//# Pseudo-header fields MUST NOT appear in trailer sections.
#[test]
fn trailer_sections() {
    let parse = |fields: &[(&str, &str)]| trailers(borrowed(&lines(fields)), &Limits::default());
    let kept = parse(&[
        ("grpc-status", "0"),
        ("content-length", "5"),
        ("host", "other.example"),
        ("authorization", "x"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-request-id", "1"),
        ("set-cookie", "a=b"),
        ("te", "trailers"),
    ])
    .unwrap();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept["grpc-status"], "0");
    for bad in [(":path", "/"), (":status", "200"), ("A", "b"), ("a", "b\n"), ("upgrade", "h2c")] {
        let error = parse(&[bad]).unwrap_err();
        assert_eq!((error, error.answer()), (Malformed::Trailers, Answer::MessageError), "{bad:?}");
    }
    let many = vec![("a", "b"); 101];
    assert_eq!(parse(&many).unwrap_err(), Malformed::TooManyFields);
}
