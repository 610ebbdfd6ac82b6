//! AF_XDP sockets: <https://docs.kernel.org/networking/af_xdp.html>. Frames of one receive queue come and go without the
//! network stack. Imports nothing of the crate.
//!
//! The UMEM is divided once and for all: one half of the frames goes round between fill ring and RX ring ([`Receiver`]), the
//! other between TX ring and completion ring ([`Sender`]). So neither direction can starve the other, no frame ever changes
//! hands, and each side's books are short: see [`Audit`]. Each ring has a place for every frame of its side; none can overflow.
//! How sockets come to be, and what of it takes rights, is [`Stock`]'s.
//!
//! ```text
//!   Receiver: spent ──refill──▶ fill ring ──kernel──▶ RX ring ──take──▶ spent
//!   Sender:   free ──push──▶ TX ring ──kernel──▶ completion ring ──reclaim──▶ free
//! ```

mod memory;
mod ring;
mod stock;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::net::sockopt;
use rustix::net::xdp::XdpOptionsFlags;
use rustix::net::{RecvFlags, SendFlags};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::memory::Frames;
use self::ring::{Consumer, Descriptor, Producer};
pub use self::stock::{Place, Settings, Stock};

/// Send calls for what one flush left in the TX ring. In copy mode the kernel takes 32 packets a call, or 128.
const KICKS: usize = 64;

/// How frames get from the driver into the UMEM and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Without a copy if the driver can, else with one.
    Auto,
    /// With a copy.
    Copy,
    /// Without, or not at all.
    ZeroCopy,
}

/// The receiving side.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<OwnedFd>,
    frames: Frames,
    rx: Consumer<Descriptor>,
    fill: Producer<u64>,
    /// Places of frames that were read and are not back in the fill ring. Never more than there are.
    spent: Vec<u32>,
    /// By place: the kernel has it.
    lent: Box<[bool]>,
    invalid: u64,
}

/// The sending side.
#[derive(Debug)]
pub struct Sender {
    socket: Arc<OwnedFd>,
    frames: Frames,
    tx: Producer<Descriptor>,
    completion: Consumer<u64>,
    /// Places of frames that can be written.
    free: Vec<u32>,
    /// By place: the kernel has it.
    lent: Box<[bool]>,
    invalid: u64,
}

/// Where the frames of one side are: `own + first + second + driver` is always `total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// All of them.
    pub total: u32,
    /// In our hands: spent, or free.
    pub own: u32,
    /// In the ring towards the kernel: fill, or TX.
    pub first: u32,
    /// In the ring from the kernel: RX, or completion.
    pub second: u32,
    /// In none of these: with the driver, or on the wire. In copy mode 0 as soon as nothing is under way.
    pub driver: u32,
}

/// What the kernel has counted for one socket (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Packets dropped for other reasons than those below: too large for a frame, say.
    pub dropped: u64,
    /// Packets dropped because the RX ring was full.
    pub ring_full: u64,
    /// Packets dropped because the fill ring was empty.
    pub fill_empty: u64,
    /// Entries of the fill and TX rings that the kernel refused.
    pub invalid: u64,
}

/// Registers a duplicate of a socket with the runtime of the calling thread.
///
/// # Errors
/// When there is no descriptor left, or epoll takes no more.
pub fn watch(socket: BorrowedFd<'_>, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let fd = socket.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` owns the open file that it names until it is dropped, and always names the same.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

// === impl Receiver ===

impl Receiver {
    /// The socket.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether frames come and go without a copy.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_zero_copy(&self) -> io::Result<bool> {
        Ok(sockopt::xdp_options(&*self.socket)?.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY))
    }

    /// Frames that have come.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.rx.waiting()
    }

    /// The next frame that has come. It is given back to the kernel by the next [`Self::refill`].
    pub fn take(&mut self) -> Option<&mut [u8]> {
        let (place, start, len) = loop {
            let descriptor = self.rx.pop()?;
            let frame = self.frames.place(descriptor.address);
            let Some((place, start)) = frame.filter(|(place, _)| take_back(&mut self.lent, *place))
            else {
                self.invalid += 1;
                continue;
            };
            self.spent.push(place);
            let inside =
                start.checked_add(descriptor.len).is_some_and(|end| end <= self.frames.size());
            // More of a packet that does not fit into one frame cannot come without XDP_USE_SG; such a part is no frame.
            if inside && descriptor.len > 0 && descriptor.options == 0 {
                break (place, start, descriptor.len);
            }
            self.invalid += 1;
        };
        // SAFETY: the kernel has handed the frame over in the RX ring, once, as `lent` says; it goes back in `refill`,
        // which needs the borrow that this slice has.
        unsafe { self.frames.slice(place, start, len) }
    }

    /// Gives the kernel the frames that were read, and wakes it if it waits for them.
    pub fn refill(&mut self) {
        self.rx.release();
        if self.spent.is_empty() {
            return;
        }
        while let Some(place) = self.spent.pop() {
            if !self.fill.push(self.frames.address(place)) {
                self.spent.push(place);
                break;
            }
            if let Some(lent) = self.lent.get_mut(place as usize) {
                *lent = true;
            }
        }
        self.fill.publish();
        if self.fill.needs_wakeup() {
            self.wake();
        }
    }

    /// Lets the driver look for packets and for frames in the fill ring; with busy polling, in this thread.
    pub fn wake(&self) {
        // Nothing is read this way: whatever it says, the rings tell what has come.
        let _ = rustix::net::recv(&*self.socket, &mut [0_u8; 0][..], RecvFlags::DONTWAIT);
    }

    /// Descriptors that named no frame that the kernel had.
    #[must_use]
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Where the frames are. At once with packets that come, the kernel's part is a moment old.
    #[must_use]
    pub fn audit(&self) -> Audit {
        // In this order a frame that the kernel moves in between is in neither count, and never in both.
        let second = self.rx.waiting();
        Audit::new(self.frames.count(), self.spent.len(), self.fill.waiting(), second)
    }

    /// Takes the error that the kernel has left on the socket: the interface is gone (`ENETDOWN`), say.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(&*self.socket)??)
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<Statistics> {
        let counted = sockopt::xdp_statistics(&*self.socket)?;
        let fill_empty = counted.rx_fill_ring_empty_descs.unwrap_or(0);
        Ok(Statistics {
            // In copy mode one that found no frame counts as both.
            dropped: counted.rx_dropped.saturating_sub(fill_empty),
            ring_full: counted.rx_ring_full.unwrap_or(0),
            fill_empty,
            invalid: counted.rx_invalid_descs + counted.tx_invalid_descs,
        })
    }
}

// === impl Sender ===

impl Sender {
    /// The socket.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Frames that can be written now; those that were sent are back first.
    pub fn free(&mut self) -> usize {
        self.reclaim();
        self.free.len()
    }

    fn reclaim(&mut self) {
        while let Some(address) = self.completion.pop() {
            match self.frames.place(address) {
                Some((place, _)) if take_back(&mut self.lent, place) => self.free.push(place),
                _ => self.invalid += 1,
            }
        }
        self.completion.release();
    }

    /// Lets `write` fill a frame and say how many octets of it are to be sent; [`Self::flush`] sends them. `false`, and
    /// nothing is sent, when there is no free frame, or `write` says none.
    pub fn push(&mut self, write: impl FnOnce(&mut [u8]) -> Option<usize>) -> bool {
        let Some(place) = self.free.last().copied() else { return false };
        let size = self.frames.size();
        // SAFETY: a free frame is in no ring: it has never been in one, or has come back in the completion ring, once, as
        // `lent` says. The slice ends before it goes into the TX ring below.
        let Some(frame) = (unsafe { self.frames.slice(place, 0, size) }) else { return false };
        let len = write(frame).and_then(|len| u32::try_from(len).ok());
        let Some(len) = len.filter(|len| (1..=size).contains(len)) else { return false };
        let descriptor = Descriptor { address: self.frames.address(place), len, options: 0 };
        if !self.tx.push(descriptor) {
            return false;
        }
        self.free.pop();
        if let Some(lent) = self.lent.get_mut(place as usize) {
            *lent = true;
        }
        true
    }

    /// Frames in the TX ring, those that the kernel was not told of among them.
    #[must_use]
    pub fn pushed(&self) -> u32 {
        self.tx.pushed()
    }

    /// Has the kernel send what was pushed. Returns how many times it was called for that.
    ///
    /// # Errors
    /// `WouldBlock` when some of it is still in the ring: call again when the socket is writable. `ENETDOWN`, `ENXIO` and
    /// others when the interface is down or gone; what is in the ring goes out if it comes back.
    pub fn flush(&mut self) -> io::Result<u64> {
        self.tx.publish();
        let mut kicks = 0;
        while self.tx.waiting() > 0 && self.tx.needs_wakeup() {
            if kicks >= KICKS as u64 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            kicks += 1;
            let before = self.tx.waiting();
            match rustix::net::send(&*self.socket, &[], SendFlags::DONTWAIT) {
                Ok(_) => {}
                // 32 packets were sent, and there are more; or the socket's buffer is full, and then none was.
                Err(
                    rustix::io::Errno::AGAIN | rustix::io::Errno::BUSY | rustix::io::Errno::NOBUFS,
                ) => {
                    if self.tx.waiting() == before {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(kicks)
    }

    /// Entries of the completion ring that named no frame that the kernel had.
    #[must_use]
    pub fn invalid(&self) -> u64 {
        self.invalid
    }

    /// Where the frames are. At once with packets that leave, the kernel's part is a moment old.
    #[must_use]
    pub fn audit(&self) -> Audit {
        let second = self.completion.waiting();
        Audit::new(self.frames.count(), self.free.len(), self.tx.waiting(), second)
    }
}

/// Marks a frame as ours again; `false` when it was not the kernel's to give.
fn take_back(lent: &mut [bool], place: u32) -> bool {
    lent.get_mut(place as usize).is_some_and(std::mem::take)
}

// === impl Audit ===

impl Audit {
    fn new(total: u32, own: usize, first: u32, second: u32) -> Self {
        let own = u32::try_from(own).unwrap_or(u32::MAX);
        let seen = own.saturating_add(first).saturating_add(second);
        debug_assert!(seen <= total, "{own} + {first} + {second} of {total} frames");
        let driver = total.saturating_sub(seen);
        Self { total, own, first, second, driver }
    }
}
