//! List files, looked at each second: one that has another size, time or inode than before is read again. A look follows
//! symbolic links and renames as they are, where a watch by inotify would have to be set again at each step of them. Blocks; run
//! it off the control plane's thread. May import: config.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ipnet::IpNet;

use crate::controlplane::config::{self, AccessSource};

/// A file that was written to less long ago may not be whole yet.
const SETTLED: Duration = Duration::from_millis(500);

/// What tells one state of a file from another: device, inode, size, time of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

/// The files that are watched, and what was last seen of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    seen: Vec<(PathBuf, Option<Stamp>)>,
}

/// A file that has changed: its networks, or all that is wrong with it.
pub(super) type Change = (PathBuf, Result<Vec<IpNet>, String>);

impl Watch {
    /// Watches the files of these sources. What was not seen before is read at the first look.
    pub(super) fn follow(&mut self, sources: &[AccessSource]) {
        let before = std::mem::take(&mut self.seen);
        for file in sources.iter().filter_map(|source| source.file.as_ref()) {
            if self.seen.iter().all(|(path, _)| path != file) {
                let stamp = before.iter().find(|(path, _)| path == file).and_then(|(_, it)| *it);
                self.seen.push((file.clone(), stamp));
            }
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.seen.is_empty()
    }

    /// Looks at every file.
    pub(super) fn look(&mut self, wall: SystemTime) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, seen) in &mut self.seen {
            let stamp = match stamp(path, wall) {
                Ok(Some(stamp)) => stamp,
                Ok(None) => continue,
                Err(error) => {
                    // Once each time that it goes away: `None` is what a file has that was not seen.
                    if seen.take().is_some() {
                        changes.push((path.clone(), Err(error)));
                    }
                    continue;
                }
            };
            if *seen == Some(stamp) {
                continue;
            }
            let read = config::list_file(path);
            // Somebody may have written to it while it was read; then there is another look.
            if self::stamp(path, wall).is_ok_and(|again| again == Some(stamp)) {
                *seen = Some(stamp);
                changes.push((path.clone(), read.map_err(|wrong| describe(&wrong))));
            }
        }
        changes
    }
}

/// `None` while somebody may be writing to it.
fn stamp(path: &Path, wall: SystemTime) -> Result<Option<Stamp>, String> {
    let metadata = fs::metadata(path).map_err(|error| format!("cannot be looked at: {error}"))?;
    let settled = metadata.modified().map_or(true, |changed| {
        // A time in the future says nothing.
        wall.duration_since(changed).map_or(true, |age| age >= SETTLED)
    });
    let stamp = Stamp {
        file: (metadata.dev(), metadata.ino()),
        size: metadata.size(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
    };
    Ok(settled.then_some(stamp))
}

fn describe(wrong: &[(Option<usize>, String)]) -> String {
    let Some((line, message)) = wrong.first() else { return String::new() };
    let more = match wrong.len() {
        1 => String::new(),
        count => format!("; and {} lines more", count - 1),
    };
    match line {
        Some(line) => format!("line {line}: {message}{more}"),
        None => message.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path) -> AccessSource {
        config::source(true, Some(path.to_owned()), Vec::new())
    }

    #[test]
    fn replaced_rewritten_broken_and_missing_files_are_noticed_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deny.txt");
        let later = || SystemTime::now() + Duration::from_secs(60);
        fs::write(&path, "192.0.2.0/24\n").expect("written");
        let mut watch = Watch::default();
        watch.follow(&[source(&path), source(&path)]);
        // Too fresh.
        assert!(watch.look(SystemTime::now()).is_empty());
        let [(_, Ok(networks))] = &watch.look(later())[..] else { panic!("one change") };
        assert_eq!(networks, &["192.0.2.0/24".parse::<IpNet>().expect("a network")]);
        assert!(watch.look(later()).is_empty());
        // A rename over it, of the same size and time.
        let other = folder.path().join("other");
        fs::write(&other, "192.0.3.0/24\n").expect("written");
        let time = fs::metadata(&path).expect("there").modified().expect("a time");
        fs::File::options()
            .write(true)
            .open(&other)
            .expect("open")
            .set_modified(time)
            .expect("set");
        fs::rename(&other, &path).expect("renamed");
        assert!(matches!(&watch.look(later())[..], [(_, Ok(networks))] if networks.len() == 1));
        fs::write(&path, "192.0.3.0/24\nnonsense\n10.0.0.1/8\n").expect("written");
        let [(_, Err(message))] = &watch.look(later())[..] else { panic!("one change") };
        assert!(message.contains("line 2") && message.contains("1 lines more"), "{message}");
        assert!(watch.look(later()).is_empty(), "told once");
        fs::remove_file(&path).expect("removed");
        assert!(matches!(&watch.look(later())[..], [(_, Err(_))]));
        assert!(watch.look(later()).is_empty());
        fs::write(&path, "").expect("written");
        assert!(matches!(&watch.look(later())[..], [(_, Ok(networks))] if networks.is_empty()));
    }
}
