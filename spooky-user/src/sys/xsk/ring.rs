//! One ring of an AF_XDP socket, mapped from the kernel: single producer, single consumer, a power of two of entries.
//! <https://docs.kernel.org/networking/af_xdp.html>, section "Rings". Imports only `memory`.

use std::io;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::memory::Mapping;

/// The kernel sleeps and has to be told of new entries.
const NEED_WAKEUP: u32 = 1;

/// A packet in the RX or TX ring: `struct xdp_desc`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Descriptor {
    /// Offset in the UMEM.
    pub address: u64,
    /// Octets.
    pub len: u32,
    /// `XDP_PKT_CONTD` and TX metadata.
    pub options: u32,
}

/// What the entries of a ring are: the address of a frame, or a descriptor.
pub(super) trait Entry: Copy {}

impl Entry for u64 {}
impl Entry for Descriptor {}

/// Where the parts of a ring lie in its mapping, in octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub producer: usize,
    pub consumer: usize,
    pub flags: usize,
    pub entries: usize,
}

/// The side that this process writes: fill and TX.
#[derive(Debug)]
pub(super) struct Producer<T>(Ring<T>);

/// The side that this process reads: RX and completion.
#[derive(Debug)]
pub(super) struct Consumer<T>(Ring<T>);

#[derive(Debug)]
struct Ring<T> {
    mapping: Mapping,
    layout: Layout,
    size: u32,
    /// Our own index: ahead of the shared one until it is published.
    own: u32,
    entries: PhantomData<T>,
}

// === impl Ring ===

impl<T: Entry> Ring<T> {
    /// Maps `size` entries, a power of two, at `offset` of the socket.
    fn map(socket: BorrowedFd<'_>, offset: u64, layout: Layout, size: u32) -> io::Result<Self> {
        let octets = layout.entries + size as usize * size_of::<T>();
        let index_end = layout.producer.max(layout.consumer).max(layout.flags) + size_of::<u32>();
        let aligned = [layout.producer, layout.consumer, layout.flags]
            .iter()
            .all(|at| at.is_multiple_of(align_of::<AtomicU32>()))
            && layout.entries.is_multiple_of(align_of::<T>());
        if !size.is_power_of_two() || !aligned || index_end > octets {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a ring of a strange layout"));
        }
        let mapping = Mapping::of_socket(socket, offset, octets)?;
        Ok(Self { mapping, layout, size, own: 0, entries: PhantomData })
    }

    fn index(&self, at: usize) -> &AtomicU32 {
        // SAFETY: `map` has checked that four octets at each of the layout's offsets lie inside the mapping and are
        // aligned. The kernel writes them as it does atomics, and the mapping lives as long as `self`.
        unsafe { self.mapping.at(at).cast::<AtomicU32>().as_ref() }
    }

    fn producer(&self) -> &AtomicU32 {
        self.index(self.layout.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.index(self.layout.consumer)
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        let place = (index & (self.size - 1)) as usize;
        // SAFETY: the place is below `size`, and the mapping holds so many entries behind the offset.
        unsafe { self.mapping.at(self.layout.entries).cast::<T>().add(place) }
    }

    /// Entries written and not read. More than there are places is nonsense and counts as all of them.
    fn filled(&self) -> u32 {
        let consumer = self.consumer().load(Ordering::Acquire);
        self.producer().load(Ordering::Acquire).wrapping_sub(consumer).min(self.size)
    }

    fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag and looks at the ring again before it sleeps; the entries must not become visible to it
        // after the flag is read here.
        fence(Ordering::SeqCst);
        self.index(self.layout.flags).load(Ordering::Relaxed) & NEED_WAKEUP != 0
    }
}

// === impl Producer ===

impl<T: Entry> Producer<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offset: u64,
        layout: Layout,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(socket, offset, layout, size).map(Self)
    }

    /// Writes an entry, to be seen with the next [`Self::publish`]; `false`, and nothing written, when the ring is full.
    pub(super) fn push(&mut self, entry: T) -> bool {
        let ring = &mut self.0;
        if ring.own.wrapping_sub(ring.consumer().load(Ordering::Acquire)) >= ring.size {
            return false;
        }
        // SAFETY: the place is this side's until the index is published: the kernel has read what was there, as its
        // index says. Written through a pointer, for there may be no reference to memory that the kernel shares.
        unsafe { ring.entry(ring.own).write_volatile(entry) };
        ring.own = ring.own.wrapping_add(1);
        true
    }

    /// Shows the kernel what was pushed.
    pub(super) fn publish(&mut self) {
        self.0.producer().store(self.0.own, Ordering::Release);
    }

    /// Whether the kernel has to be told. To be asked after [`Self::publish`].
    pub(super) fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }

    /// Entries that the kernel has not taken, those that are not published among them.
    pub(super) fn pushed(&self) -> u32 {
        let ring = &self.0;
        ring.own.wrapping_sub(ring.consumer().load(Ordering::Acquire)).min(ring.size)
    }

    /// Published entries that the kernel has not taken.
    pub(super) fn waiting(&self) -> u32 {
        self.0.filled()
    }
}

// === impl Consumer ===

impl<T: Entry> Consumer<T> {
    pub(super) fn map(
        socket: BorrowedFd<'_>,
        offset: u64,
        layout: Layout,
        size: u32,
    ) -> io::Result<Self> {
        Ring::map(socket, offset, layout, size).map(Self)
    }

    /// Takes an entry; its place is given back with the next [`Self::release`].
    pub(super) fn pop(&mut self) -> Option<T> {
        let ring = &mut self.0;
        let ready = ring.producer().load(Ordering::Acquire).wrapping_sub(ring.own);
        if ready == 0 || ready > ring.size {
            return None;
        }
        // SAFETY: the kernel has written this place and does not touch it until our index has passed it. Read through a
        // pointer, as above; any octets are a valid entry.
        let entry = unsafe { ring.entry(ring.own).read_volatile() };
        ring.own = ring.own.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was taken back to the kernel.
    pub(super) fn release(&mut self) {
        self.0.consumer().store(self.0.own, Ordering::Release);
    }

    /// Entries that are there to be taken.
    pub(super) fn waiting(&self) -> u32 {
        let ready = self.0.producer().load(Ordering::Acquire).wrapping_sub(self.0.own);
        ready.min(self.0.size)
    }
}
