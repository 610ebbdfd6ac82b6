//! The only loop of the data plane. One turn: orders, datagrams, strays, timers, posts of serving tasks, then one service of
//! every connection that was touched: its session reads, opens exchanges, writes; its packets go out in trains.
//!
//! A turn is bounded, so that the tasks that share the thread (serving tasks, HTTP/2 drivers) get theirs. Nothing in it
//! waits.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use spooky_common::cid::Owner;
use tokio::time::Sleep;

use super::Setup;
use super::acks::Acks;
use super::bypass::Bypass;
use super::inbox::{Inbox, Pulse};
use super::listen::Closing;
use super::relief::GivenBack;
use super::socket::Socket;
use super::stray::{Lost, Stray, Strays};
use super::thread::StartError;
use super::timers::Timers;
use crate::dataplane::downstream::h3::session::{Session, Shared};
use crate::dataplane::exchange::Exchange;
use crate::dataplane::exchange::mailbox::{Mailbox, Ready};
use crate::dataplane::fault::{self, Point};
use crate::dataplane::filter::ip_access::AccessList;
use crate::dataplane::packet::udp::{Arena, canonical};
use crate::dataplane::packet::{Datagram, Path};
use crate::dataplane::pressure::Pressure;
use crate::dataplane::proxy;
use crate::dataplane::quic::endpoint::{Arrival, Disposition, Endpoint};
use crate::dataplane::quic::transmit::Builder;
use crate::id::{ConnectionKey, WorkerId};
use crate::telemetry::metrics::WorkerMetrics;
use crate::telemetry::reason::Panicked;

/// Receive calls for one listener in one turn: up to 16 trains each.
const RECEIVE_CALLS: usize = 4;
/// Strays taken in one turn.
const STRAYS: usize = 256;
/// An idle worker turns this often, so that the control plane can tell idle from stalled.
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);
/// Answers outside connections are at most this large (version negotiation of two 255-octet IDs).
const ANSWER_SIZE: usize = 600;

/// One worker.
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) owner: Owner,
    /// How many there are.
    pub(super) workers: usize,
    pub(super) endpoint: Endpoint<Session>,
    pub(super) sockets: Vec<Socket>,
    /// What comes past the network stack.
    pub(super) bypass: Bypass,
    /// What the HTTP/3 sessions of each listener share.
    pub(super) sessions: Vec<Rc<Shared>>,
    /// Listeners on their way out.
    pub(super) closing: Vec<Closing>,
    pub(super) timers: Timers,
    acks: Acks,
    ready: Rc<Ready>,
    strays: Arc<Strays>,
    pub(super) pressure: Arc<Pressure>,
    /// When connections were last closed for want of memory.
    pub(super) shed_at: Option<Instant>,
    pub(super) given_back: GivenBack,
    pub(super) inbox: Arc<Inbox>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) context: Rc<proxy::Context>,
    pub(super) metrics: Arc<WorkerMetrics>,
    arena: Arena,
    pub(super) builder: Builder,
    /// Connections that want service in this turn.
    touched: Vec<ConnectionKey>,
    /// Connections that had more to send than one turn allows, or whose socket was full.
    pub(super) postponed: Vec<ConnectionKey>,
    opened: Vec<Exchange>,
    pub(super) draining: bool,
    /// A test has asked for a fault.
    faulty: bool,
}

impl Worker {
    /// On the worker's own runtime.
    pub(super) fn new(setup: Setup) -> Result<Self, StartError> {
        let metrics = Arc::clone(&setup.proxy.metrics);
        let owner = Owner {
            worker: u8::try_from(setup.id.0).unwrap_or(u8::MAX),
            generation: setup.generation,
        };
        // Those of a predecessor that ended without saying goodbye.
        metrics.forget_what_was_active();
        let mut worker = Self {
            id: setup.id,
            owner,
            workers: setup.workers,
            endpoint: Endpoint::new(Arc::clone(&metrics), Arc::clone(&setup.proxy.reports)),
            sockets: Vec::new(),
            bypass: Bypass::new(Arc::clone(&metrics)),
            sessions: Vec::new(),
            closing: Vec::new(),
            timers: Timers::default(),
            acks: Acks::default(),
            ready: Rc::default(),
            strays: setup.strays,
            pressure: setup.pressure,
            shed_at: None,
            given_back: GivenBack::new(Instant::now()),
            inbox: setup.inbox,
            pulse: setup.pulse,
            context: Rc::new(proxy::Context::new(setup.proxy)),
            metrics,
            arena: Arena::new(),
            builder: Builder::new(),
            touched: Vec::new(),
            postponed: Vec::new(),
            opened: Vec::new(),
            draining: false,
            faulty: false,
        };
        let now = Instant::now();
        for order in setup.orders {
            worker.follow(order, now)?;
        }
        Ok(worker)
    }

    /// Until it is told to stop or has drained.
    pub(super) async fn run(mut self) {
        let mut sleep = Box::pin(tokio::time::sleep(HEARTBEAT));
        std::future::poll_fn(|cx| self.poll(cx, sleep.as_mut())).await;
        self.end();
    }

    fn poll(&mut self, cx: &mut Context<'_>, sleep: Pin<&mut Sleep>) -> Poll<()> {
        let now = Instant::now();
        self.pulse.beat(now);
        self.metrics.turns.inc();
        self.ready.register(cx);
        self.inbox.register(cx.waker());
        self.strays.register(self.id, cx.waker());
        if self.inbox.is_stopped() {
            return Poll::Ready(());
        }
        self.follow_orders(now);
        self.relieve(now);

        let mut more = self.receive_bypassed(cx, now);
        more |= self.receive(cx, now);
        more |= self.take_strays(now);
        self.run_timers(now);
        self.collect_posts();
        self.unblock(cx);
        let touched = std::mem::take(&mut self.touched);
        for key in &touched {
            self.service_guarded(*key, now);
        }
        self.recycle(touched);
        if self.faulty {
            fault::strike(Point::Worker, "/fault/worker");
        }
        self.progress_closing(now);
        self.bypass.finish(cx);
        if self.draining && self.has_drained() {
            return Poll::Ready(());
        }
        self.metrics.buffered_bytes.set(i64::try_from(self.ready.buffered()).unwrap_or(i64::MAX));
        let ended = Instant::now();
        self.metrics.turn_seconds.observe(ended.saturating_duration_since(now));
        more |= !self.ready.is_empty() || self.postponed_can_go();
        if more {
            self.pulse.rest(ended, ended);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let wake = self.arm_sleep(cx, sleep, now);
        self.pulse.rest(ended, wake);
        Poll::Pending
    }

    // === in ===

    /// Receives from every socket; `true` when there may be more.
    fn receive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut more = false;
        for index in 0..self.sockets.len() {
            more |= self.receive_from(index, cx, now);
        }
        more
    }

    fn receive_from(&mut self, index: usize, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut arena = std::mem::take(&mut self.arena);
        let snapshot = self.context.snapshot();
        let mut more = true;
        for _ in 0..RECEIVE_CALLS {
            let Some(socket) = self.sockets.get(index) else { break };
            let (listener, bound) = (socket.arrivals, socket.udp.bound());
            match socket.udp.poll_receive(cx, &mut arena) {
                Poll::Ready(Ok(trains)) => {
                    let arrival = Arrival { listener, forwarded: false, now };
                    self.metrics.receive_calls.inc();
                    for datagram in arena.datagrams(trains, bound) {
                        self.metrics.datagrams_received.inc();
                        self.metrics.bytes_received.add(datagram.bytes.len() as u64);
                        self.datagram(index, arrival, datagram, &snapshot.access);
                    }
                }
                Poll::Ready(Err(error)) => {
                    // One client's ICMP error, say. The socket stays.
                    self.metrics.receive_errors.inc();
                    tracing::debug!(%error, "receive");
                }
                Poll::Pending => {
                    more = false;
                    break;
                }
            }
        }
        self.arena = arena;
        more
    }

    /// Hands a datagram on; `true` when a connection has taken it.
    pub(super) fn datagram(
        &mut self,
        socket: usize,
        arrival: Arrival,
        datagram: Datagram<'_>,
        access: &AccessList,
    ) -> bool {
        let path = datagram.path;
        self.endpoint.set_access_version(access.version());
        let permits = |address: IpAddr| {
            if access.is_spared(address) {
                self.metrics.access_spared.inc();
            }
            access.permits(address)
        };
        let mut answer = [0; ANSWER_SIZE];
        let bytes = &mut *datagram.bytes;
        let datagram = Datagram { bytes: &mut *bytes, path };
        let taken = catch_unwind(AssertUnwindSafe(|| {
            self.endpoint.receive(arrival, datagram, permits, &mut answer)
        }));
        let Ok(disposition) = taken else {
            if let Some(key) = self.endpoint.delivering() {
                self.lose(key);
            }
            return false;
        };
        match disposition {
            Disposition::Delivered(key) => self.touch(key),
            Disposition::Refused(key, size) => {
                self.reply(socket, answer.get(..size), path);
                self.touch(key);
            }
            Disposition::Reply(size) => self.reply(socket, answer.get(..size), path),
            Disposition::Stray(owner) => self.forward(socket, owner, arrival, bytes, path),
            Disposition::Dropped => {}
        }
        matches!(disposition, Disposition::Delivered(_) | Disposition::Refused(..))
    }

    /// Hands a stray to its owner, or tells its sender that the owner is gone.
    fn forward(&mut self, socket: usize, owner: Owner, arrival: Arrival, bytes: &[u8], path: Path) {
        let stray = Stray { bytes: bytes.to_vec(), path, listener: arrival.listener };
        match self.strays.push(owner.worker, stray) {
            Ok(()) => self.metrics.steer_forwarded.inc(),
            Err(Lost::RingFull) => self.metrics.stray_ring_full.inc(),
            Err(Lost::OwnerGone) => {
                self.metrics.steer_dead_owner.inc();
                let Ok(header) = spooky_common::invariant::parse(bytes) else { return };
                let mut answer = [0; ANSWER_SIZE];
                if let Disposition::Reply(size) =
                    self.endpoint.reset(arrival, &header, path.peer, bytes.len(), &mut answer)
                {
                    self.reply(socket, answer.get(..size), path);
                }
            }
        }
    }

    fn take_strays(&mut self, now: Instant) -> bool {
        let snapshot = self.context.snapshot();
        for _ in 0..STRAYS {
            let Some(mut stray) = self.strays.pop(self.id) else { return false };
            self.metrics.stray_received.inc();
            let socket = self.sockets.iter().position(|it| it.listener == stray.listener);
            let socket = socket.unwrap_or(usize::MAX);
            let arrival = Arrival { listener: stray.listener, forwarded: true, now };
            let datagram = Datagram { bytes: &mut stray.bytes, path: stray.path };
            self.datagram(socket, arrival, datagram, &snapshot.access);
        }
        true
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some((due, key)) = self.timers.pop_due(now) {
            let Some(connection) = self.endpoint.get_mut(key) else { continue };
            if connection.timer != Some(due) {
                // An earlier entry has replaced this one.
                continue;
            }
            connection.timer = None;
            connection.on_timeout(now, &self.metrics);
            self.touch(key);
        }
        while let Some((due, key)) = self.acks.pop_due(now) {
            if self.waits(key, due) {
                self.touch(key);
            }
        }
    }

    fn collect_posts(&mut self) {
        let mut keys = std::mem::take(&mut self.touched);
        let known = keys.len();
        self.ready.take(&mut keys);
        if !self.postponed.is_empty() && self.postponed_can_go() {
            keys.append(&mut self.postponed);
        }
        // What was touched is marked already; what was posted is not.
        let posted = keys.split_off(known);
        self.touched = keys;
        for key in posted {
            self.touch(key);
        }
    }

    /// Queues a connection for service in this turn, once.
    pub(super) fn touch(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.endpoint.get_mut(key)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.touched.push(key);
        }
    }

    // === service ===

    /// A panic costs the connection that it happened in, and no other.
    fn service_guarded(&mut self, key: ConnectionKey, now: Instant) {
        if catch_unwind(AssertUnwindSafe(|| self.service(key, now))).is_err() {
            self.lose(key);
        }
    }

    /// Takes out a connection that a panic has left in an unknown state. Its client is told by a stateless reset when it
    /// sends again.
    fn lose(&mut self, key: ConnectionKey) {
        self.metrics.panics.inc(Panicked::Connection);
        tracing::error!(worker = %self.id, "a connection was dropped because of a panic");
        let taken_out = catch_unwind(AssertUnwindSafe(|| {
            if let Some(mut connection) = self.endpoint.remove(key)
                && let Some(session) = &mut connection.session
            {
                session.close();
            }
        }));
        if taken_out.is_err() {
            tracing::error!(worker = %self.id, "and it broke again on its way out");
        }
    }

    fn service(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.endpoint.get_mut(key) else { return };
        connection.queued = false;
        if connection.became_established(now, &self.metrics) {
            let listener = connection.listener;
            let shared = self.sessions.iter().find(|it| it.listener == listener);
            let mailbox = Mailbox::new(key, Rc::clone(&self.ready));
            let session = shared.and_then(|shared| {
                let (shared, cid) = (Rc::clone(shared), connection.first_cid);
                Session::new(shared, mailbox, cid, &mut connection.transport).ok()
            });
            connection.session = session;
        }
        let client = canonical(connection.client());
        if let Some(session) = &mut connection.session {
            session.receive(&mut connection.transport, client, now, &mut self.opened);
            session.transmit(&mut connection.transport);
            connection.look_at = session.next_sweep();
        }
        let answer_comes = self.awaits_answer(key);
        self.serve_opened();
        self.endpoint.maintain(key);
        self.progress_leave(key, now);
        if answer_comes {
            let due = self.acks.wait(key, now);
            if let Some(connection) = self.endpoint.get_mut(key) {
                connection.ack_due = Some(due);
            }
        } else {
            self.transmit(key);
        }
        self.settle(key, now);
    }

    /// Whether all there is to send is an acknowledgement that can wait for an answer: one datagram has come since the last was
    /// sent (RFC 9000 §13.2.2), it brought requests, and no other response is on its way.
    fn awaits_answer(&mut self, key: ConnectionKey) -> bool {
        let opened = self.opened.len();
        let Some(connection) = self.endpoint.get_mut(key) else { return false };
        let only_those = |session: &Session| session.open_streams() == opened;
        opened > 0
            && connection.unacknowledged == 1
            && connection.ack_due.is_none()
            && !connection.transport.is_draining()
            && connection.transport.local_error().is_none()
            && connection.session.as_ref().is_some_and(only_those)
    }

    /// Whether the connection waits with its acknowledgement until then.
    fn waits(&mut self, key: ConnectionKey, due: Instant) -> bool {
        self.endpoint.get_mut(key).is_some_and(|connection| connection.ack_due == Some(due))
    }

    fn serve_opened(&mut self) {
        for exchange in self.opened.drain(..) {
            let path = exchange.head.target.path();
            self.faulty |= fault::is_asked_for(Point::Worker, path);
            fault::strike(Point::Connection, path);
            tokio::task::spawn_local(proxy::serve(exchange, Rc::clone(&self.context)));
        }
    }

    /// Takes a closed connection out, or sets its timer.
    fn settle(&mut self, key: ConnectionKey, now: Instant) {
        let Some(connection) = self.endpoint.get_mut(key) else { return };
        if connection.is_over() {
            if let Some(mut connection) = self.endpoint.remove(key)
                && let Some(session) = &mut connection.session
            {
                session.close();
            }
            return;
        }
        connection.report_when_due(now, &self.metrics);
        let deadline = connection.deadline();
        self.timers.arm(key, &mut connection.timer, deadline);
    }

    // === waiting ===

    fn recycle(&mut self, mut touched: Vec<ConnectionKey>) {
        // Whatever was touched during service waits for the next turn; the memory is kept.
        touched.clear();
        touched.append(&mut self.touched);
        self.touched = touched;
    }

    /// Until when to sleep unless something comes.
    fn arm_sleep(
        &mut self,
        cx: &mut Context<'_>,
        mut sleep: Pin<&mut Sleep>,
        now: Instant,
    ) -> Instant {
        let heartbeat = now + HEARTBEAT;
        let Self { acks, endpoint, timers, .. } = self;
        let ack = acks.next(|key, due| {
            endpoint.get_mut(key).is_some_and(|connection| connection.ack_due == Some(due))
        });
        let wake = [ack, timers.next()].into_iter().flatten().fold(heartbeat, Instant::min);
        // Set again only when it is too late, or so early that it would wake for nothing.
        let set = sleep.deadline().into_std();
        if set > wake || set <= now {
            sleep.as_mut().reset(wake.into());
        }
        if sleep.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        wake
    }
}
