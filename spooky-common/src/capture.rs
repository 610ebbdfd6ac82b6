//! The ring-buffer record of one captured frame: how it began, and what the program decided. Imports
//! [`crate::counter`].

use crate::counter::Counter;

/// Octets kept of a captured frame: all headers that a verdict depends on.
pub const CAPTURE_OCTETS: usize = 512;

/// A frame that was captured. 536 octets, no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Capture {
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
    pub at_ns: u64,
    /// Receive queue.
    pub queue: u32,
    /// Octets of the frame.
    pub length: u32,
    /// How many of `octets` came from the frame.
    pub kept: u32,
    /// [`Counter`] as a number.
    pub counter: u32,
    /// The first octets of the frame; behind `kept`, whatever the buffer held before.
    pub octets: [u8; CAPTURE_OCTETS],
}

impl Capture {
    /// What was decided; `None` for a number this version does not know.
    #[must_use]
    pub fn counter(&self) -> Option<Counter> {
        Counter::ALL.get(self.counter as usize).copied()
    }

    /// What was kept of the frame.
    #[must_use]
    pub fn kept(&self) -> &[u8] {
        self.octets.get(..self.kept as usize).unwrap_or(&self.octets)
    }

    /// The record in the octets of the ring buffer; `None` when there are not exactly as many as a record has.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; size_of::<Self>()] = octets.try_into().ok()?;
        let (at_ns, rest) = octets.split_first_chunk::<8>()?;
        let (numbers, rest) = rest.split_first_chunk::<16>()?;
        let ([queue, length, kept, counter], _) = numbers.as_chunks::<4>() else { return None };
        let octets = rest.first_chunk::<CAPTURE_OCTETS>()?;
        Some(Self {
            at_ns: u64::from_ne_bytes(*at_ns),
            queue: u32::from_ne_bytes(*queue),
            length: u32::from_ne_bytes(*length),
            kept: u32::from_ne_bytes(*kept),
            counter: u32::from_ne_bytes(*counter),
            octets: *octets,
        })
    }
}

const _: () = assert!(size_of::<Capture>() == 24 + CAPTURE_OCTETS && align_of::<Capture>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_the_kernel_lays_out() {
        let mut octets = [0; size_of::<Capture>()];
        octets[..8].copy_from_slice(&77_u64.to_ne_bytes());
        for (place, number) in [3_u32, 1242, 3, Counter::XdpDenied.index()].iter().enumerate() {
            octets[8 + 4 * place..12 + 4 * place].copy_from_slice(&number.to_ne_bytes());
        }
        octets[24..27].copy_from_slice(&[1, 2, 3]);
        let capture = Capture::read(&octets).expect("a whole record");
        assert_eq!((capture.at_ns, capture.queue, capture.length), (77, 3, 1242));
        assert_eq!((capture.kept(), capture.counter()), (&[1, 2, 3][..], Some(Counter::XdpDenied)));
        assert_eq!(Capture::read(&octets[1..]), None);
        octets[20..24].copy_from_slice(&9999_u32.to_ne_bytes());
        octets[16..20].copy_from_slice(&9999_u32.to_ne_bytes());
        let odd = Capture::read(&octets).expect("a whole record");
        assert_eq!((odd.kept().len(), odd.counter()), (CAPTURE_OCTETS, None));
    }
}
