//! The object loaded bare, for test runs (`BPF_PROG_TEST_RUN`): the XDP program attached to nothing, its maps for whoever
//! fills them. Must not know what they hold.

use std::fmt;

use aya::Ebpf;
use aya::maps::{Map, MapData, MapError, ProgramArray};
use aya::programs::{TestRun as _, TestRunOptions};
use spooky_common::map;

use super::KernelError;
use super::error::program_error;
use super::object;

/// The loaded XDP program and the object's maps. Everything closes on drop.
pub struct Bare {
    ebpf: Ebpf,
    /// What the program goes on to, held open.
    _further: ProgramArray<MapData>,
}

// === impl Bare ===

impl Bare {
    /// Loads the object and has the kernel verify its XDP programs.
    ///
    /// # Errors
    /// [`KernelError`], most often [`KernelError::Privilege`].
    pub fn load() -> Result<Self, KernelError> {
        let mut ebpf = object::parse()?;
        object::xdp(&mut ebpf)?
            .load()
            .map_err(|error| KernelError::from_program(map::PROGRAM_XDP, error))?;
        let further = object::further(&mut ebpf)?;
        Ok(Self { ebpf, _further: further })
    }

    /// A map by its name, to read.
    ///
    /// # Errors
    /// [`KernelError`] when it is not there or of another type.
    pub fn map<'a, M>(&'a self, name: &'static str) -> Result<M, KernelError>
    where
        M: TryFrom<&'a Map, Error = MapError> + 'a,
        MapData: 'a,
    {
        let map = self.ebpf.map(name).ok_or_else(|| object::lacks(name))?;
        M::try_from(map).map_err(|error| KernelError::map(name, error))
    }

    /// A map by its name, to write.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn map_mut<'a, M>(&'a mut self, name: &'static str) -> Result<M, KernelError>
    where
        M: TryFrom<&'a mut Map, Error = MapError> + 'a,
    {
        let map = self.ebpf.map_mut(name).ok_or_else(|| object::lacks(name))?;
        M::try_from(map).map_err(|error| KernelError::map(name, error))
    }

    /// Runs the program once over a frame of at least 14 octets; its action (`enum xdp_action`).
    ///
    /// # Errors
    /// [`KernelError::Unsupported`] with what the kernel said.
    pub fn run(&mut self, frame: &[u8]) -> Result<u32, KernelError> {
        let options = TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::new() };
        let run = object::xdp(&mut self.ebpf)?.test_run(options).map_err(|error| {
            KernelError::Unsupported { what: "a test run".to_owned(), error: program_error(error) }
        })?;
        Ok(run.return_value)
    }
}

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bare").finish_non_exhaustive()
    }
}
