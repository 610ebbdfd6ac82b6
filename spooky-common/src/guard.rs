//! What becomes of a frame at the XDP hook while there is an attack: the second half of the decision, over a frame to a listener
//! that [`crate::verdict::ingress`] did not refuse. A program of its own in the kernel, so that it costs nothing in peace and the
//! verifier follows each half alone. Must not know aya or pointers.
//!
//! Rule: what no live connection can have sent is dropped, without any state. What may open one passes if it brings a token
//! that was given to its sender; else there is a share for it, for each prefix and for all.

use crate::{
    cid,
    counter::Counter,
    cursor::Cursor,
    frame::{self, Tuple, UDP_HEADER_LEN},
    invariant::{self, Form, Header, Kind},
    pace, steer,
    steer::{Unknown, Whose},
    token,
    verdict::{self, DropReason, Redirected, Tables, Verdict},
};

/// Both halves of the decision, as the kernel comes to it in the end. `start` stands at the frame's first octet.
#[must_use]
pub fn decide<C: Cursor + Clone, T: Tables>(start: &C, tables: &T) -> Verdict {
    match verdict::ingress(&mut start.clone(), tables) {
        Verdict::Guard => ingress(&mut start.clone(), tables),
        decided => decided,
    }
}

/// The second half, from the start of the frame again. Unless the frame was not read so far, the cursor stands at the UDP
/// payload then.
#[inline(always)]
pub fn ingress<C: Cursor + Clone, T: Tables>(cursor: &mut C, tables: &T) -> Verdict {
    let start = cursor.clone();
    let tuple = match frame::udp(cursor) {
        Ok(tuple) => tuple,
        Err(opaque) => return Verdict::Pass(opaque.counter()),
    };
    if cursor.meet().is_none() {
        return Verdict::Pass(Counter::XdpTruncated);
    }
    let mut rest = cursor.clone();
    let Ok(header) = invariant::read(&mut rest, usize::from(tuple.payload_len)) else {
        return Verdict::Pass(Counter::XdpNotQuic);
    };
    match steer::whose(&header, tables) {
        Whose::Unknown(Unknown::Short) => Verdict::Drop(DropReason::UnknownShort, tuple),
        Whose::Unknown(Unknown::Long) => Verdict::Drop(DropReason::UnknownLong, tuple),
        Whose::NewFlow => {
            if let Some(reason) = verdict::may_not_open(&header, &tuple, tables.settings()) {
                return Verdict::Drop(reason, tuple);
            }
            if let Some(reason) = exceeds_share(&tuple, tables) {
                return Verdict::Drop(reason, tuple);
            }
            verdict::welcome(&header, &tuple, tables)
        }
        Whose::Owner(owner) => {
            let here = tables.owner_of_queue().is_of(owner);
            if !here && !tables.is_live(owner) {
                return Verdict::Drop(DropReason::OwnerGone, tuple);
            }
            if may_open(&header)
                && !is_marked(&start, &header, &tuple, tables)
                && let Some(reason) = exceeds_share(&tuple, tables)
            {
                return Verdict::Drop(reason, tuple);
            }
            if here {
                Verdict::Redirect(tables.queue(), Redirected::Owner)
            } else {
                Verdict::Pass(Counter::XdpOwner)
            }
        }
    }
}

/// Whether a packet under an ID of ours can open a connection: that of a client that comes back after a Retry. Of
/// connections there are it may be, too.
#[inline(always)]
const fn may_open(header: &Header) -> bool {
    matches!(header.form, Form::Long { kind: Kind::Initial, .. })
}

/// Whether an Initial under an ID of ours brings a token that was given to its sender.
#[inline(always)]
fn is_marked<C: Cursor + Clone, T: Tables>(
    start: &C,
    header: &Header,
    tuple: &Tuple,
    tables: &T,
) -> bool {
    let [first, ..] = header.dcid;
    let Some(key) = tables.local_key(cid::config_id(first)) else { return false };
    // From the start again: the verifier would follow what stands behind an ID once for each length that an ID can have.
    let headers = usize::from(tuple.link_len) + usize::from(tuple.network_len + UDP_HEADER_LEN);
    let mut behind = start.clone();
    behind.skip(headers + token::BEFORE).is_some()
        && token::is_marked(&mut behind, tuple, key, tables.settings().tokens_since_ms)
}

/// Whether there have been more strangers than have a share, of this prefix or of all. One that is too many of its prefix
/// takes nothing from the others.
#[inline(always)]
fn exceeds_share<T: Tables>(tuple: &Tuple, tables: &T) -> Option<DropReason> {
    let settings = tables.settings();
    let bucket = pace::bucket(&tuple.source, &settings.placement);
    let passes = verdict::keeps_pace(&settings.strangers, bucket, tables)
        && verdict::keeps_pace(&settings.strangers_all, pace::STRANGERS_BUCKET, tables);
    (!passes).then_some(DropReason::NoToken)
}
