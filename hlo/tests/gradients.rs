//! Every derivative rule against central finite differences, in float64 on the CPU plugin.
//!
//! A case builds an array from inputs of random shapes; its elements, weighted differently, are
//! summed to a scalar whose derivative with respect to each element of each input is compared.

mod support;

use ankh_hlo::{
    AxisName, DType, DotDims, Graph, Literal, PadDim, Remat, ScanOptions, Shape, Tensor,
};
use ankh_pjrt::HostTensor;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const DATA: AxisName = AxisName::new("data");
const BATCH: AxisName = AxisName::new("batch");
const EMBED: AxisName = AxisName::new("embed");

/// Relative to the largest derivative.
const TOLERANCE: f64 = 1e-6;

/// Truncation error grows with the square of the step, rounding with its inverse; 1e-5 leaves both
/// below 1e-9.
const STEP: f64 = 1e-5;

/// Where the inputs lie.
#[derive(Clone, Copy, Debug)]
enum Domain {
    /// -1 to 1, away from 0, where some functions bend.
    Signed,
    /// 0.3 to 1.7.
    Positive,
    /// Small differences between any two elements are excluded: for maxima.
    Distinct,
}

/// Checks the derivative of `build` at random points of the inputs' `shapes`.
fn check(
    name: &str,
    domain: Domain,
    shapes: &[Vec<i64>],
    seed: u64,
    build: impl for<'g> Fn(&'g Graph, &[Tensor<'g>]) -> Tensor<'g>,
) {
    let g = Graph::new(name);
    let inputs: Vec<Tensor<'_>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| g.parameter(&format!("x{i}"), Shape::new(DType::F64, s.clone())))
        .collect();
    let loss = weighted_sum(build(&g, &inputs));
    let gradients = g.gradients(loss, &inputs);
    let outputs: Vec<Tensor<'_>> = [loss].into_iter().chain(gradients).collect();
    let module = g
        .finish(&outputs, &[])
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let program = support::compile(&module);

    let mut values: Vec<Vec<f64>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| random(domain, s, seed * 64 + i as u64))
        .collect();
    let run = |values: &[Vec<f64>]| {
        let tensors: Vec<HostTensor> = shapes
            .iter()
            .zip(values)
            .map(|(s, v)| HostTensor::new::<f64>(s.clone(), v))
            .collect();
        program
            .run(&tensors)
            .iter()
            .map(|t| t.to_vec::<f64>().unwrap())
            .collect::<Vec<_>>()
    };
    let exact = run(&values);
    let mut worst = (0.0, 0, 0, 0.0, 0.0);
    let mut largest: f64 = 1e-3;
    for i in 0..shapes.len() {
        for e in 0..values[i].len() {
            let at = values[i][e];
            values[i][e] = at + STEP;
            let above = run(&values)[0][0];
            values[i][e] = at - STEP;
            let below = run(&values)[0][0];
            values[i][e] = at;
            let numeric = (above - below) / (2.0 * STEP);
            let found = exact[1 + i][e];
            largest = largest.max(numeric.abs());
            if (numeric - found).abs() > worst.0 || found.is_nan() {
                worst = ((numeric - found).abs(), i, e, numeric, found);
            }
        }
    }
    assert!(
        worst.0 <= TOLERANCE * largest && !worst.4.is_nan(),
        "{name} on {shapes:?}, seed {seed}: input {} element {}: finite differences give {:.12}, the rule {:.12}, largest {largest:.6}",
        worst.1,
        worst.2,
        worst.3,
        worst.4,
    );
}

/// The sum of the elements, each with another weight.
fn weighted_sum(y: Tensor<'_>) -> Tensor<'_> {
    let count = y.shape().elements();
    let places = y.graph().iota(Shape::new(DType::F64, [count]), 0);
    ((places * 0.7 + 0.3).sin() * y.reshape(&[count])).sum_all()
}

/// Pseudo-random numbers (SplitMix64), so that a failing seed can be run again.
fn random(domain: Domain, shape: &[i64], seed: u64) -> Vec<f64> {
    let count: i64 = shape.iter().product();
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95);
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    match domain {
        Domain::Signed => (0..count)
            .map(|_| {
                let x = uniform() * 1.6 - 0.8;
                x + 0.2 * x.signum()
            })
            .collect(),
        Domain::Positive => (0..count).map(|_| 0.3 + 1.4 * uniform()).collect(),
        Domain::Distinct => {
            let mut places: Vec<usize> = (0..count as usize).collect();
            for i in (1..places.len()).rev() {
                places.swap(i, (uniform() * (i + 1) as f64) as usize);
            }
            let offset = 0.01 * uniform();
            places
                .iter()
                .map(|&p| 0.1 * p as f64 + offset - 0.4)
                .collect()
        }
    }
}

/// Runs `test` on random seeds and dimensions of `rank`, each 1 to 4.
fn for_random_dims(rank: usize, test: impl Fn(Vec<i64>, u64)) {
    let mut runner = TestRunner::new(Config {
        cases: 4,
        failure_persistence: None,
        ..Config::default()
    });
    let strategy = (prop::collection::vec(1i64..5, rank), 0u64..1_000_000);
    runner
        .run(&strategy, |(dims, seed)| {
            test(dims, seed);
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn unary_rules_match_finite_differences() {
    type Rule = for<'g> fn(Tensor<'g>) -> Tensor<'g>;
    let rules: [(&str, Domain, Rule); 17] = [
        ("abs", Domain::Signed, |x| x.abs()),
        ("ceil", Domain::Signed, |x| x.ceil() * x),
        ("cos", Domain::Signed, |x| x.cos()),
        ("erf", Domain::Signed, |x| x.erf()),
        ("exp", Domain::Signed, |x| x.exp()),
        ("expm1", Domain::Signed, |x| x.expm1()),
        ("floor", Domain::Signed, |x| x.floor() * x),
        ("log", Domain::Positive, |x| x.log()),
        ("log1p", Domain::Positive, |x| x.log1p()),
        ("logistic", Domain::Signed, |x| x.logistic()),
        ("neg", Domain::Signed, |x| -x),
        ("rsqrt", Domain::Positive, |x| x.rsqrt()),
        ("sign", Domain::Signed, |x| x.sign() * x),
        ("sin", Domain::Signed, |x| x.sin()),
        ("sqrt", Domain::Positive, |x| x.sqrt()),
        ("square", Domain::Signed, |x| x.square()),
        ("tanh", Domain::Signed, |x| x.tanh()),
    ];
    for (name, domain, rule) in rules {
        for_random_dims(2, |dims, seed| {
            check(name, domain, &[dims], seed, |_, x| rule(x[0]))
        });
    }
}

#[test]
fn binary_rules_match_finite_differences() {
    type Rule = for<'g> fn(Tensor<'g>, Tensor<'g>) -> Tensor<'g>;
    let rules: [(&str, Domain, Rule); 8] = [
        ("add", Domain::Signed, |x, y| x + y * y),
        ("sub", Domain::Signed, |x, y| x * x - y),
        ("mul", Domain::Signed, |x, y| x * y),
        ("div", Domain::Positive, |x, y| x / y),
        ("max", Domain::Signed, |x, y| x.maximum(y) * x),
        ("min", Domain::Signed, |x, y| x.minimum(y) * y),
        ("pow", Domain::Positive, |x, y| x.pow(y)),
        ("rem", Domain::Positive, |x, y| (y * 1.5 + x * 0.05) % y),
    ];
    for (name, domain, rule) in rules {
        // The second operand is broadcast along the first dimension.
        for_random_dims(2, |dims, seed| {
            let second = vec![dims[1]];
            check(name, domain, &[dims, second], seed, |_, x| rule(x[0], x[1]));
        });
    }
}

#[test]
fn structural_rules_match_finite_differences() {
    type Rule = for<'g> fn(&'g Graph, &[Tensor<'g>]) -> Tensor<'g>;
    let rules: [(&str, Rule); 14] = [
        ("select", |_, x| {
            x[0].greater(x[0].zeros_like())
                .select(x[0] * x[0], x[0] * 3.0)
        }),
        ("convert", |_, x| x[0].square().convert(DType::F64)),
        ("broadcast", |_, x| {
            let d = x[0].dims();
            x[0].square()
                .broadcast_in_dims(&[d[0], 2, d[1], d[2]], &[0, 2, 3])
        }),
        ("reshape", |_, x| {
            x[0].square().reshape(&[x[0].shape().elements()])
        }),
        ("transpose", |_, x| x[0].square().transpose(&[2, 0, 1])),
        ("slice", |_, x| {
            let d = x[0].dims();
            x[0].square()
                .strided_slice(&[d[0] / 2, 0, 0], &d, &[1, 2, 3])
        }),
        ("dynamic_slice", |g, x| {
            let d = x[0].dims();
            let at = |v| g.scalar(DType::S32, v);
            x[0].square()
                .dynamic_slice(&[at(1.0), at(0.0), at(2.0)], &[d[0], d[1].min(2), 1])
        }),
        ("dynamic_update_slice", |g, x| {
            let d = x[0].dims();
            let at = |v| g.scalar(DType::S32, v);
            let update = x[0].slice(&[0, 0, 0], &[1, d[1], 1]).exp();
            x[0].square()
                .dynamic_update_slice(update, &[at(1.0), at(0.0), at(0.0)])
        }),
        ("pad", |_, x| {
            let filling = x[0].mean_all();
            let d = x[0].dims();
            let crop = if d[1] > 1 { -1 } else { 0 };
            let dims = [
                PadDim {
                    low: 1,
                    high: 2,
                    interior: 1,
                },
                PadDim {
                    low: crop,
                    high: 1,
                    interior: 0,
                },
                PadDim {
                    low: 0,
                    high: 0,
                    interior: 2,
                },
            ];
            x[0].square().pad(&dims, filling)
        }),
        ("concatenate", |g, x| {
            g.concatenate(&[x[0].square(), x[0] * 2.0, x[0].exp()], 1)
        }),
        ("reverse", |_, x| x[0].square().reverse(&[0, 2])),
        ("optimization_barrier", |g, x| {
            let out = g.optimization_barrier(&[x[0].square(), x[0].exp()]);
            out[0] * out[1]
        }),
        ("checkpoint_name", |_, x| {
            x[0].square().checkpoint_name("here").exp()
        }),
        ("stop_gradient_in_softmax", |_, x| {
            x[0].softmax() + x[0].log_sum_exp().expand_dims(&[2])
        }),
    ];
    for (name, rule) in rules {
        for_random_dims(3, |dims, seed| {
            check(name, Domain::Signed, &[dims], seed, rule)
        });
    }
}

#[test]
fn reductions_match_finite_differences() {
    type Rule = for<'g> fn(Tensor<'g>) -> Tensor<'g>;
    let rules: [(&str, Domain, Rule); 5] = [
        ("sum", Domain::Signed, |x| x.square().sum(&[0, 2])),
        ("mean", Domain::Signed, |x| x.square().mean(&[1])),
        ("max", Domain::Distinct, |x| x.max(&[1])),
        ("min", Domain::Distinct, |x| x.min(&[0, 1])),
        ("max_all", Domain::Distinct, |x| x.max(&[0, 1, 2])),
    ];
    for (name, domain, rule) in rules {
        for_random_dims(3, |dims, seed| {
            check(name, domain, &[dims], seed, |_, x| rule(x[0]))
        });
    }
}

#[test]
fn products_match_finite_differences() {
    for equation in [
        "ab,bc->ac",
        "bqhk,bshk->bhqs",
        "bhqs,bshk->bqhk",
        "abc,cbd->da",
        "ab,cd->cabd",
        "a,a->",
        "abc,abc->ca",
    ] {
        for_random_dims(6, |dims, seed| {
            let size = |c: char| dims[(c as usize - 'a' as usize) % 6];
            let (inputs, _) = equation.split_once("->").unwrap();
            let (x, y) = inputs.split_once(',').unwrap();
            let shapes: Vec<Vec<i64>> = [x, y]
                .iter()
                .map(|s| s.chars().map(size).collect())
                .collect();
            check(equation, Domain::Signed, &shapes, seed, |g, x| {
                g.einsum(equation, x[0], x[1])
            });
        });
    }
    // Contracted dimensions that stand in another order left and right.
    for_random_dims(4, |d, seed| {
        let shapes = [vec![d[0], d[1], d[2]], vec![d[2], d[3], d[1]]];
        check("dot_general", Domain::Signed, &shapes, seed, |_, x| {
            let dims = DotDims {
                lhs_contract: vec![2, 1],
                rhs_contract: vec![0, 2],
                ..DotDims::default()
            };
            x[0].dot_general(x[1], dims, None)
        });
    });
}

#[test]
fn row_rules_match_finite_differences() {
    for_random_dims(2, |dims, seed| {
        // Some lie outside: they are read at the edge, and added nowhere.
        let indices: Vec<i32> = (0..6)
            .map(|i| (i * 7 + (seed % 5) as i32) % (dims[0] as i32 + 2) - 1)
            .collect();
        let indices = Literal::s32(&[2, 3], &indices).expect("six indices");
        check(
            "gather_rows",
            Domain::Signed,
            std::slice::from_ref(&dims),
            seed,
            |g, x| x[0].square().gather_rows(g.literal(indices.clone())),
        );
        let updates = vec![2, 3, dims[1]];
        check(
            "scatter_add_rows",
            Domain::Signed,
            &[dims.clone(), updates],
            seed,
            |g, x| {
                x[0].square()
                    .scatter_add_rows(g.literal(indices.clone()), x[1].exp())
            },
        );
    });
}

#[test]
fn sharding_constraints_pass_gradients() {
    use ankh_hlo::{LogicalAxisRules, Mesh};
    for_random_dims(2, |dims, seed| {
        check(
            "with_logical_axes",
            Domain::Signed,
            &[dims],
            seed,
            |g, x| {
                let rules = [(BATCH, vec![DATA]), (EMBED, vec![])];
                let mesh = Mesh::new([(DATA, 1)]).unwrap();
                g.set_logical_axis_rules(LogicalAxisRules::new(mesh, rules).unwrap());
                x[0].square().with_logical_axes(&[BATCH, EMBED]).exp()
            },
        );
    });
}

#[test]
fn branches_and_calls_match_finite_differences() {
    for_random_dims(2, |dims, seed| {
        for taken in [true, false] {
            let shapes = [dims.clone(), dims.clone()];
            check("conditional", Domain::Signed, &shapes, seed, |g, x| {
                let which = g.scalar(DType::Pred, f64::from(u8::from(taken)));
                let out = g.conditional(which, || vec![x[0].exp() * x[1]], || vec![x[0].square()]);
                out[0] * x[0]
            });
        }
        check(
            "call",
            Domain::Signed,
            &[dims.clone(), dims],
            seed,
            |g, x| {
                let out = g.call("twice", &[x[0]], |p| vec![p[0].exp() * x[1], p[0].square()]);
                out[0] * out[1]
            },
        );
    });
}

#[test]
fn hand_written_rules_are_used_and_match() {
    for_random_dims(2, |dims, seed| {
        check(
            "custom_vjp",
            Domain::Signed,
            &[dims.clone(), dims],
            seed,
            |_, x| {
                let e = x[0].exp();
                (e * x[1]).custom_vjp(&[x[0], x[1]], &[e], |operands, output, dy| {
                    vec![dy * output, dy * operands[2]]
                })
            },
        );
    });
}

/// A loop with all that a scan can have: two carries, slices, results, constants from outside and
/// from further outside, an integer carry, and a named value.
fn loop_program<'g>(g: &'g Graph, x: &[Tensor<'g>], options: ScanOptions) -> Tensor<'g> {
    let outside = x[2].exp();
    let count = g.scalar(DType::S32, 0.0);
    let (carries, results) = g.scan(options, &[x[0], x[0].square(), count], &[x[1]], |c, s| {
        let mixed = g
            .einsum("ab,bc->ac", c[0], outside)
            .tanh()
            .checkpoint_name("mixed");
        let next = mixed * s[0] + c[1] * 0.3;
        let scaled = c[2].convert(DType::F64) * 0.1 + 1.0;
        (
            vec![next, (c[1] * c[0]).sin(), c[2] + 1.0],
            vec![mixed.exp() * scaled, c[0] * 2.0],
        )
    });
    let all = results[0].sum(&[0]) + results[1].max(&[0]) * carries[0];
    all + carries[1] * carries[2].convert(DType::F64)
}

#[test]
fn scans_match_finite_differences_under_each_remat_policy() {
    let policies = [
        Remat::SaveNothing,
        Remat::SaveAll,
        Remat::Named(vec!["mixed".into()]),
        Remat::Named(vec!["absent".into()]),
    ];
    for (i, remat) in policies.into_iter().enumerate() {
        for_random_dims(3, |d, seed| {
            let (n, m, steps) = (d[0], d[1], d[2]);
            let shapes = [vec![n, m], vec![steps, n, m], vec![m, m]];
            let options = ScanOptions {
                remat: remat.clone(),
                reverse: (seed + i as u64).is_multiple_of(2),
                ..ScanOptions::default()
            };
            check("scan", Domain::Signed, &shapes, seed, |g, x| {
                loop_program(g, x, options.clone())
            });
        });
    }
}

#[test]
fn unrolled_scans_match_finite_differences() {
    for (unroll, reverse) in [(2, false), (2, true), (4, false), (4, true)] {
        for remat in [Remat::SaveNothing, Remat::SaveAll] {
            let options = ScanOptions {
                remat,
                reverse,
                unroll,
                ..ScanOptions::default()
            };
            let shapes = [vec![2, 3], vec![4, 2, 3], vec![3, 3]];
            check("unrolled scan", Domain::Signed, &shapes, 1, |g, x| {
                loop_program(g, x, options.clone())
            });
        }
    }
}

#[test]
fn nested_scans_match_finite_differences() {
    for remat in [
        Remat::SaveNothing,
        Remat::SaveAll,
        Remat::Named(vec!["inner".into()]),
    ] {
        for_random_dims(2, |d, seed| {
            let shapes = [vec![d[0]], vec![d[1], 2, d[0]], vec![d[0]]];
            check("nested", Domain::Signed, &shapes, seed, |g, x| {
                let options = || ScanOptions {
                    remat: remat.clone(),
                    ..ScanOptions::default()
                };
                let (last, ys) = g.scan(options(), &[x[0]], &[x[1]], |c, s| {
                    let scale = c[0].cos();
                    let (inner, out) = g.scan(options(), &[c[0]], &[s[0]], |c, s| {
                        let y = (c[0] * s[0] * x[2]).sin().checkpoint_name("inner") * scale;
                        (vec![y + c[0]], vec![y.square()])
                    });
                    (vec![inner[0]], vec![out[0].sum(&[0])])
                });
                last[0] + ys[0].sum(&[0])
            });
        });
    }
}

#[test]
fn gradients_inside_a_scan_match_finite_differences() {
    // What gradient accumulation does: the derivative is taken within the loop's body.
    let g = Graph::new("accumulate");
    let w = g.parameter("w", Shape::new(DType::F64, [3]));
    let xs = g.parameter("xs", Shape::new(DType::F64, [4, 3]));
    let (sum, _) = g.scan(ScanOptions::default(), &[w.zeros_like()], &[xs], |c, s| {
        let loss = (w * s[0]).sin().sum_all();
        (vec![c[0] + g.gradients(loss, &[w])[0]], vec![])
    });
    let whole = (w * xs).sin().sum_all();
    let direct = g.gradients(whole, &[w])[0];
    let module = g.finish(&[sum[0], direct], &[]).unwrap();
    let inputs = [
        HostTensor::new::<f64>([3], &random(Domain::Signed, &[3], 1)),
        HostTensor::new::<f64>([4, 3], &random(Domain::Signed, &[4, 3], 2)),
    ];
    let out = support::compile(&module).run(&inputs);
    let (accumulated, direct) = (
        out[0].to_vec::<f64>().unwrap(),
        out[1].to_vec::<f64>().unwrap(),
    );
    for (a, b) in accumulated.iter().zip(&direct) {
        assert!((a - b).abs() < 1e-12, "{accumulated:?} {direct:?}");
    }
}

#[test]
fn a_while_loop_refuses_to_be_differentiated() {
    let g = Graph::new("while");
    let x = g.parameter("x", Shape::new(DType::F32, []));
    let out = g.while_loop(
        &[x],
        |s| s[0].less(g.scalar(DType::F32, 10.0)),
        |s| vec![s[0] * 2.0],
    );
    let _ = g.gradients(out[0], &[x]);
    let message = g.finish(&[out[0]], &[]).unwrap_err().to_string();
    assert!(
        message.contains("while") && message.contains("scan"),
        "{message}"
    );
}
