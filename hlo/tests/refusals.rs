//! A mistake in a program is an error that names the operation, the shapes and the line that made
//! it; nothing panics.

use std::sync::Arc;

use ankh_hlo::{
    AxisError, AxisName, DType, DotDims, Error, Graph, Literal, LogicalAxisRules, Mesh, PadDim,
    RngAlgorithm, ScanOptions, Shape, Sharding, Tensor,
};

const DATA: AxisName = AxisName::new("data");
const MODEL: AxisName = AxisName::new("model");
const BATCH: AxisName = AxisName::new("batch");
const EMBED: AxisName = AxisName::new("embed");
const BACTH: AxisName = AxisName::new("bacth");
const POD: AxisName = AxisName::new("pod");

/// Runs a mistake and gives its line.
macro_rules! at {
    ($mistake:expr) => {{
        let _ = $mistake;
        line!()
    }};
}

/// What `build` gets wrong, with x: f32[2,3], y: f32[4], n: s32[5] and k: s32[]. It returns the
/// line of the mistake, which has to be the place that the error names.
fn mistake(build: impl for<'g> FnOnce(&'g Graph, [Tensor<'g>; 4]) -> u32) -> Error {
    let g = Graph::new("refusals");
    let inputs = [
        g.parameter("x", Shape::new(DType::F32, [2, 3])),
        g.parameter("y", Shape::new(DType::F32, [4])),
        g.parameter("n", Shape::new(DType::S32, [5])),
        g.parameter("k", Shape::new(DType::S32, [])),
    ];
    let line = build(&g, inputs);
    // Building goes on after a mistake, and the first one stays.
    let _ = inputs[0] + inputs[2];
    let error = g.finish(&[inputs[0]], &[]).unwrap_err();
    assert!(
        error.location.file().ends_with("tests/refusals.rs"),
        "{error}"
    );
    // A long statement starts on one line and calls on one of the next.
    let lines = line..=line + 2;
    assert!(
        lines.contains(&error.location.line()),
        "line {line}: {error}"
    );
    error
}

/// The error says all of `parts`.
fn says(error: &Error, operation: &str, parts: &[&str]) {
    assert_eq!(error.operation, operation, "{error}");
    for part in parts {
        assert!(error.problem.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn operands_that_do_not_go_together() {
    says(
        &mistake(|_, [x, y, ..]| at!(x + y)),
        "add",
        &["f32[2,3]", "f32[4]"],
    );
    says(
        &mistake(|_, [x, _, n, _]| at!(x * n)),
        "multiply",
        &["f32[2,3]", "s32[5]"],
    );
    says(
        &mistake(|_, [x, y, ..]| at!(x.less(y))),
        "compare",
        &["f32[2,3]", "f32[4]"],
    );
    says(
        &mistake(|_, [x, y, ..]| at!(x.maximum(y))),
        "maximum",
        &["f32[2,3]", "f32[4]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.select(x, x))),
        "select",
        &["f32[2,3]"],
    );
    says(
        &mistake(|_, [x, y, ..]| at!(x.less(x).select(x, y))),
        "select",
        &["f32[2,3]", "f32[4]"],
    );
}

#[test]
fn element_types_that_an_operation_is_not_defined_for() {
    says(
        &mistake(|_, [_, _, n, _]| at!(n.exp())),
        "exponential",
        &["s32[5]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.logical_not())),
        "not",
        &["f32[2,3]"],
    );
    says(&mistake(|_, [x, ..]| at!(x & x)), "and", &["f32[2,3]"]);
    says(
        &mistake(|_, [x, ..]| at!(x.less(x) + x.less(x))),
        "add",
        &["pred[2,3]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.less(x).sum_all())),
        "reduce",
        &["pred[2,3]"],
    );
    says(
        &mistake(|_, [_, _, n, _]| at!(n.mean_all())),
        "mean",
        &["s32[5]"],
    );
    // Half an integer would silently be none.
    says(
        &mistake(|_, [_, _, n, _]| at!(n * 0.5)),
        "constant",
        &["0.5", "s32"],
    );
    says(
        &mistake(|g, _| at!(g.scalar(DType::U8, 256.0))),
        "constant",
        &["256", "u8"],
    );
    says(
        &mistake(|g, _| at!(g.scalar(DType::U32, -1.0))),
        "constant",
        &["-1", "u32"],
    );
}

#[test]
fn shapes_that_cannot_be_made() {
    says(
        &mistake(|_, [x, ..]| at!(x.reshape(&[4, 2]))),
        "reshape",
        &["f32[2,3]", "f32[4,2]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.reshape(&[-2, -3]))),
        "reshape",
        &["f32[2,3]", "f32[-2,-3]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.reshape(&[i64::MAX, i64::MAX]))),
        "reshape",
        &["f32[2,3]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.transpose(&[0, 0]))),
        "transpose",
        &["f32[2,3]", "[0, 0]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.transpose(&[0]))),
        "transpose",
        &["f32[2,3]", "[0]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.broadcast_to(&[2, 4]))),
        "broadcast",
        &["f32[2,3]", "[2, 4]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.broadcast_to(&[3]))),
        "broadcast",
        &["f32[2,3]", "[3]"],
    );
    says(
        &mistake(|_, [_, y, ..]| at!(y.broadcast_in_dims(&[4, 2], &[1]))),
        "broadcast",
        &["f32[4]", "[4, 2]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.sum(&[2]))),
        "reduce",
        &["f32[2,3]", "[2]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.max(&[0, 0]))),
        "reduce",
        &["f32[2,3]", "[0, 0]"],
    );
    says(
        &mistake(|_, [_, _, _, k]| at!(k.softmax())),
        "reduce",
        &["s32[]", "[-1]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.expand_dims(&[4]))),
        "expand_dims",
        &["f32[2,3]", "4"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.dim(2))),
        "dim",
        &["f32[2,3]", "2"],
    );
    says(
        &mistake(|g, _| at!(g.iota(Shape::new(DType::F32, [2]), 1))),
        "iota",
        &["f32[2]", "1"],
    );
    says(
        &mistake(|g, _| at!(g.zeros(&Shape::new(DType::F32, [2, -1])))),
        "broadcast",
        &["f32[2,-1]"],
    );
    says(
        &mistake(|g, _| at!(g.parameter("p", Shape::new(DType::F32, [-1])))),
        "parameter",
        &["f32[-1]"],
    );
}

#[test]
fn shapes_that_cannot_be_counted() {
    let most = i64::MAX;
    let p = |low, high, interior| PadDim {
        low,
        high,
        interior,
    };
    for pad in [
        p(most, 0, 0),
        p(0, most, 0),
        p(most, most, 0),
        p(0, 0, most),
    ] {
        says(
            &mistake(|_, [_, y, ..]| at!(y.pad(&[pad], y.graph().scalar(y.dtype(), 0.0)))),
            "pad",
            &["f32[4]", &most.to_string()],
        );
    }
    let half = format!("u8[{}]", 1i64 << 62);
    says(
        &mistake(|g, _| {
            let x = g.zeros(&Shape::new(DType::U8, [1 << 62]));
            at!(g.concatenate(&[x, x], 0))
        }),
        "concatenate",
        &[&half, "dimension 0", "counted"],
    );
    // Two shapes whose numbers of elements saturate are not of the same number.
    says(
        &mistake(|g, _| {
            let x = g.zeros(&Shape::new(DType::U8, [most]));
            at!(x.reshape(&[most, 2]))
        }),
        "reshape",
        &["u8[9223372036854775807]", "u8[9223372036854775807,2]"],
    );
    says(
        &mistake(|g, _| at!(g.parameter("p", Shape::new(DType::F32, [most])))),
        "parameter",
        &["f32[9223372036854775807]", "bytes"],
    );
    says(
        &mistake(|g, _| at!(g.parameter("p", Shape::new(DType::F32, [most, most, 0])))),
        "parameter",
        &["bytes"],
    );
    says(
        &mistake(|g, _| {
            let x = g.zeros(&Shape::new(DType::U8, [1 << 40]));
            at!(x.convert(DType::F32).broadcast_to(&[1 << 40, 1 << 40]))
        }),
        "broadcast",
        &["f32[1099511627776,1099511627776]"],
    );
    says(
        &mistake(|g, _| {
            let state = g.zeros(&Shape::new(DType::U64, [2]));
            at!(state.random_bits(RngAlgorithm::ThreeFry, Shape::new(DType::U32, [-1])))
        }),
        "rng-bit-generator",
        &["u32[-1]", "negative"],
    );
    // A loop counts its steps in s32.
    says(
        &mistake(|g, [_, y, ..]| {
            let options = ScanOptions {
                length: Some(1 << 31),
                ..ScanOptions::default()
            };
            at!(g.scan(options, &[y], &[], |c, _| (c.to_vec(), vec![])))
        }),
        "scan",
        &["2147483648 steps"],
    );
    // An iteration computes all its steps.
    for unroll in [0, 3] {
        let error = mistake(|g, [_, y, ..]| {
            let options = ScanOptions {
                length: Some(4),
                unroll,
                ..ScanOptions::default()
            };
            at!(g.scan(options, &[y], &[], |c, _| (c.to_vec(), vec![])))
        });
        says(
            &error,
            "scan",
            &[&format!("{unroll} steps in an iteration, of 4")],
        );
    }
    // 2^63 is the nearest f64 to the largest s64, and is none.
    says(
        &mistake(|g, _| at!(g.scalar(DType::S64, most as f64))),
        "constant",
        &["s64"],
    );
    says(
        &mistake(|g, _| at!(g.scalar(DType::U64, u64::MAX as f64))),
        "constant",
        &["u64"],
    );
    assert_eq!(Literal::f32(&[-1, -4], &[0.0; 4]), None);
    assert_eq!(Literal::f32(&[most, most, 0], &[]), None);
}

#[test]
fn windows_and_edges_outside_the_array() {
    says(
        &mistake(|_, [x, ..]| at!(x.slice(&[0, 1], &[2, 4]))),
        "slice",
        &["f32[2,3]", "[2, 4]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.slice(&[1, 0], &[0, 3]))),
        "slice",
        &["f32[2,3]", "[1, 0]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.strided_slice(&[0, 0], &[2, 3], &[1, 0]))),
        "slice",
        &["[1, 0]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.slice_dim(2, 0, 1))),
        "slice",
        &["f32[2,3]", "2"],
    );
    says(
        &mistake(|_, [_, y, _, k]| at!(y.dynamic_slice(&[k], &[5]))),
        "dynamic-slice",
        &["f32[4]", "[5]"],
    );
    says(
        &mistake(|_, [x, y, ..]| at!(x.dynamic_slice(&[y, y], &[1, 1]))),
        "dynamic-slice",
        &["f32[2,3]"],
    );
    says(
        &mistake(|_, [x, y, _, k]| at!(x.dynamic_update_slice(y, &[k, k]))),
        "dynamic-update-slice",
        &["f32[4]", "f32[2,3]"],
    );
    let p = PadDim {
        low: -3,
        high: -2,
        interior: 0,
    };
    says(
        &mistake(|_, [_, y, ..]| at!(y.pad(&[p], y.graph().scalar(y.dtype(), 0.0)))),
        "pad",
        &["f32[4]", "(-3, -2, 0)"],
    );
    says(
        &mistake(|_, [x, y, ..]| at!(x.pad(&[p], y.graph().scalar(y.dtype(), 0.0)))),
        "pad",
        &["f32[2,3]"],
    );
    says(
        &mistake(|_, [_, y, _, k]| at!(y.pad(&[PadDim::default()], k))),
        "pad",
        &["f32[4]", "s32[]"],
    );
    says(
        &mistake(|_, [x, ..]| at!(x.reverse(&[1, 1]))),
        "reverse",
        &["f32[2,3]", "[1, 1]"],
    );
    says(
        &mistake(|g, [x, y, ..]| at!(g.concatenate(&[x, y], 0))),
        "concatenate",
        &["f32[2,3]", "f32[4]"],
    );
    says(
        &mistake(|g, [_, y, n, _]| at!(g.concatenate(&[y, n], 0))),
        "concatenate",
        &["f32[4]", "s32[5]"],
    );
    says(
        &mistake(|g, _| at!(g.concatenate(&[], 0))),
        "concatenate",
        &["0"],
    );
}

#[test]
fn products_and_rows_that_do_not_fit() {
    says(
        &mistake(|g, [x, y, ..]| at!(g.einsum("ab,b->a", x, y))),
        "dot",
        &["f32[2,3]", "f32[4]"],
    );
    says(
        &mistake(|g, [x, y, ..]| at!(g.einsum("abc,c->ab", x, y))),
        "einsum",
        &["abc,c->ab", "f32[2,3]", "f32[4]"],
    );
    for equation in [
        "ab,ab",
        "ab,c->ad",
        "ab,c->a",
        "aa,c->c",
        "ab,c->aabc",
        "a b,c->abc",
        "",
    ] {
        says(
            &mistake(|g, [x, y, ..]| at!(g.einsum(equation, x, y))),
            "einsum",
            &[equation, "f32[2,3]"],
        );
    }
    let dims = |batch: &[i64], contract: &[i64]| DotDims {
        lhs_batch: batch.to_vec(),
        rhs_batch: batch.to_vec(),
        lhs_contract: contract.to_vec(),
        rhs_contract: contract.to_vec(),
    };
    for bad in [
        dims(&[0], &[0]),
        dims(&[], &[1, 1]),
        dims(&[2], &[]),
        dims(&[-1], &[]),
    ] {
        says(
            &mistake(|_, [x, ..]| at!(x.dot_general(x, bad, None))),
            "dot",
            &["f32[2,3]"],
        );
    }
    says(
        &mistake(|g, [x, _, n, _]| at!(g.einsum("ab,c->abc", x, n))),
        "dot",
        &["f32[2,3]", "s32[5]"],
    );
    says(
        &mistake(|g, [x, y, ..]| at!(g.einsum_with("ab,c->abc", x, y, Some(DType::S32)))),
        "dot",
        &["f32[2,3]", "s32"],
    );
    says(
        &mistake(|_, [x, y, ..]| at!(x.gather_rows(y))),
        "gather",
        &["f32[4]", "f32[2,3]"],
    );
    says(
        &mistake(|_, [_, _, n, k]| at!(k.gather_rows(n))),
        "gather",
        &["s32[5]", "s32[]"],
    );
    says(
        &mistake(|_, [x, y, n, _]| at!(x.scatter_add_rows(n, y))),
        "scatter",
        &["f32[4]", "s32[5]", "f32[2,3]"],
    );
    says(
        &mistake(|g, [x, ..]| {
            at!(x.random_bits(
                RngAlgorithm::Philox,
                g.iota(Shape::new(DType::U32, [1]), 0).shape()
            ))
        }),
        "rng-bit-generator",
        &["f32[2,3]", "u64[3]"],
    );
    says(
        &mistake(|g, [x, ..]| at!(g.normal(x, &[2]))),
        "rng-bit-generator",
        &["f32[2,3]", "u64[2]"],
    );
}

#[test]
fn loops_that_change_the_type_of_what_they_carry() {
    let scan = || ScanOptions::default();
    let error = mistake(|g, [x, y, ..]| {
        let line = line!();
        let (carries, results) = g.scan(scan(), &[y], &[x], |_, s| (vec![s[0]], vec![s[0]]));
        // What a caller does next finds as many tensors as it expects.
        let _ = carries[0] + results[0];
        line
    });
    says(&error, "scan", &["(f32[4])", "(f32[3])"]);
    says(
        &mistake(|g, [x, y, ..]| at!(g.scan(scan(), &[y], &[x], |_, s| (vec![], vec![s[0]])))),
        "scan",
        &["(f32[4])", "leave as ()"],
    );
    let error = mistake(|g, [x, y, ..]| {
        let line = line!();
        let (_, results) = g.scan(scan(), &[], &[x, y], |_, s| (vec![], vec![s[0], s[1]]));
        let _ = results[0] + results[1];
        line
    });
    says(&error, "scan", &["f32[2,3]", "f32[4]"]);
    says(
        &mistake(|g, [_, _, _, k]| at!(g.scan(scan(), &[], &[k], |_, s| (vec![], vec![s[0]])))),
        "scan",
        &["s32[]"],
    );
    says(
        &mistake(|g, [x, ..]| at!(g.scan(scan(), &[x], &[], |c, _| (c.to_vec(), vec![])))),
        "scan",
        &["0 steps"],
    );

    says(
        &mistake(|g, [x, ..]| at!(g.while_loop(&[x], |s| s[0], |s| s.to_vec()))),
        "while",
        &["condition", "f32[2,3]"],
    );
    says(
        &mistake(|g, [x, y, ..]| {
            at!(g.while_loop(
                &[x],
                |_| y.sum_all().less(y.graph().scalar(DType::F32, 0.0)),
                |_| vec![y]
            ))
        }),
        "while",
        &["(f32[2,3])", "(f32[4])"],
    );
    says(
        &mistake(|g, [x, y, ..]| at!(g.conditional(x, || vec![y], || vec![y]))),
        "conditional",
        &["f32[2,3]"],
    );
    says(
        &mistake(|g, [x, y, _, k]| at!(g.conditional(k.equal(k), || vec![y], || vec![x]))),
        "conditional",
        &["f32[4]", "f32[2,3]"],
    );
}

#[test]
fn tensors_beyond_their_reach() {
    let inside = |g: &Graph, f: &dyn Fn(Tensor<'_>) -> u32| {
        let mut line = 0;
        let mut leaked = None;
        let x = g.zeros(&Shape::new(DType::S32, [3]));
        g.call("body", &[x], |p| {
            leaked = Some(p[0] + 1.0);
            p.to_vec()
        });
        if let Some(t) = leaked {
            line = f(t);
        }
        line
    };
    says(
        &mistake(|g, _| inside(g, &|t| at!(t.abs()))),
        "capture",
        &["outside"],
    );
    says(
        &mistake(|g, _| inside(g, &|t| at!(g.zeros(&Shape::new(DType::S32, [3])) + t))),
        "capture",
        &["outside"],
    );
    says(
        &mistake(|g, _| inside(g, &|t| at!(g.call("again", &[t], |p| p.to_vec())))),
        "capture",
        &["outside"],
    );
    says(
        &mistake(|g, _| inside(g, &|t| at!(g.concatenate(&[t, t], 0)))),
        "capture",
        &["outside"],
    );
    says(
        &mistake(|g, _| inside(g, &|t| at!(g.finish(&[t], &[])))),
        "capture",
        &["outside"],
    );

    let other = Graph::new("other");
    let mut foreign = other.parameter("z", Shape::new(DType::F32, [2, 3]));
    for _ in 0..20 {
        foreign = foreign + 1.0;
    }
    says(
        &mistake(|g, _| at!(g.optimization_barrier(&[foreign]))),
        "capture",
        &["graph"],
    );
    let error = mistake(|g, [_, y, ..]| {
        let mut line = 0;
        g.call("body", &[y], |p| {
            line = at!(g.optimization_barrier(&[foreign]));
            p.to_vec()
        });
        line
    });
    says(&error, "capture", &["graph"]);
    let error = mistake(|g, [_, y, ..]| {
        let mut line = 0;
        g.call("body", &[y], |p| {
            line = at!(g.parameter("w", y.shape()));
            p.to_vec()
        });
        line
    });
    says(&error, "parameter", &["outside loops"]);
}

#[test]
fn derivatives_that_do_not_exist() {
    says(
        &mistake(|g, [x, ..]| at!(g.gradients(x, &[x]))),
        "gradients",
        &["f32[2,3]", "scalar"],
    );
    says(
        &mistake(|g, [_, _, n, k]| at!(g.gradients(k, &[n]))),
        "gradients",
        &["s32[]"],
    );
    // The line is that of the operation that has no derivative.
    let error = mistake(|g, [x, ..]| {
        let line = line!();
        let out = g.while_loop(
            &[x],
            |s| s[0].sum_all().less(s[0].graph().scalar(DType::F32, 1.0)),
            |s| s.to_vec(),
        );
        g.gradients(out[0].sum_all(), &[x]);
        line
    });
    says(&error, "while", &["derivative", "scan"]);
}

#[test]
fn hand_written_derivatives_of_another_number_or_shape() {
    let error = mistake(|g, [x, y, ..]| {
        let sum = x.sum_all();
        let line = line!() + 1;
        let z = sum.custom_vjp(&[x, y], &[], |_, _, dy| vec![dy]);
        g.gradients(z, &[x]);
        line
    });
    says(&error, "custom-vjp", &["(f32[])", "(f32[2,3], f32[4])"]);
    let error = mistake(|g, [x, ..]| {
        let line = line!();
        let z = x.sum_all().custom_vjp(&[x], &[], |_, _, dy| vec![dy]);
        g.gradients(z, &[x]);
        line
    });
    says(&error, "custom-vjp", &["(f32[])", "(f32[2,3])"]);
    // A mistake within the rule is at the rule's line.
    static LINE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let error = mistake(|g, [x, y, ..]| {
        let z = x.sum_all().custom_vjp(&[x], &[y], |operands, _, _| {
            LINE.store(line!() + 1, std::sync::atomic::Ordering::Relaxed);
            vec![operands[0] * operands[1]]
        });
        g.gradients(z, &[x]);
        LINE.load(std::sync::atomic::Ordering::Relaxed)
    });
    says(&error, "multiply", &["f32[2,3]", "f32[4]"]);
}

#[test]
fn names_and_shardings_of_another_rank() {
    says(
        &mistake(|_, [x, ..]| at!(x.with_logical_axes(&[BATCH]))),
        "with_logical_axes",
        &["f32[2,3]", "1 names"],
    );
    says(
        &mistake(|g, [x, ..]| at!(g.parameter_with_logical_axes("w", x.shape(), &[BATCH]))),
        "parameter",
        &["f32[2,3]", "1 names"],
    );
    let mesh = Arc::new(Mesh::new([(DATA, 2)]).unwrap());
    let sharding = Sharding::new(&mesh, &[&[DATA]]).unwrap();
    says(
        &mistake(|_, [x, ..]| at!(x.with_sharding_constraint(sharding))),
        "sharding-constraint",
        &["f32[2,3]"],
    );
    let unknown = Sharding::new(&mesh, &[&[MODEL]]).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "the mesh has no axis `model`; it has `data`"
    );
    let twice = Sharding::new(&mesh, &[&[DATA], &[DATA]]).unwrap_err();
    assert_eq!(twice, AxisError::MeshAxisUsedTwice(DATA));
}

#[test]
fn dimensions_that_no_rule_splits_evenly() {
    let mesh = || Mesh::new([(DATA, 2)]).unwrap();
    let rules = LogicalAxisRules::new(mesh(), [(BATCH, vec![DATA])]).unwrap();
    assert_eq!(rules.sharding(&[BATCH], &[4]).unwrap().shards(0), 2);
    let indivisible = rules.sharding(&[BATCH], &[3]).unwrap_err().to_string();
    for part in ["`batch`", "size 3", "2 equal parts", "`data`"] {
        assert!(indivisible.contains(part), "{part} in {indivisible}");
    }
    let g = Graph::new("indivisible");
    g.set_logical_axis_rules(rules);
    let line = line!() + 1;
    g.parameter_with_logical_axes("x", Shape::new(DType::F32, [3]), &[BATCH]);
    let error = g.error().unwrap();
    assert_eq!(error.location.line(), line);
    says(&error, "parameter", &["`x`", "`batch`", "`data`"]);
}

#[test]
fn a_name_without_a_rule_names_its_neighbors() {
    let mesh = || Mesh::new([(DATA, 2)]).unwrap();
    let rules = || LogicalAxisRules::new(mesh(), [(BATCH, vec![DATA]), (EMBED, vec![])]).unwrap();
    let neighbors = ["`bacth`", "`batch`, `embed`"];
    type Build = for<'g> fn(&'g Graph, [Tensor<'g>; 4]) -> u32;
    let misspellings: [(&str, Build); 4] = [
        ("with_logical_axes", |_, [x, ..]| {
            at!(x.with_logical_axes(&[BACTH, EMBED]))
        }),
        ("with_logical_axes", |_, [x, ..]| {
            at!(x.with_logical_axes_except(&[BACTH], &[BATCH, EMBED]))
        }),
        ("parameter", |g, [x, ..]| {
            at!(g.parameter_with_logical_axes("w", x.shape(), &[BACTH, EMBED]))
        }),
        ("splits_evenly", |g, _| at!(g.splits_evenly(BACTH, 4))),
    ];
    for (operation, misspelling) in misspellings {
        let error = mistake(|g, tensors| {
            g.set_logical_axis_rules(rules());
            misspelling(g, tensors)
        });
        says(&error, operation, &neighbors);
    }
    // So does a rule with a mesh axis that the mesh does not have.
    let error = LogicalAxisRules::new(mesh(), [(BATCH, vec![POD, DATA])]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the mesh has no axis `pod`; it has `data`"
    );
}

#[test]
fn donations_that_cannot_be() {
    let bad: [(&[(usize, usize)], &str); 4] = [
        (&[(0, 0)], "f32[4]"),
        (&[(1, 0), (2, 0)], "earlier"),
        (&[(3, 0)], "no result 3"),
        (&[(1, 2)], "no input 2"),
    ];
    for (donations, part) in bad {
        let g = Graph::new("donations");
        let x = g.parameter("x", Shape::new(DType::F32, [2, 3]));
        let y = g.parameter("y", Shape::new(DType::F32, [4]));
        let error = g.finish(&[y, x, x + 1.0], donations).unwrap_err();
        assert_eq!(error.location.line(), line!() - 1);
        says(&error, "donation", &[part]);
    }
}

#[test]
fn programs_that_end_within_a_body() {
    says(
        &mistake(|g, [x, ..]| {
            let mut line = 0;
            g.call("body", &[x], |p| {
                line = at!(g.finish(&[p[0]], &[]));
                p.to_vec()
            });
            line
        }),
        "finish",
        &["outside"],
    );
}

#[test]
fn the_message_reads_place_operation_problem() {
    let g = Graph::new("message");
    let x = g.parameter("x", Shape::new(DType::F32, [2]));
    let y = g.parameter("y", Shape::new(DType::Bf16, [3]));
    let line = line!() + 1;
    let _ = x - y;
    let expected = format!(
        "{}:{line}:13: subtract: f32[2] and bf16[3] do not go together",
        file!()
    );
    assert_eq!(g.error().unwrap().to_string(), expected);
}
