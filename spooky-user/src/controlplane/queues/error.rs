//! Why there is no AF_XDP socket, each with its remedy on one line. Imports the kernel's errors.

use std::fmt;
use std::io;

use crate::controlplane::kernel::KernelError;

/// Why there is no AF_XDP socket.
#[derive(Debug)]
pub enum QueueError {
    /// Interfaces cannot be asked for.
    Links(io::Error),
    /// The interface is not there.
    NoInterface(String),
    /// A socket cannot be had.
    Socket {
        /// Of this receive queue.
        queue: u32,
        /// What the kernel said.
        error: io::Error,
    },
    /// It cannot be redirected to.
    Kernel(KernelError),
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Links(error) => write!(f, "the interfaces cannot be asked for: {error}"),
            Self::NoInterface(name) => write!(f, "there is no interface {name:?}"),
            Self::Socket { queue, error } => {
                write!(f, "receive queue {queue}: {error}")?;
                f.write_str(match error.kind() {
                    io::ErrorKind::PermissionDenied => "; it needs CAP_NET_RAW",
                    io::ErrorKind::ResourceBusy => "; another AF_XDP socket has it",
                    io::ErrorKind::Unsupported => {
                        "; the driver cannot do this: write auto or copy for ebpf.af_xdp.mode"
                    }
                    _ => "",
                })
            }
            Self::Kernel(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for QueueError {}
