//! Every operation computes what it says: programs run on the CPU plugin against plain arithmetic
//! on the host.

mod control;
mod elementwise;
mod movement;
mod products;
mod random;
#[path = "../support/mod.rs"]
mod support;

use ankh_hlo::{DType, Graph, Shape, Tensor};
use ankh_pjrt::{Element, HostTensor};
use proptest::test_runner::{Config, TestRunner};

/// Runs what `build` makes of the inputs, which become parameters in order.
fn run(
    inputs: &[HostTensor],
    build: impl for<'g> FnOnce(&'g Graph, &[Tensor<'g>]) -> Vec<Tensor<'g>>,
) -> Vec<HostTensor> {
    let g = Graph::new("operations");
    let parameters: Vec<Tensor<'_>> = inputs
        .iter()
        .map(|t| g.parameter("x", Shape::new(dtype(t), t.dims.clone())))
        .collect();
    let outputs = build(&g, &parameters);
    let module = g.finish(&outputs, &[]).unwrap_or_else(|e| panic!("{e}"));
    let results = support::compile(&module).run(inputs);
    for (result, output) in results.iter().zip(&outputs) {
        assert_eq!(
            Shape::new(dtype(result), result.dims.clone()),
            output.shape(),
            "the shape inferred and the one computed"
        );
    }
    results
}

fn dtype(t: &HostTensor) -> DType {
    const ALL: [DType; 10] = [
        DType::Pred,
        DType::S32,
        DType::S64,
        DType::U8,
        DType::U32,
        DType::U64,
        DType::Bf16,
        DType::F16,
        DType::F32,
        DType::F64,
    ];
    ALL.into_iter()
        .find(|d| d.name() == t.element_type.name())
        .expect("one of the types the crate knows")
}

fn values<T: Element>(t: &HostTensor) -> Vec<T> {
    t.to_vec().unwrap()
}

/// Numbers that differ and are exact in every floating-point type used.
fn counted(dims: &[i64]) -> HostTensor {
    let count: i64 = dims.iter().product();
    let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
    HostTensor::new::<f32>(dims.to_vec(), &numbers)
}

fn close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f - e).abs() <= tolerance * e.abs().max(1.0),
            "{name}, element {i}: found {f}, expected {e}"
        );
    }
}

/// Runs properties on random cases; a failing case prints itself.
fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    })
}
