//! How AF_XDP sockets come to be. Imports `memory`, `ring` and the two sides.
//!
//! Making such a socket takes CAP_NET_RAW, some of its options CAP_NET_ADMIN, and memory beyond RLIMIT_MEMLOCK CAP_IPC_LOCK;
//! to bind one that has all that takes nothing. A bound socket ends with its interface, and is never bound again. So several
//! are made ahead for each receive queue, all over the same memory: there is one at work at a time, and the memory is there once.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

use super::memory::{Frames, Mapping};
use super::ring::{Consumer, Layout, Producer};
use super::{Receiver, Sender, Transfer};

/// Wanted for what is on its way out in copy mode; each packet there counts with some 2 KiB.
const SEND_BUFFER: usize = 8 << 20;

/// Packets that one send call may take in copy mode, where the kernel lets that be said (Linux 6.17); 32 otherwise. Not more than
/// the smallest ring has.
const BUDGET: u32 = 128;

/// What the sockets of a stock have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Frames of each direction; a power of two.
    pub frames: u32,
    /// Octets of a frame, 2048 or 4096. The kernel keeps 256 of them for itself in received ones, and drops what does not fit.
    pub frame_size: u32,
    /// Poll the driver from the worker for so many microseconds (`SO_PREFER_BUSY_POLL`).
    pub busy_poll: Option<u32>,
}

/// Where one of them is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the interface.
    pub interface: u32,
    /// Its receive queue.
    pub queue: u32,
    /// Whether the kernel copies.
    pub transfer: Transfer,
}

/// Sockets for one receive queue, one after the other, over memory of their own. Those that it has given out keep the memory.
pub struct Stock {
    settings: Settings,
    memory: Arc<Mapping>,
    /// Bound to nothing yet.
    sockets: Vec<OwnedFd>,
    /// The one that was opened last.
    last: Option<Arc<OwnedFd>>,
}

// === impl Stock ===

impl Stock {
    /// As many sockets as can be had, at most `count` and at least one.
    ///
    /// # Errors
    /// Of the first: `PermissionDenied` without CAP_NET_RAW; `ENOBUFS` when the memory is more than RLIMIT_MEMLOCK allows.
    pub fn new(settings: &Settings, count: usize) -> io::Result<Self> {
        let memory = Mapping::of_nothing(Frames::room(settings.frames, settings.frame_size))?;
        let mut sockets = vec![make(settings, &memory)?];
        while sockets.len() < count
            && let Ok(further) = make(settings, &memory)
        {
            sockets.push(further);
        }
        Ok(Self { settings: *settings, memory: Arc::new(memory), sockets, last: None })
    }

    /// How many sockets are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.sockets.len()
    }

    /// Whether the memory is at nobody's use, the kernel's included: what was opened last has been dropped, and its interface
    /// is gone.
    pub fn is_free(&mut self) -> bool {
        if let Some(last) = &self.last {
            // A socket that has been bound and is not any more, for good, says so before it looks at anything.
            match rustix::net::send(last, &[], SendFlags::DONTWAIT) {
                Err(Errno::NXIO) => self.last = None,
                _ => return false,
            }
        }
        Arc::get_mut(&mut self.memory).is_some()
    }

    /// Binds the next socket; it receives as soon as it is in the map that XDP redirects through. It is spent, whatever comes of it.
    ///
    /// # Errors
    /// `WouldBlock` while the memory is not free, and `NotFound` when no socket is left; `ResourceBusy` when another socket has the
    /// queue; `InvalidInput` when the interface has no such queue, `EOPNOTSUPP` when it cannot do what [`Transfer`] asks;
    /// `ENODEV` without the interface.
    pub fn open(&mut self, place: &Place) -> io::Result<(Receiver, Sender)> {
        if !self.is_free() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let socket = Arc::new(self.sockets.pop().ok_or(io::ErrorKind::NotFound)?);
        let (mut receiver, sender) = self.sides(&socket)?;
        receiver.refill();
        let flags = SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP
            | match place.transfer {
                Transfer::Auto => SocketAddrXdpFlags::empty(),
                Transfer::Copy => SocketAddrXdpFlags::XDP_COPY,
                Transfer::ZeroCopy => SocketAddrXdpFlags::XDP_ZEROCOPY,
            };
        rustix::net::bind(&socket, &SocketAddrXdp::new(flags, place.interface, place.queue))?;
        self.last = Some(socket);
        Ok((receiver, sender))
    }

    fn sides(&self, socket: &Arc<OwnedFd>) -> io::Result<(Receiver, Sender)> {
        /// Of linux/if_xdp.h.
        const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
        let count = self.settings.frames;
        sockopt::set_xdp_umem_fill_ring_size(socket, count)?;
        sockopt::set_xdp_umem_completion_ring_size(socket, count)?;
        sockopt::set_xdp_rx_ring_size(socket, count)?;
        sockopt::set_xdp_tx_ring_size(socket, count)?;
        // Without it there are more calls.
        let _ = set(socket.as_fd(), libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, BUDGET);
        let offsets = sockopt::xdp_mmap_offsets(socket)?;
        let [incoming, outgoing] = Frames::pair(&self.memory, count, self.settings.frame_size);
        let (rx, tx) = (libc::XDP_PGOFF_RX_RING as u64, libc::XDP_PGOFF_TX_RING as u64);
        let fill = libc::XDP_UMEM_PGOFF_FILL_RING;
        let completion = libc::XDP_UMEM_PGOFF_COMPLETION_RING;
        let receiver = Receiver {
            rx: Consumer::map(socket.as_fd(), rx, layout(offsets.rx)?, count)?,
            fill: Producer::map(socket.as_fd(), fill, layout(offsets.fr)?, count)?,
            spent: (0..count).collect(),
            lent: vec![false; count as usize].into(),
            frames: incoming,
            socket: Arc::clone(socket),
            invalid: 0,
        };
        let sender = Sender {
            tx: Producer::map(socket.as_fd(), tx, layout(offsets.tx)?, count)?,
            completion: Consumer::map(socket.as_fd(), completion, layout(offsets.cr)?, count)?,
            free: (0..count).collect(),
            lent: vec![false; count as usize].into(),
            frames: outgoing,
            socket: Arc::clone(socket),
            invalid: 0,
        };
        Ok((receiver, sender))
    }
}

impl fmt::Debug for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stock").field("left", &self.left()).finish_non_exhaustive()
    }
}

/// Everything about a socket that takes rights.
fn make(settings: &Settings, memory: &Mapping) -> io::Result<OwnedFd> {
    let family = AddressFamily::from_raw(libc::AF_XDP as u16);
    let fd = rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let (addr, len) = memory.range();
    let registration = XdpUmemReg {
        addr,
        len,
        chunk_size: settings.frame_size,
        headroom: 0,
        flags: XdpUmemRegFlags::empty(),
        tx_metadata_len: 0,
    };
    sockopt::set_xdp_umem_reg(&fd, registration)?;
    // Forced where that is allowed; as much as the system lets everybody have otherwise.
    if sockopt::set_socket_send_buffer_size_force(&fd, SEND_BUFFER).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER);
    }
    if let Some(microseconds) = settings.busy_poll {
        busy_poll(fd.as_fd(), microseconds)?;
    }
    Ok(fd)
}

fn layout(offset: XdpRingOffset) -> io::Result<Layout> {
    let place = |at: u64| {
        usize::try_from(at).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    let flags = offset.flags.ok_or_else(|| {
        io::Error::new(io::ErrorKind::Unsupported, "AF_XDP without need_wakeup: Linux before 5.4")
    })?;
    Ok(Layout {
        producer: place(offset.producer)?,
        consumer: place(offset.consumer)?,
        flags: place(flags)?,
        entries: place(offset.desc)?,
    })
}

/// <https://docs.kernel.org/networking/napi.html#busy-polling>; the numbers are those of asm-generic/socket.h.
fn busy_poll(socket: BorrowedFd<'_>, microseconds: u32) -> io::Result<()> {
    const SO_BUSY_POLL: i32 = 46;
    const SO_PREFER_BUSY_POLL: i32 = 69;
    const SO_BUSY_POLL_BUDGET: i32 = 70;
    /// Packets of one look: the driver's own measure.
    const LOOK: u32 = 64;
    for (option, value) in
        [(SO_PREFER_BUSY_POLL, 1), (SO_BUSY_POLL, microseconds), (SO_BUSY_POLL_BUDGET, LOOK)]
    {
        set(socket, libc::SOL_SOCKET, option, value)?;
    }
    Ok(())
}

/// Sets an option that is a number.
fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: u32) -> io::Result<()> {
    let len = size_of::<u32>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: the kernel reads `len` octets of the value, which lives across the call.
    let result = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
