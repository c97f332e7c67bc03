//! When silence is a hang. A pure function of what was heard and of the time that passed.
//!
//! A step takes about as long as those before it, so while a process trains it may be silent for
//! ten times their median. What else it does has no such measure, and has fixed limits.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::pulse::{Beat, Phase};

/// How long a process may be silent.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// At least, while it trains.
    pub step: Duration,
    /// While it starts, compiles, loads a state or waits for data, and until it has done a few
    /// steps.
    pub start: Duration,
    /// While it evaluates, saves or ends.
    pub save: Duration,
}

/// A process that is silent for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hang {
    /// What it was doing.
    pub phase: Phase,
    /// How long it might have been silent.
    pub limit: Duration,
}

/// Steps whose times are remembered.
const REMEMBERED: usize = 32;

/// From so many on, their median is one.
const ENOUGH: usize = 3;

/// A hang is this many times a step.
const FACTOR: u32 = 10;

/// What was heard of a process.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    phase: Phase,
    /// Since the last sign of life.
    silent: Duration,
    /// Spent on the step under way, its wait for data included.
    on_step: Duration,
    /// What the last steps took, across restarts: the next process trains the same ones.
    steps: VecDeque<Duration>,
}

impl Watch {
    pub fn new(patience: Patience) -> Watch {
        Watch {
            patience,
            phase: Phase::Starting,
            silent: Duration::ZERO,
            on_step: Duration::ZERO,
            steps: VecDeque::new(),
        }
    }

    /// Another process begins.
    pub fn begin(&mut self) {
        self.phase = Phase::Starting;
        self.silent = Duration::ZERO;
        self.on_step = Duration::ZERO;
    }

    /// Time passes.
    pub fn pass(&mut self, time: Duration) {
        self.silent += time;
        if matches!(self.phase, Phase::Training | Phase::Waiting) {
            self.on_step += time;
        }
    }

    /// A sign of life.
    pub fn hear(&mut self, beat: Beat) {
        self.silent = Duration::ZERO;
        if beat.step.is_some() {
            if self.steps.len() == REMEMBERED {
                self.steps.pop_front();
            }
            self.steps.push_back(std::mem::take(&mut self.on_step));
        }
        // The last state is saved like others, and nothing is trained after it.
        if self.phase != Phase::Ending {
            self.phase = beat.phase;
        }
    }

    /// How long ago the last sign of life was.
    pub fn silent(&self) -> Duration {
        self.silent
    }

    /// Whether the process hangs, as far as is known now.
    pub fn hang(&self) -> Option<Hang> {
        let limit = self.limit();
        (self.silent > limit).then_some(Hang {
            phase: self.phase,
            limit,
        })
    }

    fn limit(&self) -> Duration {
        match (self.phase, self.median()) {
            (Phase::Training, Some(median)) => self.patience.step.max(FACTOR * median),
            (Phase::Training, None) => self.patience.start,
            (Phase::Starting | Phase::Compiling | Phase::Loading | Phase::Waiting, _) => {
                self.patience.start
            }
            (Phase::Evaluating | Phase::Saving | Phase::Ending, _) => self.patience.save,
        }
    }

    fn median(&self) -> Option<Duration> {
        let mut steps: Vec<Duration> = self.steps.iter().copied().collect();
        steps.sort_unstable();
        (steps.len() >= ENOUGH).then(|| steps[steps.len() / 2])
    }
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doing = match self.phase {
            Phase::Starting => "starting",
            Phase::Compiling => "compiling",
            Phase::Loading => "loading a state",
            Phase::Training => "training",
            Phase::Waiting => "waiting for data",
            Phase::Evaluating => "evaluating",
            Phase::Saving => "saving",
            Phase::Ending => "ending",
        };
        let limit = self.limit.as_secs_f64();
        write!(
            f,
            "it hung while {doing}, silent for more than {limit:.0} s"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch() -> Watch {
        Watch::new(Patience {
            step: 30 * SECOND,
            start: 3600 * SECOND,
            save: 600 * SECOND,
        })
    }

    fn enters(watch: &mut Watch, phase: Phase) {
        watch.hear(Beat { phase, step: None });
    }

    fn steps(watch: &mut Watch, times: impl IntoIterator<Item = u64>) {
        for seconds in times {
            watch.pass(seconds as u32 * SECOND);
            watch.hear(Beat {
                phase: Phase::Training,
                step: Some(1),
            });
        }
    }

    /// How long it may be silent from now on, in seconds.
    fn limit(watch: &mut Watch) -> u64 {
        let seconds = (1..).find(|_| {
            watch.pass(SECOND);
            watch.hang().is_some()
        });
        seconds.unwrap() - 1
    }

    #[test]
    fn a_step_may_take_ten_times_the_median_of_the_last() {
        let mut quick = watch();
        enters(&mut quick, Phase::Training);
        steps(&mut quick, [1; 20]);
        assert_eq!(limit(&mut quick), 30);

        let mut slow = watch();
        enters(&mut slow, Phase::Training);
        // The slowest and those long ago do not count.
        steps(&mut slow, [500; 10].into_iter().chain([7; 25]).chain([400]));
        assert_eq!(limit(&mut slow), 70);
    }

    #[test]
    fn the_first_steps_may_take_as_long_as_a_start() {
        let mut first = watch();
        enters(&mut first, Phase::Training);
        steps(&mut first, [1; 2]);
        assert_eq!(limit(&mut first), 3600);
        // A process that is started again trains what the one before did.
        steps(&mut first, [1]);
        first.begin();
        assert_eq!(limit(&mut first), 3600);
        enters(&mut first, Phase::Training);
        assert_eq!(limit(&mut first), 30);
    }

    #[test]
    fn each_phase_has_its_limit_and_every_sign_begins_it_anew() {
        let limits = [
            (Phase::Compiling, 3600),
            (Phase::Loading, 3600),
            (Phase::Evaluating, 600),
            (Phase::Training, 30),
            (Phase::Waiting, 3600),
            (Phase::Saving, 600),
        ];
        for (phase, seconds) in limits {
            let mut watch = watch();
            enters(&mut watch, Phase::Training);
            steps(&mut watch, [1; 3]);
            for _ in 0..3 {
                enters(&mut watch, phase);
                watch.pass(seconds as u32 * SECOND);
                assert_eq!(watch.hang(), None);
            }
            enters(&mut watch, phase);
            assert_eq!(limit(&mut watch), seconds);
            assert_eq!(watch.hang().unwrap().phase, phase);
        }
    }

    #[test]
    fn waiting_for_data_counts_to_the_step_and_saving_does_not() {
        let mut watch = watch();
        enters(&mut watch, Phase::Training);
        for _ in 0..5 {
            enters(&mut watch, Phase::Waiting);
            watch.pass(6 * SECOND);
            enters(&mut watch, Phase::Saving);
            watch.pass(100 * SECOND);
            enters(&mut watch, Phase::Training);
            steps(&mut watch, [2]);
        }
        assert_eq!(limit(&mut watch), 80);
    }

    #[test]
    fn an_end_stays_one_while_it_saves() {
        let mut watch = watch();
        enters(&mut watch, Phase::Training);
        steps(&mut watch, [1; 3]);
        for phase in [Phase::Ending, Phase::Saving, Phase::Training] {
            enters(&mut watch, phase);
        }
        assert_eq!(limit(&mut watch), 600);
    }
}
