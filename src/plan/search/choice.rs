//! What a search may choose: every [`Layout`] that a slice and a batch can have.

use ankh_hlo::DType;

use crate::config::{Config, GradientType, Layout, Remat};
use crate::mesh::slice::Slice;
use crate::mesh_shape::MeshShape;
use crate::programs::{compute_type, sharding};

/// The mesh that a layout makes of a slice that its axes divide.
pub(super) fn mesh(layout: &Layout, slice: Slice) -> MeshShape {
    MeshShape {
        data: slice.devices() / (layout.fsdp * layout.model),
        fsdp: layout.fsdp,
        model: layout.model,
    }
}

/// In how many points two layouts differ that predictions go wrong on.
pub(super) fn distance(one: &Layout, other: &Layout) -> i32 {
    let differs = [
        one.fsdp != other.fsdp,
        one.model != other.model,
        one.remat != other.remat,
        one.gradient_accumulation != other.gradient_accumulation,
    ];
    differs.into_iter().filter(|differs| *differs).count() as i32
}

/// Every choice that divides the devices, the batch and the arrays, the plainer of two before the
/// other.
pub(super) fn all(config: &Config, slice: Slice) -> Vec<Layout> {
    let devices = slice.devices();
    let divisors = || (1..=devices).filter(|d| devices.is_multiple_of(*d));
    let compute = compute_type(config.train.compute, &slice.platform().to_string());
    let gradients = match compute == DType::Bf16 && devices > 1 {
        true => &[GradientType::Float32, GradientType::Bfloat16][..],
        false => &[GradientType::Float32],
    };
    let mut choices = Vec::new();
    for model in divisors() {
        for fsdp in divisors().filter(|fsdp| (devices / model).is_multiple_of(*fsdp)) {
            for gradient_accumulation in (0..)
                .map(|power| 1 << power)
                .take_while(|parts| *parts <= config.batch_rows())
            {
                let plain = Layout {
                    fsdp,
                    model,
                    zero: false,
                    gradients: GradientType::Float32,
                    remat: Remat::Full,
                    gradient_accumulation,
                };
                if !divides(&plain, config, slice) {
                    continue;
                }
                let zero = [false, true]
                    .into_iter()
                    .filter(|zero| !zero || mesh(&plain, slice).data > 1);
                for remat in Remat::ALL {
                    for zero in zero.clone() {
                        choices.extend(gradients.iter().map(|&gradients| Layout {
                            remat,
                            zero,
                            gradients,
                            ..plain
                        }));
                    }
                }
            }
        }
    }
    let own = Layout::of(config);
    if !choices.contains(&own) && divides(&own, config, slice) {
        choices.push(own);
    }
    choices
}

fn divides(choice: &Layout, config: &Config, slice: Slice) -> bool {
    let devices = choice.fsdp * choice.model;
    if devices == 0 || !slice.devices().is_multiple_of(devices) {
        return false;
    }
    let config = choice.apply(config);
    let parts = config
        .batch_rows()
        .is_multiple_of(choice.gradient_accumulation);
    parts && sharding::logical_axis_rules(&config, mesh(choice, slice)).is_ok()
}
