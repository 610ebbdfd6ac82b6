//! Datagrams on their way from one worker to another.

use std::future::poll_fn;
use std::task::Poll;

use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;

use crate::dataplane::packet::Path;
use crate::id::{ListenerId, WorkerId};
use crate::stray::{Lost, Stray, Strays};
use crate::{in_every_order, sync};

const OWNER: WorkerId = WorkerId(0);

fn stray(mark: u8) -> Stray {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let path = Path { local: address, peer: address };
    Stray { bytes: vec![mark], path, listener: ListenerId(0) }
}

/// The owner as its loop is: it asks to be woken, then looks, then waits.
fn owner(strays: &Strays, mut enough: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let mut taken = Vec::new();
    block_on(poll_fn(|cx| {
        strays.register(OWNER, cx.waker());
        while let Some(stray) = strays.pop(OWNER) {
            taken.extend(stray.bytes);
        }
        if enough(&taken) { Poll::Ready(()) } else { Poll::Pending }
    }));
    taken
}

#[test]
fn an_owner_that_sleeps_is_woken_for_every_stray() {
    in_every_order(|| {
        let strays = Arc::new(Strays::new(1));
        let others: Vec<_> = (0..2_u8)
            .map(|mark| {
                let strays = Arc::clone(&strays);
                thread::spawn(move || strays.push(0, stray(mark)))
            })
            .collect();
        let mut taken = owner(&strays, |taken| taken.len() == 2);
        taken.sort_unstable();
        assert_eq!(taken, [0, 1]);
        for other in others {
            assert_eq!(other.join().expect("it ends"), Ok(()));
        }
    });
}

#[test]
fn a_ring_is_bounded_and_each_stray_is_taken_or_counted() {
    in_every_order(|| {
        let strays = Arc::new(Strays::new(1));
        let other = {
            let strays = Arc::clone(&strays);
            thread::spawn(move || {
                let pushed = (0..3).map(|mark| strays.push(0, stray(mark)));
                pushed.filter(|pushed| *pushed == Err(Lost::RingFull)).count()
            })
        };
        let mut taken = Vec::new();
        for _ in 0..2 {
            taken.extend(strays.pop(OWNER).map(|stray| stray.bytes[0]));
        }
        let lost = other.join().expect("it ends");
        let mut left = 0;
        while let Some(stray) = strays.pop(OWNER) {
            taken.push(stray.bytes[0]);
            left += 1;
        }
        assert!(left <= sync::CAPACITY, "{left} in a ring of {}", sync::CAPACITY);
        assert_eq!(taken.len() + lost, 3, "{taken:?} taken, {lost} counted");
        assert!(taken.is_sorted(), "in the order they came: {taken:?}");
    });
}

#[test]
fn an_owner_that_died_and_came_back_is_found() {
    in_every_order(|| {
        let strays = Arc::new(Strays::new(1));
        let control = {
            let strays = Arc::clone(&strays);
            thread::spawn(move || {
                strays.set_reachable(OWNER, false);
                strays.set_reachable(OWNER, true);
            })
        };
        // Taken, thrown away with what the dead one had, or refused: never an error that nobody counts.
        let during = strays.push(0, stray(1));
        assert!(matches!(during, Ok(()) | Err(Lost::OwnerGone)), "{during:?}");
        control.join().expect("it ends");
        assert_eq!(strays.push(0, stray(2)), Ok(()));
        let taken = owner(&strays, |taken| taken.last() == Some(&2));
        assert!(taken == [1, 2] || taken == [2], "{taken:?}");
    });
}
