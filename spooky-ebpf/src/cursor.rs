//! The kernel's cursors: `Frame` over the octets XDP sees directly, `Datagram` over what sk_reuseport sees.
//! All pointer arithmetic of the programs is here. Must not know maps or QUIC.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    programs::{SkReuseportContext, XdpContext},
};
use spooky_common::{
    answer::Edit,
    cursor::{Cursor, SKIP_MAX},
};

/// More octets than Ethernet, IP and UDP headers can have together: a bound for the verifier.
const HEADERS_MAX: usize = 0x3fff;

/// Reads between `data` and `data_end` of an XDP frame. The verifier wants each read compared with the end in the
/// same path, so every step does just that.
#[derive(Clone)]
pub struct Frame {
    start: usize,
    at: usize,
    end: usize,
}

/// Reads and writes anywhere in an XDP frame, each time compared with its end.
pub struct Whole {
    start: usize,
    end: usize,
}

/// Reads a datagram from its UDP header on. Its octets may lie outside the linear part of the buffer (header split,
/// page fragments), where direct access ends, so it copies through the helper.
pub struct Datagram {
    context: *mut c_void,
    at: u32,
    len: u32,
}

// === impl Frame ===

impl Frame {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { start: context.data(), at: context.data(), end: context.data_end() }
    }
}

impl Cursor for Frame {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let next = self.at + N;
        if next > self.end {
            return None;
        }
        // SAFETY: `at..at + N` was just compared with `data_end`, and the verifier refuses the program otherwise; an
        // array of octets has alignment 1.
        let octets = unsafe { *(self.at as *const [u8; N]) };
        self.at = next;
        Some(octets)
    }

    #[inline(always)]
    fn take_up_to<const N: usize>(&mut self, count: usize) -> Option<[u8; N]> {
        if count > N {
            return None;
        }
        let mut octets = [0; N];
        for (index, octet) in octets.iter_mut().enumerate() {
            if index == count {
                break;
            }
            let [taken] = self.take()?;
            *octet = taken;
        }
        Some(octets)
    }

    #[inline(always)]
    fn skip(&mut self, count: usize) -> Option<()> {
        if count > SKIP_MAX {
            return None;
        }
        let next = self.at + count;
        if next > self.end {
            return None;
        }
        self.at = next;
        Some(())
    }

    /// The verifier knows nothing of the difference of two packet pointers, so this one is the same on every way.
    ///
    /// Kernel 6.18, `R1 offset is outside of the packet`: `at < end` proves an octet only where a constant was added to
    /// the pointer last, so eight of the octets are.
    #[inline(always)]
    fn meet(&mut self) -> Option<()> {
        const LAST: usize = 8;
        let passed = self.at - self.start - LAST;
        // SAFETY: reads a local that is initialised and aligned. Volatile, or LLVM would see that nothing changes.
        let passed = unsafe { core::ptr::read_volatile(&raw const passed) };
        if passed > HEADERS_MAX {
            return None;
        }
        self.at = self.start + passed + LAST;
        Some(())
    }
}

// === impl Whole ===

impl Whole {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self { start: context.data(), end: context.data_end() }
    }

    /// Octets of the frame.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Where `N` octets at `at` are.
    #[inline(always)]
    fn place<const N: usize>(&self, at: usize) -> Option<*mut [u8; N]> {
        // The verifier adds bounded numbers only to a packet's address; all that is written lies below this bound.
        if at > SKIP_MAX {
            return None;
        }
        // Kernel 6.18, `pointer arithmetic on pkt_end prohibited`: LLVM would compute `end - N` once before a loop.
        // SAFETY: reads a local that is initialised and aligned.
        let end = unsafe { core::ptr::read_volatile(&raw const self.end) };
        let place = self.start + at;
        if place + N > end {
            return None;
        }
        Some(place as *mut [u8; N])
    }
}

impl Edit for Whole {
    #[inline(always)]
    fn read<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let place = self.place::<N>(at)?;
        // SAFETY: `place` compared it with `data_end`, and the verifier refuses the program otherwise; an array of
        // octets has alignment 1.
        Some(unsafe { *place })
    }

    #[inline(always)]
    fn write<const N: usize>(&mut self, at: usize, octets: [u8; N]) -> Option<()> {
        let place = self.place::<N>(at)?;
        // SAFETY: as above; the frame is this program's alone while it runs.
        unsafe { *place = octets };
        Some(())
    }
}

// === impl Datagram ===

impl Datagram {
    #[inline(always)]
    pub fn new(context: &SkReuseportContext) -> Self {
        Self { context: context.as_ptr(), at: 0, len: context.len() as u32 }
    }

    /// `N` octets of the network header from `offset` on.
    #[inline(always)]
    pub fn network<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let mut octets = [0; N];
        // SAFETY: the context is the one the kernel called with, and the helper writes `N` octets to an array of `N`.
        let failed = unsafe {
            bpf_skb_load_bytes_relative(
                self.context,
                offset,
                octets.as_mut_ptr().cast(),
                N as u32,
                BPF_HDR_START_NET,
            )
        };
        (failed == 0).then_some(octets)
    }
}

impl Cursor for Datagram {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let mut octets = [0; N];
        // SAFETY: the context is the one the kernel called with, and the helper writes `N` octets to an array of `N`.
        let failed = unsafe {
            bpf_skb_load_bytes(self.context, self.at, octets.as_mut_ptr().cast(), N as u32)
        };
        self.at += N as u32;
        (failed == 0).then_some(octets)
    }

    #[inline(always)]
    fn take_up_to<const N: usize>(&mut self, count: usize) -> Option<[u8; N]> {
        let mut octets = [0; N];
        if count == 0 {
            return Some(octets);
        }
        // Kernel 6.18, `invalid write to stack R3 size=255`: the caller's own comparison lets LLVM drop the one below,
        // but made it on a copy of the register that the helper gets. Read anew, the value has no known bound.
        // SAFETY: reads a local that is initialised and aligned.
        let count = unsafe { core::ptr::read_volatile(&raw const count) };
        if count == 0 || count > N {
            return None;
        }
        // SAFETY: the context is the one the kernel called with; 1 <= count <= N was just checked, and the verifier
        // refuses the program otherwise.
        let failed = unsafe {
            bpf_skb_load_bytes(self.context, self.at, octets.as_mut_ptr().cast(), count as u32)
        };
        self.at += count as u32;
        (failed == 0).then_some(octets)
    }

    #[inline(always)]
    fn skip(&mut self, count: usize) -> Option<()> {
        if count > SKIP_MAX {
            return None;
        }
        self.at += count as u32;
        (self.at <= self.len).then_some(())
    }
}
