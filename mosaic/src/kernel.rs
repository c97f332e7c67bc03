//! What a kernel is: a grid, blocks, and a body.

use std::panic::Location;
use std::rc::Rc;

use ankh_hlo::{Graph, Shape, Tensor};

/// Which part of a dimension a block covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockDim {
    /// All of it.
    Whole,
    /// The one element at the place on this axis of the grid. The body does not see the dimension.
    Element(usize),
    /// As many elements, those of the place on an axis of the grid.
    Part {
        /// The axis.
        axis: usize,
        /// The elements of a part.
        size: i64,
    },
}

impl BlockDim {
    /// The axis of the grid that it follows.
    pub(crate) fn axis(self) -> Option<usize> {
        match self {
            BlockDim::Whole => None,
            BlockDim::Element(axis) | BlockDim::Part { axis, .. } => Some(axis),
        }
    }

    /// Its size in a dimension of `whole`.
    fn size(self, whole: i64) -> i64 {
        match self {
            BlockDim::Whole => whole,
            BlockDim::Element(_) => 1,
            BlockDim::Part { size, .. } => size,
        }
    }
}

/// An array, and the block of it that belongs to a place on the grid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The whole array.
    pub array: Shape,
    pub(crate) dims: Vec<BlockDim>,
}

impl Block {
    /// A block of `array`, one [`BlockDim`] a dimension.
    pub fn new(array: Shape, dims: &[BlockDim]) -> Block {
        Block {
            array,
            dims: dims.to_vec(),
        }
    }

    /// All of `array`.
    pub(crate) fn whole(array: Shape) -> Block {
        let dims = vec![BlockDim::Whole; array.rank()];
        Block { array, dims }
    }

    /// The block with all dimensions of the array.
    pub(crate) fn shape(&self) -> Shape {
        let sizes = self.dims.iter().zip(&self.array.dims);
        let sizes: Vec<i64> = sizes.map(|(dim, &whole)| dim.size(whole)).collect();
        Shape::new(self.array.dtype, sizes)
    }

    /// What the body sees: the block without the dimensions of which it has one element.
    pub(crate) fn view(&self) -> Shape {
        let seen = self.dims.iter().zip(self.shape().dims);
        let seen = seen.filter(|(dim, _)| !matches!(dim, BlockDim::Element(_)));
        let dims: Vec<i64> = seen.map(|(_, size)| size).collect();
        Shape::new(self.array.dtype, dims)
    }

    /// The dimensions that the body sees.
    pub(crate) fn kept(&self) -> Vec<usize> {
        let seen = |(_, dim): &(usize, &BlockDim)| !matches!(dim, BlockDim::Element(_));
        let dims = self.dims.iter().enumerate().filter(seen);
        dims.map(|(i, _)| i).collect()
    }

    /// The number of leading axes of the grid, of `rank`, that the block follows; the others come
    /// after. `None` where they are mixed.
    fn leading_axes(&self, rank: usize) -> Option<usize> {
        let follows = |axis: usize| self.dims.iter().any(|dim| dim.axis() == Some(axis));
        let leading = (0..rank).take_while(|&axis| follows(axis)).count();
        (leading..rank)
            .all(|axis| !follows(axis))
            .then_some(leading)
    }

    /// What is wrong with it on this grid.
    fn problem(&self, grid: &[i64]) -> Option<String> {
        if self.dims.len() != self.array.rank() {
            return Some(format!("{} dimensions for {}", self.dims.len(), self.array));
        }
        self.dims
            .iter()
            .zip(&self.array.dims)
            .find_map(|(dim, &whole)| {
                let axis = dim.axis()?;
                let Some(&places) = grid.get(axis) else {
                    return Some(format!("the grid has no axis {axis}"));
                };
                let covered = places.checked_mul(dim.size(whole));
                (covered != Some(whole)).then(|| {
                    format!(
                        "{} of {whole} elements at each of {places} places do not cover {}",
                        dim.size(whole),
                        self.array
                    )
                })
            })
    }
}

/// What a kernel gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A block that each place on the grid computes once, or that the last of those who compute it
    /// leaves.
    Each(Block),
    /// A block that is added to, or otherwise brought forward, while the grid passes over the axes
    /// that it does not follow. These have to be the last ones: the block stays in VMEM.
    Accumulated {
        /// The block.
        block: Block,
        /// What each element begins as.
        init: f64,
    },
}

impl Output {
    /// Its block.
    pub fn block(&self) -> &Block {
        match self {
            Output::Each(block) | Output::Accumulated { block, .. } => block,
        }
    }

    /// What an accumulated one begins as.
    pub(crate) fn init(&self) -> Option<f64> {
        match self {
            Output::Each(_) => None,
            Output::Accumulated { init, .. } => Some(*init),
        }
    }
}

/// What passes from one place on the grid to the next: an accumulated result, or scratch memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Carried {
    /// What the body sees.
    pub shape: Shape,
    /// What each element begins as.
    pub init: f64,
    /// It begins anew where this axis of the grid and those after it begin.
    pub first_axis: usize,
}

/// A place on the grid, as the body sees it.
pub struct Step<'g> {
    /// The program that the body is a part of.
    pub graph: &'g Graph,
    /// The place on each axis, s32 scalars.
    pub place: Vec<Tensor<'g>>,
    /// The block of each input.
    pub inputs: Vec<Tensor<'g>>,
    /// The accumulated results, in order, then the scratch memory, as the place before left them.
    pub carried: Vec<Tensor<'g>>,
}

/// Computes, at one place on the grid, the block of each result, then what is left in each scratch
/// memory.
pub trait Body {
    /// See above.
    fn step<'g>(&self, step: &Step<'g>) -> Vec<Tensor<'g>>;
}

impl<F: for<'a> Fn(&Step<'a>) -> Vec<Tensor<'a>>> Body for F {
    fn step<'g>(&self, step: &Step<'g>) -> Vec<Tensor<'g>> {
        self(step)
    }
}

/// The body of a kernel that has not been given one.
struct Nothing;

impl Body for Nothing {
    fn step<'g>(&self, _: &Step<'g>) -> Vec<Tensor<'g>> {
        vec![]
    }
}

/// A kernel: what each place on a grid computes.
///
/// The grid is passed over in order, the last axis fastest. An axis that every result follows, and
/// no scratch memory spans, may be shared out to the cores of a chip.
#[derive(Clone)]
pub struct Kernel {
    pub(crate) name: Rc<str>,
    pub(crate) grid: Vec<i64>,
    pub(crate) inputs: Vec<Block>,
    pub(crate) outputs: Vec<Output>,
    pub(crate) scratch: Vec<Carried>,
    pub(crate) body: Rc<dyn Body>,
    pub(crate) location: &'static Location<'static>,
}

impl Kernel {
    /// A kernel over a grid of these sizes, with nothing to do yet.
    #[track_caller]
    pub fn new(name: &str, grid: &[i64]) -> Kernel {
        Kernel {
            name: name.into(),
            grid: grid.to_vec(),
            inputs: vec![],
            outputs: vec![],
            scratch: vec![],
            body: Rc::new(Nothing),
            location: Location::caller(),
        }
    }

    /// The next input.
    pub fn input(mut self, block: Block) -> Kernel {
        self.inputs.push(block);
        self
    }

    /// The next output.
    pub fn output(mut self, output: Output) -> Kernel {
        self.outputs.push(output);
        self
    }

    /// The next piece of scratch memory.
    pub fn scratch(mut self, scratch: Carried) -> Kernel {
        self.scratch.push(scratch);
        self
    }

    /// What each place computes.
    pub fn body(mut self, body: impl for<'a> Fn(&Step<'a>) -> Vec<Tensor<'a>> + 'static) -> Kernel {
        self.body = Rc::new(body);
        self
    }

    #[track_caller]
    pub(crate) fn refuse<'g>(&self, graph: &'g Graph, problem: String) -> Vec<Tensor<'g>> {
        let problem = format!("`{}` ({}): {problem}", self.name, self.location);
        vec![graph.refuse("kernel", problem); self.outputs.len()]
    }

    /// What is wrong with the kernel, or with its inputs.
    pub(crate) fn problem(&self, inputs: &[Tensor<'_>]) -> Option<String> {
        if self.grid.is_empty() || self.grid.iter().any(|&places| places < 1) {
            return Some(format!("a grid of {:?} places", self.grid));
        }
        if inputs.len() != self.inputs.len() {
            return Some(format!(
                "{} inputs, and blocks for {}",
                inputs.len(),
                self.inputs.len()
            ));
        }
        let of_inputs = inputs.iter().zip(&self.inputs).enumerate();
        let mut of_inputs = of_inputs.filter_map(|(i, (input, block))| {
            let other = input.shape() != block.array;
            let other = other.then(|| format!("is {} and not {}", input.shape(), block.array));
            let problem = other.or_else(|| block.problem(&self.grid))?;
            Some(format!("input {i}: {problem}"))
        });
        let of_outputs = self.outputs.iter().enumerate();
        let mut of_outputs = of_outputs.filter_map(|(i, output)| {
            let block = output.block();
            let scattered = || {
                let axes = block.leading_axes(self.grid.len());
                (output.init().is_some() && axes.is_none())
                    .then(|| "the axes that it is accumulated over are not the last ones".into())
            };
            let problem = block.problem(&self.grid).or_else(scattered)?;
            Some(format!("output {i}: {problem}"))
        });
        let scratch = self.scratch.iter();
        let beyond = |s: &Carried| {
            (s.first_axis > self.grid.len())
                .then(|| format!("scratch memory spans axis {} of the grid", s.first_axis))
        };
        let mut of_scratch = scratch.filter_map(beyond);
        of_inputs
            .next()
            .or_else(|| of_outputs.next())
            .or_else(|| of_scratch.next())
    }

    /// The blocks of the inputs, then of the outputs.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &Block> {
        let outputs = self.outputs.iter().map(Output::block);
        self.inputs.iter().chain(outputs)
    }

    /// The number of places.
    pub(crate) fn places(&self) -> i64 {
        self.grid.iter().product()
    }

    /// The accumulated outputs, then the scratch memory; with the output's number.
    pub(crate) fn carried(&self) -> Vec<(Option<usize>, Carried)> {
        let accumulated = self.outputs.iter().enumerate().filter_map(|(i, result)| {
            let Output::Accumulated { block, init } = result else {
                return None;
            };
            let first_axis = block.leading_axes(self.grid.len())?;
            let carried = Carried {
                shape: block.view(),
                init: *init,
                first_axis,
            };
            Some((Some(i), carried))
        });
        let scratch = self.scratch.iter().map(|scratch| (None, scratch.clone()));
        accumulated.chain(scratch).collect()
    }

    /// Whether the places on an axis of the grid may be passed over in any order and by several
    /// cores: each has results of its own.
    pub(crate) fn is_parallel(&self, axis: usize) -> bool {
        let follows = |block: &Block| block.dims.iter().any(|dim| dim.axis() == Some(axis));
        let results = self.outputs.iter().all(|result| follows(result.block()));
        results && self.scratch.iter().all(|scratch| axis < scratch.first_axis)
    }

    /// What is wrong with what the body gives.
    pub(crate) fn misfit(&self, given: &[Tensor<'_>]) -> Option<String> {
        let results = self.outputs.iter().map(|result| result.block().view());
        let scratch = self.scratch.iter().map(|scratch| scratch.shape.clone());
        let expected: Vec<Shape> = results.chain(scratch).collect();
        let given: Vec<Shape> = given.iter().map(|t| t.shape()).collect();
        let list = |shapes: &[Shape]| {
            let shapes: Vec<String> = shapes.iter().map(Shape::to_string).collect();
            shapes.join(", ")
        };
        (given != expected).then(|| {
            format!(
                "the body gives {} and should give {}",
                list(&given),
                list(&expected)
            )
        })
    }
}
