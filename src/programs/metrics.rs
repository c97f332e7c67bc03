//! The numbers that programs report, by name.
//!
//! A program returns them as one float32 vector, so that the host reads them in one transfer. The
//! structs are generic: they hold scalar tensors where a program is built, and numbers where its
//! result is read. To report another number, add a field here, and its value in the program.

use serde::{Deserialize, Serialize};

/// What a training step reports. The fields that are serialised are those of a line of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics<T> {
    /// Mean cross-entropy over the step's target tokens, in nats, without regularisers.
    pub loss: T,
    /// Share of the target tokens predicted first.
    pub accuracy: T,
    /// The rate the step used.
    pub learning_rate: T,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: T,
    /// Input tokens, padding not counted.
    #[serde(skip)]
    pub input_tokens: T,
    /// Target tokens, padding not counted.
    #[serde(skip)]
    pub target_tokens: T,
    /// 0, or why the update was skipped: the number of a [`SkipReason`].
    #[serde(skip)]
    pub skipped: T,
    /// Numbers of the new state that are not finite.
    #[serde(skip)]
    pub non_finite: T,
}

/// Why the update of a step was skipped, each with the number that stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkipReason {
    /// The loss or the norm of the gradients is not finite.
    NotFinite = 1,
    /// The loss is a spike.
    LossSpike = 2,
    /// The norm of the gradients is a spike, and the loss is not.
    GradNormSpike = 3,
}

impl SkipReason {
    /// The number that stands for it in [`StepMetrics::skipped`].
    pub fn number(self) -> f64 {
        f64::from(self as u8)
    }
}

impl StepMetrics<f32> {
    /// Why the update was skipped; nothing where it was not.
    pub fn skip_reason(&self) -> Option<SkipReason> {
        let skipped = f64::from(self.skipped);
        let spikes = [SkipReason::LossSpike, SkipReason::GradNormSpike];
        let spike = spikes.into_iter().find(|spike| skipped == spike.number());
        (skipped != 0.0).then_some(spike.unwrap_or(SkipReason::NotFinite))
    }
}

impl<T: Copy> StepMetrics<T> {
    /// The numbers in the order of the program's vector.
    pub fn to_array(self) -> [T; 8] {
        [
            self.loss,
            self.accuracy,
            self.grad_norm,
            self.learning_rate,
            self.input_tokens,
            self.target_tokens,
            self.skipped,
            self.non_finite,
        ]
    }

    /// From the first numbers of a training step's vector, with those behind them; none from too
    /// few.
    pub fn split(numbers: &[T]) -> Option<(Self, &[T])> {
        let (own, rest) = numbers.split_at_checked(8)?;
        Some((Self::from_slice(own)?, rest))
    }

    /// From the numbers of the program's vector; none from another count of them.
    pub fn from_slice(numbers: &[T]) -> Option<Self> {
        let &[
            loss,
            accuracy,
            grad_norm,
            learning_rate,
            input_tokens,
            target_tokens,
            skipped,
            non_finite,
        ] = numbers
        else {
            return None;
        };
        Some(Self {
            loss,
            accuracy,
            learning_rate,
            grad_norm,
            input_tokens,
            target_tokens,
            skipped,
            non_finite,
        })
    }
}

/// What an evaluation reports of a batch: sums over its target tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EvaluationSums<T> {
    /// The cross-entropies, in nats.
    pub cross_entropy: T,
    /// The tokens predicted first.
    pub correct: T,
    /// All tokens.
    pub tokens: T,
}

impl<T: Copy> EvaluationSums<T> {
    /// The sums in the order of the program's vector.
    pub fn to_array(self) -> [T; 3] {
        [self.cross_entropy, self.correct, self.tokens]
    }

    /// From the sums of the program's vector; none from another count of them.
    pub fn from_slice(sums: &[T]) -> Option<Self> {
        let &[cross_entropy, correct, tokens] = sums else {
            return None;
        };
        Some(Self {
            cross_entropy,
            correct,
            tokens,
        })
    }
}

impl EvaluationSums<f64> {
    /// Adds the sums of another batch.
    pub fn add(&mut self, batch: EvaluationSums<f32>) {
        self.cross_entropy += f64::from(batch.cross_entropy);
        self.correct += f64::from(batch.correct);
        self.tokens += f64::from(batch.tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_of_numbers_reads_back_by_name() {
        let vector = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
        let metrics = StepMetrics::from_slice(&vector).unwrap();
        assert_eq!((metrics.loss, metrics.grad_norm), (1.0, 3.0));
        assert_eq!(metrics.to_array(), vector);
        assert_eq!(StepMetrics::from_slice(&vector[1..]), None);
        let more = [&vector[..], &[9.0]].concat();
        assert_eq!(StepMetrics::split(&more), Some((metrics, &[9.0][..])));
        assert_eq!(StepMetrics::split(&vector[1..]), None);
        let reason = |skipped| {
            let metrics = StepMetrics {
                skipped,
                ..StepMetrics::default()
            };
            metrics.skip_reason()
        };
        let reasons = [
            None,
            Some(SkipReason::NotFinite),
            Some(SkipReason::LossSpike),
        ];
        assert_eq!([0.0, 1.0, 2.0].map(reason), reasons);
        assert_eq!(reason(3.0), Some(SkipReason::GradNormSpike));
        let sums = EvaluationSums::from_slice(&vector[..3]).unwrap();
        assert_eq!(sums.to_array(), vector[..3]);
        assert_eq!(EvaluationSums::from_slice(&vector), None);
    }
}
