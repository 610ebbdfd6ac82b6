//! `:authority` and `host`: one host, as the oracle reads it, in lower case and without anything that a parser further on could
//! take for more.
//!
//! Input: the authority as it is.

use spooky_user::codec::authority::Authority;

use crate::oracle;

pub(super) fn run(input: &[u8]) {
    let expected = oracle::origin(input);
    let authority = match Authority::parse(input, 443) {
        Ok(authority) => authority,
        Err(error) => {
            assert_eq!(expected, None, "refused for {error:?}");
            return;
        }
    };
    let (text, host) = (authority.as_str(), authority.host());
    let origin = expected.unwrap_or_else(|| panic!("accepted as {text}"));
    assert_eq!((host, authority.port()), (origin.host.as_str(), origin.port));
    assert_eq!(Authority::parse(text.as_bytes(), 443).as_ref(), Ok(&authority), "a fixed point");
    assert_eq!(host, host.to_ascii_lowercase());
    assert!(!text.contains(['@', '/', '?', '#', '%', '\\', ',', ' ']), "{text}");
    assert!(authority.is_named(host) && authority.is_named(&host.to_ascii_uppercase()));
    let elsewhere: http::uri::Authority = text.parse().expect("a URI has it");
    assert_eq!((elsewhere.host(), elsewhere.port_u16()), (host, authority.port()));
    // Under the other scheme's default it is the same host.
    let plain = Authority::parse(input, 80).expect("the port's default says nothing of the rest");
    assert_eq!(plain.host(), host);
}
