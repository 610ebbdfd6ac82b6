//! Keys about clients that do harm. May import: read.

use std::time::Duration;

use crate::controlplane::config::read::{choice, section};

section! {
    /// Clients that do harm: what they do raises a score of their prefix, and a prefix whose score is too high is blocked for a time,
    /// in the kernel in mode `xdp`. Only what a client does that has shown that it can receive at its address counts.
    pub struct Abuse {
        /// `dry_run` logs and counts which prefixes would be blocked, and blocks nobody: look at that first. `block` blocks. `off`
        /// does not even look.
        mode: AbuseMode = "dry_run", live;
        /// From this score on a prefix is blocked.
        threshold: u32 = "1000", "1" ..= "1000000000", live;
        /// Time in which a score halves. At the defaults, 23 responses with 4xx a second reach the threshold in the end, 1000 in one
        /// second do so in a little more than that.
        half_life: Duration = "30s", "1s" ..= "1h", live;
        /// How long a prefix is blocked at first; each time doubles it.
        block_for: Duration = "1m", "1s" ..= "1d", live;
        /// The longest. As long after its end a block is remembered.
        max_block_for: Duration = "1h", "1s" ..= "7d", live;
        /// Prefixes that may be blocked this way at a time. Above it nobody is added, which is counted.
        max_entries: u32 = "4096", "1" ..= "8192", live;
        /// Bits of an IPv4 address that make a prefix. 32 is each address by itself; behind a smaller one are neighbours who have
        /// done nothing.
        ipv4_prefix: u8 = "32", "8" ..= "32", live;
        /// Bits of an IPv6 address that make a prefix: a host has as many addresses of its /64 as it likes.
        ipv6_prefix: u8 = "64", "16" ..= "128", live;
        /// Networks that have no score and are never blocked this way, nor is a prefix that has one of their addresses. Those in
        /// `access.allow` are trusted as well.
        trusted: Vec<String> = "[\"127.0.0.0/8\", \"::1\"]", live;
        /// Points of each event; 0 does not count it.
        weights: AbuseWeights = "{}";
    }
}

choice! {
    /// What is done about clients that do harm.
    pub enum AbuseMode {
        /// Logged and counted.
        DryRun = "dry_run",
        /// Blocked.
        Block = "block",
        /// Not looked at.
        Off = "off",
    }
}

section! {
    /// Points of each event.
    pub struct AbuseWeights {
        /// A handshake that failed, whoever ended it.
        handshake: u32 = "10", "0" ..= "1000000", live;
        /// A response with a status from 400 to 499, other than 429, the backend's or spooky's own.
        client_error: u32 = "1", "0" ..= "1000000", live;
        /// A request that was reset, or whose response was stopped, before it was answered or within a second.
        reset: u32 = "1", "0" ..= "1000000", live;
        /// A malformed request, or one that was never whole.
        glitch: u32 = "10", "0" ..= "1000000", live;
        /// A connection that was closed for what its client did: a rule of QUIC or HTTP/3 broken, or one of the limits reached that
        /// close connections (`spooky_limits_reached_total`).
        violation: u32 = "100", "0" ..= "1000000", live;
        /// A response with 429: a request was one too many for its route, or for its backend.
        rate_limit: u32 = "2", "0" ..= "1000000", live;
    }
}
