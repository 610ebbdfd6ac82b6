//! Turns what a connection has to send into trains: datagrams of one path and one size, for one send call each (GSO).

use super::buffers::Transport;
use super::migration::{Destination, Migration};
use super::validation::Credit;
use crate::dataplane::packet::Path;
use crate::dataplane::packet::udp::Train;

/// Octets one connection may send in one turn, so that a fast download does not keep the others waiting.
const TURN_OCTETS: usize = 512 * 1024;
/// The kernel takes at most 64 KiB in one call, headers included.
const TRAIN_OCTETS: usize = 64_000;
/// No datagram we send is larger.
const DATAGRAM_OCTETS: usize = 1500;

/// The buffer trains are built in. One for each worker.
pub struct Builder {
    buffer: Box<[u8]>,
}

/// How a connection's turn at sending ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to send now.
    Idle,
    /// It has had its share; more is waiting.
    More,
    /// The socket is full.
    Blocked,
}

/// The socket did not take a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked;

/// The train being built.
struct Open {
    start: usize,
    end: usize,
    segments: usize,
    segment_size: usize,
    path: Option<Path>,
}

// === impl Builder ===

impl Builder {
    /// Allocates the buffer.
    #[must_use]
    pub fn new() -> Self {
        Self { buffer: vec![0; TRAIN_OCTETS].into_boxed_slice() }
    }

    /// Sends what `transport` has and `credit` lets out, where `migration` says, in trains of at most `max_segments`. `send` is
    /// called once for each train; when it says [`Blocked`] it has kept a copy.
    pub(super) fn transmit(
        &mut self,
        transport: &mut Transport,
        migration: &mut Migration,
        credit: &mut Credit,
        max_segments: usize,
        mut send: impl FnMut(Train<'_>) -> Result<(), Blocked>,
    ) -> Outcome {
        let mut open = Open::new();
        let mut sent = 0;
        loop {
            if self.buffer.len() - open.end < DATAGRAM_OCTETS || open.segments >= max_segments {
                sent += open.end;
                if open.close(&self.buffer, &mut send).is_err() {
                    return Outcome::Blocked;
                }
                open = Open::new();
                if sent >= TURN_OCTETS {
                    return Outcome::More;
                }
            }
            let room = match credit.datagram().map(usize::try_from) {
                None => DATAGRAM_OCTETS,
                Some(Ok(0)) => {
                    credit.bites();
                    break;
                }
                Some(room) => room.unwrap_or(DATAGRAM_OCTETS),
            };
            let end = self.buffer.len().min(open.end + room);
            let Some(space) = self.buffer.get_mut(open.end..end) else { return Outcome::Idle };
            let (size, Destination { path, copy }) = match migration.send(transport, space) {
                Ok(made) => made,
                Err(quiche::Error::Done) => break,
                Err(error) => {
                    // RFC 9000 §20.1 INTERNAL_ERROR: the state cannot be trusted any more. A second close is a no-op.
                    tracing::debug!(%error, "a packet could not be made");
                    let _ = transport.close(false, 0x1, b"");
                    break;
                }
            };
            credit.charge(size);
            if !open.takes(size, path) {
                if open.close(&self.buffer, &mut send).is_err() {
                    return Outcome::Blocked;
                }
                open = Open { start: open.end, end: open.end, ..Open::new() };
            }
            open.add(size, path);
            if let Some(path) = copy {
                if open.close(&self.buffer, &mut send).is_err() {
                    return Outcome::Blocked;
                }
                open = Open { start: open.end - size, end: open.end - size, ..Open::new() };
                open.add(size, path);
                if open.close(&self.buffer, &mut send).is_err() {
                    return Outcome::Blocked;
                }
                open = Open { start: open.end, end: open.end, ..Open::new() };
            }
        }
        match open.close(&self.buffer, &mut send) {
            Ok(()) => Outcome::Idle,
            Err(Blocked) => Outcome::Blocked,
        }
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder").finish_non_exhaustive()
    }
}

// === impl Open ===

impl Open {
    const fn new() -> Self {
        Self { start: 0, end: 0, segments: 0, segment_size: 0, path: None }
    }

    /// All datagrams of a train but the last have one size, and the last is not larger.
    fn takes(&self, size: usize, path: Path) -> bool {
        let length = self.end - self.start;
        self.segments == 0
            || (self.path == Some(path)
                && size <= self.segment_size
                && length == self.segments * self.segment_size)
    }

    fn add(&mut self, size: usize, path: Path) {
        if self.segments == 0 {
            self.segment_size = size;
            self.path = Some(path);
        }
        self.segments += 1;
        self.end += size;
    }

    fn close(
        &self,
        buffer: &[u8],
        send: &mut impl FnMut(Train<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        match (self.path, buffer.get(self.start..self.end)) {
            (Some(path), Some(bytes)) if !bytes.is_empty() => {
                send(Train { bytes, segment_size: self.segment_size, path })
            }
            _ => Ok(()),
        }
    }
}
