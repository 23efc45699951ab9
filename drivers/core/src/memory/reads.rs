//! Counting by many threads at once, exactly, and for next to nothing.
//!
//! An atomic addition costs as much as the rest of a hit. A thread that has a place to itself needs none: it reads its
//! number and writes the next, and nobody else writes there.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Threads that have a place of their own, of all that live at a time. The others share one, and add atomically.
const PLACES: usize = 64;

/// Hits and misses of reads that shared their shard with others.
pub(super) struct Reads {
    places: Box<[Place]>,
    /// On the heap as well: what is next to this struct is read all the time.
    shared: Box<Place>,
}

/// On a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Place {
    /// Of misses and of hits.
    counts: [AtomicU64; 2],
}

impl Reads {
    pub(super) fn new() -> Self {
        Self { places: (0..PLACES).map(|_| Place::default()).collect(), shared: Box::default() }
    }

    #[inline]
    pub(super) fn count(&self, is_hit: bool) {
        let place = self.places.get(SEAT.get());
        let Some(Place { counts: [misses, hits] }) = place else { return self.count_without_place(is_hit) };
        let count = if is_hit { hits } else { misses };
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// By a thread that reads for the first time, or has come too late for a place.
    #[cold]
    fn count_without_place(&self, is_hit: bool) {
        if SEAT.get() == UNSEATED {
            // Where that cannot be, the thread is about to end.
            let _ = TAKEN.try_with(|seat| SEAT.set(seat.0));
        }
        let place = self.places.get(SEAT.get()).unwrap_or(&self.shared);
        let [misses, hits] = &place.counts;
        let count = if is_hit { hits } else { misses };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Hits and misses so far.
    pub(super) fn sums(&self) -> (u64, u64) {
        let sum = |which: usize| {
            let counts =
                self.places.iter().chain([&*self.shared]).filter_map(|place| place.counts.get(which));
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        (sum(1), sum(0))
    }
}

thread_local! {
    /// Which place the thread has, in every cache. From [`PLACES`] on there is none.
    static SEAT: Cell<usize> = const { Cell::new(UNSEATED) };
    /// What gives that back when the thread ends. Apart, because each access to what has a destructor asks whether it ran.
    static TAKEN: Seat = Seat::take();
}

const UNSEATED: usize = usize::MAX;

struct Seat(usize);

static SEATS: Mutex<Seats> = Mutex::new(Seats { left: Vec::new(), next: 0 });

struct Seats {
    /// By threads that have ended. Whoever takes one sees what they have counted: both held the lock.
    left: Vec<usize>,
    next: usize,
}

impl Seat {
    fn take() -> Self {
        let mut seats = SEATS.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = seats.left.pop().unwrap_or_else(|| {
            seats.next += 1;
            seats.next - 1
        });
        Self(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        SEAT.set(UNSEATED);
        SEATS.lock().unwrap_or_else(PoisonError::into_inner).left.push(self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_read_is_counted_however_many_threads_there_are_and_have_been() {
        const THREADS: u64 = 200;
        let reads = Reads::new();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let reads = &reads;
                    scope.spawn(move || (0..1_000 + thread).for_each(|turn| reads.count(turn % 4 > 0)));
                }
            });
        }
        let (hits, misses) = reads.sums();
        assert_eq!(hits + misses, 3 * (0..THREADS).map(|thread| 1_000 + thread).sum::<u64>());
        assert!(hits > 2 * misses && misses > hits / 4, "{hits} {misses}");
    }
}
