//! How far the loop runs ahead of the devices.
//!
//! The loop starts a step before the previous one has ended, so that the devices never wait for the
//! host. But a started step cannot be cancelled, and a request to stop has to wait for it. So no
//! step starts earlier than a second before the devices can begin it: several steps ahead where
//! steps are short, and one where they are long.

use std::time::{Duration, Instant};

/// How long before the device can begin a step it is started.
const AHEAD: Duration = Duration::from_secs(1);

/// What the last step took, and so how long those that have been started will take.
pub(super) struct Pace {
    step: Option<Duration>,
    /// When the device was last seen to have ended a step, or to have nothing to do.
    since: Instant,
}

impl Pace {
    /// For a device that has nothing to do.
    pub fn new(now: Instant) -> Pace {
        Pace {
            step: None,
            since: now,
        }
    }

    /// The device has nothing to do.
    pub fn idle(&mut self, now: Instant) {
        self.since = now;
    }

    /// The device has ended a step that was started then.
    pub fn ended(&mut self, started: Instant, now: Instant) {
        self.step = Some(now.saturating_duration_since(started.max(self.since)));
        self.since = now;
    }

    /// How long the next step should not be started yet, after so many whose end has not been seen.
    /// The second step waits for the first, which tells how long steps are.
    pub fn wait(&self, started: usize, now: Instant) -> Duration {
        let started = u32::try_from(started).unwrap_or(u32::MAX);
        let step = self.step.unwrap_or(Duration::MAX);
        let busy = step.saturating_mul(started);
        busy.saturating_sub(now.saturating_duration_since(self.since))
            .saturating_sub(AHEAD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of so many milliseconds on a device that does one at a time, started as the pace says
    /// with at most `most` under way; gives the longest time from a step's start to its beginning
    /// on the device, and how long the device waited for a step.
    fn run(step: u64, most: usize) -> (Duration, Duration) {
        let step = Duration::from_millis(step);
        let begin = Instant::now();
        let (mut now, mut free) = (begin, begin);
        let mut pace = Pace::new(begin);
        let mut under_way: Vec<(Instant, Instant)> = Vec::new();
        let (mut ahead, mut waited) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..50 {
            loop {
                while under_way.first().is_some_and(|(_, end)| *end <= now) {
                    let (started, end) = under_way.remove(0);
                    pace.ended(started, end);
                }
                if under_way.len() < most && pace.wait(under_way.len(), now).is_zero() {
                    break;
                }
                now += Duration::from_millis(5);
            }
            ahead = ahead.max(free.saturating_duration_since(now));
            waited += now.saturating_duration_since(free);
            let start = free.max(now);
            free = start + step;
            under_way.push((now, free));
        }
        (ahead, waited)
    }

    #[test]
    fn a_step_is_started_at_most_a_second_early_and_the_device_does_not_wait() {
        for step in [20, 100, 400, 900, 1500, 4000, 30_000] {
            let (ahead, waited) = run(step, 3);
            assert!(ahead <= AHEAD, "{ahead:?} with steps of {step} ms");
            // For the second step only, while nothing is known.
            assert!(
                waited <= Duration::from_millis(5),
                "{waited:?} with steps of {step} ms"
            );
        }
    }
}
