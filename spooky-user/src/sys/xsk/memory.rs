//! Memory shared with the kernel, for AF_XDP: the UMEM and the rings.
//! <https://man7.org/linux/man-pages/man2/mmap.2.html>. Imports nothing of the crate.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

/// A mapping, unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

/// So many frames of a UMEM, for one side alone.
#[derive(Debug)]
pub(super) struct Frames {
    memory: Arc<Mapping>,
    first: u32,
    count: u32,
    size: u32,
}

// SAFETY: a mapping belongs to the process, not to a thread.
unsafe impl Send for Mapping {}
// SAFETY: a shared `Mapping` gives out no reference and no access: only `at`, whose pointer its caller answers for.
unsafe impl Sync for Mapping {}

// === impl Mapping ===

impl Mapping {
    /// `len` octets of zeroed memory, present at once.
    pub(super) fn of_nothing(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Self::map(len, flags, -1, 0)
    }

    /// A ring of an AF_XDP socket.
    pub(super) fn of_socket(socket: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: i32, fd: i32, offset: u64) -> io::Result<Self> {
        let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses the address, so nothing that is in use is mapped over.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, offset) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Where it begins, and how many octets it has.
    pub(super) fn range(&self) -> (u64, u64) {
        (self.start.as_ptr() as u64, self.len as u64)
    }

    /// The address of an octet of the mapping.
    ///
    /// # Safety
    /// `offset` is below the length.
    pub(super) unsafe fn at(&self, offset: usize) -> NonNull<u8> {
        debug_assert!(offset < self.len, "{offset} of {}", self.len);
        // SAFETY: the caller says that it is inside.
        unsafe { self.start.add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nobody has a reference: those that `Frames` and the rings give out
        // borrow from what owns this.
        let _unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

// === impl Frames ===

impl Frames {
    /// Two lots of `count` frames of `size` octets in a memory that has room for both, [`Frames::room`].
    pub(super) fn pair(memory: &Arc<Mapping>, count: u32, size: u32) -> [Self; 2] {
        debug_assert!(Self::room(count, size) <= memory.len);
        let lot = |first| Self { memory: Arc::clone(memory), first, count, size };
        [lot(0), lot(count)]
    }

    /// Octets of two lots.
    pub(super) fn room(count: u32, size: u32) -> usize {
        2 * count as usize * size as usize
    }

    /// How many there are.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Octets of each.
    pub(super) fn size(&self) -> u32 {
        self.size
    }

    /// Where the frame with this place in the lot begins in the UMEM.
    pub(super) fn address(&self, place: u32) -> u64 {
        u64::from(self.first + place) * u64::from(self.size)
    }

    /// The place in this lot of the frame that holds an address, and how far into it that is. `None`: not of this lot.
    pub(super) fn place(&self, address: u64) -> Option<(u32, u32)> {
        let size = u64::from(self.size);
        let place = (address / size).checked_sub(u64::from(self.first))?;
        let place = u32::try_from(place).ok().filter(|place| *place < self.count)?;
        Some((place, u32::try_from(address % size).ok()?))
    }

    /// The octets of a frame from `start` on, `len` of them. `None` when they are not inside of one.
    ///
    /// # Safety
    /// The frame is in no ring and not in the driver: the kernel neither reads nor writes it while the slice lives.
    pub(super) unsafe fn slice(&mut self, place: u32, start: u32, len: u32) -> Option<&mut [u8]> {
        let inside = start.checked_add(len).is_some_and(|end| end <= self.size);
        if place >= self.count || !inside || len == 0 {
            return None;
        }
        let offset = usize::try_from(self.address(place)).ok()? + start as usize;
        // SAFETY: the offset is inside, as the place and the start are.
        let first = unsafe { self.memory.at(offset) };
        // SAFETY: as many octets lie inside of this frame. The frame is this lot's alone, the lot is borrowed mutably, and
        // the caller says that the kernel has no hand in it.
        Some(unsafe { std::slice::from_raw_parts_mut(first.as_ptr(), len as usize) })
    }
}
