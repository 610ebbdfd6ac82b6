//! Netlink messages, written and read: <https://docs.kernel.org/userspace-api/netlink/intro.html>. Imports nothing of the crate.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// The type of an attribute without its flags.
const KIND: u16 = 0x3fff;
/// An answer about one interface takes some 1.5 KiB.
const ANSWER: usize = 16 << 10;

/// A socket on which the kernel answers within the call.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// What the kernel said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// A message of this type; what is behind its header.
    Message(u16, Vec<u8>),
    /// An error number.
    Refused(i32),
}

#[derive(Debug, PartialEq, Eq)]
enum Read {
    Answer(Answer),
    /// To an earlier question.
    Other,
    Unreadable,
}

// === impl Netlink ===

impl Netlink {
    /// In the network namespace of the calling thread.
    pub(super) fn open(protocol: Option<Protocol>) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Asks one question: a message of this type.
    pub(super) fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Answer> {
        self.sequence = self.sequence.wrapping_add(1);
        let question = message(kind, self.sequence, body);
        rustix::net::send(&self.socket, &question, SendFlags::DONTWAIT)?;
        let mut answer = vec![0; ANSWER];
        loop {
            let (len, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            match read(answer.get(..len).unwrap_or_default(), self.sequence) {
                Read::Other => {}
                Read::Answer(answer) => return Ok(answer),
                Read::Unreadable => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

fn message(kind: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(HEADER + body.len());
    let len = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    message.extend(len.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

fn read(message: &[u8], sequence: u32) -> Read {
    let (Some(len), Some(kind)) = (u32_at(message, 0), u16_at(message, 4)) else {
        return Read::Unreadable;
    };
    if u32_at(message, 8) != Some(sequence) {
        return Read::Other;
    }
    let body = usize::try_from(len).ok().and_then(|len| message.get(HEADER..len));
    match (kind, body) {
        (_, None) => Read::Unreadable,
        (NLMSG_ERROR, Some(body)) => u32_at(body, 0).map_or(Read::Unreadable, |error| {
            Read::Answer(Answer::Refused(error.cast_signed().wrapping_neg()))
        }),
        (kind, Some(body)) => Read::Answer(Answer::Message(kind, body.to_vec())),
    }
}

/// Puts an attribute behind others.
pub(super) fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// The value of the first attribute of this type.
pub(super) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (len, kind) = (usize::from(u16_at(attributes, 0)?), u16_at(attributes, 2)?);
        if kind & KIND == wanted {
            return attributes.get(4..len);
        }
        attributes = attributes.get(len.next_multiple_of(4).max(4)..)?;
    }
}

/// The number that an attribute is.
pub(super) fn number(attributes: &[u8], wanted: u16) -> Option<u32> {
    u32_at(find(attributes, wanted)?, 0)
}

pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(octets.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cut_short_is_not_believed() {
        let mut body = Vec::new();
        put(&mut body, 3, b"lo\0");
        let whole = message(18, 7, &body);
        assert_eq!(read(&whole, 7), Read::Answer(Answer::Message(18, body)));
        for len in 0..whole.len() {
            assert!(matches!(read(&whole[..len], 7), Read::Unreadable | Read::Other), "{len}");
        }
        assert_eq!(read(&whole, 8), Read::Other);
        let mut lies = whole;
        lies[..4].copy_from_slice(&3_u32.to_ne_bytes());
        assert_eq!(read(&lies, 7), Read::Unreadable);
    }

    #[test]
    fn attributes_are_found_as_far_as_they_are_there() {
        let mut body = Vec::new();
        put(&mut body, 3, b"lo\0");
        put(&mut body, 4 | 1 << 15, &1500_u32.to_ne_bytes());
        assert_eq!(find(&body, 3), Some(&b"lo\0"[..]));
        assert_eq!(
            (number(&body, 4), number(&body, 3), number(&body, 9)),
            (Some(1500), None, None)
        );
        for len in 0..body.len() {
            assert_eq!(number(&body[..len], 4), None, "{len}");
        }
        // A length of nothing does not hold up the search.
        assert_eq!(find(&[0; 64], 3), None);
    }
}
