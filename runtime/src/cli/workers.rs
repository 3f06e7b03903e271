//! Work on many files at once, within a memory budget, until it is done or the user has had enough.

use super::console::Console;
use anyhow::{Context, Result};
use gradresnet::{Header, Picture};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What a shell reports for a program that Ctrl-C has ended.
pub const INTERRUPTED_STATUS: u8 = 130;

/// From now on, a first Ctrl-C, hang-up or request to terminate lets the files being worked on finish, and
/// a second ends the program at once. Neither leaves half a file under an output's name.
///
/// # Errors
/// If the operating system refuses.
pub fn finish_files_when_interrupted() -> Result<()> {
    let handler = || {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(INTERRUPTED_STATUS));
        }
        super::console::note("interrupted: finishing the files in progress; once more stops at once");
    };
    ctrlc::set_handler(handler).context("interruptions cannot be handled")
}

/// Whether the work has been interrupted.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Does `work` for every item, in order, on as many threads as there are for tiles, and returns how many items were
/// begun: all, unless interrupted. The threads are not rayon's, which would begin another file while they wait for
/// tiles.
pub fn for_each<T: Sync>(items: &[T], console: &Console, work: impl Fn(&T) + Sync) -> usize {
    let next = AtomicUsize::new(0);
    let run = || {
        while !interrupted() {
            let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            work(item);
            console.advance();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(items.len()) {
            scope.spawn(run);
        }
    });
    next.into_inner().min(items.len())
}

/// What `work` makes of every item, in their order, as by [`for_each`]; of the first ones, if interrupted.
pub fn map<T: Sync, R: Send + Sync>(items: &[T], console: &Console, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let results: Vec<OnceLock<R>> = items.iter().map(|_| OnceLock::new()).collect();
    let places: Vec<(&T, &OnceLock<R>)> = items.iter().zip(&results).collect();
    for_each(&places, console, |(item, place)| {
        // Every place is filled once.
        let _ = place.set(work(item));
    });
    results.into_iter().map_while(OnceLock::into_inner).collect()
}

/// Bytes for each thread, where the user gives none.
const MEMORY_PER_THREAD: u64 = 1 << 30;

/// Memory that the files in progress share. A file that needs more than all of it is worked on alone.
pub struct Budget {
    bytes: u64,
    free: Mutex<u64>,
    freed: Condvar,
}

/// A part of a [`Budget`], given back when dropped.
pub struct Share<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Budget {
    /// 1 GiB for each thread that works.
    pub fn of_threads() -> Budget {
        Budget::new(rayon::current_num_threads() as u64 * MEMORY_PER_THREAD)
    }

    pub fn new(bytes: u64) -> Budget {
        Budget { bytes, free: Mutex::new(bytes), freed: Condvar::new() }
    }

    /// Takes `bytes` once they are free.
    pub fn take(&self, bytes: u64) -> Share<'_> {
        let bytes = bytes.min(self.bytes);
        // A number cannot be left half changed by a thread that panics.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free =
            self.freed.wait_while(free, |free| *free < bytes).unwrap_or_else(PoisonError::into_inner);
        *free -= bytes;
        Share { budget: self, bytes }
    }

    /// Reads a picture once there is the memory that `needed` makes of its header. All that its file needs is claimed
    /// together: two files that each held one share and waited for a second would wait for ever.
    ///
    /// # Errors
    /// Those of [`Picture::read`] and of `needed`.
    pub fn read(
        &self,
        path: &Path,
        needed: impl FnOnce(Header) -> gradresnet::Result<u64>,
    ) -> gradresnet::Result<(Share<'_>, Picture)> {
        let share = self.take(needed(Picture::header(path)?)?);
        Ok((share, Picture::read(path)?))
    }
}

/// Memory for a picture, its reference and a copy of the larger: one is copied while it is decoded and turned, and
/// again while the output is encoded.
pub fn with_reference(picture: u64, reference: u64) -> u64 {
    picture.saturating_add(reference).saturating_add(picture.max(reference))
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        *self.budget.free.lock().unwrap_or_else(PoisonError::into_inner) += self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_for_a_picture_its_reference_and_a_copy() {
        assert_eq!([(3, 0), (3, 3), (3, 12)].map(|(p, r)| with_reference(p, r)), [6, 9, 27]);
        // What a header may claim.
        assert_eq!(with_reference(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn results_have_the_order_of_their_items() {
        let items: Vec<usize> = (0..100).collect();
        let found = map(&items, &Console::new(100, true), |&i| {
            // The first is done last.
            std::thread::sleep(std::time::Duration::from_millis(if i == 0 { 20 } else { 0 }));
            2 * i
        });
        assert!(found.into_iter().eq(items.iter().map(|i| 2 * i)));
    }

    #[test]
    fn every_item_is_worked_on_once() {
        let items: Vec<usize> = (0..100).collect();
        let done = Mutex::new(Vec::new());
        let taken = for_each(&items, &Console::new(100, true), |&i| done.lock().unwrap().push(i));
        assert_eq!(taken, 100);
        let mut done = done.into_inner().unwrap();
        done.sort_unstable();
        assert_eq!(done, items);
    }

    #[test]
    fn no_more_memory_is_taken_than_there_is() {
        let budget = Budget::new(10);
        let (used, most) = (Mutex::new(0), Mutex::new(0));
        let start = std::sync::Barrier::new(8);
        std::thread::scope(|scope| {
            for i in 0..8 {
                let (budget, used, most, start) = (&budget, &used, &most, &start);
                scope.spawn(move || {
                    let bytes = 3 + i % 4;
                    start.wait();
                    let share = budget.take(bytes);
                    let now = {
                        let mut used = used.lock().unwrap();
                        *used += bytes;
                        *used
                    };
                    let mut most = most.lock().unwrap();
                    *most = now.max(*most);
                    drop(most);
                    // Long enough for the others to ask meanwhile.
                    std::thread::sleep(std::time::Duration::from_millis(5));
                    *used.lock().unwrap() -= bytes;
                    drop(share);
                });
            }
        });
        assert!(*most.lock().unwrap() <= 10);
        // What is too large is granted all the same, alone.
        drop(budget.take(1000));
        assert_eq!(*budget.free.lock().unwrap(), 10);
    }
}
