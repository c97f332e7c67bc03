//! A kernel as a loop over its grid, in plain HLO: each step takes its blocks from the arrays and
//! puts its results into theirs.

use ankh_hlo::{DType, Graph, Literal, Shape, Tensor};

use crate::kernel::{Block, BlockDim, Carried, Kernel, Step};

/// The results of a kernel.
#[track_caller]
pub(crate) fn of<'g>(kernel: &Kernel, g: &'g Graph, inputs: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    let steps = g.iota(Shape::new(DType::S32, [kernel.places()]), 0);
    let results = kernel.outputs.iter();
    let mut init: Vec<Tensor<'g>> = results.map(|r| g.zeros(&r.block().array)).collect();
    init.extend(kernel.scratch.iter().map(|s| g.full(&s.shape, s.init)));
    let count = kernel.outputs.len();
    let mut problem = None;
    let (mut left, _) = g.scan(Default::default(), &init, &[steps], |state, step| {
        let place = place(kernel, step[0]);
        let (arrays, scratch) = state.split_at(count);
        let blocks = inputs.iter().zip(&kernel.inputs);
        let mut scratch = scratch.iter();
        let carried = kernel.carried().into_iter().map(|(result, carried)| {
            let before = match result {
                Some(i) => read(arrays[i], kernel.outputs[i].block(), &place),
                None => *scratch.next().expect("one value a piece of scratch memory"),
            };
            begun(&carried, &place, before)
        });
        let step = Step {
            graph: g,
            inputs: blocks.map(|(x, block)| read(*x, block, &place)).collect(),
            carried: carried.collect(),
            place: place.clone(),
        };
        let given = kernel.body.step(&step);
        if g.error().is_some() {
            return (state.to_vec(), vec![]);
        }
        problem = kernel.misfit(&given);
        if problem.is_some() {
            return (state.to_vec(), vec![]);
        }
        let results = kernel.outputs.iter().zip(arrays).zip(&given);
        let mut next: Vec<Tensor<'g>> = results
            .map(|((result, array), &value)| write(*array, result.block(), &place, value))
            .collect();
        next.extend(&given[count..]);
        (next, vec![])
    });
    if let Some(problem) = problem {
        return kernel.refuse(g, problem);
    }
    left.truncate(count);
    left
}

/// The place on each axis at a step of the loop.
fn place<'g>(kernel: &Kernel, step: Tensor<'g>) -> Vec<Tensor<'g>> {
    let g = step.graph();
    let number = |n: i64| g.literal(Literal::scalar(DType::S32, n as f64));
    let axes = (0..kernel.grid.len()).map(|axis| {
        let stride: i64 = kernel.grid[axis + 1..].iter().product();
        step / number(stride) % number(kernel.grid[axis])
    });
    axes.collect()
}

/// What is carried, or what it begins as where it begins.
fn begun<'g>(carried: &Carried, place: &[Tensor<'g>], before: Tensor<'g>) -> Tensor<'g> {
    let first = place[carried.first_axis..].iter();
    let first = first.map(|axis| axis.equal(axis.zeros_like()));
    match first.reduce(|a, b| a & b) {
        Some(first) => first.select(before.full_like(carried.init), before),
        // No axis is passed over: each place begins anew.
        None => before.full_like(carried.init),
    }
}

/// The first element of a block in each dimension.
fn starts<'g>(block: &Block, place: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
    let starts = block.dims.iter().map(|dim| match *dim {
        BlockDim::Whole => place[0].zeros_like(),
        BlockDim::Element(axis) => place[axis],
        BlockDim::Part { axis, size } => place[axis] * size as f64,
    });
    starts.collect()
}

fn read<'g>(array: Tensor<'g>, block: &Block, place: &[Tensor<'g>]) -> Tensor<'g> {
    let slice = array.dynamic_slice(&starts(block, place), &block.shape().dims);
    slice.reshape(&block.view().dims)
}

fn write<'g>(
    array: Tensor<'g>,
    block: &Block,
    place: &[Tensor<'g>],
    value: Tensor<'g>,
) -> Tensor<'g> {
    let value = value.reshape(&block.shape().dims);
    array.dynamic_update_slice(value, &starts(block, place))
}
