//! One operation to its instructions.
//!
//! The match in [`Block::operation`] names every operation with all its attributes. One that is
//! added, or that gets another attribute, does not compile until it is lowered.

use ankh_proto::xla;
use ankh_proto::xla::PrimitiveType;
use ankh_proto::xla::hlo_instruction_proto::SliceDimensions;
use ankh_proto::xla::padding_config::PaddingConfigDimension;
use ankh_proto::xla::precision_config;

use super::block::Block;
use super::liveness::Liveness;
use super::{instruction, type_proto};
use crate::ir::{Function, Node, NodeId, Op, Reduction};
use crate::shape::DType;

/// Where a node's value is: an instruction, or a tuple whose results start at `first`.
#[derive(Clone, Copy)]
pub(super) enum Value {
    Array(i64),
    Tuple { id: i64, first: usize },
}

/// Where the values of a function's nodes are, as far as they are lowered.
pub(super) struct Values(Vec<Option<Value>>);

impl Values {
    /// Those of the parameters.
    pub fn of(function: &Function, arguments: &[i64]) -> Values {
        let mut values = vec![None; function.nodes.len()];
        for (&parameter, &argument) in function.parameters.iter().zip(arguments) {
            values[parameter] = Some(Value::Array(argument));
        }
        Values(values)
    }

    pub fn has(&self, id: NodeId) -> bool {
        self.0[id].is_some()
    }

    pub fn set(&mut self, id: NodeId, value: Value) {
        self.0[id] = Some(value);
    }

    pub fn array(&self, id: NodeId) -> i64 {
        match self.0[id] {
            Some(Value::Array(id)) => id,
            _ => unreachable!("inputs are arrays, and come before what uses them"),
        }
    }

    fn arrays(&self, ids: &[NodeId]) -> Vec<i64> {
        ids.iter().map(|&id| self.array(id)).collect()
    }
}

impl Block<'_> {
    /// Lowers node `id` of a function.
    pub fn operation(
        &mut self,
        id: NodeId,
        node: &Node,
        liveness: &Liveness,
        values: &Values,
    ) -> Value {
        let tuple = |id| Value::Tuple { id, first: 0 };
        let operands = || values.arrays(&node.inputs);
        let mut i = instruction::new(node.op.name(), type_proto(&node.ty), vec![]);
        match &node.op {
            Op::Invalid => unreachable!("a graph with a mistake is not lowered"),
            Op::Parameter {
                name: _,
                sharding: _,
            } => unreachable!("the caller has given the parameters their values"),
            // Further inputs of these serve derivatives only, and may not have been lowered.
            Op::CheckpointName { name: _ }
            | Op::StopGradient
            | Op::CustomVjp { inputs: _, rule: _ } => {
                return Value::Array(values.array(node.inputs[0]));
            }
            Op::GetTupleElement { index } => {
                let source = node.inputs[0];
                let index = match liveness.scans.get(&source) {
                    Some(pruned) => pruned.results[*index].expect("a used result is kept"),
                    None => *index,
                };
                return match values.0[source] {
                    Some(Value::Tuple { id, first }) => {
                        Value::Array(self.get_tuple_element(id, first + index))
                    }
                    _ => unreachable!("only operations with several results have elements"),
                };
            }
            Op::Scan(_) => {
                let pruned = &liveness.scans[&id];
                let inputs = pruned.inputs.iter().map(|&i| values.array(node.inputs[i]));
                let inputs: Vec<i64> = inputs.collect();
                return Value::Tuple {
                    id: self.scan(&pruned.scan, &inputs),
                    first: 1,
                };
            }
            Op::Call { function } => return tuple(self.call(function, &operands())),
            Op::CustomCall(call) => {
                i.operand_ids = operands();
                return tuple(self.custom_call(i, call));
            }
            Op::ManualComputation(manual) => return tuple(self.manual(manual, &operands())),
            Op::Conditional { on_true, on_false } => {
                return tuple(self.conditional(on_true, on_false, &operands()));
            }
            Op::While {
                condition,
                body,
                state,
            } => return tuple(self.while_loop(condition, body, *state, &operands())),
            Op::OptimizationBarrier => {
                i.operand_ids = vec![self.tuple(&operands())];
                return tuple(self.add(i));
            }
            Op::RngBits { algorithm } => {
                i.operand_ids = operands();
                i.rng_algorithm = instruction::rng_algorithm(*algorithm) as i32;
                return tuple(self.add(i));
            }
            Op::Reduce { kind, dims } => {
                let dtype = node.ty.array().dtype;
                let initial = self.scalar(dtype, initial(*kind, dtype));
                i.operand_ids = vec![values.array(node.inputs[0]), initial];
                i.dimensions = dims.clone();
                i.called_computation_ids = vec![self.lowering.reducer(*kind, dtype)];
                return Value::Array(self.add(i));
            }
            Op::ScatterAddRows => {
                i.called_computation_ids =
                    vec![self.lowering.reducer(Reduction::Sum, node.ty.array().dtype)];
                let indices = self.shape(values.array(node.inputs[1])).dimensions.len();
                i.scatter_dimension_numbers =
                    Some(instruction::scatter_dims(node.ty.array().rank(), indices));
            }
            Op::GatherRows => {
                let indices = self.shape(values.array(node.inputs[1])).dimensions.len();
                let rows = &node.ty.array().dims[indices..];
                i.gather_slice_sizes = [1].iter().chain(rows).copied().collect();
                i.gather_dimension_numbers = Some(instruction::gather_dims(rows.len(), indices));
            }
            Op::Constant(literal) => return Value::Array(self.add(instruction::constant(literal))),
            Op::Iota { dim } | Op::Concatenate { dim } => i.dimensions = vec![*dim],
            Op::Compare(c) => i.comparison_direction = c.direction().into(),
            Op::Broadcast { dims } | Op::Reverse { dims } => i.dimensions = dims.clone(),
            Op::Transpose { permutation } => i.dimensions = permutation.clone(),
            Op::DynamicSlice { sizes } => i.dynamic_slice_sizes = sizes.clone(),
            Op::Slice {
                start,
                limit,
                stride,
            } => {
                let dims = start.iter().zip(limit).zip(stride);
                i.slice_dimensions = dims
                    .map(|((&start, &limit), &stride)| SliceDimensions {
                        start,
                        limit,
                        stride,
                    })
                    .collect();
            }
            Op::Pad { dims } => {
                let dimensions = dims.iter().map(|d| PaddingConfigDimension {
                    edge_padding_low: d.low,
                    edge_padding_high: d.high,
                    interior_padding: d.interior,
                });
                i.padding_config = Some(xla::PaddingConfig {
                    dimensions: dimensions.collect(),
                });
            }
            Op::Dot { dims } => {
                i.dot_dimension_numbers = Some(xla::DotDimensionNumbers {
                    lhs_contracting_dimensions: dims.lhs_contract.clone(),
                    rhs_contracting_dimensions: dims.rhs_contract.clone(),
                    lhs_batch_dimensions: dims.lhs_batch.clone(),
                    rhs_batch_dimensions: dims.rhs_batch.clone(),
                });
                let is_float32 =
                    |&input| self.shape(values.array(input)).element_type() == PrimitiveType::F32;
                let precision = match node.inputs.iter().any(is_float32) {
                    // Whoever multiplies float32 wants float32: the default rounds the operands, on
                    // a TPU to bfloat16 and on a GPU to TF32.
                    true => precision_config::Precision::Highest,
                    false => precision_config::Precision::Default,
                };
                i.precision_config = Some(xla::PrecisionConfig {
                    operand_precision: vec![precision as i32; 2],
                    ..Default::default()
                });
            }
            Op::ShardingConstraint { sharding } => {
                i.opcode = "custom-call".into();
                i.custom_call_target = "Sharding".into();
                i.custom_call_api_version = xla::CustomCallApiVersion::ApiVersionOriginal as i32;
                i.sharding = Some(instruction::sharding(sharding, self.lowering.form));
            }
            // Operands, shape and opcode say all.
            Op::Unary(_)
            | Op::Binary(_)
            | Op::Select
            | Op::Convert
            | Op::Reshape
            | Op::DynamicUpdateSlice => {}
        }
        i.operand_ids = operands();
        Value::Array(self.add(i))
    }
}

/// What a reduction starts from.
fn initial(kind: Reduction, dtype: DType) -> f64 {
    let integers = dtype.integers();
    match kind {
        Reduction::Sum => 0.0,
        Reduction::Max => integers.map_or(f64::NEG_INFINITY, |range| range.start),
        Reduction::Min => integers.map_or(f64::INFINITY, |range| range.end - 1.0),
    }
}
