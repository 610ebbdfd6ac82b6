//! A worker's AF_XDP sockets: frames of a receive queue in and out, without the network stack. Knows no QUIC.
//!
//! `frame` reads and builds frames, `checksum` is theirs, `neighbours` knows where a path's frames go. The rings and the
//! memory are `sys::xsk`. May import: sys, `packet`.

mod checksum;
pub mod frame;
pub mod neighbours;

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll};

use crossbeam_queue::ArrayQueue;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::frame::Link;
use super::udp::Train;
use crate::sys::xsk::{self, Audit, Receiver, Sender, Statistics};

/// How often one poll may be woken for nothing: a socket that says so for ever must not hold up the worker, whose next turn
/// comes at the latest with its heartbeat.
const WAKES: usize = 4;

/// Frames in the ring at which the kernel is called before the turn is over: enough for a call to be nothing beside them, few
/// enough for the wire to have work while the next ones are made.
const BATCH: u32 = 64;

/// An AF_XDP socket as the control plane hands it over.
#[derive(Debug)]
pub struct Opened {
    /// The receive queue.
    pub number: u32,
    /// The index of the interface.
    pub interface: u32,
    /// Largest IP packet of the interface, in octets.
    pub mtu: usize,
    /// Poll the driver in the worker's turn.
    pub busy_poll: bool,
    /// Its receiving side.
    pub receiver: Receiver,
    /// Its sending side.
    pub sender: Sender,
}

/// Where the sockets of a worker that ends go, for the one that is started in its place: they cannot be opened again once rights
/// are given up.
pub type Home = ArrayQueue<Opened>;

/// The receiving side of a queue.
#[derive(Debug)]
pub struct Incoming {
    number: u32,
    /// The index of the interface: the scope of link-local addresses.
    pub interface: u32,
    receiver: Receiver,
    readiness: AsyncFd<OwnedFd>,
    busy_poll: bool,
}

/// The sending side of a queue.
#[derive(Debug)]
pub struct Outgoing {
    sender: Sender,
    readiness: AsyncFd<OwnedFd>,
    mtu: usize,
    /// The kernel does not know of all that was pushed.
    unsaid: bool,
    /// Some of what the kernel knows of is still in the ring.
    owing: bool,
    /// The kernel does not send for this queue: the interface is down or gone.
    down: bool,
    wakeups: u64,
}

/// What became of a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// All of it is on its way.
    All,
    /// The ring has no room for it now; nothing of it was sent.
    Full,
    /// It cannot go this way: too large for the interface, or the interface is down.
    Not,
}

/// Registers a socket with the worker's runtime and parts its sides.
///
/// # Errors
/// When it cannot be registered.
pub fn take_over(opened: Opened) -> io::Result<(Incoming, Outgoing)> {
    let Opened { number, interface, mtu, busy_poll, receiver, sender } = opened;
    // Each its own: what one side has waited for must not hide what the other waits for.
    let readable = xsk::watch(receiver.socket(), Interest::READABLE)?;
    let writable = xsk::watch(receiver.socket(), Interest::WRITABLE)?;
    Ok((
        Incoming { number, interface, receiver, readiness: readable, busy_poll },
        Outgoing {
            sender,
            readiness: writable,
            mtu,
            unsaid: false,
            owing: false,
            down: false,
            wakeups: 0,
        },
    ))
}

/// The two sides together again.
#[must_use]
pub fn give_back(incoming: Incoming, outgoing: Outgoing) -> Opened {
    let Incoming { number, interface, receiver, busy_poll, .. } = incoming;
    let Outgoing { sender, mtu, .. } = outgoing;
    Opened { number, interface, mtu, busy_poll, receiver, sender }
}

// === impl Incoming ===

impl Incoming {
    /// Ready when there are frames to take; pending once there are none.
    ///
    /// # Errors
    /// When the interface is gone, or the runtime.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.busy_poll && self.receiver.waiting() == 0 {
            self.receiver.wake();
        }
        for _ in 0..WAKES {
            if self.receiver.waiting() > 0 {
                return Poll::Ready(Ok(()));
            }
            let mut ready = std::task::ready!(self.readiness.poll_read_ready(cx))?;
            if self.receiver.waiting() == 0 {
                // Woken for nothing, or for an error.
                self.receiver.check()?;
                ready.clear_ready();
            }
        }
        Poll::Pending
    }

    /// The next frame; it is given back with [`Self::refill`].
    pub fn take(&mut self) -> Option<&mut [u8]> {
        self.receiver.take()
    }

    /// Gives back the frames that were taken.
    pub fn refill(&mut self) {
        self.receiver.refill();
    }

    /// What the kernel has counted.
    ///
    /// # Errors
    /// The kernel's.
    pub fn statistics(&self) -> io::Result<Statistics> {
        self.receiver.statistics()
    }

    /// Descriptors of the kernel that could not be right.
    #[must_use]
    pub fn invalid(&self) -> u64 {
        self.receiver.invalid()
    }

    /// Where the frames are.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.receiver.audit()
    }
}

// === impl Outgoing ===

impl Outgoing {
    /// Sends a train to a neighbour, whole or not at all; at the latest with the next [`Self::finish`].
    pub fn send(&mut self, train: Train<'_>, link: &Link) -> Sent {
        let segment = train.segment_size.clamp(1, train.bytes.len().max(1));
        if self.down || frame::packet_len(train.path.peer, segment) > self.mtu {
            return Sent::Not;
        }
        let segments = train.bytes.len().div_ceil(segment);
        if self.sender.free() < segments {
            self.flush();
            if self.sender.free() < segments {
                return Sent::Full;
            }
        }
        self.unsaid = true;
        for payload in train.bytes.chunks(segment) {
            if !self.sender.push(|frame| frame::build(frame, link, train.path, payload)) {
                // Not for want of frames, of which there are enough. All goes the other way, some of it twice.
                self.flush();
                return Sent::Not;
            }
        }
        if self.sender.pushed() >= BATCH {
            self.flush();
        }
        Sent::All
    }

    /// The turn is over: has the kernel send what it was not told of yet, and asks to be woken when it does not.
    pub fn finish(&mut self, cx: &mut Context<'_>) {
        if self.unsaid {
            self.flush();
        }
        // Pending: its waker is set.
        let _ = self.poll_flush(cx);
    }

    /// Has the kernel send what is in the ring; tells whether the interface is up.
    pub fn flush(&mut self) {
        self.unsaid = false;
        match self.sender.flush() {
            Ok(kicks) => {
                self.wakeups += kicks;
                (self.owing, self.down) = (false, false);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.wakeups += 1;
                (self.owing, self.down) = (true, false);
            }
            Err(error) => {
                if !self.down {
                    tracing::debug!(%error, "AF_XDP does not send; the UDP socket does");
                }
                (self.owing, self.down) = (false, true);
            }
        }
    }

    /// Takes back what was sent, and tries what was not: for a queue that sends nothing otherwise.
    pub fn look(&mut self) {
        let _free = self.sender.free();
        self.flush();
    }

    /// Sends what is left in the ring. Ready once nothing is.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..WAKES {
            if !self.owing {
                return Poll::Ready(());
            }
            match self.readiness.poll_write_ready(cx) {
                Poll::Ready(Ok(mut ready)) => {
                    ready.clear_ready();
                    self.flush();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Ready once so many frames are free, or the interface is down.
    pub fn poll_room(&mut self, cx: &mut Context<'_>, frames: usize) -> Poll<()> {
        for _ in 0..WAKES {
            if self.down || self.sender.free() >= frames {
                return Poll::Ready(());
            }
            match self.readiness.poll_write_ready(cx) {
                Poll::Ready(Ok(mut ready)) => {
                    ready.clear_ready();
                    self.flush();
                }
                Poll::Ready(Err(_)) => {
                    // Nobody will tell of room: what waits goes the other way.
                    self.down = true;
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Calls of the kernel so far.
    #[must_use]
    pub fn wakeups(&self) -> u64 {
        self.wakeups
    }

    /// Entries of the kernel that could not be right.
    #[must_use]
    pub fn invalid(&self) -> u64 {
        self.sender.invalid()
    }

    /// Where the frames are.
    #[must_use]
    pub fn audit(&self) -> Audit {
        self.sender.audit()
    }
}
