//! Calls of what XLA does not know: a plugin's custom calls.

use crate::graph::{Graph, Tensor};
use crate::ir::{CustomCall, Op};
use crate::shape::Shape;

impl Graph {
    /// The results, of the given shapes, of a custom call. It is a function of its operands, which
    /// are dense and row-major, as the results are. It has no derivative of its own:
    /// [`Tensor::custom_vjp`] gives it one. The partitioner does not know how to split it; call it
    /// in a [`Graph::shard_map`].
    #[track_caller]
    pub fn custom_call<'g>(
        &'g self,
        call: CustomCall,
        operands: &[Tensor<'g>],
        results: Vec<Shape>,
    ) -> Vec<Tensor<'g>> {
        self.emit_tuple(Op::CustomCall(call), operands, results)
    }
}
