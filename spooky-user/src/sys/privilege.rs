//! What the process gives up once it has what needs privilege: capabilities, the user ID, the way back. All of it is of the
//! calling thread, or of the threads it starts later, so it is called before there are any:
//! <https://man7.org/linux/man-pages/man7/capabilities.7.html>. Imports nothing of the crate.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Uid, User, initgroups, setgroups, setresgid, setresuid};
use rustix::process::{
    DumpableBehavior, parent_process_death_signal, set_dumpable_behavior,
    set_parent_process_death_signal,
};
use rustix::system::uname;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_no_new_privs,
};

/// A user of this system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// As in the user database; empty for a number that is not in it.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
}

/// Whether this process was started as root.
#[must_use]
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// The effective user ID.
#[must_use]
pub fn user() -> u32 {
    Uid::effective().as_raw()
}

/// A user by name, or by number, which need not be in the database. `None`: there is no user of this name.
///
/// # Errors
/// When the database cannot be read.
pub fn account(name: &str) -> io::Result<Option<Account>> {
    let account =
        |user: User| Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() };
    if let Ok(uid) = name.parse::<u32>() {
        let known = User::from_uid(Uid::from_raw(uid))?;
        let unknown = Account { name: String::new(), uid, gid: uid };
        return Ok(Some(known.map_or(unknown, account)));
    }
    Ok(User::from_name(name)?.map(account))
}

/// Whether the calling thread has all of these now.
#[must_use]
pub fn has(wanted: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

/// Becomes this user for good, with its groups: real, effective and saved IDs. The capabilities of root go with it, but those
/// to `keep`, which [`keep_only`] has to raise again.
///
/// # Errors
/// The kernel's: needs CAP_SETUID and CAP_SETGID.
pub fn become_user(account: &Account, keep: CapabilitySet) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    if account.name.is_empty() {
        setgroups(&[gid])?;
    } else {
        let name = CString::new(account.name.as_str())?;
        initgroups(&name, gid)?;
    }
    set_keep_capabilities(!keep.is_empty())?;
    let parent = parent_process_death_signal()?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Another user, and the kernel forgets it: who asked for it wants it still.
    set_parent_process_death_signal(parent)?;
    Ok(())
}

/// Empties the bounding set, as far as CAP_SETPCAP is there: nothing that is executed later gets any capability.
///
/// # Errors
/// The kernel's.
pub fn empty_bounding_set() -> io::Result<()> {
    if !capabilities(None)?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for capability in CapabilitySet::all().iter() {
        match remove_capability_from_bounding_set(capability) {
            // The kernel is older than the newest of them.
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Keeps these capabilities, as far as they are there, and drops all others from every set; no program that is executed gets
/// more than this process has; no core dump holds what it knows.
///
/// # Errors
/// The kernel's.
pub fn keep_only(keep: CapabilitySet) -> io::Result<()> {
    clear_ambient_capability_set()?;
    let kept = capabilities(None)?.permitted.intersection(keep);
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    set_no_new_privs(true)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// Whether this kernel asks for CAP_BPF at each use of a map that is open: before Linux 5.19 it does, where
/// `kernel.unprivileged_bpf_disabled` is not 0. Unknown counts as yes.
#[must_use]
pub fn maps_need_capability() -> bool {
    let open = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
    let open = open.is_ok_and(|text| text.trim() == "0");
    !open && uname().release().to_str().ok().and_then(version).is_none_or(|it| it < (5, 19))
}

/// The first two numbers of a kernel's release, such as `6.1.0-18-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Bind to ports below 1024.
pub const BIND: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;
/// Use maps, where the kernel asks for it.
pub const MAPS: CapabilitySet = CapabilitySet::BPF;
/// None at all.
pub const NONE: CapabilitySet = CapabilitySet::empty();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let root = account("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(account("0").unwrap().unwrap(), root);
        let stranger = account("4000123").unwrap().unwrap();
        assert_eq!(stranger, Account { name: String::new(), uid: 4_000_123, gid: 4_000_123 });
        assert_eq!(account("no-such-user-here").unwrap(), None);
    }

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(version("5.15.0-91-generic"), Some((5, 15)));
        assert_eq!(version("6.18.44"), Some((6, 18)));
        assert_eq!(version("6"), None);
        assert!((5, 15) < (5, 19) && (5, 19) < (6, 1));
    }

    /// Only of the calling thread: the other tests keep what they have.
    #[test]
    fn what_is_dropped_is_gone_for_good() {
        let after = std::thread::spawn(|| {
            keep_only(NONE).unwrap();
            let sets = capabilities(None).unwrap();
            let refused = std::net::UdpSocket::bind("127.0.0.1:1").map(|_| ());
            (sets, refused)
        });
        let (sets, refused) = after.join().unwrap();
        assert!(sets.effective.is_empty() && sets.permitted.is_empty());
        assert!(sets.inheritable.is_empty());
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
