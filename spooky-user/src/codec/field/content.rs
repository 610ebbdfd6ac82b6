//! The content that a message promises and the content that comes (RFC 9114 §4.1.2). Imports its siblings.

use super::Malformed;

/// Compares the DATA of one message with its `content-length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    promised: Option<u64>,
    seen: u64,
}

// === impl Content ===

impl Content {
    /// `promised` is the head's `content_length`. Give `None` for a response to HEAD and for 204 and 304, whose
    /// `content-length` promises nothing (RFC 9110 §8.6).
    #[must_use]
    pub const fn new(promised: Option<u64>) -> Self {
        Self { promised, seen: 0 }
    }

    /// `bytes` more bytes of content came.
    ///
    /// # Errors
    /// [`Malformed::ContentMismatch`] when that is more than promised: nothing of them may be passed on.
    pub fn data(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.seen = self.seen.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        match self.promised {
            Some(promised) if self.seen > promised => Err(Malformed::ContentMismatch),
            _ => Ok(()),
        }
    }

    /// The message ended: by FIN behind DATA, behind the head, behind trailers, or alone.
    ///
    /// # Errors
    /// [`Malformed::ContentMismatch`] when that is less than promised: the end must not be passed on as an end.
    pub fn finish(&self) -> Result<(), Malformed> {
        match self.promised {
            Some(promised) if self.seen != promised => Err(Malformed::ContentMismatch),
            _ => Ok(()),
        }
    }

    /// Bytes of content seen.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }
}
