//! Converts cycles and bytes to seconds, days and chip hours.

use ankh_data::RowFill;
use serde::{Deserialize, Serialize};

use super::collectives::Collective;
use crate::config::Config;
use crate::mesh::slice::{Chip, Generation};

/// How long a step, and with it the run, will take by the compiler's estimate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The compiler's cycles of one step.
    pub cycles: u64,
    /// The same in seconds. What chips send one another is not in it.
    pub step_seconds: f64,
    /// What sending takes at least, if none of it happens while the chips compute.
    pub communication_seconds: f64,
    /// The model's arithmetic as a share of what the chips could do in `step_seconds`.
    pub mfu: f64,
    /// Sequences of a step, on average.
    pub examples: f64,
    /// Sequences a second.
    pub examples_per_second: f64,
    /// The configured steps.
    pub steps: u64,
    /// Days for all of them.
    pub days: f64,
    /// The same times the chips.
    pub chip_hours: f64,
}

impl Estimate {
    pub(super) fn of(
        config: &Config,
        fill: &RowFill,
        generation: Generation,
        chips: usize,
        cycles: u64,
        model_flops: f64,
        collectives: &[Collective],
    ) -> Estimate {
        let chip: &Chip = generation.chip();
        let step_seconds = cycles as f64 / chip.clock_hz;
        let steps = config.train.steps;
        let examples = config.batch_rows() as f64 * fill.sequences;
        let hours = step_seconds * steps as f64 / 3600.0;
        Estimate {
            cycles,
            step_seconds,
            communication_seconds: collectives.iter().map(|c| seconds(c, generation)).sum(),
            mfu: model_flops / (step_seconds * chips as f64 * chip.peak_flops),
            examples,
            examples_per_second: examples / step_seconds,
            steps,
            days: hours / 24.0,
            chip_hours: hours * chips as f64,
        }
    }

    /// A step's seconds if nothing is sent while the chips compute.
    pub fn step_seconds_without_overlap(&self) -> f64 {
        self.step_seconds + self.communication_seconds
    }
}

/// The time to send what each chip has to send.
fn seconds(collective: &Collective, generation: Generation) -> f64 {
    let interconnect = Interconnect::of(generation);
    let used = links_used(collective.group as usize, &interconnect);
    collective.sent as f64 / (used * interconnect.bandwidth)
}

/// How a chip is joined to its neighbors.
pub(super) struct Interconnect {
    /// Its links.
    links: f64,
    /// The bytes that one of them moves in a second, each way.
    pub bandwidth: f64,
}

impl Interconnect {
    /// Google Cloud's pages on the [v4](https://cloud.google.com/tpu/docs/v4),
    /// [v5e](https://cloud.google.com/tpu/docs/v5e), [v5p](https://cloud.google.com/tpu/docs/v5p)
    /// and [v6e](https://cloud.google.com/tpu/docs/v6e) give 2400, 1600, 4800 and 3584 Gbit/s for
    /// all links of a chip together.
    pub fn of(generation: Generation) -> Interconnect {
        let (links, gigabits) = match generation {
            Generation::V4 => (6.0, 2400.0),
            Generation::V5e => (4.0, 1600.0),
            Generation::V5p => (6.0, 4800.0),
            Generation::V6e => (4.0, 3584.0),
        };
        Interconnect {
            links,
            bandwidth: gigabits * 1e9 / 8.0 / links,
        }
    }
}

/// Chips that exchange in a group are taken to have as many links to one another as in a cube of
/// that many: one for each halving, and no more than a chip has.
pub(super) fn links_used(group: usize, interconnect: &Interconnect) -> f64 {
    (group as f64).log2().clamp(1.0, interconnect.links)
}
