//! The interface that XDP runs on, and the AF_XDP sockets at its receive queues: made while there are rights for it, handed
//! to the workers, given to those that are started again, closed when the interface goes, and opened again when it is there
//! again. May import: config, kernel, sys, worker.
//!
//! ```text
//!  stock ──open──▶ at work ──a worker ends──▶ home ──it is started again──▶ at work ──the interface is gone──▶ closed
//!    ▲                                                                                                         │
//!    └──────────────── the interface is there again: XDP is attached, and the next socket of the stock is opened ┘
//! ```

mod error;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use spooky_common::cid::Owner;
use spooky_common::map::XSKS_CAPACITY;

pub use self::error::QueueError;
use super::config::AfXdp;
use super::kernel::{Kernel, QueueShare, Running, WorkerSlot};
use crate::dataplane::packet::xdp::{Home, Opened};
use crate::dataplane::worker::Handle;
use crate::dataplane::worker::inbox::Order;
use crate::sys::link::{Link, Links};
use crate::sys::xsk::{self, Receiver, Sender, Stock};

/// Octets of a frame: XDP redirects what fits (`REDIRECT_OCTETS_MAX`), whatever the MTU.
const FRAME: u32 = 2048;
/// Sockets at an interface that is gone are closed within a few turns of their workers.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often XDP is attached anew where that was refused, and the queues of an interface are counted.
const LOOK: Duration = Duration::from_secs(1);

/// The interface of XDP.
#[derive(Debug)]
pub struct Queues {
    /// `None` in every mode but xdp.
    interface: Option<String>,
    af_xdp: Option<AfXdp>,
    generation: u8,
    workers: usize,
    links: Option<Links>,
    /// Where the program and the sockets are; `None` while there is none.
    at: Option<Link>,
    /// When that one was last asked to take the program.
    asked: Option<Instant>,
    /// How many receive queues it has, and when they were counted.
    counted: Option<(u32, Instant)>,
    /// Sockets for each queue that there was at start.
    stocks: Vec<Stock>,
    /// When sockets were closed with their interface, until it is known that they are.
    closed: Option<Instant>,
    /// Queues of the interface at which one was opened, or was meant to be.
    tried: BTreeSet<u32>,
    /// Whose each queue's socket is.
    given: BTreeMap<u32, u8>,
    /// Sockets that have no worker: new ones, and those of workers that have ended.
    home: Arc<Home>,
    zero_copy: bool,
}

impl Queues {
    /// Nothing is opened yet. To be made in the network namespace of the interface, and before rights are given up.
    #[must_use]
    pub fn new(
        interface: Option<&str>,
        af_xdp: Option<AfXdp>,
        generation: u8,
        workers: usize,
    ) -> Self {
        let mut queues = Self {
            interface: interface.map(str::to_owned),
            af_xdp,
            generation,
            workers,
            links: interface.and_then(|_| Links::open().ok()),
            at: None,
            asked: None,
            counted: None,
            stocks: Vec::new(),
            closed: None,
            tried: BTreeSet::new(),
            given: BTreeMap::new(),
            home: Arc::new(Home::new(XSKS_CAPACITY as usize)),
            zero_copy: false,
        };
        queues.at = queues.find().ok().flatten();
        queues
    }

    /// Opens a socket at each receive queue; each is for the worker beside it. Without `af_xdp`, or without XDP, does nothing.
    ///
    /// # Errors
    /// [`QueueError`] of the first that cannot be had; none is open then.
    pub fn open_all(&mut self, kernel: &mut Kernel) -> Result<Vec<(Order, u8)>, QueueError> {
        let name = self.interface.clone().filter(|_| is_attached(kernel));
        let (Some(name), Some(wanted)) = (name, self.af_xdp) else { return Ok(Vec::new()) };
        self.at = self.find()?;
        let link = self.at.ok_or(QueueError::NoInterface(name))?;
        let mut orders = Vec::new();
        for queue in 0..self.count(link, Instant::now()) {
            match self.open_first(kernel, wanted, link, queue) {
                Ok(opened) => orders.push((self.order(opened), self.owner(queue).worker)),
                Err(error) if queue > 0 && is_no_queue(&error) => break,
                Err(error) => {
                    self.forget_all(kernel);
                    self.stocks.clear();
                    return Err(error);
                }
            }
        }
        Ok(orders)
    }

    fn open_first(
        &mut self,
        kernel: &mut Kernel,
        wanted: AfXdp,
        link: Link,
        queue: u32,
    ) -> Result<Opened, QueueError> {
        let AfXdp { frames, busy_poll, .. } = wanted;
        let settings = xsk::Settings { frames, frame_size: FRAME, busy_poll };
        let failed = |error| QueueError::Socket { queue, error };
        let mut stock = Stock::new(&settings, 1 + wanted.spare_sockets).map_err(failed)?;
        let place = xsk::Place { interface: link.index, queue, transfer: wanted.transfer };
        let sides = stock.open(&place).map_err(failed)?;
        self.zero_copy = sides.0.is_zero_copy().map_err(failed)?;
        let owner = self.owner(queue);
        kernel.set_queue_socket(queue, owner, sides.0.socket()).map_err(QueueError::Kernel)?;
        self.stocks.push(stock);
        self.tried.insert(queue);
        self.given.insert(queue, owner.worker);
        Ok(opened(wanted, link, queue, sides))
    }

    /// Looks after interface, program and sockets. To be called at every beat.
    pub fn beat(&mut self, kernel: &mut Kernel, workers: &[Handle], now: Instant) {
        let Ok(link) = self.find() else { return };
        if self.at.map(|at| at.index) != link.map(|link| link.index) {
            self.change(kernel, workers, now);
        }
        self.at = link;
        let Some(link) = link else { return };
        self.attach(kernel, link, now);
        let running =
            |worker: u8| workers.get(usize::from(worker)).filter(|handle| !handle.has_ended());
        self.given.retain(|_, worker| running(*worker).is_some());
        if is_attached(kernel) {
            self.open_next(link, now);
        }
        self.give(kernel, workers, link);
    }

    /// The interface is gone, or another one of its name.
    fn change(&mut self, kernel: &mut Kernel, workers: &[Handle], now: Instant) {
        if is_attached(kernel) {
            tracing::error!(
                "the interface of XDP is gone: plain sockets serve, and lists are checked behind \
                 the stack, until it is there again"
            );
        }
        self.close_all(kernel, workers);
        kernel.detach_xdp();
        self.tried.clear();
        (self.asked, self.counted, self.closed) = (None, None, Some(now));
    }

    fn attach(&mut self, kernel: &mut Kernel, link: Link, now: Instant) {
        let rested = |at| now.saturating_duration_since(at) >= LOOK;
        if !kernel.lacks_xdp() || !self.asked.is_none_or(rested) {
            return;
        }
        self.asked = Some(now);
        let before = kernel.lost().map(ToString::to_string);
        if let Err(error) = kernel.attach_again(link.index) {
            let text = error.to_string();
            if before != Some(text) {
                tracing::warn!("no XDP: {error}");
            }
        }
    }

    /// Opens a socket of its stock at each queue that has none, once the one that was at work before has been closed.
    fn open_next(&mut self, link: Link, now: Instant) {
        let Some(wanted) = self.af_xdp.filter(|_| link.up && !self.stocks.is_empty()) else {
            return;
        };
        let queues = self.count(link, now);
        let (mut without, mut waiting) = (0, 0);
        for (queue, stock) in (0..queues).zip(&mut self.stocks) {
            if self.tried.contains(&queue) {
                continue;
            }
            if !stock.is_free() {
                waiting += 1;
                continue;
            }
            self.tried.insert(queue);
            if stock.left() == 0 {
                without += 1;
                continue;
            }
            let place = xsk::Place { interface: link.index, queue, transfer: wanted.transfer };
            match stock.open(&place) {
                // There is room, for none of the interface before is left there.
                Ok(sides) => drop(self.home.push(opened(wanted, link, queue, sides))),
                Err(error) => {
                    tracing::warn!("no AF_XDP: {}", QueueError::Socket { queue, error });
                }
            }
        }
        if without > 0 {
            tracing::warn!(
                "no AF_XDP: no sockets are left for {without} receive queues: plain sockets serve \
                 there until spooky is started again; ebpf.af_xdp.spare_sockets says how many there are"
            );
        }
        let late = self.closed.is_some_and(|at| now.saturating_duration_since(at) >= PATIENCE);
        if waiting > 0 && late {
            self.closed = None;
            tracing::warn!(
                "no AF_XDP: sockets at {waiting} receive queues of the interface before are still there: \
                 it was renamed and not removed, or a worker is stuck; plain sockets serve"
            );
        }
    }

    /// Workers get the sockets of their queues: new ones, and one that was started again those that its predecessor had.
    fn give(&mut self, kernel: &mut Kernel, workers: &[Handle], link: Link) {
        for _ in 0..self.home.len() {
            let Some(opened) = self.home.pop() else { return };
            if opened.interface != link.index {
                // Of a worker that ended when its interface had gone.
                continue;
            }
            let owner = self.owner(opened.number);
            let handle = workers.get(usize::from(owner.worker));
            let Some(handle) = handle.filter(|it| !it.has_ended() && it.inbox.room() > 0) else {
                // Not there yet; there is room, for it comes from there.
                let _ = self.home.push(opened);
                continue;
            };
            let (queue, socket) = (opened.number, opened.receiver.socket());
            if let Err(error) = kernel.set_queue_socket(queue, owner, socket) {
                tracing::error!(queue, %error, "a receive queue has lost its AF_XDP socket");
                continue;
            }
            self.given.insert(queue, owner.worker);
            handle.inbox.give(vec![self.order(opened)]);
        }
    }

    fn order(&self, opened: Opened) -> Order {
        Order::AddQueue(Box::new(opened), Arc::clone(&self.home))
    }

    fn close_all(&mut self, kernel: &mut Kernel, workers: &[Handle]) {
        while self.home.pop().is_some() {}
        if !self.given.is_empty() {
            for handle in workers.iter().filter(|handle| !handle.has_ended()) {
                handle.inbox.give(vec![Order::CloseQueues]);
            }
        }
        self.forget_all(kernel);
    }

    fn forget_all(&mut self, kernel: &mut Kernel) {
        for (queue, _) in std::mem::take(&mut self.given) {
            if let Err(error) = kernel.clear_queue_socket(queue) {
                tracing::error!(queue, %error, "a receive queue is still redirected");
            }
        }
    }

    /// What the kernel shall redirect. `wildcard`: some listener takes packets to any address.
    #[must_use]
    pub fn shares(&self, workers: &[WorkerSlot], wildcard: bool) -> Vec<QueueShare> {
        if self.held_back(wildcard) {
            return Vec::new();
        }
        shares::shares(&self.given, workers, self.generation)
    }

    /// Whether nothing is redirected although there are sockets, because packets to any address may be for other hosts.
    #[must_use]
    pub fn held_back(&self, wildcard: bool) -> bool {
        let for_others = self.at.is_some_and(|link| link.forwards || link.is_port);
        wildcard && for_others && !self.given.is_empty()
    }

    /// For the log: how many sockets are at work, and whether without a copy.
    #[must_use]
    pub fn summary(&self) -> Option<(usize, bool)> {
        (!self.given.is_empty()).then_some((self.given.len(), self.zero_copy))
    }

    /// Sockets that are left for an interface made again; `None` without AF_XDP.
    #[must_use]
    pub fn spare(&self) -> Option<usize> {
        self.af_xdp.map(|_| self.stocks.iter().map(Stock::left).sum())
    }

    fn find(&mut self) -> Result<Option<Link>, QueueError> {
        match (&mut self.links, &self.interface) {
            (Some(links), Some(name)) => links.find(name).map_err(QueueError::Links),
            _ => Err(QueueError::Links(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Receive queues, as many as can have a socket.
    fn count(&mut self, link: Link, now: Instant) -> u32 {
        if let Some((count, at)) = self.counted
            && now.saturating_duration_since(at) < LOOK
        {
            return count;
        }
        let count = self.links.as_mut().map_or(1, |links| links.receive_queues(&link));
        let count = count.clamp(1, XSKS_CAPACITY);
        self.counted = Some((count, now));
        count
    }

    fn owner(&self, queue: u32) -> Owner {
        let worker = queue as usize % self.workers.max(1);
        Owner { worker: u8::try_from(worker).unwrap_or(0), generation: self.generation }
    }
}

fn is_attached(kernel: &Kernel) -> bool {
    matches!(kernel.running(), Running::XdpNative | Running::XdpGeneric)
}

/// The driver said that it could have more queues than it has.
fn is_no_queue(error: &QueueError) -> bool {
    matches!(error, QueueError::Socket { error, .. } if error.kind() == io::ErrorKind::InvalidInput)
}

fn opened(wanted: AfXdp, link: Link, queue: u32, (receiver, sender): (Receiver, Sender)) -> Opened {
    Opened {
        number: queue,
        interface: link.index,
        mtu: usize::try_from(link.mtu).unwrap_or(usize::MAX),
        busy_poll: wanted.busy_poll.is_some(),
        receiver,
        sender,
    }
}
