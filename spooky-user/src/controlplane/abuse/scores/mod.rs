//! Scores of prefixes: each event raises one, time halves it, above a threshold the prefix is sentenced. Pure: events and a time go
//! in, sentences come out. Imports the events' kinds.
//!
//! ```text
//!  unknown ──event──▶ tracked ──threshold──▶ sentenced for block_for x 2^(earlier sentences) ──time──▶ tracked
//!     ▲                  │ nothing left of its score, nothing of it remembered                            │
//!     └──────────────────┴────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The table has a fixed capacity. When it is full, those with the lowest scores are forgotten, and counted: a flood from many
//! prefixes forgets its own small fry, not the one that does most.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use crate::dataplane::abuse::Event;

/// Prefixes that have a score.
pub(super) const CAPACITY: usize = 16_384;
/// Forgotten at once when the table is full.
const EVICTED: usize = CAPACITY / 16;
/// A score below this is none.
const NOTHING: f64 = 0.5;

/// How events are weighed and what they bring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Points of each event, by [`Event::index`].
    pub weights: [u32; 6],
    /// Points from which a prefix is sentenced.
    pub threshold: u32,
    /// Time in which a score halves.
    pub half_life: Duration,
    /// The first sentence.
    pub block_for: Duration,
    /// The longest; as long after its end a sentence is remembered.
    pub max_block_for: Duration,
    /// Prefixes under a sentence at a time, at most half of `CAPACITY`.
    pub max_entries: usize,
}

/// A prefix is to be blocked.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentence {
    /// Whom.
    pub prefix: IpNet,
    /// For how long.
    pub ttl: Duration,
    /// How many it has had before that are remembered.
    pub earlier: u32,
    /// Its score.
    pub score: f64,
    /// What brought it about since the last sentence, by [`Event::index`].
    pub events: [u32; 6],
}

#[derive(Clone, Debug)]
struct Entry {
    /// As it was then.
    score: f64,
    at: Instant,
    events: [u32; 6],
    sentences: u32,
    /// The end of the last sentence.
    until: Option<Instant>,
}

/// All prefixes that have done something lately.
#[derive(Debug)]
pub(super) struct Scores {
    rules: Rules,
    entries: HashMap<IpNet, Entry>,
    /// Ends of sentences.
    ends: BinaryHeap<Reverse<(Instant, IpNet)>>,
    evicted: u64,
    capped: u64,
}

// === impl Scores ===

impl Scores {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, entries: HashMap::new(), ends: BinaryHeap::new(), evicted: 0, capped: 0 }
    }

    /// What was found out so far stays, and is judged by these.
    pub(super) fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// Prefixes under a sentence.
    pub(super) fn under_sentence(&self) -> Vec<IpNet> {
        self.ends.iter().map(|Reverse((_, prefix))| *prefix).collect()
    }

    /// Forgets one prefix and its sentence.
    pub(super) fn forget(&mut self, prefix: &IpNet) {
        self.entries.remove(prefix);
        self.ends.retain(|Reverse((_, other))| other != prefix);
    }

    /// Forgets all that are under no sentence.
    pub(super) fn clear_free(&mut self) {
        let kept: HashSet<IpNet> = self.under_sentence().into_iter().collect();
        self.entries.retain(|prefix, _| kept.contains(prefix));
    }

    /// Somebody in this prefix did that. What one does who is under a sentence already changes nothing.
    pub(super) fn record(&mut self, prefix: IpNet, event: Event, now: Instant) -> Option<Sentence> {
        let weight = self.rules.weights.get(event.index()).copied().unwrap_or(0);
        if weight == 0 {
            return None;
        }
        if !self.entries.contains_key(&prefix) && self.entries.len() >= CAPACITY {
            self.evict(now);
        }
        let half_life = self.rules.half_life;
        let entry = self.entries.entry(prefix).or_insert_with(|| Entry {
            score: 0.0,
            at: now,
            events: [0; 6],
            sentences: 0,
            until: None,
        });
        if entry.until.is_some_and(|until| now < until) {
            return None;
        }
        entry.score = entry.score_at(half_life, now) + f64::from(weight);
        entry.at = now;
        if let Some(count) = entry.events.get_mut(event.index()) {
            *count = count.saturating_add(1);
        }
        if entry.score < f64::from(self.rules.threshold) {
            return None;
        }
        if self.ends.len() >= self.rules.max_entries {
            // Its next event tries again; until then it is judged by what it does from now on.
            entry.score = f64::from(self.rules.threshold);
            self.capped += 1;
            return None;
        }
        let sentence = entry.sentence(prefix, &self.rules, now);
        self.ends.push(Reverse((now + sentence.ttl, prefix)));
        Some(sentence)
    }

    /// The sentence could not be carried out: as if there had been none.
    pub(super) fn undo(&mut self, prefix: &IpNet, now: Instant) {
        if let Some(entry) = self.entries.get_mut(prefix) {
            entry.until = Some(now);
            entry.sentences = entry.sentences.saturating_sub(1);
        }
        self.ends.retain(|Reverse((_, other))| other != prefix);
    }

    /// Lets go of those whose sentence is over. At each beat.
    pub(super) fn release(&mut self, now: Instant) {
        while self.ends.peek().is_some_and(|Reverse((end, _))| *end <= now) {
            self.ends.pop();
        }
    }

    /// Forgets prefixes of which nothing is left. From time to time.
    pub(super) fn sweep(&mut self, now: Instant) {
        let (half_life, memory) = (self.rules.half_life, self.rules.max_block_for);
        self.entries.retain(|_, entry| {
            let remembered = entry.until.is_some_and(|until| now < until + memory);
            remembered || entry.score_at(half_life, now) >= NOTHING
        });
    }

    /// Prefixes that have a score or a sentence that is remembered.
    pub(super) fn tracked(&self) -> usize {
        self.entries.len()
    }

    /// Prefixes under a sentence.
    pub(super) fn sentenced(&self) -> usize {
        self.ends.len()
    }

    /// Prefixes forgotten for want of room.
    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Events that would have brought a sentence if there were not as many as there may be.
    pub(super) fn capped(&self) -> u64 {
        self.capped
    }

    /// Forgets those who rank lowest; nobody under a sentence, of whom there is half the capacity at most.
    fn evict(&mut self, now: Instant) {
        let threshold = f64::from(self.rules.threshold);
        let half_life = self.rules.half_life;
        let free = |entry: &Entry| entry.until.is_none_or(|until| until <= now);
        let rank =
            |entry: &Entry| entry.score_at(half_life, now) + threshold * f64::from(entry.sentences);
        let mut ranks: Vec<(f64, IpNet)> = self
            .entries
            .iter()
            .filter(|(_, entry)| free(entry))
            .map(|(prefix, entry)| (rank(entry), *prefix))
            .collect();
        if ranks.len() > EVICTED {
            ranks.select_nth_unstable_by(EVICTED, |a, b| a.0.total_cmp(&b.0));
        }
        for (_, prefix) in ranks.iter().take(EVICTED) {
            self.entries.remove(prefix);
            self.evicted += 1;
        }
    }

    #[cfg(test)]
    fn score(&self, prefix: &IpNet, now: Instant) -> f64 {
        let score = |entry: &Entry| entry.score_at(self.rules.half_life, now);
        self.entries.get(prefix).map_or(0.0, score)
    }
}

// === impl Entry ===

impl Entry {
    fn score_at(&self, half_life: Duration, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.score * 0.5_f64.powf(passed / half_life.as_secs_f64())
    }

    fn sentence(&mut self, prefix: IpNet, rules: &Rules, now: Instant) -> Sentence {
        let forgotten = |until: Instant| now >= until + rules.max_block_for;
        if self.until.is_none_or(forgotten) {
            self.sentences = 0;
        }
        let doubled = 1_u32.checked_shl(self.sentences).unwrap_or(u32::MAX);
        let ttl = rules.block_for.saturating_mul(doubled).min(rules.max_block_for);
        let sentence = Sentence {
            prefix,
            ttl,
            earlier: self.sentences,
            score: self.score,
            events: std::mem::take(&mut self.events),
        };
        self.sentences = self.sentences.saturating_add(1);
        self.until = Some(now + ttl);
        self.score = 0.0;
        sentence
    }
}

// === impl Sentence ===

impl Sentence {
    /// What it is for, most first: `client_error 900, reset 12`.
    #[must_use]
    pub fn reason(&self) -> String {
        let mut counts: Vec<(u32, &str)> = self
            .events
            .iter()
            .zip(Event::ALL)
            .filter(|(count, _)| **count > 0)
            .map(|(count, event)| (*count, event.label()))
            .collect();
        counts.sort_unstable_by_key(|(count, _)| Reverse(*count));
        let parts: Vec<String> =
            counts.iter().map(|(count, label)| format!("{label} {count}")).collect();
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests;
