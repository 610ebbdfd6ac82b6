//! What the control plane tells a worker that may be asleep.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use loom::future::block_on;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

use crate::id::ListenerId;
use crate::in_every_order;
use crate::inbox::{Inbox, Order};

#[test]
fn orders_and_levels_reach_a_worker_that_sleeps() {
    in_every_order(|| {
        let inbox = Arc::new(Inbox::new());
        let control = {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                let (listener, deadline) = (ListenerId(3), Instant::now());
                inbox.give(vec![Order::Close { listener, deadline }]);
                inbox.drain();
                inbox.stop();
            })
        };
        let (mut closed, mut drained) = (0, false);
        block_on(poll_fn(|cx| {
            inbox.register(cx.waker());
            let stopped = inbox.is_stopped();
            drained |= inbox.is_draining();
            while let Some(Order::Close { listener: ListenerId(3), .. }) = inbox.next() {
                closed += 1;
            }
            if stopped { Poll::Ready(()) } else { Poll::Pending }
        }));
        control.join().expect("it ends");
        assert!(closed == 1 && drained, "{closed} orders, draining: {drained}");
    });
}

/// A listener's name is in the snapshot before its order is given, and the snapshot before the word of it.
#[test]
fn who_sees_an_order_or_the_word_sees_the_snapshot_before_it() {
    in_every_order(|| {
        let (inbox, snapshot) = (Arc::new(Inbox::new()), Arc::new(AtomicU64::new(1)));
        let control = {
            let (inbox, snapshot) = (Arc::clone(&inbox), Arc::clone(&snapshot));
            thread::spawn(move || {
                // Less than arc-swap promises.
                snapshot.store(2, Ordering::Relaxed);
                let (listener, deadline) = (ListenerId(0), Instant::now());
                inbox.give(vec![Order::Close { listener, deadline }]);
                inbox.reconfigured();
            })
        };
        let mut told = false;
        block_on(poll_fn(|cx| {
            inbox.register(cx.waker());
            if inbox.next().is_some() {
                assert_eq!(snapshot.load(Ordering::Relaxed), 2, "the order came first");
            }
            if inbox.take_reconfigured() {
                assert_eq!(snapshot.load(Ordering::Relaxed), 2, "the word came first");
                told = true;
            }
            if told { Poll::Ready(()) } else { Poll::Pending }
        }));
        control.join().expect("it ends");
        assert!(!inbox.take_reconfigured(), "told twice");
    });
}
