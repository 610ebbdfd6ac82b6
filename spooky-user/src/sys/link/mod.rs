//! Network interfaces, asked of the kernel over sockets that stay open, so that it can be asked without files and without
//! privilege: <https://man7.org/linux/man-pages/man7/rtnetlink.7.html>,
//! <https://docs.kernel.org/networking/ethtool-netlink.html>. Imports nothing of the crate.

mod message;

use std::io;

use rustix::net::{Protocol, RawProtocol};

use self::message::{Answer, Netlink, find, number, put, u16_at, u32_at};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_NUM_RX_QUEUES: u16 = 32;
/// In `IFLA_AF_SPEC`, below the family. What is first in each of the two is whether it forwards.
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_CONF: u16 = 2;
/// No statistics in the answer.
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const IFF_UP: u32 = 1;
/// `struct ifinfomsg`.
const LINK: usize = 16;

const NETLINK_GENERIC: u32 = 16;
/// `struct genlmsghdr`.
const GENERIC: usize = 4;
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const ETHTOOL_MSG_CHANNELS_GET: u8 = 17;
const ETHTOOL_A_CHANNELS_HEADER: u16 = 1;
const ETHTOOL_A_CHANNELS_RX_COUNT: u16 = 6;
const ETHTOOL_A_CHANNELS_COMBINED_COUNT: u16 = 9;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;

/// Where interfaces are asked for.
#[derive(Debug)]
pub struct Links {
    routing: Netlink,
    /// ethtool's, and the number of its family; `None` in a kernel without it.
    channels: Option<(Netlink, u16)>,
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
    /// Packets that come by it may be for other hosts; also when the kernel does not say.
    pub forwards: bool,
    /// Receive queues that it can have at most.
    pub receive_queues_max: u32,
}

impl Links {
    /// Opens the sockets, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open() -> io::Result<Self> {
        Ok(Self { routing: Netlink::open(None)?, channels: ethtool().ok().flatten() })
    }

    /// The interface of this name; `None` when there is none. The kernel answers within the call.
    ///
    /// # Errors
    /// When it cannot be asked, or its answer cannot be read.
    pub fn find(&mut self, name: &str) -> io::Result<Option<Link>> {
        let mut body = vec![0; LINK];
        put(&mut body, IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        put(&mut body, IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
        match self.routing.ask(RTM_GETLINK, &body)? {
            Answer::Message(RTM_NEWLINK, body) => match read(&body) {
                Some(link) => Ok(Some(link)),
                None => Err(io::ErrorKind::InvalidData.into()),
            },
            Answer::Refused(libc::ENODEV) => Ok(None),
            Answer::Refused(errno) => Err(io::Error::from_raw_os_error(errno)),
            Answer::Message(..) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// How many receive queues it has now (`ethtool -l`); of drivers that do not say, how many it can have.
    pub fn receive_queues(&mut self, link: &Link) -> u32 {
        let most = link.receive_queues_max.max(1);
        let Some((socket, family)) = &mut self.channels else { return most };
        let mut header = Vec::new();
        put(&mut header, ETHTOOL_A_HEADER_DEV_INDEX, &link.index.to_ne_bytes());
        let mut body = vec![ETHTOOL_MSG_CHANNELS_GET, 1, 0, 0];
        put(&mut body, ETHTOOL_A_CHANNELS_HEADER | libc::NLA_F_NESTED as u16, &header);
        let Ok(Answer::Message(_, body)) = socket.ask(*family, &body) else { return most };
        let attributes = body.get(GENERIC..).unwrap_or_default();
        let count = |kind| number(attributes, kind).unwrap_or(0);
        let channels = count(ETHTOOL_A_CHANNELS_RX_COUNT)
            .saturating_add(count(ETHTOOL_A_CHANNELS_COMBINED_COUNT));
        if channels == 0 { most } else { channels.min(most) }
    }
}

/// The kernel's side of ethtool, Linux 5.7 or later; `None` where it is not compiled in.
fn ethtool() -> io::Result<Option<(Netlink, u16)>> {
    let protocol = RawProtocol::new(NETLINK_GENERIC).map(Protocol::from_raw);
    let mut socket = Netlink::open(protocol)?;
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    put(&mut body, CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
    let Answer::Message(GENL_ID_CTRL, body) = socket.ask(GENL_ID_CTRL, &body)? else {
        return Ok(None);
    };
    let attributes = body.get(GENERIC..).unwrap_or_default();
    let family = find(attributes, CTRL_ATTR_FAMILY_ID).and_then(|value| u16_at(value, 0));
    Ok(family.map(|family| (socket, family)))
}

/// `struct ifinfomsg` and its attributes.
fn read(body: &[u8]) -> Option<Link> {
    let (index, flags) = (u32_at(body, 4)?, u32_at(body, 8)?);
    let attributes = body.get(LINK..)?;
    Some(Link {
        index,
        up: flags & IFF_UP != 0,
        mtu: number(attributes, IFLA_MTU)?,
        is_port: number(attributes, IFLA_MASTER).is_some_and(|it| it != 0),
        forwards: forwards(attributes),
        receive_queues_max: number(attributes, IFLA_NUM_RX_QUEUES).unwrap_or(1),
    })
}

fn forwards(attributes: &[u8]) -> bool {
    let families = find(attributes, IFLA_AF_SPEC).unwrap_or_default();
    let first = |family: i32, conf| {
        let family = find(families, u16::try_from(family).unwrap_or(0))?;
        Some(number(family, conf)? != 0)
    };
    // A kernel without IPv6 forwards none.
    first(libc::AF_INET, IFLA_INET_CONF).unwrap_or(true)
        || first(libc::AF_INET6, IFLA_INET6_CONF).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_there_and_others_are_not() {
        let mut links = Links::open().unwrap();
        let lo = links.find("lo").unwrap().expect("every namespace has it");
        assert_eq!((lo.index, lo.is_port), (1, false));
        assert!(lo.mtu >= 1280, "{}", lo.mtu);
        assert_eq!(links.find("no-such-if0").unwrap(), None);
        assert_eq!(links.find("lo").unwrap(), Some(lo));
        // It has no channels to speak of, and one queue.
        assert_eq!(links.receive_queues(&lo), 1);
    }

    #[test]
    fn whether_it_forwards_is_as_the_kernel_says() {
        let file = |family: &str| format!("/proc/sys/net/{family}/conf/lo/forwarding");
        let says = |family: &str| {
            std::fs::read_to_string(file(family)).is_ok_and(|text| text.trim() != "0")
        };
        let lo = Links::open().unwrap().find("lo").unwrap().unwrap();
        assert_eq!(lo.forwards, says("ipv4") || says("ipv6"));
    }

    #[test]
    fn an_answer_cut_short_is_not_believed() {
        let mut body = vec![0; LINK];
        put(&mut body, IFLA_MTU, &1500_u32.to_ne_bytes());
        let link = read(&body).expect("all is there");
        assert!(link.mtu == 1500 && link.forwards, "what is not said is taken for the worse");
        for len in 0..body.len() {
            assert_eq!(read(&body[..len]), None, "{len}");
        }
    }
}
