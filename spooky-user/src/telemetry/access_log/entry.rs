//! One finished request as one line of JSON. Imports only `id`. Takes bytes from clients: whatever they are, the line stays
//! one line, valid JSON, and of bounded length.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::id::WorkerId;

/// Longest part of a client's text that is written, in bytes; what was cut ends in `…`.
const TEXT_MAX: usize = 2048;

/// Everything the log says of a request, borrowed. Text that a client chose is bytes.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// When the request's head came.
    pub time: SystemTime,
    /// From `telemetry::request_id`.
    pub request_id: &'a [u8; 32],
    /// The listener's name.
    pub listener: &'a str,
    /// The worker that served it.
    pub worker: WorkerId,
    /// The client's validated address.
    pub client: SocketAddr,
    /// `:method`.
    pub method: &'a [u8],
    /// `:scheme`.
    pub scheme: &'a [u8],
    /// The authority, in normal form if it was valid.
    pub authority: &'a [u8],
    /// Path and query, in normal form if it was valid.
    pub path: &'a [u8],
    /// `h3`.
    pub protocol: &'a str,
    /// The route's name, if one matched.
    pub route: Option<&'a str>,
    /// The upstream's name, if one was tried.
    pub upstream: Option<&'a str>,
    /// The name of the endpoint that answered, or was tried last.
    pub endpoint: Option<&'a str>,
    /// How many endpoints were tried.
    pub attempts: u32,
    /// The final status sent, if a response head was sent.
    pub status: Option<u16>,
    /// The label of the error that ended it.
    pub error: Option<&'a str>,
    /// From its head to the end of its response.
    pub duration: Duration,
    /// From its head to the response's head.
    pub time_to_first_byte: Option<Duration>,
    /// Content bytes received.
    pub request_bytes: u64,
    /// Content bytes sent.
    pub response_bytes: u64,
    /// The first connection ID the server chose: finds the connection in a qlog.
    pub cid: &'a [u8],
    /// `user-agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `referer`.
    pub referer: Option<&'a [u8]>,
}

// === impl Entry ===

impl Entry<'_> {
    /// Appends the line, with its line end. Allocates only when `line` has to grow.
    pub fn write(&self, line: &mut Vec<u8>) {
        line.extend_from_slice(b"{\"time\":\"");
        write_time(line, self.time);
        line.extend_from_slice(b"\",\"request_id\":\"");
        line.extend_from_slice(self.request_id);
        line.push(b'"');
        text(line, "listener", Some(self.listener.as_bytes()));
        // Writing to a `Vec` does not fail.
        let _ = write!(line, ",\"worker\":{},\"client\":\"{}\"", self.worker, self.client);
        text(line, "method", Some(self.method));
        text(line, "scheme", Some(self.scheme));
        text(line, "authority", Some(self.authority));
        text(line, "path", Some(self.path));
        text(line, "protocol", Some(self.protocol.as_bytes()));
        text(line, "route", self.route.map(str::as_bytes));
        text(line, "upstream", self.upstream.map(str::as_bytes));
        text(line, "endpoint", self.endpoint.map(str::as_bytes));
        number(line, "attempts", Some(u64::from(self.attempts)));
        number(line, "status", self.status.map(u64::from));
        text(line, "error", self.error.map(str::as_bytes));
        milliseconds(line, "duration_ms", Some(self.duration));
        milliseconds(line, "ttfb_ms", self.time_to_first_byte);
        number(line, "request_bytes", Some(self.request_bytes));
        number(line, "response_bytes", Some(self.response_bytes));
        line.extend_from_slice(b",\"cid\":\"");
        for byte in self.cid {
            let _ = write!(line, "{byte:02x}");
        }
        line.push(b'"');
        text(line, "user_agent", self.user_agent);
        text(line, "referer", self.referer);
        line.extend_from_slice(b"}\n");
    }
}

fn key(line: &mut Vec<u8>, key: &str) {
    line.extend_from_slice(b",\"");
    line.extend_from_slice(key.as_bytes());
    line.extend_from_slice(b"\":");
}

fn number(line: &mut Vec<u8>, name: &str, value: Option<u64>) {
    key(line, name);
    let _ = match value {
        Some(value) => write!(line, "{value}"),
        None => line.write_all(b"null"),
    };
}

fn milliseconds(line: &mut Vec<u8>, name: &str, value: Option<Duration>) {
    key(line, name);
    let _ = match value.map(|value| value.as_micros()) {
        Some(micros) => write!(line, "{}.{:03}", micros / 1000, micros % 1000),
        None => line.write_all(b"null"),
    };
}

fn text(line: &mut Vec<u8>, name: &str, value: Option<&[u8]>) {
    key(line, name);
    let Some(value) = value else {
        line.extend_from_slice(b"null");
        return;
    };
    line.push(b'"');
    match value.get(..TEXT_MAX) {
        Some(start) if value.len() > TEXT_MAX => {
            escape(line, start);
            line.extend_from_slice("\u{2026}".as_bytes());
        }
        _ => escape(line, value),
    }
    line.push(b'"');
}

/// RFC 8259 §7, and more than it asks: controls of the C1 set move a terminal's cursor, U+2028 and U+2029 end lines in some
/// readers. What is not UTF-8 becomes U+FFFD.
fn escape(line: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => line.extend([b'\\', character as u8]),
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => {
                    let _ = write!(line, "\\u{:04x}", u32::from(character));
                }
                _ => {
                    let mut utf8 = [0; 4];
                    line.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                }
            }
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// RFC 3339 in UTC with milliseconds. Times before 1970 are written as its beginning.
fn write_time(line: &mut Vec<u8>, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil_date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millisecond = since.subsec_millis();
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z"
    );
}

/// Days since 1970-01-01 to (year, month, day) of the Gregorian calendar. Years begin in March here, so that the leap day
/// is the last; an era is 400 years of 146,097 days.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    pub(crate) fn entry(path: &[u8]) -> Entry<'_> {
        Entry {
            time: UNIX_EPOCH + Duration::from_millis(1_709_209_425_007),
            request_id: b"0123456789abcdef0123456789abcdef",
            listener: "edge",
            worker: WorkerId(3),
            client: "[2001:db8::1]:4433".parse().unwrap(),
            method: b"GET",
            scheme: b"https",
            authority: b"example.com",
            path,
            protocol: "h3",
            route: Some("api"),
            upstream: None,
            endpoint: None,
            attempts: 1,
            status: Some(200),
            error: None,
            duration: Duration::from_micros(12_345),
            time_to_first_byte: None,
            request_bytes: 0,
            response_bytes: u64::MAX,
            cid: &[0, 0xab, 0xff],
            user_agent: Some(b"a \"quoted\" agent\\"),
            referer: None,
        }
    }

    fn parsed(entry: &Entry<'_>) -> Value {
        let mut line = Vec::new();
        entry.write(&mut line);
        assert_eq!(line.pop(), Some(b'\n'));
        assert!(!line.iter().any(|byte| byte.is_ascii_control()));
        serde_json::from_slice(&line).unwrap()
    }

    #[test]
    fn a_line_says_everything() {
        let want = serde_json::json!({
            "time": "2024-02-29T12:23:45.007Z",
            "request_id": "0123456789abcdef0123456789abcdef",
            "listener": "edge", "worker": 3, "client": "[2001:db8::1]:4433",
            "method": "GET", "scheme": "https", "authority": "example.com", "path": "/a?b",
            "protocol": "h3", "route": "api", "upstream": null, "endpoint": null,
            "attempts": 1, "status": 200, "error": null,
            "duration_ms": 12.345, "ttfb_ms": null,
            "request_bytes": 0, "response_bytes": u64::MAX,
            "cid": "00abff", "user_agent": "a \"quoted\" agent\\", "referer": null,
        });
        assert_eq!(parsed(&entry(b"/a?b")), want);
    }

    #[test]
    fn dates() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399, "2000-02-28T23:59:59.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (951_868_800, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            let mut line = Vec::new();
            write_time(&mut line, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(String::from_utf8(line).unwrap(), want);
        }
    }

    #[test]
    fn every_byte_of_a_client_is_escaped() {
        for byte in 0..=u8::MAX {
            let path = [b'/', byte, b'x'];
            let text = String::from_utf8_lossy(&path).into_owned();
            assert_eq!(parsed(&entry(&path))["path"], Value::String(text), "{byte:#04x}");
        }
        let path = "/\u{9b}31m\u{2028}\u{fc}\u{1f600}".as_bytes();
        let mut line = Vec::new();
        entry(path).write(&mut line);
        let line = String::from_utf8(line).unwrap();
        assert!(line.contains(r"/\u009b31m\u2028") && line.contains("\u{fc}\u{1f600}"), "{line}");
    }

    #[test]
    fn a_long_text_is_cut() {
        let path = vec![b'/'; 30_000];
        let got = parsed(&entry(&path));
        let text = got["path"].as_str().unwrap();
        assert!(text.ends_with("/\u{2026}") && text.len() == TEXT_MAX + 3);
        let path = vec![b'/'; TEXT_MAX];
        assert_eq!(parsed(&entry(&path))["path"].as_str().unwrap().len(), TEXT_MAX);
    }

    proptest! {
        #[test]
        fn any_bytes_make_one_valid_line(
            path in prop::collection::vec(any::<u8>(), 0..200),
            agent in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let got = parsed(&Entry { user_agent: Some(&agent), ..entry(&path) });
            prop_assert_eq!(got["path"].as_str(), Some(&*String::from_utf8_lossy(&path)));
            prop_assert_eq!(got["user_agent"].as_str(), Some(&*String::from_utf8_lossy(&agent)));
        }
    }
}
