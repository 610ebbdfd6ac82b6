//! The configuration that `run` starts spooky with: config/dev.yaml and a control socket, whose path must be whole and so
//! cannot stand in a file of the repository. Starts nothing.

use super::CONFIG;
use crate::command::{Failure, root, say};
use std::fs;
use std::path::Path;

/// What is written, and where the control socket is, from the top of the repository.
pub(super) const WRITTEN: &str = "target/dev/spooky.yaml";
pub(super) const SOCKET: &str = "target/dev/spooky.sock";

/// The section of config/dev.yaml that gets the socket, as far as it is the same in what is written.
const SECTION: &str = "\nadmin: {bind: \"127.0.0.1:9901\"";
/// Longest path of a unix socket that Linux takes, in octets (`sun_path` with its end).
const SOCKET_PATH_MAX: usize = 107;

/// Writes it. Whoever changes config/dev.yaml starts `run` again.
///
/// # Errors
/// A file cannot be read or written.
pub(super) fn write() -> Result<(), Failure> {
    let text = fs::read_to_string(root().join(CONFIG))
        .map_err(|error| Failure::new(format!("{CONFIG}: {error}")))?;
    let socket = root().join(SOCKET);
    let text = with_socket(&text, &socket).unwrap_or_else(|| {
        let path = socket.display();
        say(format_args!(
            "no control socket: {CONFIG} has another admin section, or {path} is too long"
        ));
        text
    });
    fs::write(root().join(WRITTEN), text)
        .map_err(|error| Failure::new(format!("{WRITTEN}: {error}")))
}

/// Whether what was written has the socket.
pub(super) fn has_socket() -> bool {
    let text = fs::read_to_string(root().join(WRITTEN)).unwrap_or_default();
    text.contains(&format!("{SECTION}, socket: "))
}

/// `None`: there is no place for it, or it is too long.
fn with_socket(text: &str, socket: &Path) -> Option<String> {
    let whole = format!("{SECTION}}}");
    let path = socket.to_str().filter(|path| path.len() <= SOCKET_PATH_MAX)?;
    // A JSON string is a YAML string.
    let quoted = serde_json::to_string(path).ok()?;
    text.contains(&whole).then(|| text.replace(&whole, &format!("{SECTION}, socket: {quoted}}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_file_has_a_place_for_the_socket() {
        let text = fs::read_to_string(root().join(CONFIG)).expect("it is there");
        let written = with_socket(&text, Path::new("/a \"b\"/spooky.sock")).expect("a place");
        let line = "\nadmin: {bind: \"127.0.0.1:9901\", socket: \"/a \\\"b\\\"/spooky.sock\"}\n";
        assert!(written.contains(line), "{written}");
        assert_eq!(
            written.len(),
            text.len() + line.len() - "\nadmin: {bind: \"127.0.0.1:9901\"}\n".len()
        );
    }

    #[test]
    fn without_a_place_there_is_none() {
        assert_eq!(with_socket("\nadmin: {bind: \"[::1]:9901\"}\n", Path::new("/s")), None);
        let long = format!("/{}", "x".repeat(SOCKET_PATH_MAX));
        assert_eq!(with_socket(&format!("{SECTION}}}"), Path::new(&long)), None);
    }
}
