//! What may be in a message, written from RFC 9110, RFC 9114 and RFC 3986 and from the decisions that are stricter, without a
//! look at spooky's codec: slow, plain, in other terms. What the codec accepts this must accept, and the other way round.
//! Imports nothing of the crate.

/// A field line.
pub(crate) type Line = (Vec<u8>, Vec<u8>);

/// A host and, unless it is the default, a port.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) host: String,
    pub(crate) port: Option<u16>,
}

// === sections ===

/// Is this the head of a request that spooky serves? RFC 9114 §4.2, §4.3.1.
pub(crate) fn request(lines: &[Line]) -> bool {
    let Some((pseudo, regular)) = in_order(lines) else { return false };
    let one = |name: &str| match pseudo.iter().filter(|(n, _)| n == name.as_bytes()).collect() {
        Count::One(value) => Some(value),
        Count::None | Count::Many => None,
    };
    let known = [":method", ":scheme", ":path", ":authority"];
    if pseudo.iter().any(|(name, _)| !known.iter().any(|known| known.as_bytes() == name)) {
        // Of RFC 9220's `:protocol` nothing is served.
        return false;
    }
    if known.iter().any(|name| pseudo.iter().filter(|(n, _)| n == name.as_bytes()).count() > 1) {
        return false;
    }
    let (Some(method), Some(scheme), Some(path)) = (one(":method"), one(":scheme"), one(":path"))
    else {
        return false;
    };
    let hosts: Vec<&[u8]> = values(regular, "host");
    let named: Option<Vec<Origin>> =
        one(":authority").into_iter().chain(hosts.iter().copied()).map(origin).collect();
    let agree = named.is_some_and(|named| {
        !named.is_empty() && named.iter().all(|origin| origin == &named[0]) && hosts.len() < 2
    });
    let rest: Vec<Line> = regular.iter().filter(|(name, _)| name != b"host").cloned().collect();
    agree
        && token(method)
        && method != b"CONNECT"
        && scheme.eq_ignore_ascii_case(b"https")
        && (resolved(path).is_some() || (path == b"*" && method == b"OPTIONS"))
        && fields(&rest, true)
}

/// Is this the head of a response? RFC 9114 §4.3.2, RFC 9110 §15; 101 cannot be (RFC 9114 §4.5).
pub(crate) fn response(lines: &[Line]) -> bool {
    let Some((pseudo, regular)) = in_order(lines) else { return false };
    let [(name, status)] = pseudo else { return false };
    let digits = status.len() == 3 && status.iter().all(u8::is_ascii_digit);
    let class = status.first().is_some_and(|digit| (b'1'..=b'5').contains(digit));
    name == b":status" && digits && class && status != b"101" && fields(regular, false)
}

/// Is this a trailer section of a request? RFC 9114 §4.3.
pub(crate) fn trailers(lines: &[Line]) -> bool {
    fields(lines, true)
}

/// Field section size by RFC 9114 §4.2.2.
pub(crate) fn size(lines: &[Line]) -> usize {
    lines.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
}

/// How often something is there.
enum Count<'l> {
    None,
    One(&'l [u8]),
    Many,
}

impl<'l> FromIterator<&'l Line> for Count<'l> {
    fn from_iter<I: IntoIterator<Item = &'l Line>>(lines: I) -> Self {
        let mut lines = lines.into_iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::None,
            (Some((_, value)), None) => Self::One(value),
            (Some(_), Some(_)) => Self::Many,
        }
    }
}

/// Pseudo-header fields and the others, if all of the first come before all of the second.
fn in_order(lines: &[Line]) -> Option<(&[Line], &[Line])> {
    let is_pseudo = |line: &Line| line.0.first() == Some(&b':');
    let (pseudo, regular) = lines.split_at(lines.iter().take_while(|line| is_pseudo(line)).count());
    (!regular.iter().any(is_pseudo)).then_some((pseudo, regular))
}

fn values<'l>(lines: &'l [Line], name: &str) -> Vec<&'l [u8]> {
    lines.iter().filter(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.as_slice()).collect()
}

/// Regular fields: RFC 9110 §5.1, §5.5, RFC 9114 §4.2. Of clients no underscores.
fn fields(lines: &[Line], of_client: bool) -> bool {
    let lengths: Vec<Option<u64>> =
        values(lines, "content-length").into_iter().map(number).collect();
    let of_connection = |name: &[u8]| {
        let text = String::from_utf8_lossy(name).into_owned();
        "connection keep-alive proxy-connection transfer-encoding upgrade"
            .split(' ')
            .any(|name| name == text)
    };
    lengths.iter().all(|length| length.is_some() && length == &lengths[0])
        && values(lines, "te").iter().all(|value| value.eq_ignore_ascii_case(b"trailers"))
        && lines.iter().all(|(name, value)| {
            token(name)
                && name.to_ascii_lowercase() == *name
                && !(of_client && name.contains(&b'_'))
                && !of_connection(name)
                && text(value)
        })
}

/// RFC 9110 §5.6.2: any VCHAR but delimiters.
fn token(bytes: &[u8]) -> bool {
    !bytes.is_empty()
        && bytes.iter().all(|b| b.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(b))
}

/// RFC 9110 §5.5: `field-content` with its blanks inside, or nothing.
fn text(bytes: &[u8]) -> bool {
    let blank = |byte: Option<&u8>| byte == Some(&b' ') || byte == Some(&b'\t');
    let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    !bytes.iter().any(control) && !blank(bytes.first()) && !blank(bytes.last())
}

/// RFC 9110 §8.6, of what a u64 holds.
fn number(bytes: &[u8]) -> Option<u64> {
    let digits = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit);
    let text = String::from_utf8_lossy(bytes);
    let trimmed = text.trim_start_matches('0');
    digits.then(|| if trimmed.is_empty() { Ok(0) } else { trimmed.parse() })?.ok()
}

// === authorities ===

/// `uri-host [":" port]` of RFC 3986 §3.2 without userinfo (RFC 9114 §4.3.1), names as in the DNS (RFC 1035 §2.3.4), and no
/// other notation of IPv4 addresses than four numbers.
pub(crate) fn origin(bytes: &[u8]) -> Option<Origin> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (inside, port) = rest.split_once(']')?;
        let address: std::net::Ipv6Addr = inside.parse().ok()?;
        (format!("[{address}]"), port.strip_prefix(':').or(port.is_empty().then_some("none"))?)
    } else {
        let (name, port) = text.split_once(':').unwrap_or((text, "none"));
        (name_of(name)?, port)
    };
    let port = match port {
        "none" if !text.ends_with(":none") => None,
        _ if port.is_empty() || port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) => {
            return None;
        }
        _ => Some(port.parse().ok()?),
    };
    Some(Origin { host, port: port.filter(|port| *port != 443) })
}

/// A name in lower case without its last dot.
fn name_of(text: &str) -> Option<String> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let label = |label: &&str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    let last = labels.last().copied().unwrap_or_default();
    let hexadecimal = |rest: &str| rest.chars().all(|c| c.is_ascii_hexdigit());
    let numeric = last.chars().all(|c| c.is_ascii_digit())
        || last.strip_prefix("0x").is_some_and(hexadecimal);
    let quad = name.parse::<std::net::Ipv4Addr>().is_ok();
    (labels.iter().all(label) && name.len() <= 253 && (!numeric || quad)).then_some(name)
}

// === paths ===

/// What a path means when all that is encoded is decoded: its segments, and whether it ends in a slash. `None` for what
/// decision 0030 refuses.
pub(crate) fn resolved(target: &[u8]) -> Option<(Vec<Vec<u8>>, bool)> {
    if !target.iter().all(u8::is_ascii_graphic) || target.contains(&b'#') {
        return None;
    }
    let path = target.split(|byte| *byte == b'?').next()?;
    let mut segments: Vec<Vec<u8>> = Vec::new();
    let mut last_is_open = false;
    let mut parts = path.split(|byte| *byte == b'/');
    // Before the first slash there is nothing.
    parts.next().filter(|before| before.is_empty() && path.starts_with(b"/"))?;
    for part in parts {
        let raw = decoded(part)?;
        last_is_open = raw.is_empty() || raw == b"." || raw == b"..";
        match raw.as_slice() {
            b"" | b"." => {}
            b".." => drop(segments.pop()?),
            [b'.', b'.', b';', ..] | [b'.', b';', ..] => return None,
            _ => segments.push(raw),
        }
    }
    Some((segments, last_is_open))
}

/// One segment with nothing encoded; what is not UTF-8 or means something else to some server is refused.
fn decoded(segment: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < segment.len() {
        if segment[at] == b'%' {
            let digits = std::str::from_utf8(segment.get(at + 1..at + 3)?).ok()?;
            if digits.contains('+') {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            out.push(segment[at]);
            at += 1;
        }
    }
    let text = String::from_utf8(out).ok()?;
    let forbidden = |c: char| c == '/' || c == '\\' || (c.is_ascii() && c.is_ascii_control());
    (!text.contains(forbidden)).then(|| text.into_bytes())
}
