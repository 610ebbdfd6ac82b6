//! The ring-buffer record of one sampled drop. Imports [`crate::frame`] and [`crate::verdict`].

use crate::{
    frame::{Address, Tuple},
    verdict::DropReason,
};

/// Payload octets kept of a sampled frame: enough for first octet, version and connection ID length.
pub const SAMPLE_OCTETS: usize = 16;

/// A drop that was sampled. 48 octets, no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Sample {
    /// Source address; IPv4 in its mapped form. Not proven by anything.
    pub source: [u8; 16],
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// UDP payload length by its header, in octets.
    pub payload_len: u16,
    /// [`DropReason`] as a number.
    pub reason: u8,
    /// How many of `octets` came from the frame.
    pub octets_len: u8,
    /// The first octets of the UDP payload, zero behind `octets_len`.
    pub octets: [u8; SAMPLE_OCTETS],
    /// Nanoseconds since boot (`CLOCK_MONOTONIC`).
    pub at_ns: u64,
}

impl Sample {
    /// The record of a frame dropped for `reason`.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        tuple: &Tuple,
        reason: DropReason,
        octets: [u8; SAMPLE_OCTETS],
        octets_len: u8,
        at_ns: u64,
    ) -> Self {
        Self {
            source: crate::map::AddressKey::new(&tuple.source, 0).address,
            source_port: tuple.source_port,
            destination_port: tuple.destination_port,
            payload_len: tuple.payload_len,
            reason: reason as u8,
            octets_len,
            octets,
            at_ns,
        }
    }

    /// Why it was dropped; `None` for a number this version does not know.
    #[must_use]
    pub const fn reason(&self) -> Option<DropReason> {
        DropReason::from_number(self.reason)
    }

    /// The source, IPv4 unmapped.
    #[must_use]
    pub fn source(&self) -> Address {
        match core::net::Ipv6Addr::from(self.source).to_ipv4_mapped() {
            Some(address) => Address::V4(address.octets()),
            None => Address::V6(self.source),
        }
    }

    /// The record in the octets of the ring buffer; `None` when there are not exactly as many as a record has.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; size_of::<Self>()] = octets.try_into().ok()?;
        let (source, rest) = octets.split_first_chunk::<16>()?;
        let (source_port, rest) = rest.split_first_chunk::<2>()?;
        let (destination_port, rest) = rest.split_first_chunk::<2>()?;
        let (payload_len, rest) = rest.split_first_chunk::<2>()?;
        let ([reason, octets_len], rest) = rest.split_first_chunk::<2>()?;
        let (head, rest) = rest.split_first_chunk::<SAMPLE_OCTETS>()?;
        let (at_ns, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            source: *source,
            source_port: u16::from_ne_bytes(*source_port),
            destination_port: u16::from_ne_bytes(*destination_port),
            payload_len: u16::from_ne_bytes(*payload_len),
            reason: *reason,
            octets_len: *octets_len,
            octets: *head,
            at_ns: u64::from_ne_bytes(*at_ns),
        })
    }
}

const _: () = assert!(size_of::<Sample>() == 48 && align_of::<Sample>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_the_kernel_lays_out() {
        let mut octets = [0; 48];
        octets[..16]
            .copy_from_slice(&core::net::Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets());
        octets[16..18].copy_from_slice(&4433_u16.to_ne_bytes());
        octets[18..20].copy_from_slice(&443_u16.to_ne_bytes());
        octets[20..22].copy_from_slice(&1200_u16.to_ne_bytes());
        octets[22] = 2;
        octets[23] = 3;
        octets[24..27].copy_from_slice(&[0xc0, 0, 1]);
        octets[40..].copy_from_slice(&77_u64.to_ne_bytes());
        let sample = Sample::read(&octets).expect("48 octets");
        assert_eq!(sample.source(), Address::V4([192, 0, 2, 1]));
        assert_eq!(
            (sample.source_port, sample.destination_port, sample.payload_len),
            (4433, 443, 1200)
        );
        assert_eq!((sample.reason(), sample.at_ns), (Some(DropReason::NotAllowed), 77));
        assert_eq!(sample.octets[..usize::from(sample.octets_len)], [0xc0, 0, 1]);
        assert_eq!(Sample::read(&octets[..47]), None);
    }
}
