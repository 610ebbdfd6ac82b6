//! The loop: connections on one epoll, deadlines in one ordered set, requests from one schedule.

use std::io;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use spooky_tests::timers::Timers;

use crate::account::{Failure, Tally};
use crate::client::{Buffers, Client, Traffic};
use crate::options::Options;
use crate::plan::Plan;
use crate::schedule::Schedule;
use crate::wake::Wake;

/// Nothing moving for so long ends the run.
const STALL: Duration = Duration::from_secs(30);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Ends of connections that are told of.
const COMPLAINTS: u32 = 10;
/// Files that are open beside the connections' sockets.
const OTHER_FILES: u64 = 64;

/// All connections of a run.
pub(crate) struct Load {
    plan: Plan,
    buffers: Buffers,
    wake: Wake,
    slots: Vec<Option<Box<Slot>>>,
    /// Slots without a connection, with [`Work::Fresh`].
    free: Vec<usize>,
    timers: Timers,
    work: Work,
    schedule: Schedule,
    rate: Option<u64>,
    streams: usize,
    /// Connections that may be opened at a time.
    at_a_time: usize,
    /// Where the next request goes, with [`Work::Stay`].
    cursor: usize,
    looked: Instant,
    ready: Vec<usize>,
    /// Datagrams we sent that were lost, on connections that are gone.
    lost: u64,
    complaints: u32,
    /// Connections that ended while they were held.
    held_lost: u64,
    /// Requests that were rejected and sent again. In the closed loop their latency counts from the second time.
    pub(crate) rejected: u64,
}

struct Slot {
    client: Client,
    /// The one request that the connection was made for, or with [`Work::Open`] its handshake, until it has begun.
    errand: Option<Instant>,
}

/// What connections are there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// The first `active` take requests of the schedule, the others are held.
    Stay { active: usize },
    /// Each takes one request of the schedule and goes.
    Fresh,
    /// Each is opened, and takes one request when it is to be touched; then it stays. `next` is the slot to open next.
    Open { touch: bool, next: usize },
}

// === impl Load ===

impl Load {
    /// # Errors
    /// When quiche or the system refuses.
    pub(crate) fn new(options: &Options) -> Result<Self, String> {
        let slots = options.idle.as_ref().map_or(options.connections, |idle| idle.connections);
        allow_files(slots as u64 + OTHER_FILES)?;
        let plan = Plan::new(options).map_err(|error| format!("quiche: {error}"))?;
        let now = Instant::now();
        Ok(Self {
            plan,
            buffers: Buffers::new(),
            wake: Wake::new().map_err(|error| format!("epoll: {error}"))?,
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).rev().collect(),
            timers: Timers::default(),
            work: Work::Fresh,
            schedule: Schedule::new(now, 0, None),
            rate: options.rate,
            streams: options.streams,
            at_a_time: options.connections,
            cursor: 0,
            looked: now,
            ready: Vec::new(),
            lost: 0,
            complaints: 0,
            held_lost: 0,
            rejected: 0,
        })
    }

    /// Opens a connection in every slot; with `touch` each gets one request. What `tally` counts is the time to the end
    /// of that request, or of the handshake.
    ///
    /// # Errors
    /// When nobody answers.
    pub(crate) fn open(&mut self, touch: bool, tally: &mut Tally) -> Result<(), String> {
        self.work = Work::Open { touch, next: 0 };
        self.schedule = Schedule::new(Instant::now(), 0, None);
        self.drive(self.slots.len() as u64, tally)
    }

    /// Runs `requests` requests to their ends, on the first `active` of the open connections.
    ///
    /// # Errors
    /// When nobody answers or nothing moves any more; what had ended until then is in `tally`.
    pub(crate) fn stay(
        &mut self,
        active: usize,
        requests: u64,
        tally: &mut Tally,
    ) -> Result<(), String> {
        self.work = Work::Stay { active };
        for slot in 0..active {
            // One that was opened may have ended since.
            if self.slots.get(slot).is_some_and(Option::is_none) {
                self.connect(slot, None, tally)?;
            }
        }
        self.phase(requests, tally)
    }

    /// Runs `requests` requests to their ends, each on a connection of its own.
    ///
    /// # Errors
    /// As [`Load::stay`].
    pub(crate) fn fresh(&mut self, requests: u64, tally: &mut Tally) -> Result<(), String> {
        self.work = Work::Fresh;
        self.phase(requests, tally)
    }

    fn phase(&mut self, requests: u64, tally: &mut Tally) -> Result<(), String> {
        self.schedule = Schedule::new(Instant::now(), requests, self.rate);
        self.drive(requests, tally)
    }

    /// Holds what is open for a time, so that nothing happens but what keeps connections alive.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn hold(&mut self, time: Duration) -> Result<(), String> {
        self.work = Work::Stay { active: 0 };
        let begun = Instant::now();
        for slot in 0..self.slots.len() {
            if let Some(held) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                held.client.keep_alive(begun);
                self.timers.set(slot, held.client.deadline());
            }
        }
        let mut nothing = Tally::default();
        while begun.elapsed() < time {
            self.turn(time.saturating_sub(begun.elapsed()), &mut nothing)?;
        }
        Ok(())
    }

    /// Until `goal` requests or connections have ended.
    fn drive(&mut self, goal: u64, tally: &mut Tally) -> Result<(), String> {
        let end = self.drive_on(goal, tally);
        if end.is_err() {
            tally.failed(Failure::Unfinished, goal.saturating_sub(tally.ended()));
        }
        end
    }

    fn drive_on(&mut self, goal: u64, tally: &mut Tally) -> Result<(), String> {
        let mut moved = (Instant::now(), tally.moved);
        self.looked = moved.0;
        self.launch(moved.0, tally)?;
        self.dispatch(moved.0, tally)?;
        while tally.ended() < goal {
            self.turn(LOOK, tally)?;
            if tally.moved != moved.1 {
                moved = (self.looked, tally.moved);
            } else if self.looked.saturating_duration_since(moved.0) > STALL {
                return Err(self.stalled());
            }
        }
        Ok(())
    }

    fn stalled(&self) -> String {
        let seconds = STALL.as_secs();
        if self.plan.resume && self.plan.tickets.is_empty() {
            return format!("{}: no session ticket in {seconds} s", self.plan.target);
        }
        format!("nothing moved for {seconds} s")
    }

    /// Waits for something to happen, at most `time`, and does what is to be done then.
    fn turn(&mut self, time: Duration, tally: &mut Tally) -> Result<(), String> {
        self.wait(time)?;
        let mut ready = std::mem::take(&mut self.ready);
        for slot in ready.drain(..) {
            if let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                let received = place.client.receive(&mut self.buffers);
                received.map_err(|error| self.unreachable(&error))?;
                self.serve(slot, tally)?;
            }
        }
        self.ready = ready;
        let now = Instant::now();
        while let Some(slot) = self.timers.pop(now) {
            self.expire(slot, now, tally)?;
        }
        self.looked = now;
        self.launch(now, tally)?;
        if self.rate.is_some() || self.schedule.has_again() {
            self.dispatch(now, tally)?;
        }
        Ok(())
    }

    /// Puts the slots that have something to read into `ready`.
    fn wait(&mut self, time: Duration) -> Result<(), String> {
        // What is due already waits for room and not for the time.
        let due = self.schedule.next().filter(|due| self.rate.is_some() && *due > self.looked);
        let now = Instant::now();
        let next = self.timers.next().map_or(time, |due| due.saturating_duration_since(now));
        self.wake.arm(due).map_err(|error| format!("timer: {error}"))?;
        self.wake.wait(next.min(time), &mut self.ready).map_err(|error| format!("epoll: {error}"))
    }

    /// Opens the connections that are due.
    fn launch(&mut self, now: Instant, tally: &mut Tally) -> Result<(), String> {
        match self.work {
            Work::Stay { .. } => {}
            Work::Fresh => {
                let first = self.plan.resume && self.plan.tickets.is_empty();
                while !(first && self.free.len() < self.slots.len())
                    && let Some(slot) = self.free.pop()
                {
                    let Some(intended) = self.schedule.take(now) else {
                        self.free.push(slot);
                        break;
                    };
                    self.connect(slot, Some(intended), tally)?;
                }
            }
            Work::Open { touch, mut next } => {
                let at_a_time = self.at_a_time as u64;
                while next < self.slots.len() && (next as u64) < tally.ended() + at_a_time {
                    self.connect(next, Some(Instant::now()), tally)?;
                    next += 1;
                    self.work = Work::Open { touch, next };
                }
            }
        }
        Ok(())
    }

    fn connect(
        &mut self,
        slot: usize,
        errand: Option<Instant>,
        tally: &mut Tally,
    ) -> Result<(), String> {
        let client = Client::connect(&mut self.plan, Instant::now())
            .map_err(|error| self.unreachable(&error))?;
        self.wake.add(&client.socket, slot).map_err(|error| format!("epoll: {error}"))?;
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(Box::new(Slot { client, errand }));
        }
        self.flush(slot)?;
        // With 0-RTT the request follows at once.
        if self.plan.resume { self.serve(slot, tally) } else { Ok(()) }
    }

    fn expire(&mut self, slot: usize, now: Instant, tally: &mut Tally) -> Result<(), String> {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let due = place.client.deadline();
        if due.is_some_and(|due| due <= now) {
            place.client.expire(now);
            return self.serve(slot, tally);
        }
        self.timers.set(slot, due);
        Ok(())
    }

    /// Requests in the open loop, and those that were given back, go to the connections in turn.
    fn dispatch(&mut self, now: Instant, tally: &mut Tally) -> Result<(), String> {
        let Work::Stay { active } = self.work else { return Ok(()) };
        let (mut full, mut used) = (0, Vec::new());
        while full < active {
            self.cursor = (self.cursor + 1) % active;
            let place = self.slots.get_mut(self.cursor).and_then(Option::as_mut);
            let room =
                |it: &&mut Box<Slot>| it.client.is_ready() && it.client.in_flight() < self.streams;
            let Some(place) = place.filter(room) else {
                full += 1;
                continue;
            };
            let Some(intended) = self.schedule.take(now) else { break };
            if place.client.request(&self.plan, &self.buffers, intended, tally) {
                full = 0;
                used.push(self.cursor);
            } else {
                self.schedule.give_back(intended);
                full += 1;
            }
        }
        used.sort_unstable();
        used.dedup();
        used.into_iter().try_for_each(|slot| self.flush(slot))
    }

    fn flush(&mut self, slot: usize) -> Result<(), String> {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let flushed = place.client.flush(&mut self.buffers);
        self.timers.set(slot, place.client.deadline());
        flushed.map_err(|error| self.unreachable(&error))
    }

    /// Answers are read, requests begun, datagrams sent, and a connection that is over is taken away.
    fn serve(&mut self, slot: usize, tally: &mut Tally) -> Result<(), String> {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        place.client.progress(&self.plan, &mut self.buffers, tally);
        for intended in place.client.rejected.drain(..) {
            self.rejected += 1;
            match self.work {
                Work::Open { .. } => tally.failed(Failure::Reset, 1),
                Work::Stay { .. } | Work::Fresh => self.schedule.give_back(intended),
            }
        }
        let done = match self.work {
            Work::Stay { active } => {
                if slot < active {
                    self.begin(slot, tally);
                }
                false
            }
            Work::Fresh => self.errand(slot, true, tally),
            Work::Open { touch, .. } => {
                self.errand(slot, touch, tally);
                false
            }
        };
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        let done = done || place.client.has_left();
        if done {
            place.client.close();
        }
        self.flush(slot)?;
        let over = |place: &Option<Box<Slot>>| place.as_ref().is_some_and(|it| it.client.is_over());
        if done || self.slots.get(slot).is_some_and(over) {
            self.end(slot, done, tally)
        } else {
            Ok(())
        }
    }

    /// As many requests as are due and fit.
    fn begin(&mut self, slot: usize, tally: &mut Tally) {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let now = Instant::now();
        while place.client.is_ready() && place.client.in_flight() < self.streams {
            let Some(intended) = self.schedule.take(now) else { return };
            if !place.client.request(&self.plan, &self.buffers, intended, tally) {
                self.schedule.give_back(intended);
                return;
            }
        }
    }

    /// What a connection was made for; `true` once it is done.
    fn errand(&mut self, slot: usize, request: bool, tally: &mut Tally) -> bool {
        let Some(place) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
        match place.errand {
            Some(intended) if request => {
                let begun = place.client.is_ready()
                    && place.client.request(&self.plan, &self.buffers, intended, tally);
                if begun {
                    place.errand = None;
                }
                false
            }
            Some(begun) => {
                if place.client.is_established() {
                    tally.good(begun.elapsed());
                    place.errand = None;
                }
                false
            }
            None if place.client.in_flight() > 0 => false,
            None if self.plan.resume => match place.client.ticket() {
                Some(ticket) => {
                    self.plan.tickets.put(ticket);
                    true
                }
                // The first connection waits for its ticket; later ones can do without.
                None => !self.plan.tickets.is_empty(),
            },
            None => true,
        }
    }

    /// Takes a connection away: its time has come, or it has ended by itself.
    fn end(&mut self, slot: usize, done: bool, tally: &mut Tally) -> Result<(), String> {
        let Some(mut place) = self.slots.get_mut(slot).and_then(Option::take) else {
            return Ok(());
        };
        self.timers.set(slot, None);
        self.lost += place.client.lost();
        let unused = place.errand.is_none() && place.client.in_flight() == 0;
        let held = match self.work {
            Work::Stay { active } => slot >= active,
            Work::Open { .. } => unused,
            Work::Fresh => false,
        };
        self.held_lost += u64::from(held);
        let established = place.client.is_established();
        if !done && !established && unused {
            let reason = place.client.reason();
            return Err(format!("{}: no handshake: {reason}", self.plan.target));
        }
        match (place.errand, self.work) {
            (None, _) => {}
            // The server told the connection to go before its request had begun.
            (Some(intended), Work::Fresh) if done => self.schedule.give_back(intended),
            (Some(_), _) if established => tally.failed(Failure::Connection, 1),
            (Some(_), _) => tally.failed(Failure::Handshake, 1),
        }
        if !done {
            self.complain(&place.client);
            place.client.abandon(tally);
        }
        drop(place);
        match self.work {
            Work::Stay { active } if slot < active => self.connect(slot, None, tally),
            Work::Fresh => {
                self.free.push(slot);
                // The next one begins at once, so that as many are under way as were asked for.
                self.launch(Instant::now(), tally)
            }
            Work::Stay { .. } | Work::Open { .. } => Ok(()),
        }
    }

    fn complain(&mut self, client: &Client) {
        if self.complaints < COMPLAINTS {
            self.complaints += 1;
            let what = if client.is_established() { "connection" } else { "handshake" };
            eprintln!("spooky-load: a {what} was {}", client.reason());
        }
    }

    fn unreachable(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.plan.target)
    }

    /// Datagrams of ours that were lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost + self.slots.iter().flatten().map(|it| it.client.lost()).sum::<u64>()
    }

    /// Connections that were held and have ended.
    pub(crate) fn held_lost(&self) -> u64 {
        self.held_lost
    }

    /// UDP payload so far.
    pub(crate) fn traffic(&self) -> Traffic {
        self.buffers.traffic
    }

    /// The requests of the last phase.
    pub(crate) fn schedule(&self) -> &Schedule {
        &self.schedule
    }
}

/// Raises the limit of open files when it is below `needed`.
fn allow_files(needed: u64) -> Result<(), String> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    // Only root may go above the maximum.
    let maximum = limit.maximum.map(|maximum| maximum.max(needed));
    setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum }).map_err(|error| {
        format!("{needed} open files are needed, but `ulimit -Hn` is lower: {error}")
    })
}
