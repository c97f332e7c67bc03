//! How well scores agree with labels: correlations, and the measures of ProteinGym (Notin et al.,
//! 2023) by the definitions of its `performance_DMS_benchmarks.py`.
//!
//! Nothing here knows what is scored. A measure that its data leave undefined is `None`.

/// The rank of each value, from 1. Equal values have the mean of their ranks.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for tied in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (tied.len() as f64 + 1.0) / 2.0;
        tied.iter().for_each(|&place| ranks[place] = rank);
        before += tied.len();
    }
    ranks
}

/// Pearson's correlation; none where either list is constant, or shorter than 2.
///
/// # Panics
/// Where the lists differ in length.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "pairs of values");
    let n = x.len() as f64;
    let (mean_x, mean_y) = (x.iter().sum::<f64>() / n, y.iter().sum::<f64>() / n);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (x - mean_x, y - mean_y);
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    let r = xy / (xx * yy).sqrt();
    r.is_finite().then(|| r.clamp(-1.0, 1.0))
}

/// Spearman's correlation: Pearson's of the [`ranks`], as `scipy.stats.spearmanr` has it.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&ranks(x), &ranks(y))
}

/// The area under the ROC curve: the share of pairs of a positive and a negative in which the
/// positive has the higher score; ties count half. None without both kinds.
pub fn auc(positive: &[bool], scores: &[f64]) -> Option<f64> {
    let ranks = ranks(scores);
    let positives = positive.iter().filter(|&&p| p).count() as f64;
    let negatives = positive.len() as f64 - positives;
    let of_positives = ranks.iter().zip(positive).filter(|(_, p)| **p);
    let sum: f64 = of_positives.map(|(rank, _)| rank).sum();
    let wins = sum - positives * (positives + 1.0) / 2.0;
    (positives > 0.0 && negatives > 0.0).then(|| wins / (positives * negatives))
}

/// Matthews' correlation of two binary lists; 0 where one of them is constant, as scikit-learn has
/// it.
pub fn mcc(truth: &[bool], predicted: &[bool]) -> f64 {
    let number = |list: &[bool]| -> Vec<f64> { list.iter().map(|&b| f64::from(b)).collect() };
    pearson(&number(truth), &number(predicted)).unwrap_or(0.0)
}

/// The normalised discounted cumulative gain of the top share (such as 0.1) of the scores.
///
/// Gains are the labels scaled to 0 to 1. The `k = floor(share n)` highest scores count, each gain
/// divided by `log2(rank + 1)`, relative to the same of the highest labels. Equal scores rank in
/// the order of the list. None where labels are constant, or `k` is 0.
pub fn ndcg(labels: &[f64], scores: &[f64], share: f64) -> Option<f64> {
    let k = (labels.len() as f64 * share).floor() as usize;
    let least = labels.iter().copied().fold(f64::INFINITY, f64::min);
    let most = labels.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let gained_by = |by: &[f64]| -> f64 {
        let mut order: Vec<usize> = (0..by.len()).collect();
        order.sort_by(|&a, &b| by[b].total_cmp(&by[a]));
        let top = order.iter().take(k).enumerate();
        top.map(|(rank, &place)| {
            let gain = (labels[place] - least) / (most - least);
            gain / (rank as f64 + 2.0).log2()
        })
        .sum()
    };
    let found = gained_by(scores) / gained_by(labels);
    found.is_finite().then_some(found)
}

/// The share of the top labels that are among the top scores. Both tops are what lies above the
/// percentile that leaves `share` (such as 0.1) above it. None where no label does.
pub fn top_recall(labels: &[f64], scores: &[f64], share: f64) -> Option<f64> {
    let (label, score) = (
        quantile(labels, 1.0 - share)?,
        quantile(scores, 1.0 - share)?,
    );
    let top = labels.iter().zip(scores).filter(|(l, _)| **l > label);
    let (mut of_labels, mut of_both) = (0u32, 0u32);
    for (_, s) in top {
        of_labels += 1;
        of_both += u32::from(*s > score);
    }
    (of_labels > 0).then(|| f64::from(of_both) / f64::from(of_labels))
}

/// The value below which a share of the values lies, interpolated linearly between neighbours, as
/// `numpy.percentile` does. None of nothing.
pub fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share.clamp(0.0, 1.0) * (sorted.len().checked_sub(1)? as f64);
    let (below, above) = (
        sorted[place.floor() as usize],
        sorted[place.ceil() as usize],
    );
    Some(below + (above - below) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels and scores with ties in both. What they give below was computed by scipy 1.17.1,
    /// scikit-learn 1.9.1 and ProteinGym's functions.
    const LABELS: [f64; 12] = [
        0.1, 2.5, 2.5, -1.0, 0.4, 0.4, 3.0, 1.25, -0.5, 0.9, 2.0, 0.4,
    ];
    const SCORES: [f64; 12] = [
        -3.0, -1.0, -0.5, -4.0, -1.0, -2.0, -0.25, -2.0, -2.0, -1.5, -0.5, -3.5,
    ];

    fn close(found: Option<f64>, expected: f64) {
        let found = found.unwrap();
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn equal_values_share_the_mean_of_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [4.0, 1.0, 4.0, 2.0, 4.0]);
        assert_eq!(ranks(&[]), [0.0; 0]);
    }

    #[test]
    fn measures_equal_those_of_scipy_scikit_learn_and_proteingym() {
        let median = |values: &[f64]| quantile(values, 0.5).unwrap();
        let above =
            |values: &[f64]| -> Vec<bool> { values.iter().map(|&v| v >= median(values)).collect() };
        close(spearman(&LABELS, &SCORES), 0.8377909923259932);
        close(pearson(&LABELS, &SCORES), 0.8154291157636171);
        close(auc(&above(&LABELS), &SCORES), 0.9027777777777779);
        close(Some(mcc(&above(&LABELS), &above(&SCORES))), 2.0 / 3.0);
        close(ndcg(&LABELS, &SCORES, 0.3), 0.9685860748248821);
        close(top_recall(&LABELS, &SCORES, 0.3), 0.75);
        close(quantile(&LABELS, 0.7), 1.775);
        close(quantile(&SCORES, 0.7), -1.0);
    }

    #[test]
    fn scores_in_the_order_of_the_labels_are_perfect_and_in_the_other_order_the_opposite() {
        let labels: Vec<f64> = (0..50).map(f64::from).collect();
        let up: Vec<f64> = labels.iter().map(|l| l.exp()).collect();
        let down: Vec<f64> = labels.iter().map(|l| -l).collect();
        let positive: Vec<bool> = labels.iter().map(|l| *l >= 25.0).collect();
        close(spearman(&labels, &up), 1.0);
        close(spearman(&labels, &down), -1.0);
        close(auc(&positive, &up), 1.0);
        close(auc(&positive, &down), 0.0);
        close(ndcg(&labels, &up, 0.1), 1.0);
        close(top_recall(&labels, &up, 0.1), 1.0);
        close(top_recall(&labels, &down, 0.1), 0.0);
        assert_eq!(mcc(&positive, &positive), 1.0);
    }

    #[test]
    fn what_is_not_defined_is_none() {
        let constant = [1.0; 20];
        let rising: Vec<f64> = (0..20).map(f64::from).collect();
        assert_eq!(spearman(&constant, &rising), None);
        assert_eq!(spearman(&[], &[]), None);
        assert_eq!(auc(&[true; 20], &rising), None);
        assert_eq!(ndcg(&constant, &rising, 0.1), None);
        assert_eq!(ndcg(&rising[..5], &rising[..5], 0.1), None);
        assert_eq!(top_recall(&constant, &rising, 0.1), None);
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(mcc(&[true; 20], &[false; 20]), 0.0);
    }
}
