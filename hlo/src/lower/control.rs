//! Loops, branches and calls as computations of their own.

use ankh_proto::xla;

use super::block::Block;
use super::{instruction, shape_proto};
use crate::ir::{Function, Scan};
use crate::shape::DType;

impl Block<'_> {
    /// A counted loop. Its state is (step, carries, stacked results, sliced arrays, constants), so
    /// that result `i` of the scan is element `i + 1`.
    pub fn scan(&mut self, scan: &Scan, inputs: &[i64]) -> i64 {
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
        let step = body.get_tuple_element(tuple, 0);
        let index = if scan.reverse {
            let last = body.scalar(DType::S32, (scan.length - 1) as f64);
            body.binary("subtract", last, step)
        } else {
            step
        };
        let ys = results.len() - carries;
        let mut arguments = body.get_tuple_elements(tuple, 1..1 + carries);
        for x in 0..xs {
            let whole = body.get_tuple_element(tuple, 1 + carries + ys + x);
            arguments.push(body.row(whole, index));
        }
        let constants = inputs.len() - carries - xs;
        let first = 1 + carries + ys + xs;
        arguments.extend(body.get_tuple_elements(tuple, first..first + constants));
        let out = body.inline(&scan.body, &arguments);
        let one = body.scalar(DType::S32, 1.0);
        let mut next = vec![body.binary("add", step, one)];
        next.extend(&out[..carries]);
        for (y, &row) in out[carries..].iter().enumerate() {
            let whole = body.get_tuple_element(tuple, 1 + carries + y);
            next.push(body.set_row(whole, row, index));
        }
        let first = 1 + carries + ys;
        next.extend(body.get_tuple_elements(tuple, first..first + xs + constants));
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

    fn set_row(&mut self, whole: i64, row: i64, index: i64) -> i64 {
        let shape = self.shape(whole);
        let mut sizes = shape.dimensions.clone();
        sizes[0] = 1;
        let starts = self.row_start(index, sizes.len());
        let update = self.add(instruction::new(
            "reshape",
            instruction::array_proto(shape.element_type, &sizes),
            vec![row],
        ));
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
