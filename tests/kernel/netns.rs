//! A network namespace of the test's own thread: what it makes there is gone with the thread and its sockets.

use std::process::Command;

use rustix::thread::UnshareFlags;

use crate::rig;

/// Moves this thread to a fresh namespace with its loopback up, or says why the test is skipped.
pub(crate) fn enter(test: &str) -> Option<()> {
    // SAFETY: a new network namespace changes no memory, file descriptor or file system of any thread; sockets made
    // before stay where they are.
    if let Err(error) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
        rig::skip(test, &format!("a network namespace needs CAP_SYS_ADMIN ({error})"));
        return None;
    }
    ip(&["link", "set", "lo", "up"]);
    Some(())
}

/// `ip(8)` in this thread's namespace.
pub(crate) fn ip(arguments: &[&str]) {
    run("ip", arguments);
}

/// A program in this thread's namespaces, which must succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {}: {said}", arguments.join(" "));
}
