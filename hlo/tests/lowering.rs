//! What reaches XLA: only what a result depends on, each different computation once, with names,
//! shardings and donations; and of a loop's forward pass what its derivative was told to keep.

mod support;

use std::sync::Arc;

use ankh_hlo::{
    AxisName, DType, DotDims, Graph, LogicalAxisRules, Mesh, Module, PadDim, Remat, RngAlgorithm,
    ScanOptions, Shape, Sharding, ShardingForm, Tensor,
};
use ankh_pjrt::{Argument, CompileOptions, HostTensor, Partitioner, Program};
use ankh_proto::xla::precision_config::Precision;
use ankh_proto::xla::{HloInstructionProto, PrimitiveType};

const DATA: AxisName = AxisName::new("data");
const MODEL: AxisName = AxisName::new("model");
const BATCH: AxisName = AxisName::new("batch");
const MLP: AxisName = AxisName::new("mlp");
const EMBED: AxisName = AxisName::new("embed");

fn vector(g: &Graph, n: i64) -> Tensor<'_> {
    g.parameter("x", Shape::new(DType::F32, [n]))
}

/// All instructions of `opcode`, in all computations.
fn instructions<'m>(module: &'m Module, opcode: &str) -> Vec<&'m HloInstructionProto> {
    let all = module.proto().computations.iter();
    all.flat_map(|c| &c.instructions)
        .filter(|i| i.opcode == opcode)
        .collect()
}

fn count(module: &Module, opcode: &str) -> usize {
    instructions(module, opcode).len()
}

/// The dimensions of the float arrays in each loop's state.
fn loop_states(module: &Module) -> Vec<Vec<Vec<i64>>> {
    let state = |i: &&HloInstructionProto| {
        let parts = &i.shape.as_ref().unwrap().tuple_shapes;
        let floats = parts
            .iter()
            .filter(|s| s.element_type() == PrimitiveType::F32);
        floats.map(|s| s.dimensions.clone()).collect()
    };
    instructions(module, "while").iter().map(state).collect()
}

#[test]
fn a_small_program_reads_well() {
    let g = Graph::new("parabola");
    let x = vector(&g, 3);
    let y = {
        let _scope = g.scope("encoder");
        let _scope = g.scope("layer");
        x.square().sum_all()
    };
    let module = g.finish(&[y, x * 2.0], &[(1, 0)]).unwrap();
    // All but the line numbers of this file.
    let text: Vec<String> = module
        .text()
        .lines()
        .map(|line| match line.split_once(" source=") {
            Some((before, _)) => format!("{before}}}"),
            None => line.into(),
        })
        .collect();
    let expected = r#"HloModule parabola, input_output_alias={ {1}: (0, {}, may-alias) }

%add.7 {
  %x.4 = f32[] parameter(0)
  %y.5 = f32[] parameter(1)
  ROOT %add.6 = f32[] add(%x.4, %y.5)
}

ENTRY %parabola.13 {
  %x.1 = f32[3] parameter(0)
  %multiply.2 = f32[3] multiply(%x.1, %x.1), metadata={op_name="encoder/layer/multiply"}
  %constant.3 = f32[] constant(0), metadata={op_name="encoder/layer/reduce"}
  %reduce.8 = f32[] reduce(%multiply.2, %constant.3), to_apply=%add.7, dimensions={0}, metadata={op_name="encoder/layer/reduce"}
  %constant.9 = f32[] constant(2), metadata={op_name="constant"}
  %broadcast.10 = f32[3] broadcast(%constant.9), dimensions={}, metadata={op_name="broadcast"}
  %multiply.11 = f32[3] multiply(%x.1, %broadcast.10), metadata={op_name="multiply"}
  ROOT %tuple.12 = (f32[], f32[3]) tuple(%reduce.8, %multiply.11)
}
"#;
    assert_eq!(text.join("\n"), expected);
}

#[test]
fn what_no_result_depends_on_is_left_out() {
    let g = Graph::new("dead");
    let x = vector(&g, 3);
    let _unused = x.exp().tanh();
    let _loop = g.while_loop(
        &[x],
        |s| s[0].sum_all().less(s[0].graph().scalar(DType::F32, 9.0)),
        |s| vec![s[0].exp()],
    );
    let module = g.finish(&[x.sin()], &[]).unwrap();
    let opcodes: Vec<&str> = module.proto().computations[0]
        .instructions
        .iter()
        .map(|i| i.opcode.as_str())
        .collect();
    assert_eq!(module.proto().computations.len(), 1, "{}", module.text());
    assert_eq!(opcodes, ["parameter", "sine", "tuple"]);
}

#[test]
fn an_unused_input_stays_an_input() {
    let g = Graph::new("unused");
    let x = vector(&g, 3);
    let _y = g.parameter("y", Shape::new(DType::F32, [4]));
    let module = g.finish(&[x.sin()], &[]).unwrap();
    let out = support::compile(&module).run(&[
        HostTensor::new::<f32>([3], &[0.0; 3]),
        HostTensor::new::<f32>([4], &[0.0; 4]),
    ]);
    assert_eq!(out[0].to_vec::<f32>().unwrap(), [0.0; 3]);
    let names = &module
        .proto()
        .host_program_shape
        .as_ref()
        .unwrap()
        .parameter_names;
    assert_eq!(names, &["x", "y"]);
}

#[test]
fn the_parts_of_a_scan_that_nothing_reads_are_left_out() {
    let g = Graph::new("dead");
    let x = vector(&g, 3);
    let xs = g.parameter("xs", Shape::new(DType::F32, [4, 3]));
    let other = g.parameter("other", Shape::new(DType::F32, [5]));
    let (last, ys) = g.scan(
        ScanOptions::default(),
        &[x, x, other],
        &[xs, xs * 2.0],
        |c, s| {
            // The second carry feeds the first; the third, the second slice and the first result
            // feed nothing that is read.
            let next = vec![c[0] + c[1], c[1] * s[0], c[2].exp()];
            (next, vec![c[0].tanh(), c[1].cos(), s[1].log()])
        },
    );
    let module = g.finish(&[last[0], ys[1]], &[]).unwrap();
    for opcode in ["exponential", "tanh", "log"] {
        assert_eq!(count(&module, opcode), 0, "{opcode} in {}", module.text());
    }
    // Two carries, one stacked result, one sliced array.
    let expected: [&[i64]; 4] = [&[3], &[3], &[4, 3], &[4, 3]];
    assert_eq!(loop_states(&module), [expected]);
    support::compile(&module);
}

#[test]
fn the_same_computation_is_lowered_once() {
    let g = Graph::new("common");
    let x = vector(&g, 3);
    let once = (x * 2.0).exp();
    let again = {
        // Names do not make it another computation.
        let _scope = g.scope("elsewhere");
        (x * 2.0).exp()
    };
    let (p, q) = (x * 3.0, x.max(&[0]));
    let module = g.finish(&[once + again, p + q, x.min(&[0])], &[]).unwrap();
    assert_eq!(count(&module, "exponential"), 1);
    // A different constant does.
    assert_eq!(count(&module, "multiply"), 2);
    assert_eq!(count(&module, "reduce"), 2);
}

#[test]
fn what_a_hand_written_derivative_computes_again_is_shared_with_the_forward_pass() {
    let g = Graph::new("common");
    let x = vector(&g, 3);
    let y = x
        .exp()
        .custom_vjp(&[x], &[], |operands, _, dy| vec![dy * operands[0].exp()]);
    let dx = g.gradients(y.sum_all(), &[x])[0];
    let module = g.finish(&[y, dx], &[]).unwrap();
    assert_eq!(count(&module, "exponential"), 1, "{}", module.text());
    // A forward pass that only the derivative would need is not run.
    let g = Graph::new("unneeded");
    let x = vector(&g, 3);
    let y = x
        .exp()
        .custom_vjp(&[x], &[x.tanh()], |_, _, dy| vec![dy * 2.0]);
    let module = g.finish(&[g.gradients(y.sum_all(), &[x])[0]], &[]).unwrap();
    assert_eq!(count(&module, "exponential") + count(&module, "tanh"), 0);
    let module = g.finish(&[y], &[]).unwrap();
    assert_eq!(count(&module, "tanh"), 0);
}

#[test]
fn a_donated_input_is_taken_over() {
    let g = Graph::new("donated");
    let x = vector(&g, 1000);
    let y = vector(&g, 1000);
    let module = g.finish(&[y.sum_all(), x + y], &[(1, 0)]).unwrap();
    let alias = &module.proto().input_output_alias.as_ref().unwrap().entries[0];
    assert_eq!(
        (&*alias.output_shape_index, alias.parameter_number),
        (&[1][..], 0)
    );

    let client = support::client();
    let executable = client
        .compile(&Program::hlo(module.to_bytes()), &CompileOptions::new())
        .unwrap();
    let device = &executable.devices()[0];
    let upload = |v: f32| {
        client
            .upload(&HostTensor::new::<f32>([1000], &[v; 1000]), device)
            .unwrap()
    };
    let kept = upload(2.0);
    let arguments = vec![Argument::Donate(upload(1.0)), Argument::Keep(&kept)];
    let outputs = executable.execute(vec![arguments]).unwrap();
    assert_eq!(
        outputs[0][1].to_host().unwrap().to_vec::<f32>().unwrap(),
        [3.0; 1000]
    );
    assert_eq!(
        kept.to_host().unwrap().to_vec::<f32>().unwrap(),
        [2.0; 1000]
    );
}

#[test]
fn instructions_carry_their_layer_and_their_line() {
    let g = Graph::new("metadata");
    let x = vector(&g, 3);
    let line = line!() + 3;
    let y = {
        let _outer = g.scope("encoder");
        let h = x.tanh();
        let _inner = g.scope("layer");
        h.exp()
    };
    let loss = y.sin().sum_all();
    let dx = g.gradients(loss, &[x])[0];
    let module = g.finish(&[loss, dx], &[]).unwrap();
    let metadata = |opcode: &str| instructions(&module, opcode)[0].metadata.clone().unwrap();
    let tanh = metadata("tanh");
    assert_eq!((&*tanh.op_name, &*tanh.op_type), ("encoder/tanh", "tanh"));
    assert_eq!(metadata("exponential").op_name, "encoder/layer/exponential");
    assert_eq!(metadata("sine").op_name, "sine");
    assert!(tanh.source_file.ends_with("tests/lowering.rs"));
    assert_eq!(tanh.source_line, line as i32);
    // What a derivative adds is told by the line that it derives.
    let subtract = metadata("subtract");
    assert_eq!(subtract.op_name, "gradient/encoder/subtract");
    assert!(subtract.source_file.ends_with("tests/lowering.rs"));
    assert_eq!(subtract.source_line, line as i32);
}

#[test]
fn a_product_rounds_no_float32() {
    let precisions = |dtype| {
        let g = Graph::new("products");
        let x = g.parameter("x", Shape::new(dtype, [4, 4]));
        let loss = g.einsum("ij,jk->ik", x, x).convert(DType::F32).sum_all();
        let gradients = g.gradients(loss, &[x]);
        let module = g.finish(&gradients, &[]).unwrap();
        let dots = instructions(&module, "dot");
        assert!(!dots.is_empty());
        let of = |dot: &&HloInstructionProto| dot.precision_config.clone().unwrap();
        let all = dots.iter().flat_map(|dot| of(dot).operand_precision);
        let mut all: Vec<i32> = all.collect();
        all.dedup();
        all
    };
    assert_eq!(precisions(DType::F32), [Precision::Highest as i32]);
    assert_eq!(precisions(DType::Bf16), [Precision::Default as i32]);
}

/// The layers that the instructions of a program belong to, by their opcodes.
fn layers(module: &Module) -> Vec<(String, String)> {
    let computations = module.proto().computations.iter();
    let instructions = computations.flat_map(|c| &c.instructions);
    let named = instructions.filter_map(|i| {
        let name = &i.metadata.as_ref()?.op_name;
        let layer = name.rsplit_once('/').map_or("", |(layer, _)| layer);
        Some((i.opcode.clone(), layer.to_owned()))
    });
    named.filter(|(opcode, _)| opcode != "parameter").collect()
}

#[test]
fn scopes_may_be_dropped_in_any_order() {
    let g = Graph::new("scopes");
    let x = vector(&g, 3);
    let outer = g.scope("outer");
    let inner = g.scope("inner");
    let a = x.sin();
    drop(outer);
    let b = a.cos();
    let other = g.scope("other");
    let c = b.tanh();
    drop(inner);
    let d = c.exp();
    drop(other);
    let e = d.abs();
    let module = g.finish(&[e], &[]).unwrap();
    let expected = [
        ("sine", "outer/inner"),
        ("cosine", "inner"),
        ("tanh", "inner/other"),
        ("exponential", "other"),
        ("abs", ""),
    ];
    let expected = expected.map(|(opcode, layer)| (opcode.to_owned(), layer.to_owned()));
    assert_eq!(layers(&module)[..5], expected);
}

#[test]
fn a_scope_ends_with_the_body_that_it_was_made_in() {
    let g = Graph::new("bodies");
    let x = vector(&g, 3);
    let mut kept = None;
    let y = g.call("body", &[x], |p| {
        kept = Some(g.scope("kept"));
        std::mem::forget(g.scope("leaked"));
        vec![p[0].sin()]
    });
    let y = y[0].cos();
    drop(kept);
    let module = g.finish(&[y.tanh()], &[]).unwrap();
    let layers = layers(&module);
    let layer = |opcode: &str| &layers.iter().find(|l| l.0 == opcode).unwrap().1;
    assert_eq!(layer("sine"), "kept/leaked");
    assert_eq!((&**layer("cosine"), &**layer("tanh")), ("", ""));
}

#[test]
fn a_scope_may_outlive_the_program() {
    let g = Graph::new("first");
    let x = vector(&g, 3);
    let scope = g.scope("layer");
    let first = g.finish(&[x.sin()], &[]).unwrap();
    drop(scope);
    let second = g.finish(&[x.cos()], &[]).unwrap();
    assert!(layers(&first).contains(&("sine".into(), "layer".into())));
    assert!(layers(&second).contains(&("cosine".into(), "".into())));
}

type Build = for<'g> fn(&'g Graph, Tensor<'g>) -> Tensor<'g>;

/// A program of one operation on f32[4,4], without its name and ids.
fn lowered(build: Build) -> String {
    let g = Graph::new("attributes");
    let x = g.parameter("x", Shape::new(DType::F32, [4, 4]));
    let mut proto = g.finish(&[build(&g, x)], &[]).unwrap().proto().clone();
    for instruction in proto
        .computations
        .iter_mut()
        .flat_map(|c| &mut c.instructions)
    {
        instruction.metadata = None;
    }
    format!("{proto:?}")
}

#[test]
fn operations_that_differ_in_an_attribute_differ_when_lowered() {
    fn pad<'g>(x: Tensor<'g>, low: i64, high: i64, interior: i64) -> Tensor<'g> {
        let dim = PadDim {
            low,
            high,
            interior,
        };
        x.pad(&[dim, PadDim::default()], x.graph().scalar(x.dtype(), 0.0))
    }
    fn dot<'g>(x: Tensor<'g>, lhs: i64, rhs: i64) -> Tensor<'g> {
        let dims = DotDims {
            lhs_contract: vec![lhs],
            rhs_contract: vec![rhs],
            ..DotDims::default()
        };
        x.dot_general(x, dims, None)
    }
    fn constrain<'g>(x: Tensor<'g>, dims: &[&[AxisName]]) -> Tensor<'g> {
        let mesh = Arc::new(Mesh::new([(DATA, 2), (MODEL, 2)]).unwrap());
        x.with_sharding_constraint(Sharding::new(&mesh, dims).unwrap())
    }
    fn bits<'g>(g: &'g Graph, algorithm: RngAlgorithm) -> Tensor<'g> {
        let words = if algorithm == RngAlgorithm::Philox {
            3
        } else {
            2
        };
        let state = g.zeros(&Shape::new(DType::U64, [words]));
        state.random_bits(algorithm, Shape::new(DType::U32, [2])).1
    }
    const ALIKE: [&[Build]; 13] = [
        &[
            |g, _| g.scalar(DType::F32, 1.0),
            |g, _| g.scalar(DType::F32, 2.0),
        ],
        &[
            |g, _| g.iota(Shape::new(DType::S32, [4, 4]), 0),
            |g, _| g.iota(Shape::new(DType::S32, [4, 4]), 1),
        ],
        &[|_, x| x.sin(), |_, x| x.cos()],
        &[|_, x| x * x, |_, x| x - x],
        &[
            |_, x| x.less(x),
            |_, x| x.less_equal(x),
            |_, x| x.equal(x),
            |_, x| x.not_equal(x),
        ],
        &[
            |_, x| x.broadcast_in_dims(&[4, 4, 4], &[0, 1]),
            |_, x| x.broadcast_in_dims(&[4, 4, 4], &[0, 2]),
            |_, x| x.broadcast_in_dims(&[4, 4, 4], &[1, 2]),
        ],
        &[
            |_, x| x.reshape(&[2, 2, 4]).transpose(&[0, 2, 1]).reshape(&[4, 4]),
            |_, x| x.reshape(&[2, 2, 4]).transpose(&[1, 0, 2]).reshape(&[4, 4]),
        ],
        &[
            |_, x| dot(x, 0, 0),
            |_, x| dot(x, 0, 1),
            |_, x| dot(x, 1, 0),
        ],
        &[
            |_, x| x.sum(&[0]),
            |_, x| x.sum(&[1]),
            |_, x| x.max(&[0]),
            |_, x| x.min(&[0]),
        ],
        &[
            |_, x| x.slice(&[0, 0], &[2, 4]),
            |_, x| x.slice(&[1, 0], &[3, 4]),
            |_, x| x.strided_slice(&[0, 0], &[4, 4], &[2, 1]),
            |_, x| x.strided_slice(&[0, 0], &[3, 4], &[2, 1]),
        ],
        &[
            |_, x| pad(x, 3, 0, 0),
            |_, x| pad(x, 0, 3, 0),
            |_, x| pad(x, 0, 0, 1),
        ],
        &[
            |_, x| x.reverse(&[0]),
            |_, x| x.reverse(&[1]),
            |_, x| x.reverse(&[0, 1]),
        ],
        &[
            |g, x| g.concatenate(&[x, x], 0),
            |g, x| g.concatenate(&[x, x], 1),
        ],
    ];
    const PLACED: [&[Build]; 3] = [
        &[
            |_, x| constrain(x, &[&[DATA], &[]]),
            |_, x| constrain(x, &[&[], &[DATA]]),
            |_, x| constrain(x, &[&[MODEL], &[]]),
        ],
        &[
            |g, x| x.dynamic_slice(&[g.scalar(DType::S32, 1.0); 2], &[1, 4]),
            |g, x| x.dynamic_slice(&[g.scalar(DType::S32, 1.0); 2], &[4, 1]),
        ],
        &[
            |g, _| bits(g, RngAlgorithm::ThreeFry),
            |g, _| bits(g, RngAlgorithm::Philox),
        ],
    ];
    for alike in ALIKE.iter().chain(&PLACED) {
        let programs: Vec<String> = alike.iter().map(|build| lowered(*build)).collect();
        for (i, program) in programs.iter().enumerate() {
            assert!(!programs[..i].contains(program), "{program}");
        }
    }
}

/// A two-layer network over a batch, its dimensions named.
fn network(rules: Option<LogicalAxisRules>) -> Module {
    let g = Graph::new("network");
    if let Some(rules) = rules {
        g.set_logical_axis_rules(rules);
    }
    let shape = |dims: [i64; 2]| Shape::new(DType::F32, dims);
    let x = g.parameter_with_logical_axes("x", shape([8, 6]), &[BATCH, EMBED]);
    let up = g.parameter_with_logical_axes("up", shape([6, 4]), &[EMBED, MLP]);
    let down = g.parameter_with_logical_axes("down", shape([4, 6]), &[MLP, EMBED]);
    let h = g
        .einsum("be,em->bm", x, up)
        .tanh()
        .with_logical_axes(&[BATCH, MLP]);
    let y = g
        .einsum("bm,me->be", h, down)
        .with_logical_axes(&[BATCH, EMBED]);
    let loss = y.square().mean_all();
    let gradients = g.gradients(loss, &[up, down]);
    let up = gradients[0].with_logical_axes(&[EMBED, MLP]);
    g.finish(&[loss, up, gradients[1]], &[]).unwrap()
}

fn rules(form: ShardingForm) -> LogicalAxisRules {
    let rules = [(BATCH, vec![DATA]), (MLP, vec![MODEL]), (EMBED, vec![])];
    let mesh = Mesh::new([(DATA, 4), (MODEL, 2)]).unwrap();
    LogicalAxisRules::new(mesh, rules).unwrap().with_form(form)
}

#[test]
fn shardings_are_written_in_the_form_asked_for() {
    let named = |dims: &str| format!("{{mesh[\"data\"=4, \"model\"=2], [{dims}]}}");
    let tiles = |tiles: &str| format!("{{devices={tiles} last_tile_dim_replicate}}");
    let forms = [
        (
            ShardingForm::Shardy,
            [
                named("{\"data\"}, {}"),
                named("{}, {\"model\"}"),
                named("{\"model\"}, {}"),
                named("{\"data\"}, {\"model\"}"),
            ],
        ),
        (
            ShardingForm::Gspmd,
            [
                tiles("[4,1,2]<=[4,2]"),
                tiles("[1,2,4]<=[4,2]T(1,0)"),
                tiles("[2,1,4]<=[4,2]T(1,0)"),
                "{devices=[4,2]<=[4,2]}".into(),
            ],
        ),
    ];
    for (form, expected) in forms {
        let text = network(Some(rules(form))).text();
        let lines = [
            "f32[8,6] parameter(0)",
            "f32[6,4] parameter(1)",
            "f32[4,6] parameter(2)",
            "custom-call",
        ];
        for (what, sharding) in lines.into_iter().zip(expected) {
            let line = text.lines().find(|l| l.contains(what)).unwrap();
            assert!(line.contains(&format!("sharding={sharding}")), "{line}");
        }
    }
    assert!(!network(None).text().contains("sharding"));
}

/// A part of a row-major matrix.
fn part_of(values: &[f32], columns: usize, part: &[std::ops::Range<i64>]) -> Vec<f32> {
    let (rows, within) = (
        part[0].clone(),
        part[1].start as usize..part[1].end as usize,
    );
    rows.flat_map(|row| values[row as usize * columns..][within.clone()].to_vec())
        .collect()
}

#[test]
fn eight_devices_of_a_two_dimensional_mesh_compute_what_one_does() {
    let numbers = |n: usize, step: f32| {
        (0..n)
            .map(|i| (i as f32 * step).sin())
            .collect::<Vec<f32>>()
    };
    let inputs = [numbers(48, 0.7), numbers(24, 1.1), numbers(24, 0.3)];
    let plain = network(None);
    let whole: Vec<HostTensor> = plain
        .parameters()
        .iter()
        .zip(&inputs)
        .map(|(p, values)| HostTensor::new::<f32>(p.shape.dims.clone(), values))
        .collect();
    let alone = support::compile(&plain).run(&whole);

    let client = support::client();
    let ids: Vec<i64> = client
        .devices()
        .unwrap()
        .iter()
        .map(|d| d.id().into())
        .collect();
    for (form, partitioner) in [
        (ShardingForm::Shardy, Partitioner::Shardy),
        (ShardingForm::Gspmd, Partitioner::Gspmd),
    ] {
        let module = network(Some(rules(form)));
        let options = CompileOptions::new().partitions(partitioner, ids.clone());
        let executable = client
            .compile(&Program::hlo(module.to_bytes()), &options)
            .unwrap_or_else(|e| panic!("{e}\n{}", module.text()));
        let arguments = executable.devices().iter().map(|device| {
            let position = ids
                .iter()
                .position(|id| *id == i64::from(device.id()))
                .unwrap();
            let specs = module.parameters().iter().zip(&inputs);
            specs
                .map(|(spec, values)| {
                    let (sharding, dims) = (spec.sharding.as_ref().unwrap(), &spec.shape.dims);
                    let part = sharding.shard_ranges(position as i64, dims);
                    let values = part_of(values, dims[1] as usize, &part);
                    let tensor = HostTensor::new::<f32>(sharding.shard_dims(dims), &values);
                    Argument::Donate(client.upload(&tensor, device).unwrap())
                })
                .collect()
        });
        let outputs = executable.execute(arguments.collect()).unwrap();
        for (device, outputs) in executable.devices().iter().zip(&outputs) {
            let position = ids
                .iter()
                .position(|id| *id == i64::from(device.id()))
                .unwrap();
            for ((output, spec), expected) in outputs.iter().zip(module.results()).zip(&alone) {
                let found = output.to_host().unwrap();
                let (sharding, dims) = (spec.sharding.as_ref().unwrap(), &spec.shape.dims);
                assert_eq!(found.dims, sharding.shard_dims(dims), "{form:?} {spec:?}");
                let mut expected = expected.to_vec::<f32>().unwrap();
                if let [_, columns] = dims[..] {
                    let part = sharding.shard_ranges(position as i64, dims);
                    expected = part_of(&expected, columns as usize, &part);
                }
                for (a, b) in found.to_vec::<f32>().unwrap().iter().zip(&expected) {
                    assert!((a - b).abs() < 1e-6, "device {position}: {a}, alone {b}");
                }
            }
        }
    }
}

#[test]
fn calls_and_branches_on_what_was_computed_have_derivatives() {
    let g = Graph::new("computed");
    let x = vector(&g, 3);
    // Each input is a node far behind any of the body's own.
    let y = (x.sin() * 2.0 + 1.0).tanh() * 0.5;
    let z = g.call("square", &[y], |p| vec![p[0] * p[0]])[0];
    let truth = z.sum_all().greater(g.scalar(DType::F32, -1.0));
    let w = g.conditional(truth, || vec![z * y], || vec![z])[0];
    let cubes = y * y * y;
    let gradients = [w, cubes].map(|t| g.gradients(t.sum_all(), &[x])[0]);
    let module = g.finish(&gradients, &[]).unwrap();
    let x = HostTensor::new::<f32>([3], &[0.3, -1.2, 2.0]);
    let found = support::compile(&module).run(&[x]);
    let [found, expected] = [0, 1].map(|i| found[i].to_vec::<f32>().unwrap());
    for (a, b) in found.iter().zip(&expected) {
        assert!((a - b).abs() < 1e-6, "{found:?} should be {expected:?}");
    }
}

/// A scan of five steps over a carry of 3 with two named values, of 7 and of 11 elements, and its
/// derivative.
fn stacked_by(remat: Remat) -> Vec<Vec<i64>> {
    let g = Graph::new("remat");
    let x = vector(&g, 3);
    let up = g.parameter("up", Shape::new(DType::F32, [5, 3, 7]));
    let wide = g.parameter("wide", Shape::new(DType::F32, [7, 11]));
    let options = ScanOptions {
        remat,
        ..ScanOptions::default()
    };
    let (last, _) = g.scan(options, &[x], &[up], |c, s| {
        let h = g
            .einsum("a,ab->b", c[0], s[0])
            .tanh()
            .checkpoint_name("hidden");
        let w = g.einsum("b,bc->c", h, wide).exp().checkpoint_name("wide");
        let back = g.einsum("c,bc->b", w.sin(), wide);
        (vec![g.einsum("b,ab->a", back, s[0])], vec![])
    });
    let gradients = g.gradients(last[0].sum_all(), &[x, up, wide]);
    let module = g.finish(&gradients, &[]).unwrap();
    support::compile(&module);
    let states = loop_states(&module);
    assert_eq!(states.len(), 2, "the forward scan and its derivative");
    let mut stacked: Vec<Vec<i64>> = states[0]
        .iter()
        .filter(|dims| dims.len() == 2 && dims[0] == 5)
        .cloned()
        .collect();
    stacked.sort();
    stacked
}

#[test]
fn the_forward_scan_stacks_what_the_policy_saves() {
    let carry = vec![5i64, 3];
    let hidden = vec![5i64, 7];
    let wide = vec![5i64, 11];
    let carries_only = std::slice::from_ref(&carry);
    assert_eq!(stacked_by(Remat::SaveNothing), carries_only);
    let named = |names: &[&str]| Remat::Named(names.iter().map(|n| (*n).into()).collect());
    assert_eq!(stacked_by(named(&["absent"])), carries_only);
    assert_eq!(
        stacked_by(named(&["hidden"])),
        [carry.clone(), hidden.clone()]
    );
    // The values of a name are found however a rule asks for them: tanh and exp by their outputs,
    // the products by inputs.
    assert_eq!(
        stacked_by(named(&["hidden", "wide"])),
        [carry.clone(), hidden.clone(), wide.clone()]
    );
    // Everything that a rule asks for: the gradient of `up` by the last product needs its input
    // too, and the sine.
    let all = stacked_by(Remat::SaveAll);
    assert_eq!(all, [carry, hidden.clone(), hidden, wide.clone(), wide]);
}

#[test]
fn saved_values_are_not_computed_again() {
    let products = |remat: Remat| {
        let g = Graph::new("recompute");
        let x = vector(&g, 3);
        let w = g.parameter("w", Shape::new(DType::F32, [5, 3, 3]));
        let options = ScanOptions {
            remat,
            ..ScanOptions::default()
        };
        let (last, _) = g.scan(options, &[x], &[w], |c, s| {
            (
                vec![g.einsum("a,ab->b", c[0], s[0]).tanh().checkpoint_name("h")],
                vec![],
            )
        });
        let gradients = g.gradients(last[0].sum_all(), &[x, w]);
        let module = g.finish(&gradients, &[]).unwrap();
        (count(&module, "dot"), count(&module, "tanh"))
    };
    // One product forward, two backward; one more where the forward pass runs again.
    assert_eq!(products(Remat::SaveNothing), (4, 2));
    assert_eq!(products(Remat::SaveAll), (3, 1));
    assert_eq!(products(Remat::Named(vec!["h".into()])), (3, 1));
}

#[test]
fn unrolled_steps_stand_in_one_iteration() {
    let loops = |unroll: i64| {
        let g = Graph::new("unrolled");
        let x = vector(&g, 3);
        let w = g.parameter("w", Shape::new(DType::F32, [4, 3]));
        let options = ScanOptions {
            remat: Remat::SaveAll,
            unroll,
            ..ScanOptions::default()
        };
        let (last, _) = g.scan(options, &[x], &[w], |c, s| {
            (vec![(c[0] * s[0]).tanh()], vec![])
        });
        let module = g.finish(&g.gradients(last[0].sum_all(), &[x, w]), &[]);
        let module = module.unwrap();
        (count(&module, "while"), count(&module, "tanh"))
    };
    // A loop forward and one backward, as long as there is one.
    assert_eq!(loops(1), (2, 1));
    assert_eq!(loops(2), (2, 2));
    assert_eq!(loops(4), (0, 4));
}

#[test]
fn a_value_is_stacked_once_whoever_needs_it() {
    let g = Graph::new("shared");
    let x = vector(&g, 3);
    let xs = g.parameter("xs", Shape::new(DType::F32, [5, 3]));
    let options = ScanOptions {
        remat: Remat::SaveAll,
        ..ScanOptions::default()
    };
    let (last, ys) = g.scan(options, &[x], &[xs], |c, s| {
        let y = (c[0] * s[0]).tanh();
        (vec![y], vec![y])
    });
    // The loop itself returns what the first derivative needs, and the second needs what the first
    // had saved.
    let first = g.gradients(ys[0].sum_all(), &[x, xs]);
    let second = g.gradients(last[0].sum_all(), &[x, xs]);
    let outputs = [ys[0], first[0], first[1], second[0], second[1]];
    let module = g.finish(&outputs, &[]).unwrap();
    let stacked = |state: &Vec<Vec<i64>>| state.iter().filter(|d| d.len() == 2).count();
    // The slices, y and the incoming carry.
    assert_eq!(stacked(&loop_states(&module)[0]), 3, "{}", module.text());
    support::compile(&module);
}

#[test]
fn a_scan_in_a_scan_runs_twice_forward_and_no_more() {
    let g = Graph::new("nested");
    let x = vector(&g, 3);
    let xs = g.parameter("xs", Shape::new(DType::F32, [4, 2, 3]));
    let (last, ys) = g.scan(ScanOptions::default(), &[x], &[xs], |c, s| {
        let (inner, out) = g.scan(ScanOptions::default(), &[c[0]], &[s[0]], |c, s| {
            let y = (c[0] * s[0]).sin();
            (vec![y], vec![y])
        });
        (vec![inner[0].square()], vec![out[0].exp()])
    });
    let loss = last[0].sum_all() + ys[0].sum_all();
    let module = g.finish(&g.gradients(loss, &[x, xs]), &[]).unwrap();
    // Outer and inner, forward and backward, and the inner one once more for its values.
    assert_eq!(count(&module, "while"), 5, "{}", module.text());
}
