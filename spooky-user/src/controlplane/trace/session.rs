//! A capture under way: frames as they come from the kernel, bounded in number and in time, and the trace that is made of
//! them. May import: kernel, file, state.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom as _, SystemRandom};
use spooky_common::capture::Capture;
use spooky_common::cid::{self, LocalKey};
use spooky_common::counter::Counter;
use spooky_common::frame;

use super::file::{Frame, KEPT, LENGTH_MAX, LENGTH_MIN, Trace};
use super::state::{
    AddressEntry, Disguise, KeyEntry, OwnerEntry, PortEntry, QueueEntry, Secret, State, ip,
};
use crate::controlplane::kernel::{Kernel, KernelError, Observed};

/// The longest capture.
pub const SECONDS_MAX: u64 = 600;

/// Frames of one capture: 11 MB while it is held, and 30 MB as text.
pub const FRAMES_MAX: usize = 20_000;

/// What to capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many frames, 1..=[`FRAMES_MAX`].
    pub frames: usize,
    /// At most so long, 1..=[`SECONDS_MAX`].
    pub seconds: u64,
    /// One frame in so many of each verdict and reason, from 1.
    pub every: u32,
}

/// The capture.
#[derive(Debug)]
pub struct Session {
    wanted: Wanted,
    until: Instant,
    frames: Vec<Capture>,
    lost_before: u64,
    over: bool,
}

impl Wanted {
    /// Within the bounds above.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        (1..=FRAMES_MAX).contains(&self.frames)
            && (1..=SECONDS_MAX).contains(&self.seconds)
            && self.every > 0
    }
}

// === impl Session ===

impl Session {
    /// Begins: from now on the kernel hands frames over.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn begin(kernel: &mut Kernel, wanted: Wanted, now: Instant) -> Result<Self, KernelError> {
        // What an earlier capture left behind is none of this one's.
        kernel.drain_captures(|_| ());
        let lost_before = lost(kernel)?;
        kernel.set_capture(wanted.every)?;
        let until = now + Duration::from_secs(wanted.seconds);
        Ok(Self { wanted, until, frames: Vec::new(), lost_before, over: false })
    }

    /// How many frames there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is none yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether there are enough frames, or the time is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes what has come, and stops when that is enough or the time is over.
    ///
    /// # Errors
    /// [`KernelError::Map`]; ask again.
    pub fn beat(&mut self, kernel: &mut Kernel, now: Instant) -> Result<(), KernelError> {
        if self.over {
            return Ok(());
        }
        let room = self.wanted.frames;
        kernel.drain_captures(|capture| {
            if self.frames.len() < room && is_ours(capture) {
                self.frames.push(*capture);
            }
        });
        if self.frames.len() >= room || now >= self.until {
            kernel.set_capture(0)?;
            self.over = true;
        }
        Ok(())
    }

    /// Ends it, and makes the trace.
    ///
    /// # Errors
    /// [`KernelError::Map`]; [`KernelError::Random`].
    pub fn finish(self, kernel: &mut Kernel) -> Result<Trace, KernelError> {
        if !self.over {
            kernel.set_capture(0)?;
        }
        let sources: BTreeSet<IpAddr> = self.frames.iter().filter_map(source).collect();
        let seen = kernel.observe(&sources)?.ok_or(KernelError::NoInterface)?;
        let own = own_key()?;
        let lost = lost(kernel)?.saturating_sub(self.lost_before);
        let disguise = Disguise { host: &seen.keys, own };
        let first = self.frames.iter().map(|it| it.at_ns).min().unwrap_or(0);
        let frames = self.frames.iter().filter_map(|it| frame_of(it, first, &disguise)).collect();
        Ok(Trace { state: state_of(&seen, own), lost, frames })
    }
}

/// Whether a frame reached the listeners' part of the decision: what is not for us is not for a trace.
fn is_ours(capture: &Capture) -> bool {
    let not_ours = [Counter::XdpNotIp, Counter::XdpNotUdp, Counter::XdpOtherPort];
    capture.counter().is_some_and(|counter| !not_ours.contains(&counter))
}

fn source(capture: &Capture) -> Option<IpAddr> {
    let mut cursor = capture.kept();
    frame::udp(&mut cursor).ok().map(|tuple| ip(&tuple.source))
}

fn frame_of(
    capture: &Capture,
    first: u64,
    disguise: &Disguise<'_, [Option<LocalKey>; cid::CONFIG_IDS as usize]>,
) -> Option<Frame> {
    let mut octets = capture.kept().to_vec();
    octets.truncate(KEPT);
    disguise.put_on(&mut octets)?;
    let length = usize::try_from(capture.length).ok()?;
    let mut labels = capture.counter()?.describe().labels.iter().map(|(_, value)| *value);
    let (verdict, reason) = (labels.next()?.to_owned(), labels.next()?.to_owned());
    (LENGTH_MIN..=LENGTH_MAX).contains(&length).then_some(Frame {
        at_ns: capture.at_ns.saturating_sub(first),
        queue: capture.queue,
        length,
        octets,
        verdict,
        reason,
    })
}

fn state_of(seen: &Observed, own: LocalKey) -> State {
    let key = Secret::of(own);
    State {
        ports: seen.ports.iter().map(|(port, entry)| PortEntry::of(*port, *entry)).collect(),
        addresses: seen
            .addresses
            .iter()
            .map(|(key, listener)| AddressEntry {
                address: SocketAddr::new(Ipv6Addr::from(key.address).to_canonical(), key.port),
                listener: *listener,
            })
            .collect(),
        keys: (0..)
            .zip(&seen.keys)
            .filter(|(_, held)| held.is_some())
            .map(|(config_id, _)| KeyEntry { config_id, key })
            .collect(),
        placement: Secret::of(seen.settings.placement),
        default_deny: seen.settings.default_deny != 0,
        early: seen.settings.early != 0,
        paced: seen.settings.new_flows.step_ns != 0,
        answers: seen.settings.versions.step_ns != 0,
        attack: seen.settings.attack != 0,
        tokens_since_ms: seen.settings.tokens_since_ms,
        denied: seen.denied.clone(),
        allowed: seen.allowed.clone(),
        queues: seen
            .queues
            .iter()
            .filter_map(|(queue, entry)| QueueEntry::of(*queue, *entry))
            .collect(),
        owners: seen
            .owners
            .iter()
            .map(|it| OwnerEntry { worker: it.worker, generation: it.generation })
            .collect(),
    }
}

fn lost(kernel: &Kernel) -> Result<u64, KernelError> {
    let counters = kernel.counters()?;
    Ok(counters.iter().find(|(it, _)| *it == Counter::CapturesLost).map_or(0, |(_, count)| *count))
}

fn own_key() -> Result<LocalKey, KernelError> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_unspecified| KernelError::Random)?;
    Ok(Secret(octets).key())
}
