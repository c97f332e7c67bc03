//! Counts the floating-point operations of a program's matrix products, before any compiler has
//! seen it.

use std::collections::HashMap;

use ankh_proto::xla::{HloInstructionProto, HloModuleProto, ShapeProto};
use serde::{Deserialize, Serialize};

use super::scope::{Pass, scope};
use super::walk::{Into, Walk, shapes};

/// Floating-point operations of a training step's matrix products, a multiplication and an addition
/// counted apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Flops {
    /// Of the model.
    pub forward: f64,
    /// Of the model again, because the derivative needs values that were not kept.
    pub recompute: f64,
    /// Of the derivative.
    pub gradient: f64,
}

impl Flops {
    /// Counts a module's products, in loops as often as these run.
    pub fn of(module: &HloModuleProto) -> Flops {
        let shapes = shapes(module);
        let mut flops = Flops::default();
        Walk::new(module).each(Into::Everything, |visit| {
            if visit.instruction.opcode != "dot" {
                return;
            }
            let sum = match scope(visit.instruction).0 {
                Pass::Forward => &mut flops.forward,
                Pass::Recompute => &mut flops.recompute,
                Pass::Gradient => &mut flops.gradient,
            };
            *sum += visit.times as f64 * product(visit.instruction, &shapes).unwrap_or(0.0);
        });
        flops
    }

    /// What the devices compute.
    pub fn total(&self) -> f64 {
        self.forward + self.recompute + self.gradient
    }
}

/// Two operations for each element of the result and each pair of elements that it is summed over.
fn product(dot: &HloInstructionProto, shapes: &HashMap<i64, &ShapeProto>) -> Option<f64> {
    let left = shapes.get(dot.operand_ids.first()?)?;
    let contracted = &dot
        .dot_dimension_numbers
        .as_ref()?
        .lhs_contracting_dimensions;
    let summed = contracted
        .iter()
        .map(|&d| Some(*left.dimensions.get(usize::try_from(d).ok()?)? as f64));
    let summed = summed.product::<Option<f64>>()?;
    let elements: f64 = dot
        .shape
        .as_ref()?
        .dimensions
        .iter()
        .map(|&d| d as f64)
        .product();
    Some(2.0 * elements * summed)
}
