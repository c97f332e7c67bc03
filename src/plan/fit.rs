//! A step that does not fit: what is too big, and which changes help.

use std::fmt;

use super::{LoweredStep, Role};
use crate::config::Remat;
use crate::mesh::slice::Generation;

const GIB: f64 = (1u64 << 30) as f64;

/// A step that needs more memory than a chip has. Bytes of each chip.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryShortfall {
    /// The weights.
    pub parameters: f64,
    /// The optimizer's slots.
    pub optimizer: f64,
    /// The batch.
    pub batch: f64,
    /// What is needed, where the compiler reports it.
    pub needed: Option<f64>,
    /// What there is, where it is known.
    pub available: Option<f64>,
    /// The changes that help, the best first; at least one.
    pub remedies: Vec<Remedy>,
}

/// A change with which a step needs less memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// To split the weights over more chips.
    ShardWeights,
    /// To split the optimizer's slots over `data`.
    ShardOptimizer,
    /// To split each layer over chips.
    ShardLayers,
    /// To keep less for the derivative.
    FullRemat,
    /// To compute a batch in this many parts.
    AccumulateGradients(usize),
    /// To compute fewer sequences in a step.
    SmallerBatch,
    /// To take more chips, or fewer weights.
    LargerSlice,
}

impl MemoryShortfall {
    /// What of a step is too big, by what its arrays take on each device, and what helps. `message`
    /// is the compiler's.
    pub fn of(lowered: &LoweredStep<'_>, message: &str) -> MemoryShortfall {
        let sum = |role: Role| {
            let arrays = lowered.arrays.iter().filter(|a| a.role == role);
            arrays.map(|a| a.shard().bytes()).sum::<u64>() as f64
        };
        let report = OutOfMemoryReport::parse(message);
        let usable = lowered.slice.generation().map(|g| usable(g) as f64);
        let mut shortfall = MemoryShortfall {
            parameters: sum(Role::Parameter),
            optimizer: sum(Role::Optimizer),
            batch: sum(Role::Batch),
            needed: None,
            available: report.map(|report| report.available).or(usable),
            remedies: vec![],
        };
        shortfall.needed = report.map(|report| match report.temporary {
            true => shortfall.arguments() + report.needed,
            false => report.needed,
        });
        shortfall.remedies = remedies(lowered, shortfall.is_state_too_big());
        shortfall
    }

    fn arguments(&self) -> f64 {
        self.parameters + self.optimizer + self.batch
    }

    /// Activations and gradients.
    fn temporaries(&self) -> Option<f64> {
        let needed = self.needed?;
        Some((needed - self.arguments()).max(0.0))
    }

    /// Whether the state takes more than what is computed from it.
    fn is_state_too_big(&self) -> bool {
        let arguments = self.arguments();
        match (self.temporaries(), self.available) {
            (Some(temporaries), _) => arguments > temporaries,
            (None, Some(available)) => arguments > available / 2.0,
            (None, None) => false,
        }
    }
}

impl fmt::Display for MemoryShortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needs = self.needed.map_or("more than there is".into(), gib);
        let of = self
            .available
            .map(|available| format!(" of {}", gib(available)));
        write!(
            f,
            "the step needs {needs}{} on each chip: parameters {}, optimizer state {}, batch {}",
            of.unwrap_or_default(),
            gib(self.parameters),
            gib(self.optimizer),
            gib(self.batch)
        )?;
        match self.temporaries() {
            Some(temporaries) => write!(f, ", activations and gradients {}", gib(temporaries)),
            None => Ok(()),
        }
    }
}

fn remedies(lowered: &LoweredStep<'_>, state_too_big: bool) -> Vec<Remedy> {
    let config = lowered.config;
    let mut remedies = Vec::new();
    let chips = lowered.slice.devices();
    if state_too_big && chips > 1 {
        remedies.push(Remedy::ShardWeights);
        if !config.sharding.zero && lowered.mesh.data > 1 {
            remedies.push(Remedy::ShardOptimizer);
        }
    } else if state_too_big {
        remedies.push(Remedy::LargerSlice);
    }
    if config.train.remat != Remat::Full {
        remedies.push(Remedy::FullRemat);
    }
    if lowered.device_rows() > 1 {
        let parts = 2 * config.train.gradient_accumulation;
        remedies.push(Remedy::AccumulateGradients(parts));
        remedies.push(Remedy::SmallerBatch);
    }
    if !state_too_big && chips > 1 {
        remedies.push(Remedy::ShardLayers);
    }
    if remedies.is_empty() {
        remedies.push(Remedy::LargerSlice);
    }
    remedies
}

/// The memory of a chip that libtpu leaves to a program, from its messages where one does not
/// fit.
pub(super) fn usable(generation: Generation) -> u64 {
    let gib = match generation {
        Generation::V4 => 30.75,
        Generation::V5e => 15.75,
        Generation::V5p => 95.73,
        Generation::V6e => 31.24,
    };
    (gib * GIB) as u64
}

/// Bytes that a compiler's message tells of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct OutOfMemoryReport {
    needed: f64,
    available: f64,
    /// Whether what is needed is for temporary arrays alone.
    temporary: bool,
}

impl OutOfMemoryReport {
    /// From "Used 45.20G of 31.25G hbm" or "total memory required for HLO temporaries (31.04G)
    /// exceeds available HBM (30.75G)".
    fn parse(message: &str) -> Option<OutOfMemoryReport> {
        let words = message.split_whitespace();
        let mut sizes = words.filter_map(|word| size(word.trim_matches(['(', ')', '.', ','])));
        Some(OutOfMemoryReport {
            needed: sizes.next()?,
            available: sizes.next()?,
            temporary: message.contains("temporaries ("),
        })
    }
}

/// `31.25G` in bytes.
fn size(text: &str) -> Option<f64> {
    let exponent = match text.chars().last()? {
        'K' => 10,
        'M' => 20,
        'G' => 30,
        'T' => 40,
        _ => return None,
    };
    let number: f64 = text[..text.len() - 1].parse().ok()?;
    Some(number * f64::from(exponent).exp2())
}

fn gib(bytes: f64) -> String {
    match bytes / GIB {
        small if small < 0.1 => format!("{:.1} MiB", bytes / (1u64 << 20) as f64),
        large => format!("{large:.1} GiB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve;

    #[test]
    fn libtpus_figures_are_read() {
        let total = "Ran out of memory in memory space hbm. Used 45.50G of 31.25G hbm. Exceeded hbm capacity by 14.25G.";
        let temporaries = "E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO \
             temporaries (31.50G) exceeds available HBM (30.75G). HLO module: train_step.";
        for (message, needed, available, temporary) in [
            (total, 45.5, 31.25, false),
            (temporaries, 31.5, 30.75, true),
        ] {
            let report = OutOfMemoryReport::parse(message).unwrap();
            assert_eq!(
                (report.needed / GIB, report.available / GIB),
                (needed, available)
            );
            assert_eq!(report.temporary, temporary);
        }
        for message in ["", "G", "it is too large", "Used 1.5G"] {
            assert_eq!(OutOfMemoryReport::parse(message), None, "{message}");
        }
    }

    #[test]
    fn what_is_too_big_is_named_with_what_to_change() {
        let set = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let activations = set("train.batch_size=4096 train.remat=none");
        let config = resolve(Some("ankh-base"), &activations).unwrap();
        let lowered = LoweredStep::new(&config, "v4-64".parse().unwrap()).unwrap();
        let message = "temporaries (40.00G) exceeds available HBM (30.75G)";
        let shortfall = MemoryShortfall::of(&lowered, message);
        let text = shortfall.to_string();
        assert!(
            text.contains("activations and gradients 40.0 GiB"),
            "{text}"
        );
        assert!(text.contains("30.8 GiB"), "{text}");
        for remedy in [Remedy::FullRemat, Remedy::AccumulateGradients(2)] {
            assert!(shortfall.remedies.contains(&remedy), "{shortfall:?}");
        }

        let state = set("train.batch_size=4 optimizer.name=adamw");
        let config = resolve(Some("ankh-large"), &state).unwrap();
        let lowered = LoweredStep::new(&config, "v5e-4".parse().unwrap()).unwrap();
        let shortfall = MemoryShortfall::of(&lowered, "Used 26.00G of 15.75G hbm.");
        let text = shortfall.to_string();
        assert!(
            text.contains("parameters 7.0 GiB, optimizer state 14.0 GiB"),
            "{text}"
        );
        for remedy in [Remedy::ShardWeights, Remedy::ShardOptimizer] {
            assert!(shortfall.remedies.contains(&remedy), "{shortfall:?}");
        }
    }
}
