//! Which datagrams are lost, spoiled, doubled and swapped. Seeded: one random source a flow and direction, drawn from the
//! same number of times a datagram, so that the fate of the n-th datagram of a flow depends on the seed alone.

use std::sync::atomic::Ordering::Relaxed;

use super::{Impairment, Tally};

/// One direction of one flow.
#[derive(Debug)]
pub(super) struct Fate {
    impairment: Impairment,
    random: fastrand::Rng,
    /// Losses, and changed octets, in a row.
    lost: u32,
    spoiled: u32,
    held: Option<Vec<u8>>,
}

/// A datagram on its way, and how much of the jitter it gets, of 1.
#[derive(Debug, PartialEq)]
pub(super) struct Survivor {
    pub bytes: Vec<u8>,
    pub jitter: f64,
}

impl Fate {
    pub(super) fn new(impairment: Impairment, seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { impairment, random, lost: 0, spoiled: 0, held: None }
    }

    /// What leaves when this datagram arrives, in order.
    pub(super) fn pass(&mut self, datagram: &[u8], tally: &Tally) -> Vec<Survivor> {
        let draws = [(); 5].map(|()| self.random.f64());
        let (place, change) = (self.random.u64(..), self.random.u8(1..));
        let [loss, corruption, duplication, reordering, jitter] = draws;
        let survivor = |bytes: Vec<u8>| Survivor { bytes, jitter };
        let Impairment { burst_max, .. } = self.impairment;
        if struck(loss < self.impairment.loss, burst_max, &mut self.lost) {
            tally.lost.fetch_add(1, Relaxed);
            return self.release().map(survivor).into_iter().collect();
        }
        let mut bytes = datagram.to_vec();
        if struck(corruption < self.impairment.corruption, burst_max, &mut self.spoiled) {
            tally.spoiled.fetch_add(1, Relaxed);
            let length = bytes.len().max(1) as u64;
            if let Some(octet) = bytes.get_mut((place % length) as usize) {
                *octet ^= change;
            }
        }
        if reordering < self.impairment.reordering && self.held.is_none() {
            tally.swapped.fetch_add(1, Relaxed);
            self.held = Some(bytes);
            return Vec::new();
        }
        let mut out = vec![survivor(bytes)];
        if duplication < self.impairment.duplication {
            tally.doubled.fetch_add(1, Relaxed);
            out.push(survivor(out[0].bytes.clone()));
        }
        out.extend(self.release().map(survivor));
        out
    }

    /// A datagram waits for the next to overtake it.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// That datagram, when none came.
    pub(super) fn release(&mut self) -> Option<Vec<u8>> {
        self.held.take()
    }
}

/// Whether it strikes once more, counted in `row`: never more than `burst_max` times in a row.
fn struck(drawn: bool, burst_max: u32, row: &mut u32) -> bool {
    let struck = drawn && (burst_max == 0 || *row < burst_max);
    *row = if struck { *row + 1 } else { 0 };
    struck
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(impairment: Impairment, seed: u64) -> (Vec<Vec<Survivor>>, Tally) {
        let (mut fate, tally) = (Fate::new(impairment, seed), Tally::default());
        let out = (0..200u8).map(|n| fate.pass(&[n; 8], &tally)).collect();
        (out, tally)
    }

    #[test]
    fn the_fate_of_a_datagram_depends_on_the_seed_alone() {
        let impairment = Impairment {
            loss: 0.2,
            corruption: 0.1,
            duplication: 0.1,
            reordering: 0.2,
            ..Impairment::default()
        };
        let (first, tally) = outcome(impairment, 5);
        assert_eq!(first, outcome(impairment, 5).0);
        assert_ne!(first, outcome(impairment, 6).0);
        let Tally { lost, spoiled, swapped, .. } = tally;
        let (lost, spoiled) = (lost.into_inner(), spoiled.into_inner());
        assert!((20..60).contains(&lost) && (8..32).contains(&spoiled), "{lost}, {spoiled}");
        assert!(swapped.into_inner() > 10);
    }

    #[test]
    fn losses_in_a_row_are_bounded() {
        let certain = Impairment { loss: 1.0, burst_max: 3, ..Impairment::default() };
        let (out, tally) = outcome(certain, 1);
        let survived = out.iter().filter(|datagrams| !datagrams.is_empty()).count();
        assert_eq!((survived, tally.lost.into_inner()), (50, 150));
    }

    #[test]
    fn a_spoiled_datagram_differs_in_one_octet() {
        let certain = Impairment { corruption: 1.0, ..Impairment::default() };
        let (mut fate, tally) = (Fate::new(certain, 3), Tally::default());
        for _datagram in 0..50 {
            let out = fate.pass(&[7; 100], &tally);
            let different = out[0].bytes.iter().filter(|octet| **octet != 7).count();
            assert_eq!((out.len(), different), (1, 1));
        }
        assert!(fate.pass(&[], &tally)[0].bytes.is_empty());
    }

    #[test]
    fn a_quiet_path_changes_nothing() {
        let (out, _) = outcome(Impairment::default(), 1);
        for (n, datagrams) in (0..).zip(out) {
            assert_eq!(datagrams.iter().map(|s| &s.bytes[..]).collect::<Vec<_>>(), [[n; 8]]);
        }
    }
}
