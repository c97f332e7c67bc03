//! Which of the saved steps stay when a newer one is there.

use std::collections::BTreeSet;

use serde_json::Value;

/// Rules by which checkpoints stay. One that any of them names stays, and so does the newest.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// The newest so many; 0 stands for all.
    pub last: usize,
    /// Those whose step is a multiple of this; 0 stands for none.
    pub every: u64,
    /// So many with the lowest score.
    pub best: usize,
    /// The score of a checkpoint by its metadata, the lower the better; nothing where it has none.
    pub score: fn(&Value) -> Option<f64>,
}

impl Retention {
    /// Keeps the newest so many; 0 stands for all.
    pub fn last(count: usize) -> Retention {
        Retention {
            last: count,
            every: 0,
            best: 0,
            score: |_| None,
        }
    }

    /// The steps that go. `steps` ascend; `metadata` reads that of a step.
    pub(super) fn removed(
        &self,
        steps: &[u64],
        metadata: impl Fn(u64) -> Option<Value>,
    ) -> Vec<u64> {
        let Some((_, older)) = steps.split_last() else {
            return Vec::new();
        };
        if self.last == 0 {
            return Vec::new();
        }
        let best: BTreeSet<u64> = match self.best {
            0 => BTreeSet::new(),
            best => {
                let score = |&step: &u64| Some(((self.score)(&metadata(step)?)?, step));
                let mut scores: Vec<(f64, u64)> = steps.iter().filter_map(score).collect();
                scores.sort_by(|a, b| a.0.total_cmp(&b.0));
                scores
                    .into_iter()
                    .take(best)
                    .map(|(_, step)| step)
                    .collect()
            }
        };
        let stays =
            |step: u64| (self.every > 0 && step.is_multiple_of(self.every)) || best.contains(&step);
        let old = &older[..older.len().saturating_sub(self.last - 1)];
        old.iter().copied().filter(|&step| !stays(step)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn removed(retention: Retention, steps: &[u64], scores: &[(u64, f64)]) -> Vec<u64> {
        let retention = Retention {
            score: |metadata| metadata["loss"].as_f64(),
            ..retention
        };
        retention.removed(steps, |step| {
            let score = scores.iter().find(|(of, _)| *of == step);
            Some(json!({ "loss": score.map(|(_, score)| score) }))
        })
    }

    #[test]
    fn what_any_rule_names_stays_and_so_does_the_newest() {
        let steps = [10, 20, 30, 40, 50];
        let none = Retention::last(1);
        assert_eq!(removed(none, &steps, &[]), [10, 20, 30, 40]);
        assert_eq!(removed(Retention::last(3), &steps, &[]), [10, 20]);
        assert!(removed(Retention::last(0), &steps, &[]).is_empty());
        assert!(removed(Retention::last(9), &steps, &[]).is_empty());
        let every = Retention { every: 20, ..none };
        assert_eq!(removed(every, &steps, &[]), [10, 30]);
        let best = Retention { best: 2, ..none };
        let scores = [(10, 2.0), (20, 3.0), (40, 2.5), (50, 2.7)];
        assert_eq!(removed(best, &steps, &scores), [20, 30]);
        let all = Retention {
            last: 2,
            every: 30,
            best: 1,
            ..none
        };
        assert_eq!(removed(all, &steps, &scores), [20]);
        assert!(removed(none, &[], &[]).is_empty());
    }
}
