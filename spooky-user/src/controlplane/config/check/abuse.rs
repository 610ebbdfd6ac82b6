//! Checks of what is done about clients that do harm. May import: schema, the loop's settings.

use super::Checker;
use super::access::network;
use crate::controlplane::abuse::{Mode, Rules, Settings};
use crate::controlplane::config::schema::{Abuse, AbuseMode};

pub(super) fn check(checker: &mut Checker<'_>, abuse: &Abuse) -> Settings {
    let mut trusted = Vec::new();
    for (index, text) in abuse.trusted.iter().enumerate() {
        let path = format!("abuse.trusted[{index}]");
        match network(text) {
            Ok(network) => trusted.push(network),
            Err(_) if checker.is_faulty(&path) => {}
            Err(message) => checker.problem(&path, message),
        }
    }
    let path = "abuse.max_block_for";
    let faulty = checker.is_faulty(path) || checker.is_faulty("abuse.block_for");
    if abuse.max_block_for < abuse.block_for && !faulty {
        checker.problem(path, "is less than block_for; raise it, or lower that");
    }
    let weights = &abuse.weights;
    Settings {
        mode: match abuse.mode {
            AbuseMode::Off => Mode::Off,
            AbuseMode::DryRun => Mode::DryRun,
            AbuseMode::Block => Mode::Block,
        },
        rules: Rules {
            weights: [
                weights.handshake,
                weights.client_error,
                weights.reset,
                weights.glitch,
                weights.violation,
                weights.rate_limit,
            ],
            threshold: abuse.threshold,
            half_life: abuse.half_life,
            block_for: abuse.block_for,
            max_block_for: abuse.max_block_for,
            max_entries: usize::try_from(abuse.max_entries).unwrap_or(usize::MAX),
        },
        ipv4_prefix: abuse.ipv4_prefix,
        ipv6_prefix: abuse.ipv6_prefix,
        trusted,
    }
}
