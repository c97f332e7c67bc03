//! Annotations: operations that return their input, with information for the compiler or for
//! derivatives.

use std::rc::Rc;

use crate::graph::{Graph, Tensor, shapes};
use crate::ir::Op;
use crate::sharding::{AxisName, Sharding};

impl<'g> Tensor<'g> {
    /// Names the dimensions (in Flax: `with_logical_constraint`). The graph's rules split them over
    /// the mesh; without rules this does nothing.
    #[track_caller]
    pub fn with_logical_axes(self, axes: &[impl Into<AxisName> + Copy]) -> Tensor<'g> {
        self.with_axes(&[], &AxisName::all(axes))
    }

    /// [`Tensor::with_logical_axes`] for a tensor that is used together with one of the axes
    /// `taken`: the mesh axes of those split nothing here. So a weight that is split over a mesh
    /// axis of the batch is whole where it is multiplied. Where `taken` makes no difference, this
    /// adds no constraint, because a constraint also keeps the compiler from fusing.
    #[track_caller]
    pub fn with_logical_axes_except(
        self,
        taken: &[impl Into<AxisName> + Copy],
        axes: &[impl Into<AxisName> + Copy],
    ) -> Tensor<'g> {
        self.with_axes(&AxisName::all(taken), &AxisName::all(axes))
    }

    #[track_caller]
    fn with_axes(self, taken: &[AxisName], axes: &[AxisName]) -> Tensor<'g> {
        const OPERATION: &str = "with_logical_axes";
        let (g, shape) = (self.graph(), self.shape());
        if axes.len() != shape.rank() {
            return g.refuse(OPERATION, format!("{} names for {shape}", axes.len()));
        }
        let sharding = |taken: &[AxisName]| g.sharding(taken, axes, &shape.dims);
        match sharding(taken) {
            Ok(same) if !taken.is_empty() && Ok(&same) == sharding(&[]).as_ref() => self,
            Ok(Some(sharding)) => self.with_sharding_constraint(sharding),
            Ok(None) => self,
            Err(error) => g.refuse(OPERATION, format!("{shape}: {error}")),
        }
    }

    /// This value with this sharding (in JAX: `with_sharding_constraint`). Within a program a
    /// dimension need not divide: the last devices then have shorter shards or none, which XLA
    /// pads. A program's parameters and results have to divide.
    #[track_caller]
    pub fn with_sharding_constraint(self, sharding: Sharding) -> Tensor<'g> {
        const OPERATION: &str = "sharding-constraint";
        let (g, shape) = (self.graph(), self.shape());
        if sharding.rank() != shape.rank() {
            let problem = format!("a sharding of {} dimensions for {shape}", sharding.rank());
            return g.refuse(OPERATION, problem);
        }
        if let Err(error) = g.on_mesh(&sharding.mesh) {
            return g.refuse(OPERATION, format!("{shape}: {error}"));
        }
        g.emit(Op::ShardingConstraint { sharding }, &[self], shape)
    }

    /// Gives the value a name that [`Remat::Named`](crate::Remat::Named) can save (in JAX:
    /// `checkpoint_name`).
    #[track_caller]
    pub fn checkpoint_name(self, name: &str) -> Tensor<'g> {
        self.graph().emit(
            Op::CheckpointName { name: name.into() },
            &[self],
            self.shape(),
        )
    }

    /// The same value, taken as constant by derivatives.
    #[track_caller]
    pub fn stop_gradient(self) -> Tensor<'g> {
        self.graph().emit(Op::StopGradient, &[self], self.shape())
    }

    /// This value, a function of `inputs`, with a hand-written VJP (in JAX: `custom_vjp`).
    ///
    /// `rule(operands, output, dy)` gets the inputs followed by the `residuals` (values of the
    /// forward pass it reuses), the output, and the cotangent of the output. It returns one
    /// cotangent an input, of the input's shape.
    #[track_caller]
    pub fn custom_vjp(
        self,
        inputs: &[Tensor<'g>],
        residuals: &[Tensor<'g>],
        rule: impl for<'a> Fn(&[Tensor<'a>], Tensor<'a>, Tensor<'a>) -> Vec<Tensor<'a>> + 'static,
    ) -> Tensor<'g> {
        let operands: Vec<Tensor<'g>> = [self]
            .iter()
            .chain(inputs)
            .chain(residuals)
            .copied()
            .collect();
        let op = Op::CustomVjp {
            inputs: inputs.len(),
            rule: self.graph().add_vjp_rule(Rc::new(rule)),
        };
        self.graph().emit(op, &operands, self.shape())
    }
}

impl Graph {
    /// The same values, which the compiler may neither move across this point nor merge with
    /// others.
    #[track_caller]
    pub fn optimization_barrier<'g>(&'g self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        self.emit_tuple(Op::OptimizationBarrier, tensors, shapes(tensors))
    }
}
