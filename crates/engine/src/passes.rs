//! How passes without gradients over many rows are divided.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Rows of a pass that a thread of a CPU makes alone: activations stay in its second-level cache.
const ROWS_ALONE: usize = 512;
/// Passes that each thread must have for that, or the last of them would wait long for each other.
const PASSES_ALONE: usize = 8;
/// Rows for each thread, where all make one pass.
const ROWS_OF_A_THREAD: usize = 1024;
/// Rows of a pass at most, and on a GPU.
const MOST_ROWS: usize = 8192;

/// Passes as a device makes them best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passes {
    /// How many rows one should have, where there is a choice.
    pub rows: usize,
    /// How many are made at the same time, each by one thread.
    pub at_once: usize,
}

impl Passes {
    pub(crate) fn of_gpu() -> Self {
        Passes { rows: MOST_ROWS, at_once: 1 }
    }

    /// One on each thread if there are many: it then waits for the others once and not at every operation.
    pub(crate) fn of_cpu(rows: usize, threads: usize) -> Self {
        if threads > 1 && rows >= threads * PASSES_ALONE * ROWS_ALONE {
            Passes { rows: ROWS_ALONE, at_once: threads }
        } else {
            Passes { rows: MOST_ROWS.min(threads * ROWS_OF_A_THREAD), at_once: 1 }
        }
    }

    /// Makes the passes numbered below `count`. On this thread, `done` is told of each when it is made, in any order, until
    /// it fails.
    ///
    /// # Errors
    /// The first of `done`.
    ///
    /// # Panics
    /// Where a pass does.
    pub fn run<R: Send, E>(
        &self,
        count: usize,
        pass: impl Fn(usize) -> R + Sync,
        mut done: impl FnMut(usize, R) -> Result<(), E>,
    ) -> Result<(), E> {
        // What the first one leaves for all, packed weights, is then made once and by all threads.
        let first = if self.at_once == 1 { count } else { count.min(1) };
        (0..first).try_for_each(|number| done(number, pass(number)))?;
        if first == count {
            return Ok(());
        }
        let next = AtomicUsize::new(first);
        thread::scope(|scope| {
            let (sender, made) = mpsc::channel();
            let worker = |sender: mpsc::Sender<(usize, R)>| {
                let (next, pass) = (&next, &pass);
                scope.spawn(move || {
                    let _guard = EndsAll { next, count };
                    alone(|| {
                        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
                        numbers
                            .take_while(|&number| number < count)
                            .all(|number| sender.send((number, pass(number))).is_ok())
                    })
                })
            };
            let workers: Vec<_> = (0..self.at_once).map(|_| worker(sender.clone())).collect();
            drop(sender);
            let told = made.into_iter().try_for_each(|(number, result)| done(number, result));
            for worker in workers {
                worker.join().unwrap_or_else(|panic| resume_unwind(panic));
            }
            told
        })
    }
}

/// Runs `f` in a pool of one thread, on which its operations then run too.
fn alone<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("the system has a thread more").install(f)
}

/// Leaves no pass to be made, when its thread panics.
struct EndsAll<'a> {
    next: &'a AtomicUsize,
    count: usize,
}

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.next.store(self.count, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_pass_is_made_once_and_told_on_the_calling_thread() {
        for at_once in [1, 3] {
            let (passes, caller) = (Passes { rows: 1, at_once }, thread::current().id());
            let mut told = vec![0; 50];
            let pass = |number| (number * number, rayon::current_num_threads());
            let tell = |number: usize, (square, threads)| {
                assert!(square == number * number && thread::current().id() == caller);
                assert!(at_once == 1 || number == 0 || threads == 1, "all but the first are of one thread each");
                told[number] += 1;
                Ok::<(), ()>(())
            };
            passes.run(50, pass, tell).unwrap();
            assert_eq!(told, [1; 50]);
        }
    }

    #[test]
    fn what_fails_ends_the_passes() {
        for at_once in [1, 3] {
            let made = AtomicUsize::new(0);
            let pass = |_| {
                thread::sleep(Duration::from_millis(1));
                made.fetch_add(1, Ordering::Relaxed);
            };
            let tell = |number, ()| if number == 5 { Err("five") } else { Ok(()) };
            assert_eq!(Passes { rows: 1, at_once }.run(1_000_000, pass, tell), Err("five"));
            assert!(made.into_inner() < 100_000);
        }
    }

    #[test]
    fn a_pass_that_panics_ends_the_others_and_says_why() {
        let made = AtomicUsize::new(0);
        let pass = |number| {
            thread::sleep(Duration::from_millis(1));
            made.fetch_add(1, Ordering::Relaxed);
            assert!(number != 5, "the fifth");
        };
        let run = || Passes { rows: 1, at_once: 3 }.run(1_000_000, pass, |_, ()| Ok::<(), ()>(()));
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"the fifth"));
        assert!(made.into_inner() < 100_000);
    }

    #[test]
    fn few_rows_are_one_pass_of_all_threads() {
        assert_eq!(Passes::of_cpu(300, 2), Passes { rows: 2048, at_once: 1 });
        assert_eq!(Passes::of_cpu(100_000, 1).at_once, 1);
        assert_eq!(Passes::of_cpu(100_000, 64), Passes { rows: 8192, at_once: 1 });
        assert_eq!(Passes::of_cpu(100_000, 2), Passes { rows: ROWS_ALONE, at_once: 2 });
    }
}
