//! What a kernel costs, for the compiler's scheduler and for plans.

use std::collections::HashMap;

use ankh_proto::xla::{HloInstructionProto, HloModuleProto};
use serde::{Deserialize, Serialize};

use crate::kernel::Kernel;

/// What a kernel costs, over its whole grid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Multiplications and additions of matrix products, two a pair of elements.
    pub flops: i64,
    /// Exponentials, logarithms and the like, one an element.
    pub transcendentals: i64,
    /// Bytes that move between HBM and VMEM: a block moves where it is another than at the place
    /// before.
    pub bytes: i64,
}

impl Cost {
    pub(crate) fn of(kernel: &Kernel, body: &HloModuleProto) -> Cost {
        let entry = body.computations.iter();
        let entry = entry.filter(|c| c.id == body.entry_computation_id);
        let instructions: Vec<&HloInstructionProto> = entry.flat_map(|c| &c.instructions).collect();
        let dims: HashMap<i64, &[i64]> = instructions.iter().map(|i| (i.id, dims(i))).collect();
        let mut each = Cost::default();
        for i in instructions {
            let elements: i64 = dims[&i.id].iter().product();
            match i.opcode.as_str() {
                "dot" => {
                    let summed = i.dot_dimension_numbers.iter();
                    let summed = summed.flat_map(|d| &d.lhs_contracting_dimensions);
                    let lhs = dims[&i.operand_ids[0]];
                    let summed: i64 = summed.map(|&d| lhs[d as usize]).product();
                    each.flops += 2 * elements * summed;
                }
                "exponential" | "log" | "tanh" | "logistic" | "rsqrt" | "sqrt" => {
                    each.transcendentals += elements;
                }
                _ => {}
            }
        }
        let bytes = kernel.blocks().map(|block| {
            let last = block.dims.iter().filter_map(|dim| dim.axis()).max();
            let moves: i64 = last.map_or(1, |last| kernel.grid[..=last].iter().product());
            moves * block.shape().bytes() as i64
        });
        Cost {
            flops: each.flops * kernel.places(),
            transcendentals: each.transcendentals * kernel.places(),
            bytes: bytes.sum(),
        }
    }
}

fn dims(i: &HloInstructionProto) -> &[i64] {
    i.shape.as_ref().map_or(&[], |shape| &shape.dimensions)
}
