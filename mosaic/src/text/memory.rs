//! Where the blocks of a kernel lie among the arguments of its main function, and what is put
//! where.

use std::collections::HashMap;

use ankh_hlo::Shape;
use ankh_proto::xla::{HloComputationProto, HloInstructionProto};

use crate::kernel::{Block, Carried, Kernel};

/// A part of a block in VMEM.
#[derive(Clone)]
pub(super) struct Region {
    pub argument: usize,
    pub starts: Vec<i64>,
    pub part: Shape,
}

impl Region {
    pub fn whole(argument: usize, block: &Shape) -> Region {
        Region {
            argument,
            starts: vec![0; block.rank()],
            part: block.clone(),
        }
    }

    pub fn overlaps(&self, other: &Region) -> bool {
        let apart = |dim: usize| {
            let ends = |r: &Region| (r.starts[dim], r.starts[dim] + r.part.dims[dim]);
            let ((a, b), (c, d)) = (ends(self), ends(other));
            b <= c || d <= a
        };
        self.argument == other.argument && !(0..self.starts.len()).any(apart)
    }
}

/// Something that the body gives, and where it is put.
pub(super) struct Target {
    pub id: i64,
    pub block: Shape,
    pub region: Region,
    pub carried: bool,
}

impl Target {
    /// Whether it is put there at the end: a whole carried block, which may be read until then.
    pub fn waits(&self) -> bool {
        self.carried && self.region.part == self.block
    }
}

/// What the body gives. What it puts together is given by its parts.
pub(super) fn targets(kernel: &Kernel, entry: &HloComputationProto) -> Vec<Target> {
    let instructions: HashMap<i64, &HloInstructionProto> =
        entry.instructions.iter().map(|i| (i.id, i)).collect();
    let outputs = kernel.outputs.iter();
    let outputs = outputs.map(|output| (output.block().clone(), output.init().is_some()));
    let scratch = kernel.scratch.iter();
    let scratch = scratch.map(|s| (Block::whole(s.shape.clone()), true));
    let first = kernel.grid.len() + kernel.inputs.len();
    let given = instructions.get(&entry.root_id);
    let given = given.map_or(&[][..], |root| &root.operand_ids);
    let mut targets = vec![];
    for (i, (block, carried)) in outputs.chain(scratch).enumerate() {
        let kept = block.kept();
        let block = block.shape();
        let mut pending = vec![(given[i], Region::whole(first + i, &block))];
        while let Some((id, region)) = pending.pop() {
            let instruction = instructions[&id];
            if instruction.opcode != "concatenate" {
                targets.push(Target {
                    id,
                    block: block.clone(),
                    region,
                    carried,
                });
                continue;
            }
            let dim = instruction
                .dimensions
                .first()
                .map_or(0, |&dim| dim as usize);
            let mut start = region.starts[kept[dim]];
            for &operand in &instruction.operand_ids {
                let mut part = region.clone();
                let shape = instructions[&operand].shape.as_ref();
                let size = shape.map_or(0, |shape| shape.dimensions[dim]);
                part.starts[kept[dim]] = start;
                part.part.dims[kept[dim]] = size;
                start += size;
                pending.push((operand, part));
            }
        }
    }
    targets
}

/// The main function's argument of each carried value, its block, and what is carried.
pub(super) fn carried_arguments(kernel: &Kernel) -> Vec<(usize, Block, Carried)> {
    let outputs = kernel.grid.len() + kernel.inputs.len();
    let mut scratch = outputs + kernel.outputs.len()..;
    let carried = kernel.carried().into_iter();
    let carried = carried.map(|(output, carried)| match output {
        Some(i) => (outputs + i, kernel.outputs[i].block().clone(), carried),
        None => {
            let argument = scratch.next().expect("the range has no end");
            (argument, Block::whole(carried.shape.clone()), carried)
        }
    });
    carried.collect()
}
