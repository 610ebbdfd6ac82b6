//! A trace as a file: JSON, one value a line. The first line is the head, with the state of the maps; each other line is a
//! frame, in the order in which they came. Reads and writes; decides nothing. May import: state, hex.

use std::fmt;
use std::io::{self, BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};

use super::State;
use super::hex;

/// Version of this form.
const FORM: u32 = 1;

/// Octets kept of a frame: all headers that a verdict depends on, and nothing of what is encrypted behind them.
pub const KEPT: usize = 512;

/// The longest frame that XDP sees in one buffer: a page less what the kernel keeps before and behind it.
pub const LENGTH_MAX: usize = 3520;

/// The shortest: the kernel runs its programs over no frame without an Ethernet header.
pub const LENGTH_MIN: usize = 14;

/// Frames of one trace.
pub const FRAMES_MAX: usize = 100_000;

/// Octets of a line: a frame's in hexadecimal, or the state with thousands of listed sources.
const LINE_MAX: u64 = 4 << 20;

/// Packets and the state they met.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What the maps held when the capture ended.
    pub state: State,
    /// Frames that came faster than they could be taken.
    pub lost: u64,
    /// In the order in which they came.
    pub frames: Vec<Frame>,
}

/// One frame at the XDP hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Nanoseconds since the first frame.
    pub at_ns: u64,
    /// Receive queue.
    pub queue: u32,
    /// Octets of the frame on the wire, from the Ethernet header on; what `octets` lacks is zero in a replay.
    pub length: usize,
    /// Its first octets, at most [`KEPT`].
    #[serde(with = "hex")]
    pub octets: Vec<u8>,
    /// What the program did: `pass`, `drop`, `redirect`, `transmit`.
    pub verdict: String,
    /// And why: the label of the counter.
    pub reason: String,
}

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    spooky_trace: u32,
    lost: u64,
    state: State,
}

/// Why a trace cannot be read.
#[derive(Debug)]
pub enum TraceError {
    /// The file cannot be read or written.
    File(io::Error),
    /// It is empty.
    Empty,
    /// It is of another form than this program reads.
    Form(u32),
    /// A line is not what it should be.
    Line {
        /// Its number, from 1.
        number: usize,
        /// What is wrong.
        what: String,
    },
}

// === impl Trace ===

impl Trace {
    /// Reads a whole trace.
    ///
    /// # Errors
    /// [`TraceError`] with the line.
    pub fn read(from: impl BufRead) -> Result<Self, TraceError> {
        let mut lines = Lines { from, number: 0 };
        let first = lines.next()?.ok_or(TraceError::Empty)?;
        let head: Head = lines.parse(&first)?;
        if head.spooky_trace != FORM {
            return Err(TraceError::Form(head.spooky_trace));
        }
        let mut frames = Vec::new();
        while let Some(line) = lines.next()? {
            let frame: Frame = lines.parse(&line)?;
            lines.check(&frame, frames.len())?;
            frames.push(frame);
        }
        Ok(Self { state: head.state, lost: head.lost, frames })
    }

    /// Writes it.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        let head = Head { spooky_trace: FORM, lost: self.lost, state: self.state.clone() };
        serde_json::to_writer(&mut to, &head)?;
        to.write_all(b"\n")?;
        for frame in &self.frames {
            serde_json::to_writer(&mut to, frame)?;
            to.write_all(b"\n")?;
        }
        to.flush()
    }
}

impl Frame {
    /// The frame at its length, zero where nothing was kept.
    #[must_use]
    pub fn whole(&self) -> Vec<u8> {
        let mut octets = self.octets.clone();
        octets.resize(self.length, 0);
        octets
    }
}

/// The lines, counted.
struct Lines<R> {
    from: R,
    number: usize,
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> Result<Option<String>, TraceError> {
        let mut line = String::new();
        self.number += 1;
        let read = self.from.by_ref().take(LINE_MAX).read_line(&mut line);
        match read {
            Ok(0) => Ok(None),
            Ok(length) if length as u64 >= LINE_MAX && !line.ends_with('\n') => {
                Err(self.wrong(format!("longer than {LINE_MAX} octets")))
            }
            Ok(_) => Ok(Some(line)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(self.wrong("not UTF-8".to_owned()))
            }
            Err(error) => Err(TraceError::File(error)),
        }
    }

    fn parse<'de, T: Deserialize<'de>>(&self, line: &'de str) -> Result<T, TraceError> {
        serde_json::from_str(line).map_err(|error| self.wrong(error.to_string()))
    }

    fn check(&self, frame: &Frame, before: usize) -> Result<(), TraceError> {
        let wrong = if before >= FRAMES_MAX {
            format!("more than {FRAMES_MAX} frames")
        } else if !(LENGTH_MIN..=LENGTH_MAX).contains(&frame.length) {
            format!("length {} is not from {LENGTH_MIN} to {LENGTH_MAX}", frame.length)
        } else if frame.octets.len() > frame.length.min(KEPT) {
            format!("{} octets are more than {} or the length", frame.octets.len(), KEPT)
        } else {
            return Ok(());
        };
        Err(self.wrong(wrong))
    }

    fn wrong(&self, what: String) -> TraceError {
        TraceError::Line { number: self.number, what }
    }
}

// === impl TraceError ===

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Empty => f.write_str("the file is empty; `spooky trace capture` makes one"),
            Self::Form(form) => {
                write!(f, "form {form} of a trace; this program reads form {FORM}")
            }
            Self::Line { number, what } => write!(f, "line {number}: {what}"),
        }
    }
}

impl std::error::Error for TraceError {}
