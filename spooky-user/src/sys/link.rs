//! Network interfaces, asked of the kernel over one socket that stays open, so that it can be asked without files and
//! without privilege: <https://man7.org/linux/man-pages/man7/rtnetlink.7.html>. Imports nothing of the crate.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_EXT_MASK: u16 = 29;
/// No statistics in the answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFF_UP: u32 = 1;
/// `struct nlmsghdr` and `struct ifinfomsg`.
const HEADER: usize = 16;
const LINK: usize = 16;
/// An answer about one interface takes some 1.5 KiB.
const ANSWER: usize = 16 << 10;

/// Where interfaces are asked for.
#[derive(Debug)]
pub struct Links {
    socket: OwnedFd,
    sequence: u32,
}

/// One interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index: another one when it is removed and made again.
    pub index: u32,
    /// Set up by the operator (`ip link set up`).
    pub up: bool,
    /// Largest IP packet in octets.
    pub mtu: u32,
    /// It is a port of another interface, such as a bridge.
    pub is_port: bool,
}

impl Links {
    /// Opens the socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface of this name; `None` when there is none. The kernel answers within the call.
    ///
    /// # Errors
    /// When it cannot be asked, or its answer cannot be read.
    pub fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        self.sequence = self.sequence.wrapping_add(1);
        rustix::net::send(&self.socket, &request(name, self.sequence), SendFlags::DONTWAIT)?;
        let mut answer = vec![0; ANSWER];
        loop {
            let (len, _) = rustix::net::recv(&self.socket, &mut answer[..], RecvFlags::DONTWAIT)?;
            let message = answer.get(..len).unwrap_or_default();
            match read(message, self.sequence) {
                Answer::Other => {}
                Answer::Link(link) => return Ok(Some(link)),
                Answer::Refused(libc::ENODEV) => return Ok(None),
                Answer::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
                Answer::Unreadable => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

enum Answer {
    Link(Link),
    Refused(i32),
    /// To an earlier question.
    Other,
    Unreadable,
}

fn request(name: &str, sequence: u32) -> Vec<u8> {
    let mut body = vec![0; LINK];
    attribute(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    attribute(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    let mut message = Vec::with_capacity(HEADER + body.len());
    let len = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    message.extend(len.to_ne_bytes());
    message.extend(RTM_GETLINK.to_ne_bytes());
    message.extend(NLM_F_REQUEST.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(len.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn read(message: &[u8], sequence: u32) -> Answer {
    let number = |at: usize| -> Option<u32> {
        Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?))
    };
    let kind = message.get(4..6).and_then(|octets| octets.try_into().ok()).map(u16::from_ne_bytes);
    if number(8) != Some(sequence) {
        return Answer::Other;
    }
    match (kind, number(HEADER), number(HEADER + 4), number(HEADER + 8)) {
        (Some(NLMSG_ERROR), Some(errno), ..) => Answer::Refused(errno.cast_signed().wrapping_neg()),
        (Some(RTM_NEWLINK), _, Some(index), Some(flags)) => {
            let attributes = message.get(HEADER + LINK..).unwrap_or_default();
            match find_number(attributes, IFLA_MTU) {
                Some(mtu) => Answer::Link(Link {
                    index,
                    up: flags & IFF_UP != 0,
                    mtu,
                    is_port: find_number(attributes, IFLA_MASTER).is_some_and(|it| it != 0),
                }),
                None => Answer::Unreadable,
            }
        }
        _ => Answer::Unreadable,
    }
}

fn find_number(mut attributes: &[u8], wanted: u16) -> Option<u32> {
    loop {
        let (header, _) = attributes.split_first_chunk::<4>()?;
        let [l0, l1, k0, k1] = *header;
        let len = usize::from(u16::from_ne_bytes([l0, l1]));
        if u16::from_ne_bytes([k0, k1]) == wanted {
            return Some(u32::from_ne_bytes(attributes.get(4..8)?.try_into().ok()?));
        }
        attributes = attributes.get(len.next_multiple_of(4).max(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_others_are_not() {
        let mut links = Links::open().unwrap();
        let lo = links.find("lo").unwrap().expect("every namespace has it");
        assert_eq!(lo.index, 1);
        assert!(lo.mtu >= 1280, "{}", lo.mtu);
        assert_eq!(links.find("no-such-if0").unwrap(), None);
        assert_eq!(links.find("lo").unwrap(), Some(lo));
    }

    #[test]
    fn an_answer_cut_short_is_not_believed() {
        let whole = request("lo", 7);
        for len in 0..whole.len() {
            assert!(matches!(read(&whole[..len], 7), Answer::Unreadable | Answer::Other));
        }
        assert!(matches!(read(&whole, 8), Answer::Other));
    }
}
