//! What the loop sleeps on: sockets by their slots, and one precise timer. Knows no connection.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

/// Sockets one wait tells of.
const EVENTS: usize = 256;
/// The timer among the slots.
const TIMER: u64 = u64::MAX;

/// An epoll instance with a timer: epoll itself counts in milliseconds.
#[derive(Debug)]
pub(crate) struct Wake {
    epoll: OwnedFd,
    timer: OwnedFd,
    armed: Option<Instant>,
}

// === impl Wake ===

impl Wake {
    /// # Errors
    /// What the system said.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let data = epoll::EventData::new_u64(TIMER);
        epoll::add(&epoll, &timer, data, epoll::EventFlags::IN)?;
        Ok(Self { epoll, timer, armed: None })
    }

    /// From now on [`Wake::wait`] gives `slot` when there is something to read; until the socket is closed.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn add(&self, socket: impl AsFd, slot: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(slot as u64);
        Ok(epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?)
    }

    /// The next wait ends at `due` at the latest; costs nothing when that was set before.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn arm(&mut self, due: Option<Instant>) -> io::Result<()> {
        if self.armed == due {
            return Ok(());
        }
        let value = match due {
            // Zero would disarm it.
            Some(due) => due.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)),
            None => Duration::ZERO,
        };
        let it_value = Timespec::try_from(value).map_err(io::Error::other)?;
        let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval, it_value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &setting)?;
        self.armed = due;
        Ok(())
    }

    /// Adds the slots that have something to read; none when the time is over or the timer has fired.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn wait(&self, time: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
        // What is less than a millisecond would become none, and the loop would spin.
        let timeout = Timespec::try_from(time.max(Duration::from_millis(1)));
        let timeout = timeout.map_err(io::Error::other)?;
        let mut events = [MaybeUninit::uninit(); EVENTS];
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok((told, _)) => {
                let slots = told.iter().map(|event| event.data.u64());
                ready.extend(slots.filter(|slot| *slot != TIMER).map(|slot| slot as usize));
                Ok(())
            }
            Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
