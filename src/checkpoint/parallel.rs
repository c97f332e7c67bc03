//! A loop over independent pieces of input and output, on a few threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// More threads than this wait for the disk rather than for each other.
const MOST: usize = 8;

/// The results of `job(0)` to `job(count - 1)` in order, or one of the errors; after an error no further job is started.
pub(super) fn in_parallel<T: Send, E: Send>(
    count: usize,
    job: impl Fn(usize) -> Result<T, E> + Sync,
) -> Result<Vec<T>, E> {
    let workers = thread::available_parallelism()
        .map_or(1, |n| n.get())
        .min(MOST)
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
                    return Err(error);
                }
            }
        }
    };
    let mut results = Vec::with_capacity(count);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            let done = thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            results.extend(done);
        }
        Ok(())
    })?;
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
}
