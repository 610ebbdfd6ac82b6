//! Whether a source may speak to a listener: allow list, deny list, default. XDP enforces it early; user space
//! enforces the same rule for everything XDP does not see. Imports [`crate::frame`] and [`crate::verdict`] only.

use crate::{frame::Address, verdict::DropReason};

/// Where the rule finds its lists. Longest prefix or any prefix: only membership counts.
pub trait Lists {
    /// Whether a prefix of the allow list covers `source`.
    fn allows(&self, source: &Address) -> bool;
    /// Whether a prefix of the deny list covers `source`.
    fn denies(&self, source: &Address) -> bool;
}

/// The rule: the allow list beats the deny list beats the default. `None` lets the packet in.
///
/// The common case, no list entry and default allow, costs one lookup.
#[inline(always)]
#[must_use]
pub fn refuse<L: Lists>(source: &Address, lists: &L, default_deny: bool) -> Option<DropReason> {
    let denied = lists.denies(source);
    if !denied && !default_deny {
        return None;
    }
    if lists.allows(source) {
        return None;
    }
    Some(if denied { DropReason::Denied } else { DropReason::NotAllowed })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Listed {
        allow: bool,
        deny: bool,
    }

    impl Lists for Listed {
        fn allows(&self, _: &Address) -> bool {
            self.allow
        }
        fn denies(&self, _: &Address) -> bool {
            self.deny
        }
    }

    #[test]
    fn allow_beats_deny_beats_default() {
        let source = Address::V4([192, 0, 2, 1]);
        for (allow, deny, default_deny, expected) in [
            (false, false, false, None),
            (false, false, true, Some(DropReason::NotAllowed)),
            (false, true, false, Some(DropReason::Denied)),
            (false, true, true, Some(DropReason::Denied)),
            (true, false, false, None),
            (true, false, true, None),
            (true, true, false, None),
            (true, true, true, None),
        ] {
            assert_eq!(refuse(&source, &Listed { allow, deny }, default_deny), expected);
        }
    }
}
