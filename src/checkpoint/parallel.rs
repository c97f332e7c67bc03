//! Runs independent reads and writes on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
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
