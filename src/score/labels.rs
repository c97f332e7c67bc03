//! The labels of variants, and how well scores agree with them.

use serde::Serialize;

use super::table::Row;
use super::{Error, Fault, Table};
use crate::statistics::{auc, mcc, ndcg, quantile, spearman, top_recall};

/// The share of variants that is the top of NDCG and recall, as ProteinGym has it.
const TOP: f64 = 0.1;

/// What was measured of variants.
#[derive(Clone, Debug, PartialEq)]
pub struct Labels {
    /// By row; none where the cell is empty.
    scores: Vec<Option<f64>>,
    /// Whether each is of the upper class, where the table says so.
    classes: Option<Vec<Option<bool>>>,
}

/// Agreement of scores and labels; a measure that the labels leave undefined is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// The variants that have a label.
    pub labelled: usize,
    /// Spearman's rank correlation.
    pub spearman: Option<f64>,
    /// The normalised discounted cumulative gain of the highest tenth.
    pub ndcg: Option<f64>,
    /// The area under the ROC curve, of the labels' two classes.
    pub auc: Option<f64>,
    /// Matthews' correlation of the labels' classes with scores at or above their median.
    pub mcc: Option<f64>,
    /// How many of the highest tenth of the labels are in that of the scores.
    pub top_recall: Option<f64>,
}

impl Labels {
    /// The columns `DMS_score` and `DMS_score_bin` of a table; none without the first.
    pub fn of(table: &Table) -> Result<Option<Labels>, Error> {
        let Some(scores) = table.column("DMS_score") else {
            return Ok(None);
        };
        let by_row = |read: &dyn Fn(&Row) -> Result<Option<f64>, Fault>| {
            let rows = table.rows().iter();
            let one = |row| read(row).map_err(|fault| table.fault(row, fault));
            rows.map(one).collect::<Result<Vec<_>, Error>>()
        };
        let scores = by_row(&|row| number(row.cell(Some(scores)), "DMS_score"))?;
        let classes = table.column("DMS_score_bin").map(|column| {
            by_row(&|row| {
                let cell = row.cell(Some(column));
                match number(cell, "DMS_score_bin")? {
                    Some(class) if class != 0.0 && class != 1.0 => Err(Fault::NotBinary {
                        column: "DMS_score_bin",
                        text: cell.into(),
                    }),
                    class => Ok(class),
                }
            })
        });
        let classes = classes.transpose()?.map(|classes| {
            let upper = |class: Option<f64>| class.map(|class| class == 1.0);
            classes.into_iter().map(upper).collect()
        });
        Ok(Some(Labels { scores, classes }))
    }

    /// How well scores agree, each of the variant in the same row. Without classes, labels at or
    /// above their median are the upper one.
    pub fn agreement(&self, scores: &[f64]) -> Agreement {
        let labelled = self.scores.iter().zip(scores).enumerate();
        let labelled = labelled.filter_map(|(row, (label, &score))| Some((row, (*label)?, score)));
        let (mut rows, mut labels, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for (row, label, score) in labelled {
            rows.push(row);
            labels.push(label);
            found.push(score);
        }
        let upper = |values: &[f64]| -> Vec<bool> {
            let median = quantile(values, 0.5).unwrap_or_default();
            values.iter().map(|&value| value >= median).collect()
        };
        // A label without a class takes no part in what classes decide.
        let (classes, of_classes): (Vec<bool>, Vec<f64>) = match &self.classes {
            None => (upper(&labels), found.clone()),
            Some(classes) => (rows.iter().zip(&found))
                .filter_map(|(&row, &score)| Some((classes[row]?, score)))
                .unzip(),
        };
        let both = classes.contains(&true) && classes.contains(&false);
        Agreement {
            labelled: labels.len(),
            spearman: spearman(&labels, &found),
            ndcg: ndcg(&labels, &found, TOP),
            auc: auc(&classes, &of_classes),
            mcc: both.then(|| mcc(&classes, &upper(&of_classes))),
            top_recall: top_recall(&labels, &found, TOP),
        }
    }
}

fn number(text: &str, column: &'static str) -> Result<Option<f64>, Fault> {
    if text.is_empty() || text.eq_ignore_ascii_case("nan") {
        return Ok(None);
    }
    let number: Option<f64> = text.parse().ok().filter(|number: &f64| number.is_finite());
    let not_a_number = || Fault::NotANumber {
        column,
        text: text.into(),
    };
    number.map(Some).ok_or_else(not_a_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_without_labels_and_classes_are_left_out() {
        let labels = Labels {
            scores: vec![Some(1.0), None, Some(2.0), Some(3.0), Some(0.0)],
            classes: Some(vec![Some(false), Some(true), Some(true), None, Some(false)]),
        };
        let agreement = labels.agreement(&[1.0, -9.0, 2.0, 3.0, 0.0]);
        assert_eq!(agreement.labelled, 4);
        assert_eq!(agreement.spearman, Some(1.0));
        assert_eq!(agreement.auc, Some(1.0));
        // Of fewer than ten there is no tenth.
        assert_eq!(agreement.ndcg, None);
        let unclassed = Labels {
            classes: None,
            ..labels
        };
        assert_eq!(
            unclassed.agreement(&[1.0, -9.0, 2.0, 3.0, 0.0]).mcc,
            Some(1.0)
        );
    }
}
