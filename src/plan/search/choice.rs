//! What a search may choose: the mesh, the sharding of the optimizer state, the remat policy and
//! gradient accumulation. None of it changes what a run learns.

use serde::{Deserialize, Serialize};

use crate::config::{Config, Remat};
use crate::mesh::slice::Slice;
use crate::mesh_shape::MeshShape;
use crate::programs::sharding;

/// One way to run a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Choice {
    /// Devices that share the weights: `sharding.fsdp`.
    pub fsdp: usize,
    /// Devices that share each layer: `sharding.model`.
    pub model: usize,
    /// Whether the optimizer's state is split over `data` too: `sharding.zero`.
    pub zero: bool,
    /// What layers keep: `train.remat`.
    pub remat: Remat,
    /// Parts of the batch: `train.gradient_accumulation`.
    pub gradient_accumulation: usize,
}

impl Choice {
    /// What a configuration has chosen.
    pub fn of(config: &Config) -> Choice {
        Choice {
            fsdp: config.sharding.fsdp,
            model: config.sharding.model,
            zero: config.sharding.zero,
            remat: config.train.remat,
            gradient_accumulation: config.train.gradient_accumulation,
        }
    }

    /// The configuration with this choice in it.
    pub fn apply(&self, config: &Config) -> Config {
        let mut config = config.clone();
        // As many as the other axes leave: the same file then serves slices of other sizes.
        config.sharding.data = 0;
        config.sharding.fsdp = self.fsdp;
        config.sharding.model = self.model;
        config.sharding.zero = self.zero;
        config.train.remat = self.remat;
        config.train.gradient_accumulation = self.gradient_accumulation;
        config
    }

    /// The mesh it makes of a slice that its axes divide.
    pub fn mesh(&self, slice: Slice) -> MeshShape {
        MeshShape {
            data: slice.devices() / (self.fsdp * self.model),
            fsdp: self.fsdp,
            model: self.model,
        }
    }

    /// In how many points it differs from another that predictions go wrong on.
    pub(super) fn distance(&self, other: &Choice) -> i32 {
        let differs = [
            self.fsdp != other.fsdp,
            self.model != other.model,
            self.remat != other.remat,
            self.gradient_accumulation != other.gradient_accumulation,
        ];
        differs.into_iter().filter(|differs| *differs).count() as i32
    }
}

/// Every choice that divides the devices, the batch and the arrays, the plainer of two before the
/// other.
pub(super) fn all(config: &Config, slice: Slice) -> Vec<Choice> {
    let devices = slice.devices();
    let divisors = || (1..=devices).filter(|d| devices.is_multiple_of(*d));
    let mut choices = Vec::new();
    for model in divisors() {
        for fsdp in divisors().filter(|fsdp| (devices / model).is_multiple_of(*fsdp)) {
            for gradient_accumulation in (0..)
                .map(|power| 1 << power)
                .take_while(|parts| *parts <= config.train.batch_size)
            {
                let plain = Choice {
                    fsdp,
                    model,
                    zero: false,
                    remat: Remat::Full,
                    gradient_accumulation,
                };
                if !divides(&plain, config, slice) {
                    continue;
                }
                for remat in Remat::ALL {
                    choices.push(Choice { remat, ..plain });
                    if plain.mesh(slice).data > 1 {
                        choices.push(Choice {
                            remat,
                            zero: true,
                            ..plain
                        });
                    }
                }
            }
        }
    }
    let own = Choice::of(config);
    if !choices.contains(&own) && divides(&own, config, slice) {
        choices.push(own);
    }
    choices
}

fn divides(choice: &Choice, config: &Config, slice: Slice) -> bool {
    let mesh = choice.fsdp * choice.model;
    if mesh == 0 || !slice.devices().is_multiple_of(mesh) {
        return false;
    }
    let config = choice.apply(config);
    let parts = config
        .train
        .batch_size
        .is_multiple_of(choice.gradient_accumulation);
    parts && sharding::logical_axis_rules(&config, choice.mesh(slice)).is_ok()
}
