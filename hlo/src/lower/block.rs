//! One computation under construction.

use std::collections::HashMap;

use ankh_proto::xla;
use prost::Message;

use super::{ArraySpec, Lowering, instruction, shape_proto, tuple_proto, type_proto};
use crate::function::{Function, NodeId};
use crate::op::{Op, Reduction, Scan};
use crate::shape::{DType, Shape};
use crate::sharding::Sharding;

pub(super) struct Block<'l> {
    pub lowering: &'l mut Lowering,
    instructions: Vec<xla::HloInstructionProto>,
    parameters: Vec<xla::ShapeProto>,
    shapes: HashMap<i64, xla::ShapeProto>,
    /// Instructions without their names, so that the same one is not added twice.
    seen: HashMap<Vec<u8>, i64>,
    metadata: Option<xla::OpMetadata>,
}

/// Where a node's value is: an instruction, or a tuple whose results start at `first`.
#[derive(Clone, Copy)]
enum Value {
    Array(i64),
    Tuple { id: i64, first: usize },
}

/// What of a function has to be lowered.
struct Plan {
    live: Vec<bool>,
    /// Scans without the parts that nothing depends on.
    scans: HashMap<NodeId, Pruned>,
}

/// A scan, which of its inputs remain, and for each old result its new place.
struct Pruned {
    scan: Scan,
    inputs: Vec<usize>,
    results: Vec<Option<usize>>,
}

impl<'l> Block<'l> {
    pub fn new(lowering: &'l mut Lowering) -> Block<'l> {
        Block {
            lowering,
            instructions: vec![],
            parameters: vec![],
            shapes: HashMap::new(),
            seen: HashMap::new(),
            metadata: None,
        }
    }

    /// Ends the computation and adds it to the module; gives its id.
    pub fn finish(self, name: &str, root: i64) -> i64 {
        let id = self.lowering.id();
        let result = self.shapes[&root].clone();
        self.lowering.computations.push(xla::HloComputationProto {
            name: format!("{}.{id}", instruction::identifier(name)),
            program_shape: Some(xla::ProgramShapeProto {
                parameter_names: (0..self.parameters.len())
                    .map(|i| format!("p{i}"))
                    .collect(),
                parameters: self.parameters,
                result: Some(result),
            }),
            instructions: self.instructions,
            id,
            root_id: root,
            ..Default::default()
        });
        id
    }

    pub fn parameter(
        &mut self,
        number: usize,
        name: &str,
        shape: &Shape,
        sharding: Option<&Sharding>,
    ) -> i64 {
        let mut i = instruction::new("parameter", shape_proto(shape), vec![]);
        i.sharding = sharding.map(|s| instruction::sharding(s, self.lowering.form));
        self.add_parameter(number, name, i)
    }

    /// The one parameter of a loop's body.
    pub fn tuple_parameter(&mut self, shapes: Vec<xla::ShapeProto>) -> i64 {
        let i = instruction::new("parameter", tuple_proto(shapes), vec![]);
        self.add_parameter(0, "state", i)
    }

    fn add_parameter(&mut self, number: usize, name: &str, mut i: xla::HloInstructionProto) -> i64 {
        i.parameter_number = number as i64;
        self.parameters
            .push(i.shape.clone().expect("instructions have shapes"));
        i.name = instruction::identifier(name);
        self.push(i)
    }

    /// Adds an instruction, or finds the one already there that computes the same.
    pub fn add(&mut self, i: xla::HloInstructionProto) -> i64 {
        let key = i.encode_to_vec();
        if let Some(&id) = self.seen.get(&key) {
            return id;
        }
        let id = self.push(i);
        self.seen.insert(key, id);
        id
    }

    fn push(&mut self, mut i: xla::HloInstructionProto) -> i64 {
        i.id = self.lowering.id();
        i.name = format!(
            "{}.{}",
            if i.name.is_empty() {
                &i.opcode
            } else {
                &i.name
            },
            i.id
        );
        i.metadata = self.metadata.clone();
        self.shapes
            .insert(i.id, i.shape.clone().expect("instructions have shapes"));
        let id = i.id;
        self.instructions.push(i);
        id
    }

    pub fn shape(&self, id: i64) -> xla::ShapeProto {
        self.shapes[&id].clone()
    }

    /// The program's results, with where each lies on the mesh.
    pub fn results(&mut self, parts: &[i64], specs: &[ArraySpec]) -> i64 {
        let shapes = parts.iter().map(|p| self.shape(*p)).collect();
        let mut i = instruction::new("tuple", tuple_proto(shapes), parts.to_vec());
        let form = self.lowering.form;
        let shardings: Option<Vec<xla::OpSharding>> = specs
            .iter()
            .map(|p| Some(instruction::sharding(p.sharding.as_ref()?, form)))
            .collect();
        i.sharding = shardings
            .filter(|s| !s.is_empty())
            .map(|tuple_shardings| xla::OpSharding {
                r#type: xla::op_sharding::Type::Tuple as i32,
                tuple_shardings,
                ..Default::default()
            });
        self.push(i)
    }

    pub fn tuple(&mut self, parts: &[i64]) -> i64 {
        let shapes = parts.iter().map(|p| self.shape(*p)).collect();
        self.add(instruction::new(
            "tuple",
            tuple_proto(shapes),
            parts.to_vec(),
        ))
    }

    pub fn get_tuple_element(&mut self, tuple: i64, index: usize) -> i64 {
        let shape = self.shapes[&tuple].tuple_shapes[index].clone();
        let mut i = instruction::new("get-tuple-element", shape, vec![tuple]);
        i.tuple_index = index as i64;
        self.add(i)
    }

    pub fn scalar(&mut self, dtype: DType, value: f64) -> i64 {
        self.add(instruction::constant(&crate::Literal::scalar(dtype, value)))
    }

    /// Lowers what `function`'s outputs depend on, with `arguments` for its parameters; gives the outputs.
    pub fn inline(&mut self, function: &Function, arguments: &[i64]) -> Vec<i64> {
        let plan = Plan::new(function);
        let mut values: Vec<Option<Value>> = vec![None; function.nodes.len()];
        for (&p, &a) in function.parameters.iter().zip(arguments) {
            values[p] = Some(Value::Array(a));
        }
        for (id, node) in function.nodes.iter().enumerate() {
            if !plan.live[id] || values[id].is_some() {
                continue;
            }
            self.metadata = Some(instruction::metadata(node));
            let value = match (&node.op, plan.scans.get(&id)) {
                (Op::GetTupleElement { index }, _) => {
                    let source = node.inputs[0];
                    let index = match plan.scans.get(&source) {
                        Some(pruned) => pruned.results[*index].expect("a used result is kept"),
                        None => *index,
                    };
                    match values[source] {
                        Some(Value::Tuple { id, first }) => {
                            Value::Array(self.get_tuple_element(id, first + index))
                        }
                        _ => unreachable!("only operations with several results have elements"),
                    }
                }
                (Op::Scan(_), Some(pruned)) => {
                    let inputs: Vec<i64> = pruned
                        .inputs
                        .iter()
                        .map(|&i| array(values[node.inputs[i]]))
                        .collect();
                    Value::Tuple {
                        id: self.scan(&pruned.scan, &inputs),
                        first: 1,
                    }
                }
                // Further inputs of these serve derivatives only, and may not have been lowered.
                (Op::CheckpointName { .. } | Op::StopGradient | Op::CustomVjp { .. }, _) => {
                    Value::Array(array(values[node.inputs[0]]))
                }
                _ => {
                    let inputs: Vec<i64> = node.inputs.iter().map(|&i| array(values[i])).collect();
                    self.node(node, &inputs)
                }
            };
            values[id] = Some(value);
        }
        self.metadata = None;
        function.outputs.iter().map(|&o| array(values[o])).collect()
    }

    fn node(&mut self, node: &crate::function::Node, inputs: &[i64]) -> Value {
        let shape = type_proto(&node.ty);
        match &node.op {
            Op::Call { function } => Value::Tuple {
                id: self.call(function, inputs),
                first: 0,
            },
            Op::Conditional { on_true, on_false } => Value::Tuple {
                id: self.conditional(on_true, on_false, inputs),
                first: 0,
            },
            Op::While {
                condition,
                body,
                state,
            } => Value::Tuple {
                id: self.while_loop(condition, body, *state, inputs),
                first: 0,
            },
            Op::OptimizationBarrier => {
                let operand = self.tuple(inputs);
                Value::Tuple {
                    id: self.add(instruction::new("opt-barrier", shape, vec![operand])),
                    first: 0,
                }
            }
            Op::RngBits { algorithm } => {
                let mut i = instruction::new("rng-bit-generator", shape, inputs.to_vec());
                i.rng_algorithm = instruction::rng_algorithm(*algorithm) as i32;
                Value::Tuple {
                    id: self.add(i),
                    first: 0,
                }
            }
            Op::Reduce { kind, dims } => {
                let dtype = node.ty.array().dtype;
                let start = match kind {
                    Reduction::Sum => 0.0,
                    Reduction::Max => lowest(dtype),
                    Reduction::Min => highest(dtype),
                };
                let start = self.scalar(dtype, start);
                let mut i = instruction::new("reduce", shape, vec![inputs[0], start]);
                i.dimensions = dims.clone();
                i.called_computation_ids = vec![self.lowering.reducer(*kind, dtype)];
                Value::Array(self.add(i))
            }
            Op::ScatterAddRows => {
                let adder = self.lowering.reducer(Reduction::Sum, node.ty.array().dtype);
                let indices = self.shape(inputs[1]).dimensions.len();
                Value::Array(self.add(instruction::scatter(shape, inputs.to_vec(), indices, adder)))
            }
            Op::GatherRows => {
                let indices = self.shape(inputs[1]).dimensions.len();
                Value::Array(self.add(instruction::gather(shape, inputs.to_vec(), indices)))
            }
            _ => {
                let form = self.lowering.form;
                let i = instruction::simple(node, shape, inputs.to_vec(), form);
                Value::Array(self.add(i))
            }
        }
    }
}

fn array(value: Option<Value>) -> i64 {
    match value {
        Some(Value::Array(id)) => id,
        _ => unreachable!("inputs are arrays, and come before what uses them"),
    }
}

fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::Pred | DType::U8 | DType::U32 | DType::U64 => 0.0,
        DType::S32 => i32::MIN.into(),
        DType::S64 => i64::MIN as f64,
        DType::Bf16 | DType::F16 | DType::F32 | DType::F64 => f64::NEG_INFINITY,
    }
}

fn highest(dtype: DType) -> f64 {
    match dtype {
        DType::Pred => 1.0,
        DType::U8 => u8::MAX.into(),
        DType::S32 => i32::MAX.into(),
        DType::U32 => u32::MAX.into(),
        DType::S64 => i64::MAX as f64,
        DType::U64 => u64::MAX as f64,
        DType::Bf16 | DType::F16 | DType::F32 | DType::F64 => f64::INFINITY,
    }
}

impl Plan {
    fn new(function: &Function) -> Plan {
        let count = function.nodes.len();
        let mut live = vec![false; count];
        let mut used: HashMap<NodeId, Vec<usize>> = HashMap::new();
        let mut scans = HashMap::new();
        for &o in &function.outputs {
            live[o] = true;
        }
        for id in (0..count).rev() {
            if !live[id] {
                continue;
            }
            let node = &function.nodes[id];
            match &node.op {
                Op::GetTupleElement { index } => {
                    used.entry(node.inputs[0]).or_default().push(*index);
                    live[node.inputs[0]] = true;
                }
                Op::Scan(scan) => {
                    let pruned = prune(scan, used.get(&id).map_or(&[], |u| u));
                    for &i in &pruned.inputs {
                        live[node.inputs[i]] = true;
                    }
                    scans.insert(id, pruned);
                }
                Op::CustomVjp { .. } => live[node.inputs[0]] = true,
                _ => {
                    for &i in &node.inputs {
                        live[i] = true;
                    }
                }
            }
        }
        Plan { live, scans }
    }
}

/// Leaves out the carries, slices, constants and results that the `used` results do not depend on.
fn prune(scan: &Scan, used: &[usize]) -> Pruned {
    let results = scan.body.outputs.len();
    let mut keep = vec![false; results];
    for &u in used {
        keep[u] = true;
    }
    let live = loop {
        let mut body = (*scan.body).clone();
        body.outputs = (0..results)
            .filter(|&o| keep[o])
            .map(|o| scan.body.outputs[o])
            .collect();
        let live = Plan::new(&body).live;
        // A carry that the kept results read has to be carried on.
        let more: Vec<usize> = (0..scan.carries)
            .filter(|&c| !keep[c] && live[scan.body.parameters[c]])
            .collect();
        if more.is_empty() {
            break live;
        }
        for c in more {
            keep[c] = true;
        }
    };
    let inputs: Vec<usize> = (0..scan.body.parameters.len())
        .filter(|&i| {
            if i < scan.carries {
                keep[i]
            } else {
                live[scan.body.parameters[i]]
            }
        })
        .collect();
    let mut body = (*scan.body).clone();
    body.parameters = inputs.iter().map(|&i| scan.body.parameters[i]).collect();
    body.outputs = (0..results)
        .filter(|&o| keep[o])
        .map(|o| scan.body.outputs[o])
        .collect();
    let mut next = 0..;
    let places = keep
        .iter()
        .map(|&k| if k { next.next() } else { None })
        .collect();
    let scan = Scan {
        carries: inputs.iter().filter(|&&i| i < scan.carries).count(),
        xs: inputs
            .iter()
            .filter(|&&i| i >= scan.carries && i < scan.carries + scan.xs)
            .count(),
        body: body.into(),
        ..scan.clone()
    };
    Pruned {
        scan,
        inputs,
        results: places,
    }
}
