//! Measures how fast a run is, and how much of the devices' peak it uses.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Counts what happens between two lines of metrics.
pub struct Meter {
    /// Floating-point operations of the model in one step.
    step_flops: f64,
    /// Of all devices together.
    peak: Option<f64>,
    since: Instant,
    steps: u64,
    examples: u64,
    tokens: u64,
    waited: Duration,
}

/// Means over the steps since the last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Wall time per step.
    pub step_seconds: f64,
    /// Sequences per second: several a row where rows are packed.
    pub examples_per_second: f64,
    /// Input and target tokens per second, padding not counted.
    pub tokens_per_second: f64,
    /// Share of the devices' peak that the model's matrix products make up; null where the peak is
    /// not known.
    pub mfu: Option<f64>,
    /// Wall time per step spent waiting for a batch.
    pub data_wait_seconds: f64,
}

impl Meter {
    /// Starts counting now, against the peak of all devices together.
    pub fn start(step_flops: f64, peak: Option<f64>) -> Self {
        Self {
            step_flops,
            peak,
            since: Instant::now(),
            steps: 0,
            examples: 0,
            tokens: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts a step: its sequences, its input and target tokens without padding, and how long its
    /// batch was waited for.
    pub fn step(&mut self, examples: u64, tokens: u64, waited: Duration) {
        self.steps += 1;
        self.examples += examples;
        self.tokens += tokens;
        self.waited += waited;
    }

    /// Leaves a time (of an evaluation, of a save) out of the interval.
    pub fn skip(&mut self, duration: Duration) {
        self.since += duration;
    }

    /// The rates since the last reading, from which the next ones count.
    pub fn read(&mut self) -> Rates {
        let now = Instant::now();
        let rates = self.rates(now.saturating_duration_since(self.since));
        *self = Self::start(self.step_flops, self.peak);
        rates
    }

    fn rates(&self, elapsed: Duration) -> Rates {
        let seconds = elapsed.as_secs_f64();
        if self.steps == 0 || seconds == 0.0 {
            return Rates::default();
        }
        let steps = self.steps as f64;
        Rates {
            step_seconds: seconds / steps,
            examples_per_second: self.examples as f64 / seconds,
            tokens_per_second: self.tokens as f64 / seconds,
            mfu: self
                .peak
                .map(|peak| self.step_flops * steps / seconds / peak),
            data_wait_seconds: self.waited.as_secs_f64() / steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilization_is_the_share_of_the_peak() {
        let mut meter = Meter::start(50.0, Some(100.0));
        meter.step(8, 1000, Duration::from_millis(100));
        meter.step(8, 1000, Duration::ZERO);
        let rates = meter.rates(Duration::from_secs(2));
        assert_eq!(rates.mfu, Some(0.5));
        assert_eq!(rates.step_seconds, 1.0);
        assert_eq!(rates.examples_per_second, 8.0);
        assert_eq!(rates.tokens_per_second, 1000.0);
        assert_eq!(rates.data_wait_seconds, 0.05);
    }
}
