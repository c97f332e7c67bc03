//! How fast a run is, and how much of the devices it uses.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{Config, Model};

/// The arithmetic of one step, from the shapes alone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepCost {
    /// Floating-point operations of the model's matrix products, forward and backward.
    pub flops: f64,
}

impl StepCost {
    /// The cost of a step of this configuration.
    ///
    /// Counted as for the "model FLOPs utilization" of the PaLM paper (Chowdhery et al. 2022, appendix B): two operations per weight and position going forward and
    /// twice that backward, plus the attention's two products, which no weight takes part in; nothing for what rematerialisation repeats, nor for
    /// normalisation, softmax and optimizer. Padding counts, as the device computes it; `padding_efficiency` tells its share.
    pub fn of(config: &Config) -> Self {
        let data = &config.data;
        let forward = forward_flops(&config.model, data.input_length, data.target_length);
        Self {
            flops: 3.0 * forward * config.train.batch_size as f64,
        }
    }
}

/// Operations of one example's forward pass.
fn forward_flops(model: &Model, input_length: usize, target_length: usize) -> f64 {
    let [d, inner, ff] = [model.d_model, model.inner(), model.d_ff].map(|n| n as f64);
    let [s, t] = [input_length, target_length].map(|n| n as f64);
    let mlp = if model.activation.is_gated() {
        3.0
    } else {
        2.0
    } * d
        * ff;
    // Scores and weighted sums: each a product of `inner` terms for every pair of positions.
    let attention = |queries: f64, keys: f64| 4.0 * queries * keys * inner;
    let encoder = 2.0 * s * (4.0 * d * inner + mlp) + attention(s, s);
    let decoder_self = 2.0 * t * 4.0 * d * inner + attention(t, t);
    let decoder_cross = 2.0 * (t + s) * 2.0 * d * inner + attention(t, s);
    let decoder = decoder_self + decoder_cross + 2.0 * t * mlp;
    let logits = 2.0 * t * d * model.vocabulary as f64;
    model.encoder_layers as f64 * encoder + model.decoder_layers as f64 * decoder + logits
}

/// Counts what happens between two lines of metrics.
pub struct Meter {
    cost: StepCost,
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
    /// Share of the devices' peak that the model's matrix products make up; null where the peak is not
    /// known.
    pub mfu: Option<f64>,
    /// Wall time per step spent waiting for a batch.
    pub data_wait_seconds: f64,
}

impl Meter {
    /// Starts counting now, against the peak of all devices together.
    pub fn start(cost: StepCost, peak: Option<f64>) -> Self {
        Self {
            cost,
            peak,
            since: Instant::now(),
            steps: 0,
            examples: 0,
            tokens: 0,
            waited: Duration::ZERO,
        }
    }

    /// Counts a step: its sequences, its input and target tokens without padding, and how long its batch was waited for.
    pub fn step(&mut self, examples: u64, tokens: u64, waited: Duration) {
        self.steps += 1;
        self.examples += examples;
        self.tokens += tokens;
        self.waited += waited;
    }

    /// Begins the interval anew: what just happened (an evaluation, a save) is no step's time.
    pub fn skip(&mut self, duration: Duration) {
        self.since += duration;
    }

    /// The rates since the last reading, from which the next ones count.
    pub fn read(&mut self) -> Rates {
        let now = Instant::now();
        let rates = self.rates(now.saturating_duration_since(self.since));
        *self = Self::start(self.cost, self.peak);
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
                .map(|peak| self.cost.flops * steps / seconds / peak),
            data_wait_seconds: self.waited.as_secs_f64() / steps,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_models_cost_six_operations_per_weight_and_position() {
        // One position each way and no decoder to speak of: only the weights are left.
        let model = Model {
            encoder_layers: 100,
            decoder_layers: 1,
            ..Model::default()
        };
        let per_layer = 4 * model.d_model * model.inner() + 3 * model.d_model * model.d_ff;
        let expected = 2.0 * 100.0 * per_layer as f64 * 64.0;
        let ratio = forward_flops(&model, 64, 1) / expected;
        assert!((1.0..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn the_whole_run_of_ankh_base_costs_what_is_published() {
        // 3.2e21 operations over 14 billion residues, which fill about 311 of the 512 positions.
        let config = Config::default();
        let step = StepCost::of(&config).flops * 311.0 / 512.0;
        let run = step * config.train.steps as f64;
        assert!((2.5e21..4.0e21).contains(&run), "{run:e}");
    }

    #[test]
    fn utilization_is_the_share_of_the_peak() {
        let mut meter = Meter::start(StepCost { flops: 50.0 }, Some(100.0));
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
