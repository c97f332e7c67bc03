//! A part of the program written for one device: what each does with its own shards.

use std::rc::Rc;

use crate::graph::{Graph, Tensor, shapes};
use crate::ir::{ManualComputation, Op};
use crate::shape::{Shape, Size};
use crate::sharding::{AxisError, AxisName, Sharding, ShardingForm};

const OPERATION: &str = "shard_map";

/// For each dimension of an array the logical axis whose rule splits it; `None` keeps it whole.
pub type ShardMapAxes = Vec<Option<AxisName>>;

impl Graph {
    /// Applies `body` to each device's shards of `inputs` (in JAX: `shard_map`). The rules split
    /// each dimension as its axis says; the results are put together likewise. Without rules there
    /// is one shard, the whole. `body` uses nothing from outside but its arguments. It has no
    /// derivative of its own: [`Tensor::custom_vjp`] gives it one.
    ///
    /// Only shardings in Shardy's form can be so mapped.
    #[track_caller]
    pub fn shard_map<'g>(
        &'g self,
        name: &str,
        inputs: &[(Tensor<'g>, ShardMapAxes)],
        results: &[ShardMapAxes],
        body: impl FnOnce(&[Tensor<'g>]) -> Vec<Tensor<'g>>,
    ) -> Vec<Tensor<'g>> {
        let tensors: Vec<Tensor<'g>> = inputs.iter().map(|(t, _)| *t).collect();
        let refused = |problem: String| vec![self.refuse(OPERATION, problem); results.len()];
        let whole = shapes(&tensors);
        let misfit = |((_, axes), shape): (&(Tensor<'g>, ShardMapAxes), &Shape)| {
            (axes.len() != shape.rank()).then(|| format!("{} axes for {shape}", axes.len()))
        };
        if let Some(problem) = inputs.iter().zip(&whole).find_map(misfit) {
            return refused(problem);
        }
        match self.sharding_form() {
            None => return self.call(name, &tensors, body),
            Some(ShardingForm::Shardy) => {}
            Some(ShardingForm::Gspmd) => {
                let problem = "only Shardy's partitioner takes a part that is split by hand";
                return refused(problem.into());
            }
        }
        if inputs.is_empty() {
            return refused("there is nothing to split".into());
        }
        let shardings = inputs.iter().zip(&whole);
        let shardings = shardings.map(|((_, axes), shape)| self.mapped(axes, &shape.dims));
        let in_shardings: Vec<Sharding> = match shardings.collect() {
            Ok(shardings) => shardings,
            Err(error) => return refused(error.to_string()),
        };
        let shards: Vec<Shape> = in_shardings
            .iter()
            .zip(&whole)
            .map(|(sharding, shape)| Shape::new(shape.dtype, sharding.shard_dims(&shape.dims)))
            .collect();
        let closed = self.body(name, || {
            // The compiler puts the scope of the call before those of the body.
            let _scope = self.attribute("".into(), None);
            let p = self.body_parameters(&shards);
            let out = body(&p);
            (p, out)
        });
        if !closed.captures.is_empty() {
            return refused("the body uses a tensor from outside that is not an argument".into());
        }
        let local = closed.function.output_shapes();
        if local.len() != results.len() {
            return refused(format!(
                "{} results, and axes for {}",
                local.len(),
                results.len()
            ));
        }
        let mut out_shardings = vec![];
        let mut global = vec![];
        for (shape, axes) in local.iter().zip(results) {
            if axes.len() != shape.rank() {
                return refused(format!("{} axes for {shape}", axes.len()));
            }
            match self.put_together(axes, shape) {
                Ok((shape, sharding)) => {
                    global.push(shape);
                    out_shardings.push(sharding);
                }
                Err(problem) => return refused(problem),
            }
        }
        let manual = ManualComputation {
            function: Rc::new(closed.function),
            in_shardings,
            out_shardings,
        };
        self.emit_tuple(Op::ManualComputation(manual), &tensors, global)
    }

    /// How many shards the rules cut a dimension of this logical axis into: 1 without rules.
    #[track_caller]
    pub fn shards(&self, axis: impl Into<AxisName>) -> i64 {
        match self.sharding(&[], &[axis.into()], &[0]) {
            Ok(sharding) => sharding.map_or(1, |sharding| sharding.shards(0)),
            Err(error) => {
                self.refuse(OPERATION, error.to_string());
                1
            }
        }
    }

    /// The sharding of an array of `dims` by the rules, which there are.
    fn mapped(&self, axes: &[Option<AxisName>], dims: &[i64]) -> Result<Sharding, AxisError> {
        let named = axes.iter().zip(dims);
        let (names, sizes): (Vec<AxisName>, Vec<i64>) = named
            .filter_map(|(axis, &size)| Some(((*axis)?, size)))
            .unzip();
        let sharding = self.sharding(&[], &names, &sizes)?;
        let sharding = sharding.expect("the caller has seen that there are rules");
        let mut split = sharding.dims.into_iter();
        let dims = axes.iter().map(|axis| match axis {
            Some(_) => split.next().expect("a named dimension has a list of axes"),
            None => vec![],
        });
        Ok(Sharding {
            dims: dims.collect(),
            mesh: sharding.mesh,
        })
    }

    /// The whole array that shards of `shape` are parts of, and its sharding.
    fn put_together(
        &self,
        axes: &[Option<AxisName>],
        shape: &Shape,
    ) -> Result<(Shape, Sharding), String> {
        // Every axis divides zero elements, so this asks for the split alone.
        let sharding = self.mapped(axes, &vec![0; axes.len()]);
        let sharding = sharding.map_err(|error| error.to_string())?;
        let whole =
            |(dim, &size): (usize, &i64)| Size::product(&[size, sharding.shards(dim)]).get();
        let dims: Option<Vec<i64>> = shape.dims.iter().enumerate().map(whole).collect();
        let dims = dims.ok_or_else(|| format!("{shape} on every device is too large"))?;
        Ok((Shape::new(shape.dtype, dims), sharding))
    }
}
