//! What the data order of a run depends on besides its configuration: the amount of data, and how
//! it is shuffled.
//!
//! Checkpoints store it, so that a resumed run continues the same order or reports why it cannot.

use ankh_data::{Batches, Shuffle};
use serde::{Deserialize, Serialize};

use crate::config::Size;

/// The data of a run as its order sees it: of each component, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataOrder(Vec<Stream>);

/// Two orders where they first differ, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderDifference {
    /// What made the order before.
    pub was: String,
    /// What makes it now.
    pub is: String,
}

/// The data of one component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Stream {
    name: String,
    sequences: u64,
    residues: u64,
    shuffle: ShuffleKind,
}

/// How it is shuffled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ShuffleKind {
    /// As a whole.
    Exact,
    /// In windows of blocks.
    Windows { blocks: u64, residues: u64 },
}

impl DataOrder {
    /// That of these batches.
    pub fn of(batches: &Batches) -> Self {
        let components = batches.mixture().components().iter();
        let stream = |component: &ankh_data::Component| Stream {
            name: component.name.clone(),
            sequences: component.dataset.rows(),
            residues: component.dataset.residues(),
            shuffle: match component.dataset.shuffle() {
                Shuffle::Exact => ShuffleKind::Exact,
                Shuffle::Windows { blocks, residues } => ShuffleKind::Windows {
                    // The last is the end.
                    blocks: blocks.len() as u64 - 1,
                    residues: *residues,
                },
            },
        };
        Self(components.map(stream).collect())
    }

    /// The first thing that makes the order another than `before` was: what it was, and what it is.
    /// Where data is stored, and so the name of a single data set, makes no difference.
    pub fn difference(&self, before: &Self) -> Option<OrderDifference> {
        let parts = |order: &Self| format!("a mixture of {} parts", order.0.len());
        if self.0.len() != before.0.len() {
            return Some(OrderDifference {
                was: parts(before),
                is: parts(self),
            });
        }
        let pairs = before.0.iter().zip(&self.0);
        pairs
            .map(|(was, is)| {
                let [was, is] = [was, is].map(|stream| stream.in_words(self.0.len() > 1));
                OrderDifference { was, is }
            })
            .find(|difference| difference.was != difference.is)
    }

    /// A line for each component: how much there is, how it is shuffled, and why.
    pub fn reasons(&self, memory: Size) -> Vec<String> {
        let reason = |stream: &Stream| {
            let Stream {
                name,
                sequences,
                residues,
                ..
            } = stream;
            let amount = format!("{name}: {sequences} sequences of {residues} residues");
            match stream.shuffle {
                ShuffleKind::Exact => {
                    format!("{amount} fit data.memory ({memory}): read now, shuffled as a whole")
                }
                ShuffleKind::Windows {
                    blocks,
                    residues: window,
                } => {
                    let windows = residues.div_ceil(window.max(1));
                    let enough = Size::gib(residues.div_ceil(1 << 30));
                    format!(
                        "{amount} do not fit data.memory ({memory}): read when needed, {blocks} blocks shuffled in some {windows} windows of {window} residues; data.memory = \"{enough}\" would shuffle them as a whole"
                    )
                }
            }
        };
        self.0.iter().map(reason).collect()
    }
}

impl Stream {
    fn in_words(&self, named: bool) -> String {
        let Stream {
            name,
            sequences,
            residues,
            shuffle,
        } = self;
        let name = if named {
            format!("{name}: ")
        } else {
            String::new()
        };
        let shuffle = match shuffle {
            ShuffleKind::Exact => "shuffled as a whole".into(),
            ShuffleKind::Windows { blocks, residues } => {
                format!("shuffled in windows of {residues} residues of {blocks} blocks")
            }
        };
        format!("{name}{sequences} sequences of {residues} residues, {shuffle}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(shuffle: ShuffleKind) -> DataOrder {
        let stream = |name: &str| Stream {
            name: name.into(),
            sequences: 1000,
            residues: 300_000,
            shuffle: shuffle.clone(),
        };
        DataOrder(vec![stream("a"), stream("b")])
    }

    fn windows(residues: u64) -> DataOrder {
        order(ShuffleKind::Windows {
            blocks: 40,
            residues,
        })
    }

    #[test]
    fn an_order_reads_back_and_differs_from_others_only() {
        for order in [order(ShuffleKind::Exact), windows(1000)] {
            let text = serde_json::to_string(&order).unwrap();
            let read: DataOrder = serde_json::from_str(&text).unwrap();
            assert_eq!(order.difference(&read), None, "{text}");
        }
        let difference = windows(1000).difference(&order(ShuffleKind::Exact));
        let OrderDifference { was, is } = difference.unwrap();
        assert!(
            was.contains("a: 1000 sequences") && was.contains("as a whole"),
            "{was}"
        );
        assert!(is.contains("windows of 1000 residues"), "{is}");
        assert!(windows(1000).difference(&windows(2000)).is_some());
        let one = DataOrder(order(ShuffleKind::Exact).0[..1].to_vec());
        assert!(one.difference(&order(ShuffleKind::Exact)).is_some());
    }

    #[test]
    fn the_name_of_a_single_data_set_is_no_part_of_its_order() {
        let named = |name: &str| {
            let mut order = order(ShuffleKind::Exact);
            order.0.truncate(1);
            order.0[0].name = name.into();
            order
        };
        assert_eq!(named("here").difference(&named("there")), None);
    }

    #[test]
    fn who_has_too_little_memory_is_told_how_much_is_enough() {
        let lines = windows(30_000).reasons(Size(100_000));
        assert_eq!(lines.len(), 2);
        for words in [
            "do not fit data.memory (100 kB)",
            "some 10 windows",
            "\"1 GiB\"",
        ] {
            assert!(lines[0].contains(words), "{words} in {}", lines[0]);
        }
    }
}
