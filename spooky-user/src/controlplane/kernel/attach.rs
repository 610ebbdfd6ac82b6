//! The XDP program on its interface: native, then generic, as asked. Must not know maps.

use std::io;

use aya::programs::{ProgramError, XdpMode, xdp::XdpLink};

use super::{
    Attach, KernelError, Running,
    error::program_error,
    object::{self, Loaded},
};

/// Longest name of an interface, `IFNAMSIZ` less its end.
const INTERFACE_NAME_MAX: usize = 15;

/// The owned link: dropping it detaches the program.
pub(super) struct Attachment {
    running: Running,
    _link: XdpLink,
}

/// Why one mode did not work.
enum Refusal {
    /// No other mode will do better.
    Final(KernelError),
    /// Another mode may work.
    Mode(io::Error),
}

// === impl Attachment ===

impl Attachment {
    /// `index`: the interface's, when it is known. Without it the name is looked up, which the sandbox of a process that
    /// serves does not let it do.
    pub(super) fn attach(
        loaded: &mut Loaded,
        interface: Option<&str>,
        index: Option<u32>,
        attach: Attach,
    ) -> Result<Self, KernelError> {
        let interface = interface.ok_or(KernelError::NoInterface)?;
        // Checked here because aya takes no name with a NUL and the kernel none this long.
        if interface.is_empty() || interface.len() > INTERFACE_NAME_MAX || interface.contains('\0')
        {
            return Err(KernelError::InterfaceMissing(interface.to_owned()));
        }
        let (mut native, mut generic) = (None, None);
        if attach != Attach::Generic {
            match link(loaded, (interface, index), XdpMode::Driver) {
                Ok(link) => return Ok(Self { running: Running::XdpNative, _link: link }),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Mode(error)) => native = Some(error),
            }
        }
        if attach != Attach::Native {
            match link(loaded, (interface, index), XdpMode::Skb) {
                Ok(link) => return Ok(Self { running: Running::XdpGeneric, _link: link }),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Mode(error)) => generic = Some(error),
            }
        }
        Err(KernelError::AttachRefused { interface: interface.to_owned(), native, generic })
    }

    pub(super) const fn running(&self) -> Running {
        self.running
    }
}

fn link(
    loaded: &mut Loaded,
    (interface, index): (&str, Option<u32>),
    mode: XdpMode,
) -> Result<XdpLink, Refusal> {
    let program = object::xdp(&mut loaded.ebpf).map_err(Refusal::Final)?;
    let attached = match index {
        Some(index) => program.attach_to_if_index(index, mode),
        None => program.attach(interface, mode),
    };
    let id = attached.map_err(|error| refusal(interface, error))?;
    program.take_link(id).map_err(|error| refusal(interface, error))
}

fn refusal(interface: &str, error: ProgramError) -> Refusal {
    if matches!(error, ProgramError::UnknownInterface { .. }) {
        return Refusal::Final(KernelError::InterfaceMissing(interface.to_owned()));
    }
    // The kernel has called the link invalid, and aya has asked by netlink, which takes a right that is given up by now.
    let tried_again = matches!(error, ProgramError::XdpError(_));
    let error = program_error(error);
    match error.raw_os_error() {
        // EBUSY: a program in the same mode. EEXIST: one in another mode.
        Some(libc::EBUSY | libc::EEXIST) => {
            Refusal::Final(KernelError::InterfaceOccupied(interface.to_owned()))
        }
        // It went between the question and this.
        Some(libc::ENODEV) => Refusal::Final(KernelError::InterfaceMissing(interface.to_owned())),
        Some(libc::EPERM | libc::EACCES) if tried_again => {
            Refusal::Mode(io::Error::from_raw_os_error(libc::EINVAL))
        }
        Some(libc::EPERM | libc::EACCES) => Refusal::Final(KernelError::Privilege),
        _ => Refusal::Mode(error),
    }
}
