//! Work split among scoped threads.
//!
//! Unlike tasks of a thread pool, they can be joined while a lock is held: the joining thread runs
//! no other task meanwhile.

/// The results of `work` on each item, in order. The items are cut into as many contiguous parts as
/// there are threads.
pub(crate) fn map<T, R, W>(threads: usize, items: Vec<T>, work: W) -> Vec<R>
where
    T: Send,
    R: Send,
    W: Fn(T) -> R + Sync,
{
    let threads = threads.clamp(1, items.len().max(1));
    if threads == 1 {
        return items.into_iter().map(work).collect();
    }
    let share = items.len().div_ceil(threads);
    let mut items = items.into_iter();
    let parts: Vec<Vec<T>> = (0..threads)
        .map(|_| items.by_ref().take(share).collect())
        .collect();
    let part = |part: Vec<T>| -> Vec<R> { part.into_iter().map(&work).collect() };
    let part = &part;
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .into_iter()
            .map(|items| scope.spawn(move || part(items)))
            .collect();
        running
            .into_iter()
            .flat_map(|thread| match thread.join() {
                Ok(results) => results,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn results_come_in_order_whatever_the_threads() {
        for count in [0, 1, 2, 5, 16, 17] {
            let expected: Vec<u32> = (0..count).map(|i| i * i).collect();
            for threads in [0, 1, 2, 3, 8, 40] {
                let found = super::map(threads, (0..count).collect(), |i: u32| i * i);
                assert_eq!(found, expected, "{threads} threads");
            }
        }
    }
}
