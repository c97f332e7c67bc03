//! How often a process is started again, and how long is waited before.

use std::time::Duration;

/// The first pause. Each one without progress is twice as long as the one before.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// The restarts of a run.
#[derive(Debug)]
pub(super) struct BackOff {
    /// How many restarts in a row may bring no progress.
    most: u32,
    in_vain: u32,
    restarts: u64,
    furthest: Option<u64>,
}

impl BackOff {
    /// None so far.
    pub fn new(most: u32) -> BackOff {
        BackOff {
            most,
            in_vain: 0,
            restarts: 0,
            furthest: None,
        }
    }

    /// A step was done. It is progress if no process has done it before.
    pub fn reached(&mut self, step: u64) {
        if self.furthest.is_none_or(|furthest| step > furthest) {
            self.furthest = Some(step);
            self.in_vain = 0;
        }
    }

    /// The process failed: how long to wait before it is started again; nothing if it should not
    /// be.
    pub fn pause(&mut self) -> Option<Duration> {
        if self.in_vain == self.most {
            return None;
        }
        let factor = 2u32.saturating_pow(self.in_vain);
        self.in_vain += 1;
        self.restarts += 1;
        Some(FIRST.saturating_mul(factor).min(LONGEST))
    }

    /// All restarts so far.
    pub fn restarts(&self) -> u64 {
        self.restarts
    }

    /// Those since the last progress.
    pub fn in_vain(&self) -> u32 {
        self.in_vain
    }

    /// The furthest step.
    pub fn furthest(&self) -> Option<u64> {
        self.furthest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute_and_end_at_the_limit() {
        let mut back_off = BackOff::new(9);
        let pauses: Vec<u64> = std::iter::from_fn(|| back_off.pause())
            .map(|pause| pause.as_secs())
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!((back_off.restarts(), back_off.in_vain()), (9, 9));
        assert_eq!(BackOff::new(0).pause(), None);
    }

    #[test]
    fn only_a_step_that_is_new_is_progress() {
        let mut back_off = BackOff::new(2);
        back_off.reached(500);
        assert!(back_off.pause().is_some() && back_off.pause().is_some());
        back_off.reached(480);
        back_off.reached(500);
        assert_eq!(back_off.pause(), None);
        back_off.reached(501);
        assert_eq!(back_off.pause(), Some(FIRST));
        assert_eq!((back_off.restarts(), back_off.furthest()), (3, Some(501)));
    }
}
