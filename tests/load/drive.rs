//! The loop: connections on one epoll, kept busy until a phase's requests have ended. Closed loop: a request begins when
//! another has ended.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::account::{Failure, Tally};
use crate::client::{Buffers, Client, Plan};
use crate::options::Options;

/// A handshake that takes longer ends the run: nobody is there.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// So does this time without any request ending.
const STALL: Duration = Duration::from_secs(20);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// All connections of a run.
pub(crate) struct Load {
    target: SocketAddr,
    streams: usize,
    fresh: bool,
    plan: Plan,
    buffers: Buffers,
    epoll: OwnedFd,
    /// A slot keeps its place in epoll; with `--fresh` its connection changes.
    slots: Vec<Option<Client>>,
    /// Of the phase: requests not begun yet.
    unbegun: u64,
    /// Datagrams we sent that were lost, on connections that are gone.
    lost: u64,
    /// Requests that were rejected and sent again. Their latency counts from the second time.
    pub(crate) rejected: u64,
}

// === impl Load ===

impl Load {
    /// # Errors
    /// When quiche or the system refuses.
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let plan = Plan::new(options).map_err(|error| format!("quiche: {error}"))?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|error| format!("epoll: {error}"))?;
        Ok(Self {
            target: options.target,
            streams: if options.fresh { 1 } else { options.streams },
            fresh: options.fresh,
            plan,
            buffers: Buffers::new(),
            epoll,
            slots: (0..options.connections).map(|_| None).collect(),
            unbegun: 0,
            lost: 0,
            rejected: 0,
        })
    }

    /// Runs `requests` requests to their ends.
    ///
    /// # Errors
    /// When nobody answers or nothing moves any more; what had ended until then is in `tally`.
    pub(crate) fn phase(&mut self, requests: u64, tally: &mut Tally) -> Result<(), String> {
        self.unbegun = requests;
        let end = self.drive(requests, tally);
        if end.is_err() {
            tally.failed(Failure::Unfinished, requests.saturating_sub(tally.ended()));
        }
        end
    }

    fn drive(&mut self, requests: u64, tally: &mut Tally) -> Result<(), String> {
        let mut moved = (Instant::now(), tally.ended());
        for slot in 0..self.slots.len() {
            self.serve(slot, tally)?;
        }
        while tally.ended() < requests {
            for slot in self.wait()? {
                if let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                    client.receive(&mut self.buffers).map_err(|error| self.unreachable(&error))?;
                    self.serve(slot, tally)?;
                }
            }
            let now = Instant::now();
            self.expire(now, tally)?;
            if tally.ended() != moved.1 {
                moved = (now, tally.ended());
            } else if now - moved.0 > STALL {
                return Err(format!("no request ended for {} s", STALL.as_secs()));
            }
        }
        Ok(())
    }

    /// Slots that have something to read, or none when a deadline came first.
    fn wait(&mut self) -> Result<Vec<usize>, String> {
        let now = Instant::now();
        let deadlines = self.slots.iter().flatten().filter_map(|client| client.deadline);
        let next = deadlines.min().map_or(LOOK, |it| it.saturating_duration_since(now)).min(LOOK);
        // epoll_wait counts in ms: what is less than one would become none, and the loop would spin.
        let timeout = Timespec::try_from(next.max(Duration::from_millis(1)))
            .map_err(|error| format!("a deadline does not fit: {error}"))?;
        let mut events = [MaybeUninit::uninit(); 64];
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((ready, _)) => Ok(ready.iter().map(|event| event.data.u64() as usize).collect()),
            Err(rustix::io::Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(format!("epoll: {error}")),
        }
    }

    fn expire(&mut self, now: Instant, tally: &mut Tally) -> Result<(), String> {
        for slot in 0..self.slots.len() {
            let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            if !client.is_ready() && client.age(now) > HANDSHAKE {
                return Err(format!("{}: no handshake in {} s", self.target, HANDSHAKE.as_secs()));
            }
            if client.deadline.is_some_and(|deadline| deadline <= now) {
                client.expire();
                self.serve(slot, tally)?;
            }
        }
        Ok(())
    }

    /// Answers are read, requests begun, datagrams sent, and a connection that is over is replaced.
    fn serve(&mut self, slot: usize, tally: &mut Tally) -> Result<(), String> {
        let now = Instant::now();
        self.fill(slot, now)?;
        let Some(place) = self.slots.get_mut(slot) else { return Ok(()) };
        let Some(client) = place else { return Ok(()) };
        let ended = tally.ended();
        client.progress(&self.plan, &mut self.buffers, tally);
        let rejected = client.take_rejected();
        self.unbegun += rejected;
        self.rejected += rejected;
        let used_up = client.has_left() || (self.fresh && tally.ended() > ended);
        if used_up {
            client.close();
        } else {
            let begun = if self.fresh { client.begun } else { now };
            while self.unbegun > 0
                && client.in_flight() < self.streams
                && client.request(&self.plan, &self.buffers, begun)
            {
                self.unbegun -= 1;
            }
        }
        client.flush(&mut self.buffers).map_err(|error| unreachable(self.target, &error))?;
        if client.is_over() && !used_up {
            if !client.is_ready() {
                return Err(format!("{}: no handshake: {}", self.target, client.reason()));
            }
            eprintln!("spooky-load: a connection was {}", client.reason());
            client.abandon(tally);
        } else if !used_up {
            return Ok(());
        }
        self.lost += client.lost();
        *place = None;
        // The next one begins at once, so that as many are under way as were asked for.
        if self.unbegun > 0 { self.serve(slot, tally) } else { Ok(()) }
    }

    /// A connection for an empty slot, when there is a request for it.
    fn fill(&mut self, slot: usize, now: Instant) -> Result<(), String> {
        // With --fresh each connection that still shakes hands will take one of the requests not begun yet.
        let awaited = self.slots.iter().flatten().filter(|client| client.in_flight() == 0).count();
        let wanted = !self.fresh || self.unbegun > awaited as u64;
        let Some(place) = self.slots.get_mut(slot) else { return Ok(()) };
        if place.is_some() || !wanted {
            return Ok(());
        }
        let client = Client::connect(self.target, &mut self.plan, now)
            .map_err(|error| unreachable(self.target, &error))?;
        let data = epoll::EventData::new_u64(slot as u64);
        epoll::add(&self.epoll, &client.socket, data, epoll::EventFlags::IN)
            .map_err(|error| format!("epoll: {error}"))?;
        *place = Some(client);
        Ok(())
    }

    fn unreachable(&self, error: &io::Error) -> String {
        unreachable(self.target, error)
    }

    /// Datagrams of ours that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost + self.slots.iter().flatten().map(Client::lost).sum::<u64>()
    }
}

fn unreachable(target: SocketAddr, error: &io::Error) -> String {
    format!("{target}: {error}")
}
