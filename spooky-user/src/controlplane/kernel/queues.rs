//! Receive queues with AF_XDP sockets: which socket XDP redirects to, for whose packets. Must not know what reads the
//! sockets.
//!
//! The socket map cannot be read back (the kernel returns no socket), so [`QueueSockets`] remembers whose is where. A
//! queue has an owner in the kernel only while its socket is there: the socket comes first and goes last.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use spooky_common::{
    cid::Owner,
    map::{self, Queue, XSKS_CAPACITY},
};

use super::{
    KernelError, QueueShare,
    error::map_error,
    object::{Loaded, differ},
};

/// Whose sockets are in the map, by queue.
#[derive(Default)]
pub(super) struct QueueSockets {
    owners: BTreeMap<u32, Owner>,
}

// === impl QueueSockets ===

impl QueueSockets {
    pub(super) fn set(
        &mut self,
        loaded: &mut Loaded,
        queue: u32,
        owner: Owner,
        socket: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        let failed = |error| KernelError::Queue { queue, error };
        if queue >= XSKS_CAPACITY {
            return Err(failed(io::Error::from_raw_os_error(libc::E2BIG)));
        }
        if self.owners.get(&queue).is_some_and(|held| *held != owner) {
            self.clear(loaded, queue)?;
        }
        let fd = socket.as_raw_fd();
        loaded.xsks.set(queue, fd, 0).map_err(|error| failed(map_error(error)))?;
        self.owners.insert(queue, owner);
        Ok(())
    }

    pub(super) fn clear(&mut self, loaded: &mut Loaded, queue: u32) -> Result<(), KernelError> {
        if self.owners.remove(&queue).is_none() {
            return Ok(());
        }
        differ(&mut loaded.queues, map::QUEUES, queue, Queue::NOBODYS)?;
        // The kernel has taken a closed socket out itself.
        if loaded.xsks.unset(queue).is_err() {
            tracing::debug!(queue, "the AF_XDP socket had left its map");
        }
        Ok(())
    }

    pub(super) fn forget(&mut self, loaded: &mut Loaded, worker: u8) {
        let of_worker = |(queue, owner): (&u32, &Owner)| (owner.worker == worker).then_some(*queue);
        let gone: Vec<_> = self.owners.iter().filter_map(of_worker).collect();
        for queue in gone {
            if let Err(error) = self.clear(loaded, queue) {
                tracing::error!(queue, %error, "a dead worker's queue stays redirected");
            }
        }
    }

    /// Every queue gets its owner, if that one's socket is there; the others lose theirs.
    pub(super) fn apply(
        &self,
        loaded: &mut Loaded,
        desired: &[QueueShare],
    ) -> Result<usize, KernelError> {
        let mut changed = 0;
        for queue in 0..XSKS_CAPACITY {
            let held = self.owners.get(&queue);
            let share = desired
                .iter()
                .find(|share| share.queue == queue && held == Some(&share.owner))
                .map_or(Queue::NOBODYS, |share| Queue::live(share.owner, share.share));
            changed += differ(&mut loaded.queues, map::QUEUES, queue, share)?;
        }
        Ok(changed)
    }
}
