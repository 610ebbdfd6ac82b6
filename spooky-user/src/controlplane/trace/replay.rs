//! The second run: each frame of a trace through the host's copy of the decision, and through the kernel's where that may be
//! loaded, beside what was seen when the frame came. May import: bed, file, state.

use std::fmt;
use std::net::SocketAddr;

use spooky_common::counter::Counter;
use spooky_common::frame::{self, Tuple};
use spooky_common::invariant::{self, Form, Header, Kind};

use super::bed::Bed;
use super::state::{self, Spent, ip};
use super::{Frame, Trace};
use crate::controlplane::kernel::KernelError;

/// One frame, judged again.
#[derive(Debug, Clone, Copy)]
pub struct Replayed<'a> {
    /// Its place in the trace, from 1.
    pub number: usize,
    /// The frame as it was recorded.
    pub frame: &'a Frame,
    /// What was recorded; `None` for words that this program does not know.
    pub recorded: Option<Counter>,
    /// The decision on the host.
    pub host: Counter,
    /// The kernel's; `None` without it.
    pub kernel: Option<Counter>,
}

/// Judges every frame again, in order, and hands each to `each`. With `kernel`, in the kernel, too. How many do not agree.
///
/// # Errors
/// [`KernelError`] when the kernel's object cannot be loaded or run.
pub fn replay(
    trace: &Trace,
    kernel: bool,
    mut each: impl FnMut(&Replayed<'_>),
) -> Result<usize, KernelError> {
    let mut bed = if kernel { Some(Bed::new(&trace.state)?) } else { None };
    let mut apart = 0;
    for (number, frame) in (1..).zip(&trace.frames) {
        let mut octets = frame.whole();
        let recorded = state::counter(&frame.verdict, &frame.reason);
        let spent = Spent::of(recorded);
        let kernel = match &mut bed {
            Some(bed) => bed.run(frame.queue, spent, &octets)?,
            None => None,
        };
        let host = trace.state.decide(frame.queue, spent, &mut octets);
        let replayed = Replayed { number, frame, recorded, host, kernel };
        apart += usize::from(!replayed.agrees());
        each(&replayed);
    }
    Ok(apart)
}

// === impl Replayed ===

impl Replayed<'_> {
    /// Whether all say the same.
    #[must_use]
    pub fn agrees(&self) -> bool {
        let same = |it: Counter| {
            self.recorded.is_some_and(|recorded| as_replayed(recorded) == as_replayed(it))
        };
        same(self.host) && self.kernel.is_none_or(same)
    }
}

/// A replay has no AF_XDP socket, so the kernel passes what it would redirect.
fn as_replayed(counter: Counter) -> Counter {
    match counter {
        Counter::XdpRedirected => Counter::XdpOwner,
        Counter::XdpRedirectedNew => Counter::XdpNewFlow,
        other => other,
    }
}

/// `12  +3.250 ms  queue 0  198.51.100.7:4433 > 192.0.2.9:443  1242  Initial  drop denied`, and on disagreement who says
/// what else.
impl fmt::Display for Replayed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.frame;
        let milliseconds = frame.at_ns as f64 / 1e6;
        write!(f, "{:>5}  +{milliseconds:.3} ms  queue {}  ", self.number, frame.queue)?;
        packet(f, &frame.octets)?;
        write!(f, "  {}  {} {}", frame.length, frame.verdict, frame.reason)?;
        if self.agrees() {
            return Ok(());
        }
        f.write_str("  APART: the host says ")?;
        said(f, self.host)?;
        if let Some(kernel) = self.kernel {
            f.write_str(", the kernel ")?;
            said(f, kernel)?;
        }
        Ok(())
    }
}

fn said(f: &mut fmt::Formatter<'_>, counter: Counter) -> fmt::Result {
    for (place, (_, value)) in counter.describe().labels.iter().enumerate() {
        write!(f, "{}{value}", if place > 0 { " " } else { "" })?;
    }
    Ok(())
}

/// Where it goes and what it says of itself, as far as its headers can be read.
fn packet(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    let mut cursor = octets;
    match frame::udp(&mut cursor) {
        Err(opaque) => write!(f, "{opaque:?}"),
        Ok(tuple) => {
            let Tuple { source, destination, source_port, destination_port, payload_len, .. } =
                tuple;
            let source = SocketAddr::new(ip(&source), source_port);
            let destination = SocketAddr::new(ip(&destination), destination_port);
            write!(f, "{source} > {destination}  ")?;
            match invariant::read(&mut cursor, usize::from(payload_len)) {
                Err(malformed) => write!(f, "{malformed:?}"),
                Ok(header) => quic(f, &header),
            }
        }
    }
}

fn quic(f: &mut fmt::Formatter<'_>, header: &Header) -> fmt::Result {
    match header.form {
        Form::Short => f.write_str("short")?,
        Form::Long { kind: Kind::OtherVersion, version } => write!(f, "version {version:#010x}")?,
        Form::Long { kind, .. } => write!(f, "{kind:?}")?,
    }
    write!(f, " {}", super::hex::text(header.dcid()))
}
