//! From a path to a checked configuration, or to everything that is wrong with it. May import: its siblings.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use super::check;
use super::checked::Config;
use super::problem::{ConfigErrors, Place, Problems};
use super::read::{Node, Read};
use super::{schema, source};

/// Larger than any configuration; what is larger is some other file.
pub const FILE_SIZE_MAX: u64 = 10 << 20;

/// Reads and checks a configuration. Blocks on files and, for endpoints given by host name, on the resolver.
///
/// # Errors
/// Everything that is wrong, in file order. Nothing has been bound or changed.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let mut problems = Problems::new(path);
    let Some(text) = read_text(path, &mut problems) else { return Err(problems.into()) };
    let Some((value, places)) = source::parse(&text, &mut problems) else {
        return Err(problems.into());
    };
    let root = Node { value: &value, path: "", places: &places };
    let Some(file) = schema::File::read(root, None, &mut problems) else {
        return Err(problems.into());
    };
    let config = check::check(path, file, &places, &mut problems);
    match config {
        Some(config) => problems.into_result(config),
        None => Err(problems.into()),
    }
}

fn read_text(path: &Path, problems: &mut Problems) -> Option<String> {
    let octets = match read_bounded(path, FILE_SIZE_MAX) {
        Ok(octets) => octets,
        Err(error) => {
            problems.add(Place::default(), "", unreadable(&error));
            return None;
        }
    };
    match String::from_utf8(octets) {
        Ok(text) => Some(text),
        Err(error) => {
            let before = error.as_bytes().get(..error.utf8_error().valid_up_to());
            let line = before.map_or(0, |text| text.iter().filter(|b| **b == b'\n').count()) + 1;
            let place = Place { line, column: 1 };
            problems.add(place, "", "not UTF-8; save the file as UTF-8");
            None
        }
    }
}

/// The octets of a regular file. A pipe or device is refused before it is opened, for opening could block for ever.
pub(super) fn read_bounded(path: &Path, size_max: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut octets = Vec::new();
    // One more than the limit, so that a file that grows meanwhile is noticed, too.
    File::open(path)?.take(size_max + 1).read_to_end(&mut octets)?;
    if octets.len() as u64 > size_max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {} MiB", size_max >> 20),
        ));
    }
    Ok(octets)
}

/// Why a file cannot be read, in plain words.
pub(super) fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "cannot be read: there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "cannot be read: permission denied; let the user who runs spooky read it, in a directory that \
             the configuration named when spooky started"
                .to_owned()
        }
        io::ErrorKind::IsADirectory => "cannot be read: it is a directory".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
