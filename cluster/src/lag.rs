//! Which host is slow. All devices wait for the last host to start a program, so that every host's
//! steps take equally long; the slow one is the host that starts later than the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Programs that are remembered: no host is further behind than this.
const WINDOW: usize = 256;

/// Programs that a host has to be late for before it is called slow.
const ENOUGH: u32 = 20;

/// A host is slow if it is late by more than this part of the time between two programs.
const PART: f64 = 0.1;

/// The new sample's weight in the moving means.
const WEIGHT: f64 = 0.1;

/// How late each host starts its programs.
#[derive(Debug)]
pub(crate) struct Lags {
    /// When the first host had started so many programs, and more.
    firsts: VecDeque<(u64, Instant)>,
    hosts: Vec<Lag>,
    /// The mean time between two programs, in seconds.
    interval: f64,
}

#[derive(Clone, Debug, Default)]
struct Lag {
    passed: u64,
    samples: u32,
    /// Seconds behind the first host, as a moving mean.
    mean: f64,
}

/// A host that the others wait for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Slow {
    pub host: usize,
    /// How much later than the first host it starts its programs.
    pub late: Duration,
    /// The time between two programs.
    pub interval: Duration,
}

impl Lags {
    pub fn of(hosts: usize) -> Lags {
        Lags {
            firsts: VecDeque::new(),
            hosts: vec![Lag::default(); hosts],
            interval: 0.0,
        }
    }

    /// A host has started so many programs.
    pub fn passed(&mut self, host: usize, passed: u64, now: Instant) {
        let last = self.firsts.back().copied();
        if last.is_none_or(|(foremost, _)| passed > foremost) {
            if let Some((foremost, at)) = last {
                let each = (now - at).as_secs_f64() / (passed - foremost) as f64;
                self.interval += WEIGHT * (each - self.interval);
            }
            self.firsts.push_back((passed, now));
            if self.firsts.len() > WINDOW {
                self.firsts.pop_front();
            }
        }
        let lag = &mut self.hosts[host];
        if passed <= lag.passed {
            return;
        }
        lag.passed = passed;
        let first = self.firsts.iter().find(|(count, _)| *count >= passed);
        if let Some((_, first)) = first {
            lag.samples += 1;
            lag.mean += WEIGHT * ((now - *first).as_secs_f64() - lag.mean);
        }
    }

    /// The host that the others wait for, if one is clearly later than all others.
    pub fn slowest(&self) -> Option<Slow> {
        if self.hosts.iter().any(|lag| lag.samples < ENOUGH) {
            return None;
        }
        let mut by_lag: Vec<(usize, f64)> =
            self.hosts.iter().map(|lag| lag.mean).enumerate().collect();
        by_lag.sort_by(|a, b| b.1.total_cmp(&a.1));
        let (host, late) = *by_lag.first()?;
        let (_, next) = *by_lag.get(1)?;
        (late - next > PART * self.interval).then(|| Slow {
            host,
            late: Duration::from_secs_f64(late),
            interval: Duration::from_secs_f64(self.interval),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The slowest of three hosts that start a program each second, each so many ms later.
    fn slowest(late: [u64; 3]) -> Option<Slow> {
        let start = Instant::now();
        let mut lags = Lags::of(3);
        for passed in 1..60 {
            let mut hosts: Vec<usize> = (0..3).collect();
            hosts.sort_by_key(|host| late[*host]);
            for host in hosts {
                let at = Duration::from_secs(passed) + Duration::from_millis(late[host]);
                lags.passed(host, passed, start + at);
            }
        }
        lags.slowest()
    }

    #[test]
    fn the_host_that_the_others_wait_for_is_named() {
        let slow = slowest([10, 5, 400]).unwrap();
        assert_eq!(slow.host, 2);
        assert!((0.35..0.45).contains(&slow.late.as_secs_f64()), "{slow:?}");
        assert!(
            (0.9..1.1).contains(&slow.interval.as_secs_f64()),
            "{slow:?}"
        );
    }

    #[test]
    fn hosts_that_are_about_as_quick_are_not() {
        assert_eq!(slowest([10, 5, 60]), None);
        assert_eq!(slowest([400, 0, 400]), None);
    }
}
