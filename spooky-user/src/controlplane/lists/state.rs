//! Entries in a file, so that they outlive the process: one JSON object, replaced as a whole by a rename. Times are of the wall
//! clock in the file and of the monotonic clock in the process, so that an entry keeps the time it has left. Blocks; run it off
//! the control plane's thread. Imports `table`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::table::{By, Entry, List, Origin, REASON_MAX, TTL_MAX};

/// Of the file's form.
const VERSION: u32 = 1;
/// More than as many entries as there may be, with the longest reasons.
const SIZE_MAX: u64 = 512 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    entries: Vec<SavedEntry>,
}

/// Times are seconds since 1970, or of duration.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedEntry {
    list: String,
    prefix: IpNet,
    dry_run: bool,
    reason: String,
    origin: String,
    uid: Option<u32>,
    pid: Option<i32>,
    since: f64,
    ttl: Option<f64>,
    until: Option<f64>,
}

/// Replaces the file.
///
/// # Errors
/// What the system says; the old file is still there then.
pub(super) fn write(
    path: &Path,
    entries: &[Arc<Entry>],
    now: Instant,
    wall: SystemTime,
) -> io::Result<()> {
    let entries = entries.iter().map(|entry| save(entry, now, wall)).collect();
    let text = serde_json::to_vec(&Saved { version: VERSION, entries })?;
    let beside = beside(path, "new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    // Without this the rename may be lost with the power.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// The entries of the file whose time is not over; none when there is no file.
///
/// # Errors
/// Why it is not what [`write()`] has written, or cannot be read.
pub(super) fn read(path: &Path, now: Instant, wall: SystemTime) -> io::Result<Vec<Entry>> {
    let mut text = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(SIZE_MAX).read_to_end(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let saved: Saved = serde_json::from_slice(&text)?;
    if saved.version != VERSION {
        return Err(invalid(&format!("version {} is not known", saved.version)));
    }
    let mut entries = Vec::new();
    for saved in saved.entries {
        let prefix = saved.prefix;
        let entry = restore(saved, now, wall).ok_or_else(|| invalid(&format!("entry {prefix}")))?;
        if entry.until.is_none_or(|until| until > now) {
            entries.push(entry);
        }
    }
    Ok(entries)
}

/// Moves a file that cannot be used out of the way; where to.
///
/// # Errors
/// What the system says.
pub(super) fn put_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = beside(path, "unreadable");
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn save(entry: &Entry, now: Instant, wall: SystemTime) -> SavedEntry {
    let seconds =
        |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let until = |until: Instant| seconds(wall + until.saturating_duration_since(now));
    SavedEntry {
        list: entry.list.word().to_owned(),
        prefix: entry.prefix,
        dry_run: entry.dry_run,
        reason: entry.reason.clone(),
        origin: entry.origin.word().to_owned(),
        uid: entry.by.map(|by| by.uid),
        pid: entry.by.and_then(|by| by.pid),
        since: seconds(entry.since),
        ttl: entry.ttl.map(|ttl| ttl.as_secs_f64()),
        until: entry.until.map(until),
    }
}

/// `None` for what [`save`] cannot have written.
fn restore(saved: SavedEntry, now: Instant, wall: SystemTime) -> Option<Entry> {
    let time = |seconds: f64| UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(seconds).ok()?);
    let ttl = match saved.ttl {
        Some(seconds) => Some(Duration::try_from_secs_f64(seconds).ok()?),
        None => None,
    };
    let until = match (saved.until, ttl) {
        (Some(until), Some(ttl)) => {
            let left = time(until)?.duration_since(wall).unwrap_or_default();
            // A clock that was set back gives nobody more time than there was in all.
            Some(now + left.min(ttl))
        }
        (None, None) => None,
        _ => return None,
    };
    let whole = saved.prefix.trunc() == saved.prefix
        && saved.reason.len() <= REASON_MAX
        && ttl.is_none_or(|ttl| ttl <= TTL_MAX);
    let entry = Entry {
        list: List::ALL.into_iter().find(|list| list.word() == saved.list)?,
        prefix: saved.prefix,
        dry_run: saved.dry_run,
        reason: saved.reason,
        origin: [Origin::Ctl, Origin::Abuse].into_iter().find(|it| it.word() == saved.origin)?,
        by: saved.uid.map(|uid| By { uid, pid: saved.pid }),
        since: time(saved.since)?,
        ttl,
        until,
    };
    whole.then_some(entry)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(low: u32, ttl: Option<u64>, now: Instant) -> Entry {
        let ttl = ttl.map(Duration::from_secs);
        Entry {
            list: if low.is_multiple_of(2) { List::Deny } else { List::Allow },
            prefix: IpNet::from(std::net::IpAddr::V4(low.into())),
            dry_run: low.is_multiple_of(3),
            reason: format!("\"why\" \\ {low} — ü"),
            origin: if low.is_multiple_of(5) { Origin::Abuse } else { Origin::Ctl },
            by: (!low.is_multiple_of(5)).then_some(By { uid: low, pid: None }),
            since: UNIX_EPOCH + Duration::from_secs(1_700_000_000 + u64::from(low)),
            ttl,
            until: ttl.map(|ttl| now + ttl),
        }
    }

    proptest! {
        #[test]
        fn what_was_written_is_restored_with_the_time_that_is_left(
            entries in prop::collection::btree_map(any::<u32>(), prop::option::of(1_u64..1000), 0..30),
            later in 0_u64..1200,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("state");
            let (now, wall) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_800_000_000));
            let made: Vec<Entry> = entries.iter().map(|(low, ttl)| entry(*low, *ttl, now)).collect();
            let shared: Vec<_> = made.iter().cloned().map(Arc::new).collect();
            write(&path, &shared, now, wall).expect("written");
            // The other process's monotonic clock has nothing to do with this one's.
            let (other, passed) = (now + Duration::from_secs(77), Duration::from_secs(later));
            let read = read(&path, other, wall + passed).expect("restored");
            let wanted: Vec<Entry> = made
                .into_iter()
                .filter(|entry| entry.ttl.is_none_or(|ttl| ttl > passed))
                .map(|entry| Entry { until: entry.ttl.map(|ttl| other + (ttl - passed)), ..entry })
                .collect();
            let near = |a: Option<Instant>, b: Option<Instant>| match (a, b) {
                (Some(a), Some(b)) => a.max(b) - a.min(b) < Duration::from_millis(1),
                (a, b) => a == b,
            };
            prop_assert_eq!(read.len(), wanted.len());
            for (read, wanted) in read.into_iter().zip(wanted) {
                prop_assert!(near(read.until, wanted.until), "{:?} {:?}", read, wanted);
                prop_assert_eq!(Entry { until: wanted.until, ..read }, wanted);
            }
        }

        #[test]
        fn a_damaged_file_is_an_error_or_less_and_never_a_panic(
            cut in 0_usize..400, flip in 0_usize..400, with: u8,
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("state");
            let (now, wall) = (Instant::now(), SystemTime::now());
            let made = [Arc::new(entry(1, Some(60), now)), Arc::new(entry(2, None, now))];
            write(&path, &made, now, wall).expect("written");
            let mut text = fs::read(&path).expect("there");
            let length = text.len();
            text[flip % length] = with;
            text.truncate(length - cut % length);
            fs::write(&path, &text).expect("written");
            if let Ok(entries) = read(&path, now, wall) {
                prop_assert!(entries.len() <= 2);
            }
        }
    }

    #[test]
    fn a_clock_that_was_set_back_gives_no_more_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        let (now, wall) = (Instant::now(), SystemTime::now());
        write(&path, &[Arc::new(entry(1, Some(60), now))], now, wall).expect("written");
        let read = read(&path, now, wall - Duration::from_secs(86_400)).expect("restored");
        assert_eq!(read[0].until, Some(now + Duration::from_secs(60)));
        assert!(super::read(&folder.path().join("none"), now, wall).expect("none").is_empty());
    }
}
