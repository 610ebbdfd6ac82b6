//! A packet socket that sends many frames with one call, past the interface's queueing discipline (packet(7)). Knows nothing
//! of what is in them.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

/// The socket and the frames of one call.
pub(crate) struct Sender {
    socket: Socket,
    octets: Vec<u8>,
    length: usize,
}

impl Sender {
    pub(crate) fn open(interface: &str, length: usize, batch: usize) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.bind(&link_address(interface)?)?;
        bypass_queueing(&socket)?;
        Ok(Self { socket, octets: vec![0; length * batch], length })
    }

    pub(crate) fn frames(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.octets.chunks_exact_mut(self.length)
    }

    /// How many the interface took.
    pub(crate) fn send(&mut self) -> io::Result<usize> {
        let mut vectors: Vec<libc::iovec> = self
            .octets
            .chunks_exact_mut(self.length)
            .map(|frame| libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() })
            .collect();
        let mut messages: Vec<libc::mmsghdr> = vectors
            .iter_mut()
            .map(|vector| {
                // SAFETY: all zero is a valid message header: no name, no vectors, no control octets.
                let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
                message.msg_hdr.msg_iov = vector;
                message.msg_hdr.msg_iovlen = 1;
                message
            })
            .collect();
        // SAFETY: there are as many headers as are said, each with one vector that lies within `octets`, and all of
        // them outlive the call.
        let taken = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr(), messages.len() as u32, 0)
        };
        match usize::try_from(taken) {
            Ok(taken) => Ok(taken),
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOBUFS) => Ok(0),
                error => Err(error),
            },
        }
    }
}

fn link_address(interface: &str) -> io::Result<SockAddr> {
    let name = CString::new(interface)?;
    // SAFETY: the name ends in NUL and outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all zero is a valid link-layer address; it fits into the storage, which is as long and as aligned as the
    // longest address there is.
    let address = unsafe {
        let mut storage: SockAddrStorage = std::mem::zeroed();
        let link: &mut libc::sockaddr_ll = storage.view_as();
        link.sll_family = libc::AF_PACKET as u16;
        link.sll_ifindex = index.cast_signed();
        SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as u32)
    };
    Ok(address)
}

fn bypass_queueing(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes one int, which outlives the call.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on) as u32,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
