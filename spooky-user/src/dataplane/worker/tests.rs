//! The rings of strays in one thread; `tests/models` has them in several. Apart from `stray`, which is compiled there, too.

use super::stray::{CAPACITY, Lost, Stray, Strays};
use crate::dataplane::packet::Path;
use crate::id::{ListenerId, WorkerId};

fn stray(mark: u8) -> Stray {
    let address = "127.0.0.1:1".parse().unwrap();
    Stray {
        bytes: vec![mark],
        path: Path { local: address, peer: address },
        listener: ListenerId(0),
    }
}

#[test]
fn strays_arrive_in_order_and_a_full_ring_says_so() {
    let strays = Strays::new(2);
    for mark in 0..CAPACITY {
        strays.push(1, stray(mark as u8)).unwrap();
    }
    assert_eq!(strays.push(1, stray(0)), Err(Lost::RingFull));
    for mark in 0..CAPACITY {
        assert_eq!(strays.pop(WorkerId(1)).unwrap().bytes, [mark as u8]);
    }
    assert!(strays.pop(WorkerId(1)).is_none());
    assert!(strays.pop(WorkerId(0)).is_none());
}

#[test]
fn nothing_goes_to_the_dead_or_the_unknown() {
    let strays = Strays::new(1);
    assert_eq!(strays.push(7, stray(0)), Err(Lost::OwnerGone));
    strays.push(0, stray(0)).unwrap();
    strays.set_reachable(WorkerId(0), false);
    assert_eq!(strays.push(0, stray(0)), Err(Lost::OwnerGone));
    assert!(strays.pop(WorkerId(0)).is_none());
    strays.set_reachable(WorkerId(0), true);
    strays.push(0, stray(3)).unwrap();
}
