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
    pub(super) fn attach(
        loaded: &mut Loaded,
        interface: Option<&str>,
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
            match link(loaded, interface, XdpMode::Driver) {
                Ok(link) => return Ok(Self { running: Running::XdpNative, _link: link }),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Mode(error)) => native = Some(error),
            }
        }
        if attach != Attach::Native {
            match link(loaded, interface, XdpMode::Skb) {
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

fn link(loaded: &mut Loaded, interface: &str, mode: XdpMode) -> Result<XdpLink, Refusal> {
    let program = object::xdp(&mut loaded.ebpf).map_err(Refusal::Final)?;
    let id = program.attach(interface, mode).map_err(|error| refusal(interface, error))?;
    program.take_link(id).map_err(|error| refusal(interface, error))
}

fn refusal(interface: &str, error: ProgramError) -> Refusal {
    if matches!(error, ProgramError::UnknownInterface { .. }) {
        return Refusal::Final(KernelError::InterfaceMissing(interface.to_owned()));
    }
    let error = program_error(error);
    match error.raw_os_error() {
        // EBUSY: a program in the same mode. EEXIST: one in another mode.
        Some(libc::EBUSY | libc::EEXIST) => {
            Refusal::Final(KernelError::InterfaceOccupied(interface.to_owned()))
        }
        Some(libc::EPERM | libc::EACCES) => Refusal::Final(KernelError::Privilege),
        _ => Refusal::Mode(error),
    }
}
