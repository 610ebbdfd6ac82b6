//! Bounded forward reading. Every parser in this crate reads through [`Cursor`], so that the same code runs over a
//! slice in user space and over a packet in the kernel. Must not import anything.

/// Reads forward over octets from outside, never past their end.
pub trait Cursor {
    /// Takes the next `N` octets; `None`, and nothing taken, when fewer are left.
    fn take<const N: usize>(&mut self) -> Option<[u8; N]>;

    /// Takes the next `count` octets into an array whose rest is zero; `None` when fewer are left or `count > N`.
    fn take_up_to<const N: usize>(&mut self, count: usize) -> Option<[u8; N]>;

    /// Passes over `count` octets, at most 2048 (the kernel's verifier must see a bound); `None` when fewer are left.
    fn skip(&mut self, count: usize) -> Option<()>;

    /// Says that many ways lead here and one goes on: the kernel's verifier need not follow the rest once for each way.
    /// `None` when the place is further from the start than any header ends.
    #[inline(always)]
    fn meet(&mut self) -> Option<()> {
        Some(())
    }
}

/// Most octets one [`Cursor::skip`] passes over: an IPv6 extension header is at most 8 * 256 octets long.
pub const SKIP_MAX: usize = 2048;

impl Cursor for &[u8] {
    #[inline(always)]
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.split_first_chunk::<N>()?;
        *self = rest;
        Some(*taken)
    }

    #[inline(always)]
    fn take_up_to<const N: usize>(&mut self, count: usize) -> Option<[u8; N]> {
        let (taken, rest) = self.split_at_checked(count)?;
        let mut octets = [0; N];
        octets.get_mut(..count)?.copy_from_slice(taken);
        *self = rest;
        Some(octets)
    }

    #[inline(always)]
    fn skip(&mut self, count: usize) -> Option<()> {
        if count > SKIP_MAX {
            return None;
        }
        *self = self.get(count..)?;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_passes_the_end() {
        let mut at: &[u8] = &[1, 2, 3, 4, 5];
        assert_eq!(at.take::<2>(), Some([1, 2]));
        assert_eq!(at.take::<4>(), None);
        assert_eq!(at.take_up_to::<4>(2), Some([3, 4, 0, 0]));
        assert_eq!(at.take_up_to::<4>(2), None);
        assert_eq!(at.skip(2), None);
        assert_eq!(at.skip(1), Some(()));
        assert_eq!(at.skip(0), Some(()));
        assert_eq!(at.take::<0>(), Some([]));
        assert_eq!(at.take::<1>(), None);
    }

    #[test]
    fn refuses_more_than_it_can_hold() {
        let mut at: &[u8] = &[0; 64];
        assert_eq!(at.take_up_to::<4>(5), None);
        let long = [0; SKIP_MAX + 1];
        let mut at: &[u8] = &long;
        assert_eq!(at.skip(SKIP_MAX + 1), None);
        assert_eq!(at.skip(SKIP_MAX), Some(()));
    }
}
