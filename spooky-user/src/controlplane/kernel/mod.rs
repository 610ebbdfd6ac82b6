//! The kernel side as the control plane sees it: load, attach, keep the maps at the desired state, read counters.
//! The only writer of the eBPF maps. Must not import the data plane; works over aya, ipnet, socket2 and
//! spooky-common alone.
//!
//! Order of use: [`Kernel::load`], [`Kernel::join_group`] once per listener, [`Kernel::apply`], then
//! [`Kernel::attach_xdp`]; afterwards `apply` whenever the desired state changed. Without an applied state the programs
//! let the kernel's own hash decide and drop nothing.
//!
//! # What drop does
//! The XDP link is owned here, so it is gone with the [`Kernel`], and with the process however that ends. The reuseport
//! program belongs to the socket group, not to a file descriptor: drop detaches it from every group that was joined;
//! after a kill it lives until the last socket of the group is closed, which the kernel does for a dead process.

mod attach;
mod bare;
mod counters;
mod desired;
mod error;
mod lists;
mod object;
mod observe;
mod queues;
mod samples;
mod slots;
mod steering;

use std::{fmt, os::fd::BorrowedFd};

use spooky_common::{cid::Owner, counter::Counter, sample::Sample};

pub use self::bare::Bare;
pub use self::counters::QueueCounts;
pub use self::desired::{
    AccessLists, Applied, Attack as UnderAttack, Desired, Edit, Flood, ListenerAddress, QueueShare,
    Side, WorkerSlot,
};
pub use self::error::KernelError;
pub use self::lists::{Compilation, Compiling};
pub use self::observe::Observed;
use self::{attach::Attachment, object::Loaded, queues::QueueSockets, steering::Groups};

/// What the operator asked for.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How much of the kernel side to use.
    pub mode: Mode,
    /// Interface of the XDP program; required for [`Mode::Xdp`].
    pub interface: Option<String>,
    /// Which XDP hook to try.
    pub attach: Attach,
    /// What to do when it cannot be had.
    pub on_failure: OnFailure,
    /// Every how many drops one is sampled; 0 for none.
    pub sample_every: u32,
}

/// How much of the kernel side to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Plain sockets; the kernel's hash spreads, user space hands on.
    Off,
    /// Steering by connection ID at the socket group.
    Reuseport,
    /// The same, and lists, counters and samples at the interface.
    Xdp,
}

/// Which XDP hook to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// Native, then generic.
    Auto,
    /// In the driver only.
    Native,
    /// In the stack only: works everywhere, saves less.
    Generic,
}

/// What to do when the kernel side cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// Go on with what works: XDP, else reuseport, else plain sockets. The reason is kept, see [`Kernel::lost`].
    Fallback,
    /// Return the error.
    Abort,
}

/// What is running. [`fmt::Display`] gives the metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Plain sockets.
    Off,
    /// The reuseport program.
    Reuseport,
    /// Reuseport, and XDP in the driver.
    XdpNative,
    /// Reuseport, and XDP in the stack.
    XdpGeneric,
}

/// The loaded programs, their maps and attachments.
pub struct Kernel {
    settings: Settings,
    loaded: Option<Loaded>,
    groups: Groups,
    queues: QueueSockets,
    attachment: Option<Attachment>,
    lost: Option<KernelError>,
}

// === impl Kernel ===

impl Kernel {
    /// Loads what `settings.mode` needs. Nothing is attached and nothing steered yet.
    ///
    /// # Errors
    /// [`KernelError`], under [`OnFailure::Abort`] only; under [`OnFailure::Fallback`] the result runs with plain
    /// sockets and [`Self::lost`] says why.
    pub fn load(settings: &Settings) -> Result<Self, KernelError> {
        let mut kernel = Self {
            settings: settings.clone(),
            loaded: None,
            groups: Groups::default(),
            queues: QueueSockets::default(),
            attachment: None,
            lost: None,
        };
        if settings.mode == Mode::Off {
            return Ok(kernel);
        }
        match Loaded::load(settings.mode, settings.sample_every) {
            Ok(loaded) => kernel.loaded = Some(loaded),
            Err(error) => {
                kernel.lose(error)?;
                // Perhaps it is XDP alone that this kernel refuses.
                if settings.mode == Mode::Xdp {
                    kernel.loaded = Loaded::load(Mode::Reuseport, settings.sample_every).ok();
                    kernel.settings.mode = Mode::Reuseport;
                }
            }
        }
        Ok(kernel)
    }

    /// Steers the `SO_REUSEPORT` group of these bound sockets, all of one listener. Every socket is duplicated and
    /// kept until [`Self::forget_worker`], [`Self::leave_groups`] or drop: until then closing the worker's own copy
    /// does not take it out of the group. Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::ListenerNumber`], [`KernelError::Group`] when the sockets are not one group,
    /// [`KernelError::Socket`]. Sockets already joined stay joined.
    pub fn join_group(
        &mut self,
        listener: u16,
        sockets: &[(Owner, BorrowedFd<'_>)],
    ) -> Result<(), KernelError> {
        match &mut self.loaded {
            Some(loaded) => self.groups.join(loaded, listener, sockets),
            None => Ok(()),
        }
    }

    /// Attaches the XDP program, if the mode asks for it: native, then generic, as the settings say.
    ///
    /// # Errors
    /// Under [`OnFailure::Abort`] only: [`KernelError::NoInterface`], [`KernelError::InterfaceMissing`],
    /// [`KernelError::InterfaceOccupied`], [`KernelError::AttachRefused`]. Under [`OnFailure::Fallback`] what still
    /// runs is returned, and [`Self::lost`] says why no more.
    pub fn attach_xdp(&mut self) -> Result<Running, KernelError> {
        if self.settings.mode == Mode::Xdp
            && self.attachment.is_none()
            && let Some(loaded) = &mut self.loaded
        {
            match Attachment::attach(
                loaded,
                self.settings.interface.as_deref(),
                None,
                self.settings.attach,
            ) {
                Ok(attachment) => self.attachment = Some(attachment),
                Err(error) => self.lose(error)?,
            }
        }
        Ok(self.running())
    }

    /// Attaches the XDP program to the interface that now has this index, if the mode asks for it and it is attached nowhere: an
    /// interface that was removed and made again, say. Needs no rights, for the kernel asks for none of who holds a loaded
    /// program (before Linux 5.19 CAP_BPF, as for maps).
    ///
    /// # Errors
    /// As [`Self::attach_xdp`], whatever the settings say of failures; [`Self::lost`] says the same then.
    pub fn attach_again(&mut self, index: u32) -> Result<Running, &KernelError> {
        if !self.lacks_xdp() {
            return Ok(self.running());
        }
        let Some(loaded) = &mut self.loaded else { return Ok(Running::Off) };
        let (interface, attach) = (self.settings.interface.as_deref(), self.settings.attach);
        match Attachment::attach(loaded, interface, Some(index), attach) {
            Ok(attachment) => {
                self.attachment = Some(attachment);
                self.lost = None;
                Ok(self.running())
            }
            Err(error) => Err(self.lost.insert(error)),
        }
    }

    /// Whether the XDP program is loaded and attached to nothing.
    #[must_use]
    pub fn lacks_xdp(&self) -> bool {
        self.settings.mode == Mode::Xdp && self.loaded.is_some() && self.attachment.is_none()
    }

    /// Lets go of the XDP program's link: its interface is gone, and with it what was attached there. [`Self::lost`] says so.
    pub fn detach_xdp(&mut self) {
        if self.attachment.take().is_some() {
            self.lost = self.settings.interface.clone().map(KernelError::InterfaceMissing);
        }
    }

    /// Brings the maps to the desired state: reads what they hold, writes only what differs (a list of more
    /// than 1024 prefixes and the socket array are compared with what was written to them). Calling it again with the
    /// same state changes nothing. Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::ListFull`] when prefixes did not fit: all else is applied, and user space has to enforce the
    /// rest. [`KernelError::Map`], [`KernelError::ListenerNumber`], [`KernelError::Socket`]: the state is partly
    /// applied; calling again continues.
    pub fn apply(&mut self, desired: &Desired) -> Result<Applied, KernelError> {
        self.bring(desired, true)
    }

    /// As [`Self::apply`], but the lists stay as they were last told, [`Self::edit`] included: `desired.access` only says
    /// what happens to sources on no list. Lists of up to 1024 prefixes are read back and repaired.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn keep_up(&mut self, desired: &Desired) -> Result<Applied, KernelError> {
        self.bring(desired, false)
    }

    fn bring(&mut self, desired: &Desired, relist: bool) -> Result<Applied, KernelError> {
        let Some(loaded) = &mut self.loaded else { return Ok(Applied::default()) };
        let mut applied = Applied {
            keys: steering::keys(loaded, &desired.keys)?,
            sockets: self.groups.reach(loaded, desired)?,
            slots: steering::slots(loaded, desired)?,
            owners: steering::owners(loaded, &self.groups)?,
            queues: self.queues.apply(loaded, &desired.queues)?,
            ..Applied::default()
        };
        let access = &desired.access;
        // A list that changes is looked up in its trie before its words move, and an allow list before there is an
        // entry: a source that is denied and allowed by this change must not fall into the gap.
        let plan = if relist { Some(lists::plan(loaded, access)?) } else { lists::repair(loaded)? };
        applied.settings += steering::settings(loaded, None, lists::lookups(loaded))?;
        let prefixes = plan.map_or(Ok(0), |plan| plan.write(loaded));
        applied.settings += steering::settings(loaded, Some(desired), lists::lookups(loaded))?;
        applied.listeners = steering::listeners(loaded, &self.groups, &desired.listeners)?;
        applied.prefixes = prefixes?;
        Ok(applied)
    }

    /// Redirects packets of `owner` that come in by receive queue `queue` to this AF_XDP socket, from the next
    /// [`Self::apply`] with a [`QueueShare`] of the same queue and owner on. The kernel takes a closed socket out of
    /// its map by itself, and its packets go to the stack then. Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::Queue`]: not an AF_XDP socket, or more than 64 queues.
    pub fn set_queue_socket(
        &mut self,
        queue: u32,
        owner: Owner,
        socket: BorrowedFd<'_>,
    ) -> Result<(), KernelError> {
        match &mut self.loaded {
            Some(loaded) => self.queues.set(loaded, queue, owner, socket),
            None => Ok(()),
        }
    }

    /// Sends the packets of a receive queue through the stack again, at once: the queue loses its owner, then its
    /// socket. A queue without a socket is left alone.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn clear_queue_socket(&mut self, queue: u32) -> Result<(), KernelError> {
        match &mut self.loaded {
            Some(loaded) => self.queues.clear(loaded, queue),
            None => Ok(()),
        }
    }

    /// Puts entries on lists and takes them off, in force when this returns, at a few microseconds each however long the
    /// lists are; how many it changed. The lists are looked up in their tries until a [`Self::compilation`] is written.
    /// Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::ListFull`]: all else is done, and user space has to enforce the rest; what did not fit goes in when
    /// there is room. [`KernelError::Map`]: some is done, call [`Self::apply`].
    pub fn edit(&mut self, edits: &[Edit]) -> Result<usize, KernelError> {
        let Some(loaded) = &mut self.loaded else { return Ok(0) };
        lists::turn(loaded, edits);
        steering::settings(loaded, None, lists::lookups(loaded))?;
        lists::edit(loaded, edits)
    }

    /// A list that could be looked up faster, to be compiled on any thread and written with [`Self::settle`].
    pub fn compilation(&mut self) -> Option<Compilation> {
        lists::compilation(self.loaded.as_mut()?)
    }

    /// Looks a list up in what was compiled, unless the list has changed meanwhile. Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::Map`]; the list stays in its trie.
    pub fn settle(&mut self, compiled: Compiling) -> Result<(), KernelError> {
        let Some(loaded) = &mut self.loaded else { return Ok(()) };
        compiled.write(loaded)?;
        steering::settings(loaded, None, lists::lookups(loaded)).map(drop)
    }

    /// How many prefixes did not fit into their lists.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.loaded.as_ref().map_or(0, lists::missing)
    }

    /// Brings placement table and receive queues alone to the desired state, when nothing but shares of workers and queues has
    /// changed; how many entries it wrote. Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::Map`]; some entries may be written, calling again continues.
    pub fn place(&mut self, desired: &Desired) -> Result<usize, KernelError> {
        let Some(loaded) = &mut self.loaded else { return Ok(0) };
        Ok(steering::slots(loaded, desired)? + self.queues.apply(loaded, &desired.queues)?)
    }

    /// What XDP does about an attack, from now on. Without loaded programs, does nothing.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn set_attack(&mut self, attack: &UnderAttack) -> Result<usize, KernelError> {
        self.loaded.as_mut().map_or(Ok(0), |loaded| steering::attack(loaded, attack))
    }

    /// Every kernel counter, summed over CPUs and receive queues. Empty without loaded programs.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn counters(&self) -> Result<Vec<(Counter, u64)>, KernelError> {
        self.loaded.as_ref().map_or(Ok(Vec::new()), counters::read)
    }

    /// What became of the frames of each receive queue, summed over the CPUs; queues that had none are left out. Queue
    /// 64 stands for all from 64 on. Empty without loaded programs.
    ///
    /// # Errors
    /// [`KernelError::Map`].
    pub fn steering(&self) -> Result<Vec<QueueCounts>, KernelError> {
        self.loaded.as_ref().map_or(Ok(Vec::new()), counters::by_queue)
    }

    /// What is running now.
    #[must_use]
    pub fn running(&self) -> Running {
        match (&self.loaded, &self.attachment) {
            (None, _) => Running::Off,
            (Some(_), None) => Running::Reuseport,
            (Some(_), Some(attachment)) => attachment.running(),
        }
    }

    /// Why less is running than the settings ask for.
    #[must_use]
    pub fn lost(&self) -> Option<&KernelError> {
        self.lost.as_ref()
    }

    /// Hands the sampled drops recorded since the last call to `f`, at most 4096 of them.
    pub fn drain_samples(&mut self, f: impl FnMut(&Sample)) {
        if let Some(loaded) = &mut self.loaded {
            samples::drain(loaded, f);
        }
    }

    /// Drops the duplicated sockets of `worker` and takes them out of the array, and its AF_XDP sockets out of theirs:
    /// for a worker whose thread is gone. Its sockets leave the group once its own copies are closed too.
    pub fn forget_worker(&mut self, worker: u8) {
        if let Some(loaded) = &mut self.loaded {
            self.groups.forget(loaded, worker);
            self.queues.forget(loaded, worker);
        }
    }

    /// Drops the duplicated sockets of one listener and takes them out of the array: for one that is closed. The program
    /// stays with what is left of the group, as another listener may have the same address by now.
    pub fn leave_group(&mut self, listener: u16) {
        if let Some(loaded) = &mut self.loaded {
            self.groups.close(loaded, listener);
        }
    }

    /// Detaches the reuseport program from every group and drops all duplicated sockets.
    pub fn leave_groups(&mut self) {
        self.groups.leave();
    }

    /// Keeps the reason and goes on, or returns it, as the settings say.
    fn lose(&mut self, error: KernelError) -> Result<(), KernelError> {
        match self.settings.on_failure {
            OnFailure::Abort => Err(error),
            OnFailure::Fallback => {
                self.lost = Some(error);
                Ok(())
            }
        }
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.leave_groups();
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("running", &self.running())
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

// === impl Running ===

impl Running {
    /// All values, for a metric with one series each.
    pub const ALL: [Self; 4] = [Self::Off, Self::Reuseport, Self::XdpNative, Self::XdpGeneric];

    /// The metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Reuseport => "reuseport",
            Self::XdpNative => "xdp_native",
            Self::XdpGeneric => "xdp_generic",
        }
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}
