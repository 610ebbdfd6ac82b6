//! Where lines end up. Imports nothing of the crate. Used by the writer thread alone, which may block here.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Takes whole lines.
pub(super) trait Sink: Send {
    /// Writes all of `lines`, and out of this process.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;

    /// Opens the target again, after something else renamed it. The old one stays in use on failure.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) struct Stdout;

pub(super) struct Stderr;

pub(super) struct LogFile {
    path: PathBuf,
    file: File,
}

// === impl Sink ===

impl Sink for Stdout {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(lines)?;
        out.flush()
    }
}

impl Sink for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(lines)
    }
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: append_to(path)? })
    }
}

impl Sink for LogFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.file.write_all(lines)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = append_to(&self.path)?;
        Ok(())
    }
}

/// Client addresses are personal data: the group may read them, others not.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}
