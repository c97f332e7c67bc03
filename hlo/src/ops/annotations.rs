//! Operations that return their input and tell the compiler, or the derivative, something about it.

use crate::graph::{Graph, Tensor, shapes};
use crate::op::Op;
use crate::sharding::Sharding;

impl<'g> Tensor<'g> {
    /// Says what the dimensions are, so that the graph's rules can split them over the mesh; without rules, nothing.
    #[track_caller]
    pub fn with_logical_axes(self, names: &[&str]) -> Tensor<'g> {
        self.with_logical_axes_except(&[], names)
    }

    /// [`Tensor::with_logical_axes`] for what is used together with an array whose dimensions are called `beside`: the axes of those are
    /// taken and split nothing here. So a weight that is split over an axis of the batch comes to its product whole. Where that makes no
    /// difference to its names, it says nothing, since what the compiler is told also keeps it from fusing.
    #[track_caller]
    pub fn with_logical_axes_except(self, beside: &[&str], names: &[&str]) -> Tensor<'g> {
        let shape = self.shape();
        if names.len() != shape.rank() {
            return self.graph().refuse(
                "with_logical_axes",
                format!("{} names for {shape}", names.len()),
            );
        }
        let sharding = |beside| self.graph().sharding(beside, names, &shape.dims);
        match sharding(beside) {
            Ok(same) if !beside.is_empty() && Ok(&same) == sharding(&[]).as_ref() => self,
            Ok(Some(sharding)) => self.with_sharding_constraint(sharding),
            Ok(None) => self,
            Err(indivisible) => {
                let problem = format!("{shape}: {indivisible}");
                self.graph().refuse("with_logical_axes", problem)
            }
        }
    }

    /// Lies on the mesh as `sharding` says. Within a program a dimension need not divide: the last devices then have shorter parts
    /// or none, which XLA fills up. What a program takes and gives has to.
    #[track_caller]
    pub fn with_sharding_constraint(self, sharding: Sharding) -> Tensor<'g> {
        let shape = self.shape();
        if sharding.rank() != shape.rank() {
            let problem = format!("a sharding of {} dimensions for {shape}", sharding.rank());
            return self.graph().refuse("sharding-constraint", problem);
        }
        if let Err(problem) = self.graph().on_mesh(&sharding.mesh) {
            let problem = format!("{shape}: {problem}");
            return self.graph().refuse("sharding-constraint", problem);
        }
        self.graph()
            .emit(Op::ShardingConstraint { sharding }, &[self], shape)
    }

    /// Gives the value a name that [`Remat::Named`](crate::Remat::Named) can save.
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

    /// This value, computed from `inputs` in a way that need not be differentiated: `rule` gives the derivative instead.
    ///
    /// `rule(operands, output, dy)` gets the inputs followed by the `residuals` (values of the forward pass it reuses), the
    /// output, and the gradient of the output; it returns one gradient an input, each of its input's shape.
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
            rule: std::rc::Rc::new(rule),
        };
        self.graph().emit(op, &operands, self.shape())
    }
}

impl Graph {
    /// The same values, which the compiler may neither move across this point nor merge with others.
    #[track_caller]
    pub fn optimization_barrier<'g>(&'g self, tensors: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        self.emit_tuple(Op::OptimizationBarrier, tensors, shapes(tensors))
    }
}
