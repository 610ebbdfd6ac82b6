//! Drives one pooled connection: moves its frames, notices GOAWAY and a changed stream limit, keeps its timers.

use std::cell::Cell;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep, sleep_until};

use super::cluster::{Keepalive, Settings};
use super::connect::{self, ConnectError, Transport};
use super::connection::Connection;
use super::pool::Pool;
use super::wire::{Spare, Wire};

/// Time for GOAWAY and the TLS and TCP farewell of a connection without streams.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// In order: idle, drained, or the backend said GOAWAY and all streams ended.
    Closed,
    /// It broke, or one side broke the protocol.
    Lost(h2::Error),
    /// The backend did not answer a PING.
    Unanswered,
}

/// An open connection that nobody knows yet.
pub(super) struct Opened {
    sender: SendRequest<Bytes>,
    http2: h2::client::Connection<Wire<Transport>, Bytes>,
    wire: Wire<Transport>,
    heard_at: Option<Rc<Cell<Instant>>>,
}

struct Driver {
    pool: Rc<Pool>,
    connection: Rc<Connection>,
    http2: h2::client::Connection<Wire<Transport>, Bytes>,
    wire: Wire<Transport>,
    keepalive: Option<Pinger>,
    timer: Pin<Box<Sleep>>,
    /// `timer` fires then; `None` when it has fired and was not set again.
    armed: Option<Instant>,
    /// Set when the farewell began.
    closing_until: Option<Instant>,
}

/// The keepalive of one connection.
struct Pinger {
    settings: Keepalive,
    pings: PingPong,
    heard_at: Rc<Cell<Instant>>,
    asked_at: Option<Instant>,
}

/// What the timers ask for.
enum Due {
    /// Something was done that h2 must see first.
    Again,
    /// Nothing before then.
    At(Option<Instant>),
    /// The connection is over.
    Over(End),
}

/// Opens a connection. Dropping the future closes it.
pub(super) async fn open(
    address: SocketAddr,
    settings: &Settings,
    spare: Rc<Spare>,
) -> Result<Opened, ConnectError> {
    let transport = connect::transport(address, settings.tls.as_ref()).await?;
    let heard_at = settings.keepalive.map(|_| Rc::new(Cell::new(Instant::now())));
    let wire = Wire::new(transport, spare, heard_at.clone());
    let other = wire.handle();
    let (sender, http2) = connect::http2(wire, settings).await?;
    Ok(Opened { sender, http2, wire: other, heard_at })
}

// === impl Opened ===

impl Opened {
    /// Hands the connection to its pool and serves it until it ends.
    pub(super) async fn drive(mut self, pool: Rc<Pool>) -> End {
        let connection = Connection::new(&pool, self.sender);
        connection.set_limit(pool.limit(self.http2.max_concurrent_send_streams()));
        let keepalive =
            pool.settings().keepalive.zip(self.heard_at).and_then(|(settings, heard_at)| {
                let pings = self.http2.ping_pong()?;
                Some(Pinger { settings, pings, heard_at, asked_at: None })
            });
        pool.add(&connection);
        self.wire.gather();
        let driver = Driver {
            pool: Rc::clone(&pool),
            connection,
            http2: self.http2,
            wire: self.wire,
            keepalive,
            timer: Box::pin(sleep_until(Instant::now())),
            armed: None,
            closing_until: None,
        };
        pool.pump();
        driver.await
    }
}

// === impl Driver ===

impl Future for Driver {
    type Output = End;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = self.get_mut();
        this.connection.watch(cx.waker());
        loop {
            if let Poll::Ready(result) = Pin::new(&mut this.http2).poll(cx) {
                return Poll::Ready(result.map_or_else(End::Lost, |()| End::Closed));
            }
            if this.wire.poll_send(cx) == Poll::Ready(false) {
                continue;
            }
            this.observe();
            if let Some(pinger) = &mut this.keepalive {
                pinger.poll_answer(cx);
            }
            match this.on_time(Instant::now()) {
                Due::Again => continue,
                Due::Over(end) => return Poll::Ready(end),
                Due::At(next) => this.arm(next),
            }
            if this.armed.is_none() || this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.armed = None;
            this.connection.set_armed(None);
        }
    }
}

impl Driver {
    /// What the frames just read have changed.
    fn observe(&self) {
        if !self.connection.is_open() {
            return;
        }
        if self.connection.is_lost() {
            // RFC 9113 §6.8: no new streams after GOAWAY; those below its last stream go on.
            self.connection.retire();
            self.pool.pump();
        } else if self
            .connection
            .set_limit(self.pool.limit(self.http2.max_concurrent_send_streams()))
        {
            self.pool.pump();
        }
    }

    fn on_time(&mut self, now: Instant) -> Due {
        if self.connection.release_held(now) {
            self.pool.pump();
        }
        if !self.connection.is_open() && self.connection.is_unused() {
            return self.close(now);
        }
        let idle = self.connection.idle_due(self.pool.idle_timeout());
        if self.connection.is_open() && idle.is_some_and(|due| due <= now) {
            self.connection.retire();
            return Due::Again;
        }
        let held = self.connection.held_until();
        let idle = idle.filter(|_| self.connection.is_open());
        match self.keepalive.as_mut().map_or(Due::At(None), |pinger| pinger.on_time(now)) {
            Due::At(ping) => Due::At([held, idle, ping].into_iter().flatten().min()),
            other => other,
        }
    }

    /// Without handles and streams h2 sends GOAWAY and closes; a backend that does not read must not keep the socket.
    fn close(&mut self, now: Instant) -> Due {
        if self.connection.release_sender() {
            self.closing_until = Some(now + CLOSE_TIMEOUT);
            return Due::Again;
        }
        match self.closing_until {
            Some(until) if until > now => Due::At(Some(until)),
            _ => Due::Over(End::Closed),
        }
    }

    /// Sets the timer if it would fire too late. One that fires early finds nothing due and is set again: cheaper than
    /// moving it at each request.
    fn arm(&mut self, next: Option<Instant>) {
        let Some(next) = next else { return };
        if self.armed.is_none_or(|armed| armed > next) {
            self.timer.as_mut().reset(next);
            self.armed = Some(next);
            self.connection.set_armed(self.armed);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.pool.on_closed(&self.connection);
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Driver").field(&self.connection).finish()
    }
}

// === impl Pinger ===

impl Pinger {
    fn poll_answer(&mut self, cx: &mut Context<'_>) {
        if self.asked_at.is_some() && self.pings.poll_pong(cx).is_ready() {
            self.asked_at = None;
        }
    }

    /// An octet received counts as a sign of life too: a PING acknowledgement may stand behind a lot of DATA.
    fn on_time(&mut self, now: Instant) -> Due {
        let heard = self.heard_at.get();
        if let Some(asked) = self.asked_at {
            let due = heard.max(asked) + self.settings.timeout;
            return if due <= now { Due::Over(End::Unanswered) } else { Due::At(Some(due)) };
        }
        let due = heard + self.settings.interval;
        if due > now {
            return Due::At(Some(due));
        }
        self.asked_at = Some(now);
        // It fails only on a connection that is ending, whose end h2 reports.
        match self.pings.send_ping(Ping::opaque()) {
            Ok(()) => Due::Again,
            Err(_) => Due::At(None),
        }
    }
}
