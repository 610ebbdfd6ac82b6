//! The interface that XDP runs on, and the AF_XDP sockets at its receive queues: opened while there are rights for it, handed
//! to the workers, given to those that are started again, and closed when the interface goes. May import: config, kernel,
//! sys, worker.
//!
//! ```text
//!  open ──a worker ends──▶ home ──it is started again──▶ open ──the interface is gone──▶ closed, until the next start
//!   │▲
//!   ▼└─ its MTU fits again
//!  held back: the MTU is larger than a frame
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use spooky_common::cid::Owner;
use spooky_common::map::{SLOTS_CAPACITY, XSKS_CAPACITY};

use super::config::AfXdp;
use super::kernel::{Kernel, KernelError, QueueShare, Running, WorkerSlot};
use crate::dataplane::packet::xdp::frame::HEADERS_OCTETS_MAX;
use crate::dataplane::packet::xdp::{Home, Opened};
use crate::dataplane::worker::Handle;
use crate::dataplane::worker::inbox::Order;
use crate::sys::link::{Link, Links};
use crate::sys::xsk;

/// The kernel keeps so much of each frame that it writes (`XDP_PACKET_HEADROOM`).
const HEADROOM: u32 = 256;
/// Frames are of these sizes.
const FRAME_SIZES: [u32; 2] = [2048, 4096];

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
    /// Whose each queue's socket is.
    given: BTreeMap<u32, u8>,
    /// Sockets of workers that have ended.
    home: Arc<Home>,
    /// Other hosts' packets pass this one.
    forwards: bool,
    frame_size: Option<u32>,
    /// Packets may be larger than a frame.
    too_large: bool,
    zero_copy: bool,
}

/// Why there is no AF_XDP socket.
#[derive(Debug)]
pub enum QueueError {
    /// Interfaces cannot be asked for.
    Links(io::Error),
    /// The interface is not there.
    NoInterface(String),
    /// Packets may be larger than a frame.
    Mtu(u32),
    /// A socket cannot be had.
    Socket {
        /// Of this receive queue.
        queue: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// It cannot be redirected to.
    Kernel(KernelError),
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
            given: BTreeMap::new(),
            home: Arc::new(Home::new(XSKS_CAPACITY as usize)),
            forwards: interface.is_some_and(forwards),
            frame_size: None,
            too_large: false,
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
        let attached = matches!(kernel.running(), Running::XdpNative | Running::XdpGeneric);
        let name = self.interface.clone().filter(|_| attached);
        let (Some(name), Some(wanted)) = (name, self.af_xdp) else { return Ok(Vec::new()) };
        self.at = self.find()?;
        let link = self.at.ok_or_else(|| QueueError::NoInterface(name.clone()))?;
        let mut orders = Vec::new();
        for queue in 0..receive_queues(&name) {
            match self.open(kernel, wanted, link, queue) {
                Ok(opened) => orders.push((self.order(opened), self.owner(queue).worker)),
                Err(error) => {
                    self.forget_all(kernel);
                    return Err(error);
                }
            }
        }
        Ok(orders)
    }

    /// Looks after interface and sockets. To be called at every beat.
    pub fn beat(&mut self, kernel: &mut Kernel, workers: &[Handle]) {
        let Some(at) = self.at else { return };
        let Ok(link) = self.find() else { return };
        let Some(link) = link.filter(|link| link.index == at.index) else {
            tracing::error!(
                "the interface of XDP is gone: plain sockets serve, and lists are checked behind \
                 the stack, until spooky is started again"
            );
            self.close_all(kernel, workers);
            kernel.detach_xdp();
            self.at = None;
            return;
        };
        self.at = Some(link);
        let running =
            |worker: u8| workers.get(usize::from(worker)).filter(|handle| !handle.has_ended());
        self.given.retain(|_, worker| running(*worker).is_some());
        self.look_at_mtu(link);
        self.give_again(kernel, workers);
    }

    fn look_at_mtu(&mut self, link: Link) {
        let Some(wanted) = self.af_xdp.filter(|_| !self.given.is_empty()) else { return };
        let fits = self.frame_size.is_some_and(|size| frame_size(link.mtu) <= Some(size))
            && frame_size(link.mtu).is_some();
        if fits == self.too_large {
            self.too_large = !fits;
            let (mtu, frames) = (link.mtu, wanted.frames);
            if fits {
                tracing::info!(mtu, frames, "AF_XDP: packets fit into frames again");
            } else {
                tracing::warn!("no AF_XDP: {}", QueueError::Mtu(mtu));
            }
        }
    }

    /// A worker that was started again gets the sockets that its predecessor had.
    fn give_again(&mut self, kernel: &mut Kernel, workers: &[Handle]) {
        for _ in 0..self.home.len() {
            let Some(opened) = self.home.pop() else { return };
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

    fn open(
        &mut self,
        kernel: &mut Kernel,
        wanted: AfXdp,
        link: Link,
        queue: u32,
    ) -> Result<Opened, QueueError> {
        self.frame_size = frame_size(link.mtu);
        let settings = xsk::Settings {
            interface: link.index,
            queue,
            frames: wanted.frames,
            frame_size: self.frame_size.ok_or(QueueError::Mtu(link.mtu))?,
            transfer: wanted.transfer,
            busy_poll: wanted.busy_poll,
        };
        let failed = |error| QueueError::Socket { queue, error };
        let (receiver, sender) = xsk::open(&settings).map_err(failed)?;
        self.zero_copy = receiver.is_zero_copy().map_err(failed)?;
        let owner = self.owner(queue);
        kernel.set_queue_socket(queue, owner, receiver.socket()).map_err(QueueError::Kernel)?;
        self.given.insert(queue, owner.worker);
        Ok(Opened {
            number: queue,
            interface: link.index,
            mtu: usize::try_from(link.mtu).unwrap_or(usize::MAX),
            busy_poll: settings.busy_poll.is_some(),
            receiver,
            sender,
        })
    }

    fn close_all(&mut self, kernel: &mut Kernel, workers: &[Handle]) {
        while self.home.pop().is_some() {}
        for handle in workers.iter().filter(|handle| !handle.has_ended()) {
            handle.inbox.give(vec![Order::CloseQueues]);
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
        shares(&self.given, workers, self.generation)
    }

    /// Whether nothing is redirected although there are sockets: packets to any address may be for other hosts, or packets larger
    /// than a frame.
    #[must_use]
    pub fn held_back(&self, wildcard: bool) -> bool {
        let is_port = self.at.is_some_and(|link| link.is_port);
        let for_others = wildcard && (self.forwards || is_port);
        (for_others || self.too_large) && !self.given.is_empty()
    }

    /// For the line at start: how many sockets there are, and whether without a copy.
    #[must_use]
    pub fn summary(&self) -> Option<(usize, bool)> {
        (!self.given.is_empty()).then_some((self.given.len(), self.zero_copy))
    }

    fn find(&mut self) -> Result<Option<Link>, QueueError> {
        match (&mut self.links, &self.interface) {
            (Some(links), Some(name)) => links.find(name).map_err(QueueError::Links),
            _ => Err(QueueError::Links(io::ErrorKind::Unsupported.into())),
        }
    }

    fn owner(&self, queue: u32) -> Owner {
        let worker = queue as usize % self.workers.max(1);
        Owner { worker: u8::try_from(worker).unwrap_or(0), generation: self.generation }
    }
}

/// How many slots of new flows stay on each queue, so that with the slot table for the others every worker gets its share by
/// weight. With `q` the part of the queues that a worker has and `t` its share by weight, a queue keeps `c t / q` of what
/// comes to it, `c` as large as no worker exceeds all: the queues then give each worker `c t`, and the table `(1 - c) t`.
/// Workers without a queue count for nothing in this: they get their part of the rest.
fn shares(given: &BTreeMap<u32, u8>, workers: &[WorkerSlot], generation: u8) -> Vec<QueueShare> {
    let weight = |worker: u8| {
        let slot = workers.iter().find(|slot| slot.worker == worker && slot.reachable)?;
        Some(f64::from(slot.weight))
    };
    let total: f64 = workers.iter().filter_map(|slot| weight(slot.worker)).sum();
    let queues = |worker: u8| given.values().filter(|owner| **owner == worker).count() as f64;
    // Of the share of one queue: q / t, but for what is the same for all.
    let ratio = |worker: u8| match weight(worker) {
        Some(weight) if weight > 0.0 => Some(queues(worker) * total / weight),
        _ => None,
    };
    let least = given.values().filter_map(|worker| ratio(*worker)).fold(f64::INFINITY, f64::min);
    let share = |worker: u8| {
        let kept = ratio(worker).map_or(0.0, |ratio| least / ratio);
        (kept * f64::from(SLOTS_CAPACITY)).round() as u16
    };
    given
        .iter()
        .filter(|(_, worker)| weight(**worker).is_some())
        .map(|(queue, worker)| QueueShare {
            queue: *queue,
            owner: Owner { worker: *worker, generation },
            share: share(*worker),
        })
        .collect()
}

/// Octets of a frame that holds the largest packet; `None` when none does.
fn frame_size(mtu: u32) -> Option<u32> {
    // Ethernet and two tags; those of IP and UDP are inside the MTU.
    let link = HEADERS_OCTETS_MAX as u32 - 48;
    FRAME_SIZES.into_iter().find(|size| mtu.saturating_add(link + HEADROOM) <= *size)
}

/// Receive queues of an interface, as many as can have a socket.
fn receive_queues(interface: &str) -> u32 {
    let entries = std::fs::read_dir(format!("/sys/class/net/{interface}/queues"));
    let names = entries.into_iter().flatten().filter_map(Result::ok);
    let count = names.filter(|it| it.file_name().to_string_lossy().starts_with("rx-")).count();
    // Out of sight once files are out of reach; one there is always.
    u32::try_from(count).unwrap_or(XSKS_CAPACITY).clamp(1, XSKS_CAPACITY)
}

/// Whether packets that come by the interface may be for other hosts; also when that cannot be read.
fn forwards(interface: &str) -> bool {
    let read = |family: &str| {
        let file = format!("/proc/sys/net/{family}/conf/{interface}/forwarding");
        std::fs::read_to_string(file).map(|text| text.trim() != "0")
    };
    // A kernel without IPv6 forwards none.
    read("ipv4").unwrap_or(true) || read("ipv6").unwrap_or(false)
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links(error) => write!(f, "the interfaces cannot be asked for: {error}"),
            Self::NoInterface(name) => write!(f, "there is no interface {name:?}"),
            Self::Mtu(mtu) => write!(
                f,
                "packets of an MTU of {mtu} do not fit into a frame; lower it to 3,500 or less \
                 (ip link set mtu)"
            ),
            Self::Socket { queue, error } => {
                write!(f, "receive queue {queue}: {error}")?;
                f.write_str(match error.kind() {
                    io::ErrorKind::PermissionDenied => "; it needs CAP_NET_RAW",
                    io::ErrorKind::ResourceBusy => "; another AF_XDP socket has it",
                    io::ErrorKind::Unsupported => {
                        "; the driver cannot do this: write auto or copy for ebpf.af_xdp.mode"
                    }
                    _ => "",
                })
            }
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for QueueError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(worker: u8, weight: u16) -> WorkerSlot {
        WorkerSlot { worker, weight, reachable: true }
    }

    fn share_of(queues: &[u8], workers: &[WorkerSlot]) -> Vec<u16> {
        let given = (0..).zip(queues.iter().copied()).collect();
        shares(&given, workers, 3).into_iter().map(|share| share.share).collect()
    }

    /// What each worker gets of new flows that come evenly over the queues.
    fn got(queues: &[u8], workers: &[WorkerSlot]) -> Vec<f64> {
        let kept = share_of(queues, workers);
        let total: f64 = workers.iter().map(|slot| f64::from(slot.weight)).sum();
        let each = 1.0 / queues.len() as f64;
        let rest: f64 = kept.iter().map(|kept| each * (1.0 - f64::from(*kept) / 256.0)).sum();
        workers
            .iter()
            .map(|slot| {
                let own = queues.iter().zip(&kept).filter(|(owner, _)| **owner == slot.worker);
                let own: f64 = own.map(|(_, kept)| each * f64::from(*kept) / 256.0).sum();
                own + rest * f64::from(slot.weight) / total
            })
            .collect()
    }

    #[test]
    fn every_worker_gets_its_share_of_new_flows() {
        let cases: [(&[u8], &[u16]); 5] = [
            (&[0, 1], &[1, 1]),
            (&[0, 1], &[100, 50]),
            (&[0, 1, 2, 0], &[1, 1, 1]),
            (&[0, 1, 2, 3], &[10, 20, 30, 40]),
            (&[0, 1], &[1, 0]),
        ];
        for (queues, weights) in cases {
            let workers: Vec<_> =
                (0..).zip(weights).map(|(number, weight)| worker(number, *weight)).collect();
            let total: u16 = weights.iter().sum();
            for (got, weight) in got(queues, &workers).into_iter().zip(weights) {
                let wanted = f64::from(*weight) / f64::from(total);
                assert!((got - wanted).abs() < 0.01, "{queues:?} {weights:?}: {got} for {wanted}");
            }
        }
        assert_eq!(share_of(&[0, 1], &[worker(0, 1), worker(1, 1)]), [256, 256], "nothing leaves");
    }

    #[test]
    fn a_worker_out_of_reach_is_not_redirected_to() {
        let dead = WorkerSlot { worker: 1, weight: 0, reachable: false };
        let given = BTreeMap::from([(0, 0), (1, 1)]);
        let shares = shares(&given, &[worker(0, 1), dead], 3);
        assert_eq!(shares.len(), 1);
        assert_eq!(shares[0].owner, Owner { worker: 0, generation: 3 });
        // A stalled one keeps its own connections and takes no new one.
        assert_eq!(share_of(&[0, 1], &[worker(0, 1), worker(1, 0)]), [256, 0]);
    }

    #[test]
    fn a_frame_holds_what_the_interface_carries() {
        assert_eq!(frame_size(1_500), Some(2048));
        assert_eq!(frame_size(1_770), Some(2048));
        assert_eq!(frame_size(1_771), Some(4096));
        assert_eq!(frame_size(3_500), Some(4096));
        assert_eq!(frame_size(9_000), None);
        assert_eq!(frame_size(u32::MAX), None);
    }
}
