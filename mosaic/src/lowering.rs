//! A kernel in a program.

use ankh_hlo::Tensor;

use crate::kernel::Kernel;
use crate::{custom_call, loops};

/// How a kernel becomes a part of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lowering {
    /// As text for a TPU's compiler.
    Mosaic,
    /// As a loop over the grid in HLO.
    Loops,
}

impl Kernel {
    /// The results of the kernel for `inputs`, in their program. It has no derivative of its own:
    /// [`Tensor::custom_vjp`] gives it one.
    ///
    /// A block that does not fit its array or the grid, or a body whose results are of other
    /// shapes, is a mistake of the program.
    ///
    /// # Panics
    /// If there are no inputs.
    #[track_caller]
    pub fn apply<'g>(&self, lowering: Lowering, inputs: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let graph = inputs.first().expect("a kernel has inputs").graph();
        if let Some(problem) = self.problem(inputs) {
            return self.refuse(graph, problem);
        }
        match lowering {
            Lowering::Mosaic => custom_call::of(self, graph, inputs),
            Lowering::Loops => loops::of(self, graph, inputs),
        }
    }
}
