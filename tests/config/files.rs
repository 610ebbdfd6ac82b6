//! Files that are not what they should be: too large, pipes, folders, unreadable, not text.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use spooky_user::controlplane::config::{FILE_SIZE_MAX, load};

use crate::Folder;

fn message(folder: &Folder, path: &Path) -> String {
    let begin = Instant::now();
    let errors = load(path).expect_err("not a configuration");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    folder.shorten(&errors.to_string())
}

#[test]
fn a_file_that_is_not_there() {
    let folder = Folder::new();
    assert_eq!(
        message(&folder, &folder.path().join("none.yaml")),
        "@/none.yaml: cannot be read: there is no such file"
    );
}

#[test]
fn a_folder_and_a_pipe_are_refused_without_waiting() {
    let folder = Folder::new();
    assert_eq!(
        message(&folder, &folder.path().join("folder")),
        "@/folder: cannot be read: it is a directory"
    );
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    assert_eq!(message(&folder, &pipe), "@/pipe: cannot be read: not a regular file");
    let text = "access: {deny_files: [\"@/pipe\"]}\nlisteners: [{name: a, bind: \"[::1]:1\", \
                tls: {certificates: [{cert: \"@/pipe\", key: \"@/pipe\"}]}}]\n";
    let messages = folder.messages(text);
    assert_eq!(messages.matches("@/pipe cannot be read: not a regular file").count(), 3);
}

#[test]
fn an_unreadable_file() {
    let folder = Folder::new();
    let path = folder.write("secret.yaml", "version: 1");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).expect("our own file");
    if fs::File::open(&path).is_ok() {
        println!("SKIPPED an_unreadable_file: this user may read everything");
        return;
    }
    assert_eq!(
        message(&folder, &path),
        "@/secret.yaml: cannot be read: permission denied; let the user who runs spooky read it, in a directory \
         that the configuration named when spooky started"
    );
}

#[test]
fn a_file_larger_than_any_configuration() {
    let folder = Folder::new();
    let size = usize::try_from(FILE_SIZE_MAX).expect("10 MiB");
    let path = folder.write("large.yaml", vec![b'#'; size + 1]);
    assert_eq!(message(&folder, &path), "@/large.yaml: cannot be read: larger than 10 MiB");
    // One octet less is read: a comment alone lacks everything that must be given.
    let path = folder.write("large.yaml", vec![b'#'; size]);
    let missing = message(&folder, &path);
    assert!(missing.contains("listeners: is missing"), "{missing}");
}

#[test]
fn octets_that_are_no_text() {
    let folder = Folder::new();
    let path = folder.write("latin1.yaml", b"version: 1\n# caf\xe9\n");
    assert_eq!(message(&folder, &path), "@/latin1.yaml:2:1: not UTF-8; save the file as UTF-8");
}

#[test]
fn hostile_yaml_ends_soon_and_without_a_panic() {
    let folder = Folder::new();
    let mut bomb = String::from("a: &a [x, x, x, x, x, x, x, x, x]\n");
    for (above, name) in "abcdefgh".chars().zip("bcdefghi".chars()) {
        let aliases = vec![format!("*{above}"); 9].join(", ");
        bomb.push_str(&format!("{name}: &{name} [{aliases}]\n"));
    }
    for text in [
        bomb.as_str(),
        &"[".repeat(100_000),
        &"{a: ".repeat(100_000),
        &"- ".repeat(100_000),
        &format!("version: {}", "9".repeat(100_000)),
        "? [a, b]\n: c\n",
        "? {a: b}\n: c\n? [x]\n: d\n",
        "!!python/object x",
        "version: !tag 1",
        "listeners: &a [*a]",
        "%YAML 9.9\n---\n",
        "a: b\n---\nc: d\n",
        "\u{feff}version: 1",
        "\0",
        "1",
        "[]",
        "version: 1\nversion: 1\n? \n",
    ] {
        let path = folder.write("hostile.yaml", text);
        assert!(!message(&folder, &path).is_empty());
    }
}

/// Row I05: a key is its owner's and its group's, who reads at most.
#[test]
fn i05_keys_that_others_can_read_are_refused() {
    let folder = Folder::new();
    let text = "listeners: [{name: a, bind: \"[::1]:1\", quic: {cid: {key_file: \"@/cid.key\"}}, \
                tls: {certificates: [{cert: \"@/cert.pem\", key: \"@/key.pem\"}]}}]\n\
                version: 1\nupstreams: {a: {endpoints: [{name: a, address: \"127.0.0.1:1\"}]}}\n\
                routes: [{name: a, match: {path_prefix: /}, upstream: a}]\n";
    let mode = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("our own file");
    };
    // A certificate is for everybody.
    mode("cert.pem", 0o644);
    for open in [0o604, 0o602, 0o620, 0o644, 0o666, 0o755] {
        for key in ["key.pem", "cid.key"] {
            mode("key.pem", 0o600);
            mode("cid.key", 0o600);
            mode(key, open);
            let told = folder.messages(text);
            let expected =
                format!("@/{key} holds a secret and is open to others (mode {open:04o}); chmod");
            assert!(told.contains(&expected), "{told}");
            assert_eq!(told.matches("holds a secret").count(), 1, "{told}");
        }
    }
    for private in [0o400, 0o600, 0o440, 0o640] {
        mode("key.pem", private);
        mode("cid.key", private);
        folder.load(text).unwrap_or_else(|errors| panic!("{private:04o}: {errors}"));
    }
}
