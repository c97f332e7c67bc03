//! How a step is spread over a slice, apart from what it computes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Config, GradientType, Remat};
use crate::named_variants::serialized_name;

/// What makes a step faster or smaller. None of it changes which sequences a step sees or what it
/// minimises; `gradients` alone rounds what is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Devices that share the weights: `sharding.fsdp`.
    pub fsdp: usize,
    /// Devices that share each layer: `sharding.model`.
    pub model: usize,
    /// Whether the optimizer's state is split over `data` too: `sharding.zero`.
    pub zero: bool,
    /// The number format in which gradients are summed over devices: `sharding.gradients`.
    pub gradients: GradientType,
    /// What layers keep: `train.remat`.
    pub remat: Remat,
    /// Parts of the batch: `train.gradient_accumulation`.
    pub gradient_accumulation: usize,
}

/// The keys of the settings that make up a layout.
const KEYS: [&str; 8] = [
    "sharding.data",
    "sharding.fsdp",
    "sharding.model",
    "sharding.zero",
    "sharding.gradients",
    "sharding.rules",
    "train.remat",
    "train.gradient_accumulation",
];

impl Layout {
    /// What a configuration has chosen.
    pub fn of(config: &Config) -> Layout {
        Layout {
            fsdp: config.sharding.fsdp,
            model: config.sharding.model,
            zero: config.sharding.zero,
            gradients: config.sharding.gradients,
            remat: config.train.remat,
            gradient_accumulation: config.train.gradient_accumulation,
        }
    }

    /// The configuration with this layout in it.
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        // As many as the other axes leave: the same file then serves slices of other sizes.
        config.sharding.data = 0;
        config.sharding.fsdp = self.fsdp;
        config.sharding.model = self.model;
        config.sharding.zero = self.zero;
        config.sharding.gradients = self.gradients;
        config.train.remat = self.remat;
        config.train.gradient_accumulation = self.gradient_accumulation;
        config
    }

    /// Whether a `key=value` argument sets a part of a layout.
    pub fn is_set_by(argument: &str) -> bool {
        let key = argument.split('=').next().unwrap_or_default().trim();
        let within = |part: &str| {
            key.strip_prefix(part)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        KEYS.into_iter().any(within)
    }
}

/// In the configuration's words.
impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "fsdp={} model={} zero={} gradients={} remat={} gradient_accumulation={}",
            self.fsdp,
            self.model,
            self.zero,
            serialized_name(&self.gradients),
            serialized_name(&self.remat),
            self.gradient_accumulation
        )
    }
}
