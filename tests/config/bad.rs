//! Each `bad/*.yaml` with its messages in `bad/*.txt`: all of them, in one run, in file order.

use std::fs;

use crate::{Folder, compare, repository};

//= https://datatracker.ietf.org/doc/html/draft-ietf-quic-load-balancers-21#section-3.1
//= type=test
//# A configuration MUST NOT use the reserved identifier 0b111
#[test]
fn every_mistake_gets_its_message() {
    let folder = Folder::new();
    let cases = repository().join("tests/config/bad");
    let mut names: Vec<_> = fs::read_dir(&cases)
        .expect("the cases are there")
        .map(|entry| entry.expect("a readable entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    names.sort();
    assert!(names.len() >= 40, "{} cases", names.len());
    let stale: Vec<String> = names
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).expect("a readable case");
            let messages = format!("{}\n", folder.messages(&text));
            compare(&path.with_extension("txt"), &messages).err()
        })
        .collect();
    assert!(stale.is_empty(), "{}", stale.join("\n"));
}

/// The messages a case must have, whatever else changes: blessing cannot bend these.
#[test]
fn messages_name_file_line_path_value_and_remedy() {
    let folder = Folder::new();
    let text = fs::read_to_string(repository().join("tests/config/bad/units.yaml"))
        .expect("a readable case");
    let messages = folder.messages(&text);
    assert!(
        messages.contains(
            "@/spooky.yaml:6:7: listeners[0].quic.idle_timeout: 30 has no unit; write a duration \
             such as 30s (accepted: 1s to 10m)"
        ),
        "{messages}"
    );
    let mut lines: Vec<usize> = messages
        .lines()
        .map(|line| line.split(':').nth(1).and_then(|line| line.parse().ok()).expect("a line"))
        .collect();
    assert!(lines.len() >= 8, "{messages}");
    let sorted = lines.clone();
    lines.sort_unstable();
    assert_eq!(lines, sorted, "not in file order");
}
