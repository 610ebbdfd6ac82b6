//! How to try the spooky that `run` started: lines that work with what is installed here.

use super::{ADMIN, EDGE_PORT, config, http};
use crate::command::{output, root, say, which};
use crate::setup;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

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

pub(super) fn how_to_try(bin: &Path) -> String {
    // By address: the listener has no IPv6 side, and a browser that is told to use QUIC does not fall back from ::1.
    let url = format!("https://127.0.0.1:{EDGE_PORT}/");
    let mut text = format!("\nspooky serves {url} (HTTP/3)\n\n");
    // Writing to a String cannot fail.
    let _ = write!(text, "  client    {}\n  browser   {}\n", client(&url), browser(&url));
    let _ = writeln!(text, "  metrics   curl http://{ADMIN}/metrics");
    if config::has_socket() {
        let _ = writeln!(
            text,
            "  control   {}   (or steering, list, block 192.0.2.0/24 --ttl 10m)",
            control(bin)
        );
    }
    let _ = write!(text, "  kernel    {}\n\nCtrl-C ends all of it.\n", kernel());
    text
}

/// The socket is root's where `run` is.
fn control(bin: &Path) -> String {
    let sudo = if std::env::var_os("SUDO_UID").is_some() { "sudo " } else { "" };
    let program = bin.join("spooky");
    let program = program.strip_prefix(root()).unwrap_or(&program);
    format!("{sudo}{} ctl --socket {} status", program.display(), config::SOCKET)
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
         --origin-to-force-quic-on=127.0.0.1:{EDGE_PORT} \
         --ignore-certificate-errors-spki-list={} {url}{note}",
        found.unwrap_or("chromium"),
        spki.trim(),
    )
}

/// One line: which kernel programs run, and what they and the workers have counted.
fn kernel() -> String {
    let tried = try_once();
    match http::get(ADMIN, "/metrics") {
        Some((200, metrics)) => kernel_line(&metrics, tried),
        _ => "unknown: the metrics page does not answer".to_owned(),
    }
}

/// A few requests of our own, so that there is something to count. `false`: no client here, or it
/// got no answer, which its own words above then explain.
fn try_once() -> bool {
    let mut client = Command::new(setup::python());
    client.current_dir(root()).stdout(Stdio::null());
    client.args(["tests/clients/h3get.py", "--ca", "target/dev/ca.pem", "--count", "5"]);
    client.arg(format!("https://127.0.0.1:{EDGE_PORT}/"));
    setup::has_clients() && client.status().is_ok_and(|status| status.success())
}

fn kernel_line(metrics: &str, tried: bool) -> String {
    let mode = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("spooky_ebpf_mode{"))
        .filter(|line| line.ends_with(" 1"))
        .find_map(|line| line.split('"').nth(1));
    let Some(mode) = mode.filter(|mode| *mode != "off") else {
        return "no programs: plain sockets, strays handed over in user space".to_owned();
    };
    let steered = sum(metrics, "spooky_reuseport_packets_total", "reason=\"owner\"");
    let placed = sum(metrics, "spooky_reuseport_packets_total", "reason=\"new_flow\"");
    let astray = sum(metrics, "spooky_steer_forwarded_total", "");
    if !tried {
        return format!("{mode}; {steered:.0} packets steered to their owner so far");
    }
    format!(
        "{mode}: tried 5 requests; packets of new connections placed {placed:.0}, steered to \
         their owner {steered:.0}, astray {astray:.0}"
    )
}

/// The sum of `name`'s samples whose labels contain `label`.
fn sum(metrics: &str, name: &str, label: &str) -> f64 {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let ours = samples.filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(label));
    ours.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE spooky_ebpf_mode gauge
spooky_ebpf_mode{mode=\"reuseport\"} 0
spooky_ebpf_mode{mode=\"xdp\"} 1
spooky_reuseport_packets_total{outcome=\"owner\",reason=\"owner\"} 12
spooky_reuseport_packets_total{outcome=\"slot\",reason=\"new_flow\"} 2
spooky_reuseport_packets_total_other{reason=\"owner\"} 99
spooky_steer_forwarded_total 1
";

    #[test]
    fn the_kernel_line_says_mode_and_counts() {
        let line = kernel_line(METRICS, true);
        assert!(line.starts_with("xdp: ") && line.contains("to their owner 12"), "{line}");
        assert!(line.contains("placed 2") && line.contains("astray 1"), "{line}");
    }

    #[test]
    fn without_programs_it_says_so() {
        assert!(kernel_line("spooky_ebpf_mode{mode=\"off\"} 1\n", true).contains("no programs"));
        assert!(kernel_line("", false).contains("no programs"));
    }
}
