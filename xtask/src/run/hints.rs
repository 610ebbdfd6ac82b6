//! How to try the spooky that `run` started: lines that work with what is installed here.

use super::{ADMIN, EDGE_PORT, http};
use crate::command::{output, root, say, which};
use crate::setup;
use std::fmt::Write as _;
use std::process::Command;

/// The interface config/dev.yaml attaches the XDP program to.
pub(super) const INTERFACE: &str = "lo";

/// Makes the Python client if that needs nothing from the system; without it there is still the
/// browser line.
pub(super) fn offer_client() {
    let usable = setup::has_clients() || curl_with_http3();
    if !usable && setup::can_make_clients() && setup::ensure_clients().is_err() {
        say("    no command-line client then; `cargo xtask setup` tries again");
    }
}

pub(super) fn how_to_try() -> String {
    let url = format!("https://localhost:{EDGE_PORT}/");
    let mut text = format!("\nspooky serves {url} (HTTP/3)\n\n");
    // Writing to a String cannot fail.
    let _ = write!(text, "  client    {}\n  browser   {}\n", client(&url), browser(&url));
    let _ = writeln!(text, "  metrics   curl http://{ADMIN}/metrics");
    let _ = write!(text, "  kernel    {}\n\nCtrl-C ends all of it.\n", kernel());
    text
}

fn client(url: &str) -> String {
    if setup::has_clients() {
        let python = "target/venv/bin/python tests/clients/h3get.py";
        return format!("{python} --ca target/dev/ca.pem {url}");
    }
    if curl_with_http3() {
        return format!("curl --http3-only --cacert target/dev/ca.pem {url}");
    }
    "none here; `cargo xtask setup` makes one".to_owned()
}

fn curl_with_http3() -> bool {
    let version = output(Command::new("curl").arg("--version"));
    version.is_some_and(|text| text.split_whitespace().any(|word| word == "HTTP3"))
}

/// Chromium asks for HTTP/3 only where it has been told to, and trusts the development
/// certificate by the hash of its key.
fn browser(url: &str) -> String {
    let names = ["chromium", "google-chrome", "chromium-browser"];
    let found = names.into_iter().find(|name| which(name).is_some());
    let spki = std::fs::read_to_string(root().join("target/dev/spki.txt")).unwrap_or_default();
    let note = if found.is_some() { "" } else { "   (not installed here)" };
    let sandbox = if rustix::process::geteuid().is_root() { " --no-sandbox" } else { "" };
    format!(
        "{}{sandbox} --user-data-dir=/tmp/spooky-browser --enable-quic \
         --origin-to-force-quic-on=localhost:{EDGE_PORT} \
         --ignore-certificate-errors-spki-list={} {url}{note}",
        found.unwrap_or("chromium"),
        spki.trim(),
    )
}

/// One line: which kernel programs run, and what they have counted.
fn kernel() -> String {
    match http::get(ADMIN, "/metrics") {
        Some((200, metrics)) => kernel_line(&metrics),
        _ => "unknown: the metrics page does not answer".to_owned(),
    }
}

fn kernel_line(metrics: &str) -> String {
    let mode = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("spooky_ebpf_mode{"))
        .filter(|line| line.ends_with(" 1"))
        .find_map(|line| line.split('"').nth(1));
    match mode {
        None | Some("off") => "none: plain sockets, steering in user space".to_owned(),
        Some(mode) => format!("{mode} on {INTERFACE}"),
    }
}
