//! Kernels as loops, on the CPU plugin, against the same arithmetic on whole arrays; and what is
//! refused.

use std::sync::OnceLock;

use ankh_hlo::{DType, Graph, Module, Shape, Tensor};
use ankh_mosaic::BlockDim::{Element, Part, Whole};
use ankh_mosaic::{Block, Carried, Kernel, Lowering, Output};
use ankh_pjrt::{Argument, Client, CompileOptions, HostTensor, Platform, Plugin, Program};
use proptest::prelude::*;

fn client() -> &'static Client {
    static CLIENT: OnceLock<Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let plugin = Plugin::find(Platform::Cpu, None);
        let plugin = plugin.expect("`make plugin` puts the CPU plugin in place");
        plugin.create_client(&[]).expect("the plugin opens")
    })
}

fn run(module: &Module, inputs: &[HostTensor]) -> Vec<Vec<f32>> {
    let program = Program::hlo(module.to_bytes());
    let program = client().compile(&program, &CompileOptions::new());
    let program = program.unwrap_or_else(|error| panic!("{error}\n{}", module.text()));
    let device = &client().addressable_devices().unwrap()[0];
    let buffers = inputs.iter().map(|t| client().upload(t, device).unwrap());
    let buffers: Vec<_> = buffers.collect();
    let outputs = program.execute(vec![buffers.iter().map(Argument::Keep).collect()]);
    let outputs = outputs.unwrap();
    let host = outputs[0].iter().map(|b| b.to_host().unwrap());
    host.map(|t| t.to_vec::<f32>().unwrap()).collect()
}

fn f32s(dims: &[i64]) -> Shape {
    Shape::new(DType::F32, dims)
}

/// Small whole numbers, so that sums do not depend on their order.
fn numbers(count: i64, seed: i64) -> Vec<f32> {
    (0..count)
        .map(|i| ((i * 7 + seed) % 13 - 6) as f32)
        .collect()
}

/// x `[a, m, k]` times y `[a, k, n]`, a block of m and of k at a time, with scratch memory for the
/// sum; and, added up over all places, the sum of the products' columns.
fn product(a: i64, m: (i64, i64), k: (i64, i64), n: i64) -> Kernel {
    let part = |axis, size| Part { axis, size };
    let (x, y) = (f32s(&[a, m.0 * m.1, k.0 * k.1]), f32s(&[a, k.0 * k.1, n]));
    let (z, sums) = (f32s(&[a, m.0 * m.1, n]), f32s(&[a, 1, n]));
    Kernel::new("product", &[a, m.0, k.0])
        .input(Block::new(x, &[Element(0), part(1, m.1), part(2, k.1)]))
        .input(Block::new(y, &[Element(0), part(2, k.1), Whole]))
        .output(Output::Each(Block::new(
            z,
            &[Element(0), part(1, m.1), Whole],
        )))
        .output(Output::Accumulated {
            block: Block::new(sums, &[Element(0), Whole, Whole]),
            init: 1.0,
        })
        .scratch(Carried {
            shape: f32s(&[m.1, n]),
            init: 0.0,
            first_axis: 2,
        })
        .body(|step| {
            let [before, sum] = step.carried[..] else {
                unreachable!("one accumulated output and one piece of scratch memory")
            };
            let product = step
                .graph
                .einsum("mk,kn->mn", step.inputs[0], step.inputs[1]);
            let sum = sum + product;
            vec![sum, before + product.sum(&[0]).expand_dims(&[0]), sum]
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn loops_compute_what_whole_arrays_do(
        a in 1i64..4, m in (1i64..4, 1i64..4), k in (1i64..4, 1i64..4), n in 1i64..5,
    ) {
        let kernel = product(a, m, k, n);
        let g = Graph::new("product");
        let x = g.parameter("x", f32s(&[a, m.0 * m.1, k.0 * k.1]));
        let y = g.parameter("y", f32s(&[a, k.0 * k.1, n]));
        let mut outputs = kernel.apply(Lowering::Loops, &[x, y]);
        let whole = g.einsum("amk,akn->amn", x, y);
        outputs.extend([whole, whole.sum(&[1]).expand_dims(&[1]) + 1.0]);
        let module = g.finish(&outputs, &[]).unwrap();
        let inputs = [(x, 1), (y, 2)].map(|(t, seed): (Tensor<'_>, i64)| {
            let shape = t.shape();
            HostTensor::new::<f32>(shape.dims.clone(), &numbers(shape.elements(), seed))
        });
        let found = run(&module, &inputs);
        prop_assert_eq!(&found[0], &found[2]);
        prop_assert_eq!(&found[1], &found[3]);
    }
}

/// The mistake that a kernel's use on x: f32[4,6] is.
#[track_caller]
fn mistake(kernel: &Kernel, lowering: Lowering) -> String {
    let g = Graph::new("mistake");
    let x = g.parameter("x", f32s(&[4, 6]));
    kernel.apply(lowering, &[x]);
    let error = g.error().expect("a mistake");
    assert!(error.location.file().ends_with("tests/loops.rs"), "{error}");
    error.to_string()
}

#[test]
fn blocks_that_do_not_fit_and_bodies_of_other_shapes_are_refused_with_the_place() {
    let x = || f32s(&[4, 6]);
    let rows = |dims: &[ankh_mosaic::BlockDim]| Block::new(x(), dims);
    let each = || Output::Each(rows(&[Element(0), Whole]));
    let kernel = |grid: &[i64], input: Block, output: Output| {
        let kernel = Kernel::new("rows", grid).input(input).output(output);
        kernel.body(|step| vec![step.inputs[0]])
    };
    let good = || rows(&[Element(0), Whole]);
    let part = |size| Part { axis: 0, size };
    let sum = |dims: &[ankh_mosaic::BlockDim]| Output::Accumulated {
        block: rows(dims),
        init: 0.0,
    };
    for (kernel, words) in [
        (kernel(&[], good(), each()), "a grid of []"),
        (kernel(&[0], good(), each()), "a grid of [0]"),
        (
            kernel(&[3], good(), each()),
            "input 0: 1 of 4 elements at each of 3 places",
        ),
        (
            kernel(&[2], rows(&[part(3), Whole]), each()),
            "3 of 4 elements at each of 2",
        ),
        (
            kernel(&[4], rows(&[Element(1), Whole]), each()),
            "no axis 1",
        ),
        (
            kernel(&[4], rows(&[Element(0)]), each()),
            "1 dimensions for f32[4,6]",
        ),
        (
            kernel(
                &[4],
                Block::new(f32s(&[4, 7]), &[Element(0), Whole]),
                each(),
            ),
            "is f32[4,6] and not f32[4,7]",
        ),
        (
            kernel(
                &[2, 4],
                rows(&[Element(1), Whole]),
                sum(&[Element(1), Whole]),
            ),
            "are not the last ones",
        ),
        (
            kernel(&[4], good(), Output::Each(rows(&[Whole, Whole]))),
            "the body gives f32[6] and should give f32[4,6]",
        ),
    ] {
        for lowering in [Lowering::Loops, Lowering::Mosaic] {
            let message = mistake(&kernel, lowering);
            assert!(message.contains(words), "{words}: {message}");
            assert!(message.contains("`rows`"), "{message}");
        }
    }
}

#[test]
fn what_mosaic_does_not_have_is_refused_with_its_line() {
    let x = || Block::new(f32s(&[4, 6]), &[Element(0), Whole]);
    let kernel = Kernel::new("cosine", &[4])
        .input(x())
        .output(Output::Each(x()));
    let kernel = kernel.body(|step| vec![step.inputs[0].cos()]);
    let message = mistake(&kernel, Lowering::Mosaic);
    assert!(message.contains("no cosine of f32[6]"), "{message}");
    assert!(message.contains("tests/loops.rs:"), "{message}");
}
