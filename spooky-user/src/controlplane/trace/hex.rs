//! Octets as hexadecimal text, for serde. Imports nothing.

use std::fmt::Write as _;

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

/// Lower case, two digits an octet.
#[must_use]
pub(super) fn text(octets: &[u8]) -> String {
    octets.iter().fold(String::with_capacity(2 * octets.len()), |mut text, octet| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// `None` for an odd number of digits, or for what is no digit.
#[must_use]
pub(super) fn octets(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |digit: u8| char::from(digit).to_digit(16);
    pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok()).collect()
}

pub(super) fn serialize<S: Serializer>(octets: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(octets))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    octets(&text).ok_or_else(|| D::Error::custom("not an even number of hexadecimal digits"))
}

/// The same for a fixed number of octets.
pub(super) mod fixed {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    pub(in super::super) fn serialize<S: Serializer, const N: usize>(
        octets: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        super::serialize(octets, serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        let octets = super::deserialize(deserializer)?;
        let length = octets.len();
        octets
            .try_into()
            .map_err(|_octets| D::Error::custom(format!("{length} octets where {N} belong")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(octets(&text(&all)), Some(all));
        assert_eq!(text(&[0, 0xaf]), "00af");
        for wrong in ["0", "0g", "é", "-1", "+1"] {
            assert_eq!(octets(wrong), None, "{wrong}");
        }
    }
}
