//! Carries sentences out: entries of the deny list, with a time and a reason. May import: lists.

use std::time::Instant;

use ipnet::IpNet;

use super::{Fate, Loop, Sentence};
use crate::controlplane::lists::{Lists, Origin, Outcome, Refusal};

/// Takes what workers have reported and puts who is sentenced for it on the list; in force when the lists are enforced next.
/// Each sentence has one line in the log.
pub fn carry_out(harm: &mut Loop, lists: &mut Lists, now: Instant) {
    for sentence in harm.beat(now) {
        let reason = sentence.reason();
        let dry_run = harm.is_dry_run();
        let ttl = Some(sentence.ttl);
        let put = lists.block(sentence.prefix, ttl, &reason, Origin::Abuse, dry_run, now);
        let fate = match &put {
            Ok(Outcome { enforced: true, .. }) => Fate::Blocked,
            Ok(_) => Fate::DryRun,
            Err(_) => Fate::Refused,
        };
        tell(&sentence, &reason, fate, put.as_ref().err());
        harm.settle(&sentence, fate, now);
    }
}

/// Takes prefixes off the list whose sentence is over before its time.
pub fn let_go(prefixes: Vec<IpNet>, lists: &mut Lists) {
    for prefix in prefixes {
        // Somebody may have unblocked it already, or blocked it by hand.
        if lists.forgive(prefix) {
            tracing::info!(%prefix, "abuse: no longer blocked");
        }
    }
}

fn tell(sentence: &Sentence, reason: &str, fate: Fate, refusal: Option<&Refusal>) {
    let Sentence { prefix, ttl, earlier, score, .. } = sentence;
    let score = score.round();
    match (fate, refusal) {
        (Fate::Blocked, _) => {
            tracing::warn!(%prefix, ?ttl, reason, score, earlier, "abuse: prefix blocked");
        }
        (_, Some(error)) => {
            tracing::error!(%prefix, reason, score, %error, "abuse: prefix not blocked");
        }
        (_, None) => {
            tracing::warn!(
                %prefix, ?ttl, reason, score, earlier,
                "abuse: prefix would be blocked, were this no dry run"
            );
        }
    }
}
