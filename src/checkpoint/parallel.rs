//! Runs independent reads and writes on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

/// More threads than this wait for the disk rather than for each other.
const MOST: usize = 8;

/// So many are worth it however few cores there are: one computes while others wait for the disk.
const LEAST: usize = 4;

/// The results of `job(0)` to `job(count - 1)` in order, or the error of the first job that has
/// one; after an error no further job is started.
pub(super) fn in_parallel<T: Send, E: Send>(
    count: usize,
    job: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let workers = thread::available_parallelism()
        .map_or(LEAST, |n| n.get().clamp(LEAST, MOST))
        .min(count);
    if workers <= 1 {
        return (0..count).map(job).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            match job(number) {
                Ok(result) => done.push((number, result)),
                Err(error) => {
                    next.store(count, Ordering::Relaxed);
                    return Err((number, error));
                }
            }
        }
    };
    let mut results = Vec::with_capacity(count);
    let mut errors = Vec::new();
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            match thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            {
                Ok(done) => results.extend(done),
                Err(error) => errors.push(error),
            }
        }
    });
    // Jobs are started in order and finish once started, so the first that fails is among these
    // whatever the threads did.
    if let Some((_, error)) = errors.into_iter().min_by_key(|(number, _)| *number) {
        return Err(error);
    }
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// How many may do something at once, on whatever threads.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

/// Given back when it is dropped.
pub(super) struct Permit<'p>(&'p Permits);

impl Permits {
    pub fn new(count: usize) -> Permits {
        Permits {
            free: Mutex::new(count),
            given_back: Condvar::new(),
        }
    }

    /// Waits for one.
    pub fn take(&self) -> Permit<'_> {
        // A number stays right whoever panics.
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let free = self.given_back.wait_while(free, |free| *free == 0);
        *free.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let Permits { free, given_back } = self.0;
        *free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_order_and_an_error_stops_the_rest() {
        assert_eq!(
            in_parallel(100, |n| Ok::<_, ()>(n * n)),
            Ok((0..100).map(|n| n * n).collect())
        );
        assert_eq!(in_parallel(0, Ok::<_, ()>), Ok(vec![]));
        let started = AtomicUsize::new(0);
        let result = in_parallel(1_000_000, |n| {
            started.fetch_add(1, Ordering::Relaxed);
            if n == 10 { Err(n) } else { Ok(n) }
        });
        assert_eq!(result, Err(10));
        assert!(started.into_inner() < 1_000_000);
    }

    #[test]
    fn no_more_permits_are_out_than_there_are() {
        let (permits, out, most) = (Permits::new(3), AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..12 {
                scope.spawn(|| {
                    let _permit = permits.take();
                    most.fetch_max(out.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(std::time::Duration::from_millis(2));
                    out.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
    }

    #[test]
    fn of_several_errors_the_first_is_returned_whichever_comes_earlier() {
        for _ in 0..20 {
            let result = in_parallel(64, |n| match n {
                3 => {
                    thread::sleep(std::time::Duration::from_millis(2));
                    Err(n)
                }
                4.. => Err(n),
                _ => Ok(n),
            });
            assert_eq!(result, Err(3));
        }
    }
}
