//! The byte stream below one HTTP/2 connection, with fewer and larger system calls than h2 makes by itself: h2 writes once
//! for each DATA frame and reads some 8 KiB at a time.
//!
//! Writes gather in a block of [`BLOCK_SIZE`] octets and go out when it is full or when the driver's turn is over
//! ([`Wire::poll_send`]), so nothing waits for a later turn. Reads take what the socket has, up to a block, and hand it to h2
//! in the pieces it asks for. A connection holds a block only while octets are in it: an idle one holds none. May import:
//! nothing of the crate.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Four frames of the usual 16 KiB; small enough to stay in a core's cache between being filled and being emptied.
pub(super) const BLOCK_SIZE: usize = 64 * 1024;

/// Blocks that a worker keeps for its connections: those of a turn come back before the next connection's turn, except where
/// a socket is full.
const SPARE_MAX: usize = 4;

/// The empty blocks of one worker.
#[derive(Debug, Default)]
pub(super) struct Spare(RefCell<Vec<Box<[u8]>>>);

/// Octets on their way: those from `start` to `end`.
struct Block {
    octets: Box<[u8]>,
    start: usize,
    end: usize,
}

/// One end of the stream. h2 has one handle, the driver another.
pub(super) struct Wire<T>(Rc<RefCell<State<T>>>);

struct State<T> {
    transport: T,
    spare: Rc<Spare>,
    /// Read and not yet asked for.
    ahead: Option<Block>,
    /// Written and not yet sent.
    gathered: Option<Block>,
    /// The transport may hold octets of its own (TLS records).
    unflushed: bool,
    /// A driver ends its turns with [`Wire::poll_send`]; before that, a flush is one.
    gathering: bool,
    /// Sending failed between two calls of h2, which is told at its next one.
    failed: Option<io::Error>,
    /// When octets came last, for who wants to know.
    heard_at: Option<Rc<Cell<Instant>>>,
}

// === impl Spare ===

impl Spare {
    fn take(&self) -> Block {
        let octets = self.0.borrow_mut().pop();
        let octets = octets.unwrap_or_else(|| vec![0; BLOCK_SIZE].into_boxed_slice());
        Block { octets, start: 0, end: 0 }
    }

    fn give_back(&self, block: Block) {
        let mut blocks = self.0.borrow_mut();
        if blocks.len() < SPARE_MAX {
            blocks.push(block.octets);
        }
    }
}

// === impl Block ===

impl Block {
    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn filled(&self) -> &[u8] {
        self.octets.get(self.start..self.end).unwrap_or_default()
    }

    /// Appends what fits of `bytes`; returns how much that is.
    fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.octets.get_mut(self.end..).unwrap_or_default();
        let size = room.len().min(bytes.len());
        if let (Some(to), Some(from)) = (room.get_mut(..size), bytes.get(..size)) {
            to.copy_from_slice(from);
        }
        self.end += size;
        size
    }

    /// Moves what fits into `buf`.
    fn drain(&mut self, buf: &mut ReadBuf<'_>) {
        let filled = self.filled();
        let size = filled.len().min(buf.remaining());
        buf.put_slice(filled.get(..size).unwrap_or_default());
        self.start += size;
    }
}

// === impl Wire ===

impl<T> Wire<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(super) fn new(transport: T, spare: Rc<Spare>, heard_at: Option<Rc<Cell<Instant>>>) -> Self {
        Self(Rc::new(RefCell::new(State {
            transport,
            spare,
            ahead: None,
            gathered: None,
            unflushed: false,
            gathering: false,
            failed: None,
            heard_at,
        })))
    }

    /// The driver's handle; the other one is h2's.
    pub(super) fn handle(&self) -> Self {
        Self(Rc::clone(&self.0))
    }

    /// From now on it is the driver that sends, at the end of each turn.
    pub(super) fn gather(&self) {
        self.0.borrow_mut().gathering = true;
    }

    /// Sends what has gathered. Ready with `true` when there is nothing left, with `false` when the stream is broken, which
    /// h2 finds when it is polled next.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.borrow_mut();
        if state.failed.is_some() {
            return Poll::Ready(true);
        }
        ready!(state.poll_send(cx)).map_or_else(
            |error| {
                state.failed = Some(error);
                Poll::Ready(false)
            },
            |()| Poll::Ready(true),
        )
    }
}

impl<T> fmt::Debug for Wire<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl<T> State<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    /// The error that sending ended with, to each who asks.
    fn check(&self) -> io::Result<()> {
        match &self.failed {
            Some(error) => Err(error.raw_os_error().map_or_else(
                || io::Error::new(error.kind(), error.to_string()),
                io::Error::from_raw_os_error,
            )),
            None => Ok(()),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(block) = &mut self.gathered {
            while !block.is_empty() {
                let sent = ready!(Pin::new(&mut self.transport).poll_write(cx, block.filled()))?;
                if sent == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                block.start += sent;
                self.unflushed = true;
            }
        }
        if let Some(block) = self.gathered.take() {
            self.spare.give_back(block);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.transport).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.gathered.as_ref().is_some_and(|block| block.end == block.octets.len()) {
            ready!(self.poll_send(cx))?;
        }
        let block = self.gathered.get_or_insert_with(|| self.spare.take());
        let mut taken = 0;
        for buf in bufs {
            let size = block.append(buf);
            taken += size;
            if size < buf.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        if self.ahead.is_none() {
            let mut block = self.spare.take();
            let mut space = ReadBuf::new(&mut block.octets);
            let result = Pin::new(&mut self.transport).poll_read(cx, &mut space);
            let size = space.filled().len();
            if !matches!(result, Poll::Ready(Ok(()))) || size == 0 {
                self.spare.give_back(block);
                return result;
            }
            block.end = size;
            if let Some(at) = &self.heard_at {
                at.set(Instant::now());
            }
            self.ahead = Some(block);
        }
        if let Some(block) = &mut self.ahead {
            block.drain(buf);
        }
        if let Some(block) = self.ahead.take_if(|block| block.is_empty()) {
            self.spare.give_back(block);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T> AsyncRead for Wire<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl<T> AsyncWrite for Wire<T>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    /// h2 hands over a frame and its payload as they are: there is nothing to gain from copying them before.
    fn is_write_vectored(&self) -> bool {
        true
    }

    /// h2 flushes after each DATA frame; what it has gathered goes at the end of the driver's turn.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        state.check()?;
        if state.gathering { Poll::Ready(Ok(())) } else { state.poll_send(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.borrow_mut();
        state.check()?;
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.transport).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// A wire and its far end, which takes `capacity` octets before it is full.
    fn wire(capacity: usize) -> (Wire<DuplexStream>, DuplexStream, Rc<Spare>) {
        let (near, far) = duplex(capacity);
        let spare = Rc::<Spare>::default();
        (Wire::new(near, Rc::clone(&spare), None), far, spare)
    }

    fn pattern(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    async fn send(wire: &Wire<DuplexStream>) -> bool {
        std::future::poll_fn(|cx| wire.poll_send(cx)).await
    }

    fn available(far: &mut DuplexStream) -> usize {
        let mut octets = vec![0; 1 << 20];
        let mut buf = ReadBuf::new(&mut octets);
        let mut cx = Context::from_waker(Waker::noop());
        let _ = Pin::new(far).poll_read(&mut cx, &mut buf);
        buf.filled().len()
    }

    #[tokio::test]
    async fn frames_go_together_when_the_turn_ends() {
        let (mut wire, mut far, spare) = wire(1 << 20);
        wire.write_all(b"preface").await.unwrap();
        wire.flush().await.unwrap();
        assert_eq!(available(&mut far), 7, "nobody ends turns yet");
        wire.gather();
        for _ in 0..3 {
            wire.write_all(&pattern(1000)).await.unwrap();
            wire.flush().await.unwrap();
        }
        assert_eq!(available(&mut far), 0);
        assert!(send(&wire).await);
        assert_eq!(available(&mut far), 3000);
        assert_eq!(spare.0.borrow().len(), 1, "an idle wire holds no block");
    }

    #[tokio::test]
    async fn what_gathers_is_bounded_and_arrives_in_order() {
        let (mut wire, mut far, _spare) = wire(1000);
        wire.gather();
        let sent = pattern(3 * BLOCK_SIZE + 77);
        let mut cx = Context::from_waker(Waker::noop());
        let mut taken = 0;
        while let Poll::Ready(size) = Pin::new(&mut wire).poll_write(&mut cx, &sent[taken..]) {
            taken += size.unwrap();
        }
        assert_eq!(taken, BLOCK_SIZE, "a full block waits for the socket");
        let expected = sent.clone();
        let writer = async move {
            wire.write_all(&sent[taken..]).await.unwrap();
            wire.shutdown().await.unwrap();
            wire
        };
        let reader = async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        };
        let (_wire, got) = tokio::join!(writer, reader);
        assert!(got == expected);
    }

    #[tokio::test]
    async fn octets_read_ahead_come_in_the_pieces_asked_for() {
        let (mut wire, mut far, spare) = wire(1 << 20);
        let sent = pattern(BLOCK_SIZE + 5000);
        far.write_all(&sent).await.unwrap();
        drop(far);
        let mut got = Vec::new();
        let mut piece = [0; 900];
        loop {
            let size = wire.read(&mut piece).await.unwrap();
            if size == 0 {
                break;
            }
            got.extend_from_slice(&piece[..size]);
        }
        assert!(got == sent);
        assert_eq!(spare.0.borrow().len(), 1, "an idle wire holds no block");
    }

    #[tokio::test]
    async fn h2_is_told_when_sending_failed_between_its_calls() {
        let (mut wire, far, _spare) = wire(100);
        wire.gather();
        wire.write_all(&pattern(1000)).await.unwrap();
        drop(far);
        assert!(!send(&wire).await, "broken");
        assert!(send(&wire).await, "said once");
        for _ in 0..2 {
            assert_eq!(wire.read_u8().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(wire.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(wire.flush().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }

    #[test]
    fn few_blocks_are_kept() {
        let spare = Spare::default();
        let blocks: Vec<Block> = (0..2 * SPARE_MAX).map(|_| spare.take()).collect();
        for block in blocks {
            spare.give_back(block);
        }
        assert_eq!(spare.0.borrow().len(), SPARE_MAX);
    }
}
