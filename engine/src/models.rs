//! All orders in which a few threads may meet where they meet without the lock of the order, and all that one may see of another: tried by
//! the model checker loom, in place of real threads.
//!
//! `RUSTFLAGS='--cfg annals_loom' cargo test --release -p annals --lib models`
//!
//! Waking up is what these are about: a thread that sleeps although what it waits for has come is a deadlock, which loom reports, as no
//! time ever passes.

use crate::log::group::Fills;
use crate::log::watcher::Watcher;
use crate::log::watermark::Watermark;
use crate::log::writer::Alarm;
use crate::store::gate::{Bell, Gate};
use crate::sync::{AtomicU32, Ordering, count_at};
use loom::cell::UnsafeCell;
use loom::thread;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// How long a thread would wait at the most, if time passed.
const LONG: Duration = Duration::from_secs(1);

/// Tries all orders with at most so many switches between threads that could have gone on.
fn try_all(switches: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(switches);
    builder.check(model);
}

/// A thread that shares something with the others.
fn beside<T: 'static, R: 'static>(
    shared: &Arc<T>,
    work: impl FnOnce(&T) -> R + 'static,
) -> thread::JoinHandle<R> {
    let shared = Arc::clone(shared);
    thread::spawn(move || work(&shared))
}

/// A log that nothing is in yet, and what its writer does: makes two groups of a batch and an event each durable.
fn advance_twice(watermark: &Watermark) {
    for group in 0..2 {
        watermark.advance(group + 1, group + 1, group..group + 1);
    }
}

#[test]
fn who_waits_for_a_batch_goes_on_once_it_is_durable() {
    try_all(3, || {
        let watermark = Arc::new(Watermark::new(0, 0));
        let waiting: Vec<_> = (0..2)
            .map(|group| {
                beside(&watermark, move |watermark| {
                    watermark.wait(group + 1, group);
                    assert!(watermark.position() > group, "the batch's events are not to be seen");
                })
            })
            .collect();
        advance_twice(&watermark);
        waiting.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn who_waits_for_a_batch_goes_on_where_nothing_more_becomes_durable() {
    try_all(3, || {
        let watermark = Arc::new(Watermark::new(0, 0));
        let waiting = beside(&watermark, |watermark| watermark.wait(2, 1));
        watermark.advance(1, 1, 0..1);
        watermark.poison_with("it failed");
        waiting.join().unwrap();
    });
}

#[test]
fn who_awaits_a_batch_is_woken_once_it_is_durable() {
    try_all(3, || {
        let watermark = Arc::new(Watermark::new(0, 0));
        let awaiting = beside(&watermark, |watermark| {
            loom::future::block_on(poll_fn(|context| {
                if watermark.is_settled(2) || watermark.register(2, context.waker()) {
                    return Poll::Ready(());
                }
                Poll::Pending
            }));
            assert_eq!(watermark.position(), 2);
        });
        advance_twice(&watermark);
        awaiting.join().unwrap();
    });
}

#[test]
fn who_waits_for_a_position_goes_on_as_it_comes_and_as_the_store_ends() {
    try_all(3, || {
        let watermark = Arc::new(Watermark::new(0, 0));
        let waiting = beside(&watermark, |watermark| {
            while !watermark.wait_beyond(1, LONG) && !watermark.is_over() {}
            watermark.position()
        });
        advance_twice(&watermark);
        watermark.end();
        waiting.join().unwrap();
    });
}

#[test]
fn who_follows_sees_all_that_becomes_durable_and_then_the_end() {
    try_all(2, || {
        let watermark = Arc::new(Watermark::new(0, 0));
        let following = beside(&watermark, |watermark| {
            let watcher = Arc::new(Watcher::default());
            let mut seen = 0;
            loom::future::block_on(poll_fn(|context| {
                // As whoever follows: a look, a watch, and one more look.
                for is_watching in [false, true] {
                    let is_over = watermark.is_over();
                    while seen < watermark.position() {
                        seen += 1;
                    }
                    if is_over {
                        return Poll::Ready(());
                    }
                    if !is_watching {
                        watermark.watch(&watcher, context.waker());
                    }
                }
                Poll::Pending
            }));
            watermark.unwatch(&watcher);
            assert_eq!(seen, 2);
        });
        advance_twice(&watermark);
        watermark.end();
        following.join().unwrap();
    });
}

#[test]
fn one_thread_at_a_time_is_behind_the_gate() {
    try_all(3, || {
        let gate = Arc::new(Gate::new(UnsafeCell::new(())));
        let threads: Vec<_> = (0..2)
            .map(|number| {
                beside(&gate, move |gate| {
                    let guard = gate.lock();
                    // Loom notices where two are here, or one does not see what the other did.
                    guard.with_mut(|_| ());
                    if number == 0 { drop(guard.release()) } else { drop(guard) }
                })
            })
            .collect();
        let guard = gate.lock();
        guard.with_mut(|_| ());
        drop(guard);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        gate.lock().with(|_| ());
    });
}

#[test]
fn a_bell_is_heard_by_all_who_wait_for_it() {
    try_all(3, || {
        let shared = Arc::new((Gate::new(false), Bell::default()));
        let threads: Vec<_> = (0..2)
            .map(|_| {
                beside(&shared, move |shared| {
                    let mut guard = shared.0.lock();
                    while !*guard {
                        guard = shared.1.wait(guard);
                    }
                })
            })
            .collect();
        {
            let mut guard = shared.0.lock();
            *guard = true;
            shared.1.ring();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Places of a group are filled by two threads and written by the writer, which sleeps until there is one; who appended waits.
#[test]
fn a_group_is_written_once_all_its_places_are_filled_and_then_acknowledged() {
    try_all(2, || {
        let parts = Arc::new((
            Fills::default(),
            Alarm::default(),
            Watermark::new(0, 0),
            [AtomicU32::new(0), AtomicU32::new(0)],
        ));
        let appending: Vec<_> = (0..2)
            .map(|number: usize| {
                beside(&parts, move |parts| {
                    count_at(number);
                    let (fills, alarm, watermark, places) = parts;
                    places[number].store(1, Ordering::Relaxed);
                    fills.add(0, 1);
                    if number == 0 {
                        alarm.ring();
                    }
                    watermark.wait(1, 0);
                })
            })
            .collect();
        let (fills, alarm, watermark, places) = &*parts;
        alarm.sleep();
        fills.wait_for(0, 2);
        for place in places {
            assert_eq!(place.load(Ordering::Relaxed), 1, "what was filled is not to be seen");
        }
        watermark.advance(1, 2, 0..1);
        appending.into_iter().for_each(|thread| thread.join().unwrap());
    });
}
