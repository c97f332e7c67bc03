//! Loops, branches and calls as computations of their own.

use ankh_proto::xla;
use ankh_proto::xla::hlo_instruction_proto::SliceDimensions;

use super::block::Block;
use super::{instruction, shape_proto};
use crate::ir::{Function, Scan};
use crate::shape::DType;

impl Block<'_> {
    /// A scan as a tuple whose element `i + 1` is result `i`.
    pub fn scan(&mut self, scan: &Scan, inputs: &[i64]) -> i64 {
        match scan.unroll == scan.length {
            true => self.unrolled_scan(scan, inputs),
            false => self.scan_loop(scan, inputs),
        }
    }

    /// All steps one after the other. A result is its rows, one below the other; the compiler sees
    /// through slices of them.
    fn unrolled_scan(&mut self, scan: &Scan, inputs: &[i64]) -> i64 {
        let (whole, constants) = inputs[scan.carries..].split_at(scan.xs);
        let mut carried = inputs[..scan.carries].to_vec();
        let mut rows = vec![vec![]; scan.body.outputs.len() - scan.carries];
        for step in 0..scan.length {
            let index = match scan.reverse {
                true => scan.length - 1 - step,
                false => step,
            };
            let mut arguments = std::mem::take(&mut carried);
            arguments.extend(whole.iter().map(|&x| self.static_row(x, index)));
            arguments.extend(constants);
            carried = self.inline(&scan.body, &arguments);
            let results = carried.split_off(scan.carries);
            for (rows, row) in rows.iter_mut().zip(results) {
                rows.push(self.one_row(row));
            }
        }
        let step = self.scalar(DType::S32, scan.length as f64);
        let mut out = vec![step];
        out.extend(carried);
        let stacked = scan.result_shapes().split_off(scan.carries);
        for (mut rows, shape) in rows.into_iter().zip(&stacked) {
            if scan.reverse {
                rows.reverse();
            }
            let mut stack = instruction::new("concatenate", shape_proto(shape), rows);
            stack.dimensions = vec![0];
            out.push(self.add(stack));
        }
        self.tuple(&out)
    }

    /// A counted loop. Its state is (step, carries, stacked results, sliced arrays, constants).
    fn scan_loop(&mut self, scan: &Scan, inputs: &[i64]) -> i64 {
        let (carries, xs) = (scan.carries, scan.xs);
        let results = scan.result_shapes();
        let step = self.scalar(DType::S32, 0.0);
        let mut state = vec![step];
        state.extend(&inputs[..carries]);
        for shape in &results[carries..] {
            let zero = self.scalar(shape.dtype, 0.0);
            state.push(self.add(instruction::new(
                "broadcast",
                shape_proto(shape),
                vec![zero],
            )));
        }
        state.extend(&inputs[carries..]);
        let init = self.tuple(&state);
        let shapes: Vec<xla::ShapeProto> = state.iter().map(|s| self.shape(*s)).collect();

        let mut test = Block::new(self.lowering);
        let tuple = test.tuple_parameter(shapes.clone());
        let step = test.get_tuple_element(tuple, 0);
        let length = test.scalar(DType::S32, scan.length as f64);
        let holds = test.add(instruction::compare("LT", step, length));
        let condition = test.finish("condition", holds);

        let mut body = Block::new(self.lowering);
        let tuple = body.tuple_parameter(shapes);
        let first = body.get_tuple_element(tuple, 0);
        let stacked = 1 + carries;
        let sliced = stacked + results.len() - carries;
        let mut carried = body.get_tuple_elements(tuple, 1..stacked);
        let mut stacks = body.get_tuple_elements(tuple, stacked..sliced);
        let whole = body.get_tuple_elements(tuple, sliced..sliced + xs);
        let constants = body.get_tuple_elements(tuple, sliced + xs..state.len());
        let one = body.scalar(DType::S32, 1.0);
        let mut step = first;
        for _ in 0..scan.unroll {
            let index = if scan.reverse {
                let last = body.scalar(DType::S32, (scan.length - 1) as f64);
                body.binary("subtract", last, step)
            } else {
                step
            };
            let mut arguments = std::mem::take(&mut carried);
            arguments.extend(whole.iter().map(|&x| body.row(x, index)));
            arguments.extend(&constants);
            carried = body.inline(&scan.body, &arguments);
            let rows = carried.split_off(carries);
            for (stack, row) in stacks.iter_mut().zip(rows) {
                *stack = body.set_row(*stack, row, index);
            }
            step = body.binary("add", step, one);
        }
        let next = [vec![step], carried, stacks, whole, constants].concat();
        let root = body.tuple(&next);
        let name = if scan.body.name.is_empty() {
            "scan"
        } else {
            &scan.body.name
        };
        let body = body.finish(name, root);
        self.loop_over(init, condition, body)
    }

    /// A loop whose state is (state, constants).
    pub fn while_loop(
        &mut self,
        condition: &Function,
        body: &Function,
        state: usize,
        inputs: &[i64],
    ) -> i64 {
        let init = self.tuple(inputs);
        let shapes: Vec<xla::ShapeProto> = inputs.iter().map(|s| self.shape(*s)).collect();
        let mut compute = |function: &Function, constants_follow: bool| {
            let mut block = Block::new(self.lowering);
            let tuple = block.tuple_parameter(shapes.clone());
            let arguments = block.get_tuple_elements(tuple, 0..shapes.len());
            let mut out = block.inline(function, &arguments);
            let root = if constants_follow {
                out.extend(&arguments[state..]);
                block.tuple(&out)
            } else {
                out[0]
            };
            block.finish(&function.name, root)
        };
        let condition = compute(condition, false);
        let body = compute(body, true);
        self.loop_over(init, condition, body)
    }

    fn loop_over(&mut self, init: i64, condition: i64, body: i64) -> i64 {
        let mut i = instruction::new("while", self.shape(init), vec![init]);
        i.called_computation_ids = vec![body, condition];
        self.add(i)
    }

    pub fn conditional(&mut self, on_true: &Function, on_false: &Function, inputs: &[i64]) -> i64 {
        let operand = self.tuple(&inputs[1..]);
        let shapes: Vec<xla::ShapeProto> = inputs[1..].iter().map(|s| self.shape(*s)).collect();
        let mut result = xla::ShapeProto::default();
        let branches = [on_true, on_false].map(|function| {
            let mut block = Block::new(self.lowering);
            let tuple = block.tuple_parameter(shapes.clone());
            let arguments = block.get_tuple_elements(tuple, 0..shapes.len());
            let out = block.inline(function, &arguments);
            let root = block.tuple(&out);
            result = block.shape(root);
            block.finish(&function.name, root)
        });
        let mut i = instruction::new("conditional", result, vec![inputs[0], operand, operand]);
        i.called_computation_ids = branches.to_vec();
        self.add(i)
    }

    pub fn call(&mut self, function: &Function, inputs: &[i64]) -> i64 {
        let call = self.call_of(&function.name, function, inputs);
        self.add(call)
    }

    /// A call of `function` as a computation called `name`.
    pub fn call_of(
        &mut self,
        name: &str,
        function: &Function,
        inputs: &[i64],
    ) -> xla::HloInstructionProto {
        let mut block = Block::new(self.lowering);
        let shapes = function
            .parameters
            .iter()
            .map(|&p| function.nodes[p].ty.array());
        let arguments: Vec<i64> = shapes
            .enumerate()
            .map(|(i, s)| block.parameter(i, &format!("p{i}"), &s, None))
            .collect();
        let out = block.inline(function, &arguments);
        let root = block.tuple(&out);
        let result = block.shape(root);
        let callee = block.finish(name, root);
        let mut i = instruction::new("call", result, inputs.to_vec());
        i.called_computation_ids = vec![callee];
        i
    }

    fn binary(&mut self, opcode: &str, x: i64, y: i64) -> i64 {
        self.add(instruction::new(opcode, self.shape(x), vec![x, y]))
    }

    /// Row `index` of the leading dimension.
    fn row(&mut self, whole: i64, index: i64) -> i64 {
        let shape = self.shape(whole);
        let mut sizes = shape.dimensions.clone();
        sizes[0] = 1;
        let starts = self.row_start(index, sizes.len());
        let dtype = shape.element_type;
        let mut slice = instruction::new(
            "dynamic-slice",
            instruction::array_proto(dtype, &sizes),
            [whole].into_iter().chain(starts).collect(),
        );
        slice.dynamic_slice_sizes = sizes.clone();
        let slice = self.add(slice);
        self.add(instruction::new(
            "reshape",
            instruction::array_proto(dtype, &sizes[1..]),
            vec![slice],
        ))
    }

    /// Row `index` of the leading dimension, which is known.
    fn static_row(&mut self, whole: i64, index: i64) -> i64 {
        let shape = self.shape(whole);
        let bounds = |(dim, &size): (usize, &i64)| SliceDimensions {
            start: if dim == 0 { index } else { 0 },
            limit: if dim == 0 { index + 1 } else { size },
            stride: 1,
        };
        let mut sizes = shape.dimensions.clone();
        sizes[0] = 1;
        let result = instruction::array_proto(shape.element_type, &sizes);
        let mut slice = instruction::new("slice", result, vec![whole]);
        slice.slice_dimensions = shape.dimensions.iter().enumerate().map(bounds).collect();
        let slice = self.add(slice);
        let row = instruction::array_proto(shape.element_type, &sizes[1..]);
        self.add(instruction::new("reshape", row, vec![slice]))
    }

    /// An array as the only row of one with a leading dimension more.
    fn one_row(&mut self, row: i64) -> i64 {
        let mut shape = self.shape(row);
        shape.dimensions.insert(0, 1);
        let shape = instruction::array_proto(shape.element_type, &shape.dimensions);
        self.add(instruction::new("reshape", shape, vec![row]))
    }

    fn set_row(&mut self, whole: i64, row: i64, index: i64) -> i64 {
        let shape = self.shape(whole);
        let starts = self.row_start(index, shape.dimensions.len());
        let update = self.one_row(row);
        let operands = [whole, update].into_iter().chain(starts).collect();
        self.add(instruction::new("dynamic-update-slice", shape, operands))
    }

    fn row_start(&mut self, index: i64, rank: usize) -> Vec<i64> {
        let zero = self.scalar(DType::S32, 0.0);
        let mut starts = vec![zero; rank];
        starts[0] = index;
        starts
    }
}
