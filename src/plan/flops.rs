//! Counts the floating-point operations of a program's matrix products, before any compiler has
//! seen it.

use std::collections::HashMap;

use ankh_mosaic::KernelCall;
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
    /// Counts the products of a module for so many devices, in loops as often as these run, and
    /// what its kernels say of themselves.
    pub fn of(module: &HloModuleProto, devices: usize) -> Flops {
        let shapes = shapes(module);
        let mut flops = Flops::default();
        let walk = Walk::new(module).on_devices(devices);
        walk.each(Into::Everything, |visit| {
            let instruction = visit.instruction;
            let each = match KernelCall::of(instruction) {
                Some(call) => call.cost.flops as f64,
                None if instruction.opcode == "dot" => product(instruction, &shapes).unwrap_or(0.0),
                None => return,
            };
            let sum = match scope(instruction).0 {
                Pass::Forward => &mut flops.forward,
                Pass::Recompute => &mut flops.recompute,
                Pass::Gradient => &mut flops.gradient,
            };
            *sum += visit.times as f64 * each;
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
