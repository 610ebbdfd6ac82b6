//! A second reading of the rules, written from the RFCs' grammars without a look at the first: what the first accepts, this
//! must accept. Slow and plain on purpose. Test only; imports nothing of the crate.

pub(super) type Line = (Vec<u8>, Vec<u8>);

/// Is this a request head that RFC 9110 and RFC 9114 allow, and that spooky's stricter rules allow?
pub(super) fn request_is_valid(lines: &[Line]) -> bool {
    let first_regular = lines.iter().position(|(name, _)| !name.starts_with(b":"));
    let (pseudo, regular) = lines.split_at(first_regular.unwrap_or(lines.len()));
    let value_of = |wanted: &str| -> Vec<&[u8]> {
        pseudo.iter().filter(|(n, _)| n == wanted.as_bytes()).map(|(_, v)| v.as_slice()).collect()
    };
    let authorities = value_of(":authority");
    let hosts: Vec<&[u8]> =
        regular.iter().filter(|(n, _)| n == b"host").map(|(_, v)| v.as_slice()).collect();
    let exactly_one = [":method", ":scheme", ":path"].iter().all(|name| value_of(name).len() == 1);
    exactly_one
        && pseudo.len() == 3 + authorities.len()
        && authorities.len() <= 1
        && hosts.len() <= 1
        && authorities.len() + hosts.len() >= 1
        && authorities.iter().chain(&hosts).all(|value| authority_is_valid(value))
        && is_token(value_of(":method")[0])
        && value_of(":method")[0] != b"CONNECT"
        && value_of(":scheme")[0].eq_ignore_ascii_case(b"https")
        && path_is_valid(value_of(":path")[0])
        && regular.iter().all(|(name, value)| field_is_valid(name, value))
        && lengths_agree(regular)
}

/// Is this a trailer section that RFC 9114 §4.3 and spooky's stricter rules allow?
pub(super) fn trailers_are_valid(lines: &[Line]) -> bool {
    lines.iter().all(|(name, value)| field_is_valid(name, value)) && lengths_agree(lines)
}

/// Is this a response head that RFC 9110 §15 and RFC 9114 §4.3.2 and §4.5 allow?
pub(super) fn response_is_valid(lines: &[Line]) -> bool {
    let Some(((first, status), rest)) = lines.split_first() else { return false };
    let digits = std::str::from_utf8(status).unwrap_or_default();
    let known = digits.len() == 3
        && digits.parse::<u16>().is_ok_and(|code| (100..600).contains(&code) && code != 101);
    // A backend may use underscores.
    let plain = |name: &[u8]| name.iter().filter(|b| **b != b'_').copied().collect::<Vec<u8>>();
    first == b":status"
        && known
        && lengths_agree(rest)
        && rest.iter().all(|(name, value)| {
            field_is_valid(&plain(name), value)
                || (name.iter().all(|b| *b == b'_') && !name.is_empty())
        })
}

fn is_token(bytes: &[u8]) -> bool {
    // RFC 9110 §5.6.2: any VCHAR, except delimiters.
    !bytes.is_empty()
        && bytes.iter().all(|b| (0x21..=0x7e).contains(b) && !b"\"(),/:;<=>?@[\\]{}".contains(b))
}

fn field_is_valid(name: &[u8], value: &[u8]) -> bool {
    let Ok(name) = std::str::from_utf8(name) else { return false };
    let value_ok = value.iter().all(|b| *b == 9 || (*b >= 32 && *b != 127))
        && value.first().is_none_or(|b| *b > 32)
        && value.last().is_none_or(|b| *b > 32);
    let forbidden =
        ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
    is_token(name.as_bytes())
        && !name.chars().any(|c| c.is_uppercase() || c == '_')
        && value_ok
        && !forbidden.contains(&name)
        && (name != "te" || value.eq_ignore_ascii_case(b"trailers"))
}

fn lengths_agree(regular: &[Line]) -> bool {
    let mut lengths: Vec<Option<u64>> = regular
        .iter()
        .filter(|(name, _)| name == b"content-length")
        .map(|(_, value)| {
            let text = std::str::from_utf8(value).ok()?;
            text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok())?
        })
        .collect();
    lengths.dedup();
    lengths.len() <= 1 && lengths.iter().all(Option::is_some)
}

fn authority_is_valid(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_ok = port.is_none_or(|port| {
        port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    let host_ok = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                && !host.contains("..")
                && !host.starts_with('.')
        }
    };
    port_ok && host_ok
}

/// Decodes as a careless backend would, and asks whether anything surprising is left.
fn path_is_valid(bytes: &[u8]) -> bool {
    if bytes == b"*" {
        return true;
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let path = text.split('?').next().unwrap_or_default();
    let mut decoded = Vec::new();
    let mut chars = path.bytes();
    while let Some(byte) = chars.next() {
        if byte == b'%' {
            let digits: Vec<u8> = chars.by_ref().take(2).collect();
            let digits = String::from_utf8(digits).unwrap_or_default();
            if digits.len() != 2 || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
                return false;
            }
            match u8::from_str_radix(&digits, 16) {
                Ok(b'/') | Err(_) => return false,
                Ok(octet) => decoded.push(octet),
            }
        } else {
            decoded.push(byte);
        }
    }
    let Ok(decoded) = String::from_utf8(decoded) else { return false };
    let mut depth = 0_i32;
    let climbs = decoded.split('/').any(|segment| {
        depth += match segment {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    });
    text.starts_with('/')
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
        && !decoded.chars().any(|c| c == '\\' || c.is_ascii_control())
        && !climbs
}
