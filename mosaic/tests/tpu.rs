//! Kernels as text, compiled by libtpu for chips that need not be there.

use ankh_hlo::{DType, Graph, Shape, Tensor};
use ankh_mosaic::BlockDim::{Element, Part, Whole};
use ankh_mosaic::{Block, Carried, Kernel, Lowering, Output, Step};
use ankh_pjrt::{CompileOptions, NamedValue, Platform, Plugin, Program};

/// A host of four chips of each generation, and whether its two cores count as one device.
const TOPOLOGIES: [(&str, bool); 4] = [
    ("v4:2x2x1", true),
    ("v5e:2x2", false),
    ("v5p:2x2x1", true),
    ("v6e:2x2", false),
];

/// Compiles the program of a kernel for one chip of each generation.
fn compiles(kernel: &Kernel, inputs: &[Shape]) {
    let g = Graph::new("program");
    let inputs = inputs.iter().map(|shape| g.parameter("x", shape.clone()));
    let inputs: Vec<_> = inputs.collect();
    let outputs = kernel.apply(Lowering::Mosaic, &inputs);
    let module = g.finish(&outputs, &[]).unwrap();
    let plugin = Plugin::find(Platform::Tpu, None).expect("`make libtpu` puts libtpu in place");
    for (name, megacore) in TOPOLOGIES {
        let mut options = vec![
            NamedValue::int_list("chips_per_host_bounds", [2, 2, 1]),
            NamedValue::int("num_slices", 1),
        ];
        if megacore {
            options.push(NamedValue::string("chip_config_name", "megacore"));
        }
        let topology = plugin.topology(name, &options).unwrap();
        let chip = topology.devices().unwrap()[0].id;
        let program = Program::hlo(module.to_bytes());
        let options = CompileOptions::new().device(chip.into());
        if let Err(error) = topology.compile(&program, &options) {
            panic!("{name}: {error}\n{}", kernel.mosaic_text().unwrap());
        }
    }
}

/// What a place computes.
type Compute = for<'a> fn(&Step<'a>) -> Tensor<'a>;

fn f32s(dims: &[i64]) -> Shape {
    Shape::new(DType::F32, dims)
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn each_operation_has_its_text() {
    let x = f32s(&[4, 16, 128]);
    let block = || Block::new(f32s(&[4, 16, 128]), &[Element(0), Whole, Whole]);
    let steps: [(&str, Compute); 9] = [
        ("arithmetic", |s| {
            let x = s.inputs[0];
            (x + 1.0) * x / (x - 3.5e-7) - (-x).maximum(x.full_like(f64::NEG_INFINITY))
        }),
        ("functions", |s| {
            let x = s.inputs[0];
            x.exp()
                + (x.abs() + 1.0).log()
                + x.tanh()
                + (x.square() + 1.0).rsqrt()
                + x.square().sqrt()
        }),
        ("comparisons", |s| {
            let x = s.inputs[0];
            let either = x.greater(x.zeros_like()) | x.less_equal(x.full_like(-1.0));
            let both = either & x.not_equal(x.full_like(3.0));
            both.select(x, x.minimum(x.full_like(2.0)))
        }),
        ("positions", |s| {
            let grid = Shape::new(DType::S32, [16, 128]);
            let (row, column) = (s.graph.iota(grid.clone(), 0), s.graph.iota(grid, 1));
            let here = row + s.place[0] * 16.0;
            column
                .less_equal(here)
                .select(s.inputs[0], row.convert(DType::F32))
        }),
        ("rows", |s| {
            let x = s.inputs[0];
            x - x.max(&[1]).expand_dims(&[1]) + x.sum(&[1]).expand_dims(&[1])
        }),
        ("columns", |s| {
            let x = s.inputs[0];
            x - x.max(&[0]).expand_dims(&[0]) + x.sum(&[0]).expand_dims(&[0])
        }),
        ("narrow", |s| {
            let x = s.inputs[0].convert(DType::Bf16);
            let wide = Some(DType::F32);
            let square = s.graph.einsum_with("ik,jk->ij", x, x, wide);
            s.graph
                .einsum_with("ij,jk->ik", square.convert(DType::Bf16), x, wide)
        }),
        ("wide", |s| {
            let x = s.inputs[0];
            let square = s.graph.einsum("ki,kj->ij", x, x);
            s.graph.einsum("ki,ij->kj", x, square)
        }),
        ("transposes", |s| {
            let x = s.inputs[0];
            let square = s.graph.einsum("ik,jk->ij", x, x);
            s.graph.einsum("ij,jk->ik", square.transpose(&[1, 0]), x)
        }),
    ];
    for (name, step) in steps {
        let kernel = Kernel::new(name, &[4])
            .input(block())
            .output(Output::Each(block()));
        compiles(
            &kernel.body(move |s| vec![step(s)]),
            std::slice::from_ref(&x),
        );
    }
}

#[test]
#[ignore = "needs libtpu: make test-tpu"]
fn accumulated_outputs_and_scratch_memory_have_their_text() {
    let part = |axis, size| Part { axis, size };
    let (x, y) = (f32s(&[2, 256, 256]), f32s(&[2, 256, 128]));
    let kernel = Kernel::new("product", &[2, 2, 2])
        .input(Block::new(
            x.clone(),
            &[Element(0), part(1, 128), part(2, 128)],
        ))
        .input(Block::new(y.clone(), &[Element(0), part(2, 128), Whole]))
        .output(Output::Each(Block::new(
            y.clone(),
            &[Element(0), part(1, 128), Whole],
        )))
        .output(Output::Accumulated {
            block: Block::new(f32s(&[2, 8, 128]), &[Element(0), Whole, Whole]),
            init: 0.0,
        })
        .scratch(Carried {
            shape: f32s(&[128, 128]),
            init: 0.0,
            first_axis: 2,
        })
        .body(|step| {
            let product = step
                .graph
                .einsum("mk,kn->mn", step.inputs[0], step.inputs[1]);
            let sum = step.carried[1] + product;
            let column = product.sum(&[0]).expand_dims(&[0]).broadcast_to(&[8, 128]);
            vec![sum, step.carried[0] + column, sum]
        });
    compiles(&kernel, &[x, y]);
}
