//! The derivatives written by hand, in float64 on the CPU plugin: against central finite
//! differences, and against the derivative that the rules of `hlo` give for the plain formula.

use ankh::config::{LogicalAxis, Loss};
use ankh::model::attention::{
    AttentionMask, Bias, Scores, Segments, causal_mask, kernel_weighted_sum, key_mask,
    relative_for_kernel, weighted_sum, weighted_sum_by,
};
use ankh::model::layers::{gelu, product};
use ankh::model::position::Direction;
use ankh::model::{Targets, token_loss};
use ankh_hlo::{DType, Graph, Literal, Shape, Tensor};
use ankh_mosaic::Lowering;
use ankh_pjrt::HostTensor;

use crate::support::{Random, compile, run};

/// Relative to the largest derivative.
const FINITE_DIFFERENCES: f64 = 1e-6;
const PLAIN_FORMULA: f64 = 1e-10;

/// Truncation error grows with the square of the step, rounding with its inverse; 1e-5 leaves both
/// below 1e-9.
const STEP: f64 = 1e-5;

/// Checks the derivatives of a scalar with respect to arrays of `shapes`, at a random point.
/// `build` gives it twice: with the derivative written by hand, and as the plain formula.
fn check(
    case: &str,
    shapes: &[Vec<i64>],
    random: &mut Random,
    build: impl for<'g> Fn(&'g Graph, &[Tensor<'g>]) -> [Tensor<'g>; 2],
) {
    let g = Graph::new("derivative");
    let inputs: Vec<Tensor<'_>> = shapes
        .iter()
        .enumerate()
        .map(|(i, s)| g.parameter(&format!("x{i}"), Shape::new(DType::F64, s.clone())))
        .collect();
    let [ours, plain] = build(&g, &inputs);
    let mut outputs = vec![ours, plain];
    outputs.extend(g.gradients(ours, &inputs));
    outputs.extend(g.gradients(plain, &inputs));
    let module = g.finish(&outputs, &[]).unwrap();
    let program = compile(&module);

    let mut values: Vec<Vec<f64>> = shapes
        .iter()
        .map(|s| random.signed(s.iter().product()))
        .collect();
    let evaluate = |values: &[Vec<f64>]| -> Vec<Vec<f64>> {
        let tensors = shapes.iter().zip(values);
        let tensors = tensors.map(|(s, v)| HostTensor::new::<f64>(s.clone(), v));
        let outputs = run(&program, &tensors.collect::<Vec<_>>());
        outputs.iter().map(|t| t.to_vec::<f64>().unwrap()).collect()
    };
    let exact = evaluate(&values);
    let (ours, plain) = (exact[0][0], exact[1][0]);
    assert!(
        (ours - plain).abs() <= PLAIN_FORMULA * plain.abs().max(1.0),
        "{case}: the value is {ours} and by the plain formula {plain}"
    );
    let by_hand = &exact[2..2 + shapes.len()];
    let by_rules = &exact[2 + shapes.len()..];
    let numeric: Vec<Vec<f64>> = (0..shapes.len())
        .map(|i| {
            let slope = |e: usize| {
                let at = values[i][e];
                values[i][e] = at + STEP;
                let above = evaluate(&values)[0][0];
                values[i][e] = at - STEP;
                let below = evaluate(&values)[0][0];
                values[i][e] = at;
                (above - below) / (2.0 * STEP)
            };
            (0..by_hand[i].len()).map(slope).collect()
        })
        .collect();
    compare(
        case,
        "the plain formula's",
        by_hand,
        by_rules,
        PLAIN_FORMULA,
    );
    compare(
        case,
        "finite differences",
        by_hand,
        &numeric,
        FINITE_DIFFERENCES,
    );
}

/// Each input's derivative relative to the largest of any input.
fn compare(case: &str, other: &str, found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64) {
    let all = || expected.iter().flatten();
    let largest = all().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        for (e, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= tolerance * largest,
                "{case}: input {i} element {e}: by hand {found:.14}, {other} {expected:.14}, largest {largest:.6}"
            );
        }
    }
}

/// The sum of the elements, each with another weight.
fn mixed<'g>(y: Tensor<'g>) -> Tensor<'g> {
    let count = y.shape().elements();
    let places = y.graph().iota(Shape::new(y.dtype(), [count]), 0);
    ((places * 0.7 + 0.3).sin() * y.reshape(&[count])).sum_all()
}

/// softmax(q k' + relative) v as it is written down, without the keys that are hidden: a pred of
/// `[batch, 1, queries, keys]`.
fn plain_attention<'g>(
    [q, k, v]: [Tensor<'g>; 3],
    relative: Option<Tensor<'g>>,
    hidden: Tensor<'g>,
) -> Tensor<'g> {
    let g = q.graph();
    let scores = g.einsum("bhqk,bhsk->bhqs", q, k);
    let scores = match relative {
        Some(relative) => scores + relative,
        None => scores,
    };
    let scores = hidden.select(scores.full_like(-1e9), scores);
    g.einsum("bhqs,bhsk->bhqk", scores.softmax(), v)
}

/// Which keys a query may not see.
#[derive(Clone, Copy, Debug)]
enum Hidden {
    /// Padding, at random; never the first key.
    Padding,
    /// The keys after the query.
    Later,
    /// Both.
    Both,
    /// Those of other segments.
    Others,
    /// Those, and the keys after the query.
    OthersAndLater,
}

impl Hidden {
    /// Numbers for the positions of `batch` rows, as the variant reads them: 1 on tokens, or
    /// segment numbers and 0 on padding.
    fn numbers(self, random: &mut Random, batch: i64, length: i64) -> Vec<i32> {
        let mut numbers = Vec::new();
        for _ in 0..batch {
            let mut segment = 1;
            for i in 0..length {
                let cut = i > 0 && random.uniform() < 0.4;
                numbers.push(match self {
                    Hidden::Others | Hidden::OthersAndLater => {
                        segment += i32::from(cut);
                        segment % 4
                    }
                    _ => i32::from(!cut),
                });
            }
        }
        numbers
    }

    /// What the model makes of the numbers of queries and keys.
    fn mask<'g>(self, g: &'g Graph, [queries, keys]: [&[i32]; 2], batch: i64) -> AttentionMask<'g> {
        let array = |numbers: &[i32]| {
            let length = numbers.len() as i64 / batch;
            g.literal(Literal::s32(&[batch, length], numbers).unwrap())
        };
        let segments = |direction| {
            AttentionMask::Segments(Segments {
                queries: array(queries),
                keys: array(keys),
                direction,
            })
        };
        let later = || causal_mask(g, keys.len() as i64 / batch);
        match self {
            Hidden::Padding => AttentionMask::Additive(key_mask(array(keys))),
            Hidden::Later => AttentionMask::Additive(later()),
            Hidden::Both => AttentionMask::Additive(key_mask(array(keys)) + later()),
            Hidden::Others => segments(Direction::Bidirectional),
            Hidden::OthersAndLater => segments(Direction::Causal),
        }
    }

    /// Which keys are hidden from which queries, pair by pair.
    fn pairs<'g>(self, g: &'g Graph, [queries, keys]: [&[i32]; 2], batch: i64) -> Tensor<'g> {
        let sizes = [queries, keys].map(|numbers| numbers.len() / batch as usize);
        let mut hidden = Vec::new();
        for (row, queries) in queries.chunks(sizes[0]).enumerate() {
            for (i, query) in queries.iter().enumerate() {
                for (j, key) in keys[row * sizes[1]..][..sizes[1]].iter().enumerate() {
                    hidden.push(i32::from(match self {
                        Hidden::Padding => *key == 0,
                        Hidden::Later => j > i,
                        Hidden::Both => *key == 0 || j > i,
                        Hidden::Others => key != query,
                        Hidden::OthersAndLater => key != query || j > i,
                    }));
                }
            }
        }
        let dims = [batch, 1, sizes[0] as i64, sizes[1] as i64];
        let hidden = g.literal(Literal::s32(&dims, &hidden).unwrap());
        hidden.greater(hidden.zeros_like())
    }
}

/// A way to compute attention for queries, keys and values of `[batch, heads, length, kv]`.
type Attend = for<'g> fn([Tensor<'g>; 3], Bias<'g>) -> Tensor<'g>;

/// Checks it on random shapes, with and without a relative bias.
fn check_attention(attend: Attend, cases: &[(u64, Hidden)]) {
    for &(seed, hidden) in cases {
        for relative in [true, false] {
            let random = &mut Random(seed);
            let [batch, heads, queries, keys, kv] =
                [3, 3, 4, 5, 4].map(|most| 1 + random.below(most));
            // A causal mask is square.
            let queries = match hidden {
                Hidden::Padding | Hidden::Others => queries,
                _ => keys,
            };
            let of_keys = hidden.numbers(random, batch, keys);
            let of_queries = match queries == keys {
                true => of_keys.clone(),
                false => hidden.numbers(random, batch, queries),
            };
            let numbers = [&of_queries[..], &of_keys];
            let mut shapes = vec![
                vec![batch, heads, queries, kv],
                vec![batch, heads, keys, kv],
                vec![batch, heads, keys, kv],
            ];
            if relative {
                shapes.push(vec![heads, queries, keys]);
            }
            let case = format!("seed {seed}, {hidden:?}, {numbers:?}, {shapes:?}");
            check(&case, &shapes, random, |g, x| {
                let (qkv, relative) = ([x[0], x[1], x[2]], x.get(3).copied());
                let bias = Bias {
                    relative,
                    mask: hidden.mask(g, numbers, batch),
                };
                let pairs = hidden.pairs(g, numbers, batch);
                [
                    mixed(attend(qkv, bias)),
                    mixed(plain_attention(qkv, relative, pairs)),
                ]
            });
        }
    }
}

#[test]
fn attention_matches_finite_differences_and_the_plain_formula() {
    let cases = [
        (1, Hidden::Padding),
        (2, Hidden::Later),
        (3, Hidden::Both),
        (4, Hidden::Padding),
        (5, Hidden::Others),
        (6, Hidden::OthersAndLater),
        (8, Hidden::Others),
    ];
    check_attention(|[q, k, v], bias| weighted_sum(q, k, v, bias), &cases);
}

#[test]
fn attention_kernels_match_finite_differences_and_the_plain_formula() {
    let by_kernels: Attend = |qkv, bias| {
        let AttentionMask::Segments(segments) = bias.mask else {
            panic!("the kernels take segments")
        };
        let turned = qkv.map(|t| t.transpose(&[0, 1, 3, 2]));
        let relative = bias.relative.map(relative_for_kernel);
        let y = kernel_weighted_sum(Lowering::Loops, turned, relative, segments);
        y.transpose(&[0, 1, 3, 2])
    };
    let cases = [
        (21, Hidden::Others),
        (22, Hidden::OthersAndLater),
        (23, Hidden::Others),
    ];
    check_attention(by_kernels, &cases);
}

#[test]
fn repeating_the_scores_changes_nothing() {
    // Twelve sequences are three groups of four.
    let shapes = [
        vec![12, 1, 3, 2],
        vec![12, 1, 3, 2],
        vec![12, 1, 3, 2],
        vec![1, 3, 3],
    ];
    for hidden in [Hidden::Both, Hidden::OthersAndLater] {
        let random = &mut Random(11);
        let numbers = hidden.numbers(random, 12, 3);
        check(&format!("{hidden:?}"), &shapes, random, |g, x| {
            let bias = Bias {
                relative: Some(x[3]),
                mask: hidden.mask(g, [&numbers, &numbers], 12),
            };
            [Scores::Recompute, Scores::Keep]
                .map(|way| mixed(weighted_sum_by(way, x[0], x[1], x[2], bias)))
        });
    }
}

#[test]
fn gelu_matches_finite_differences_and_the_plain_formula() {
    check("gelu", &[vec![7, 5]], &mut Random(12), |_, x| {
        let x = x[0] * 4.0;
        let inner = (x + x * x * x * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
        [mixed(gelu(x)), mixed(x * (inner.tanh() + 1.0) * 0.5)]
    });
}

#[test]
fn only_a_narrow_weight_has_a_rounded_gradient() {
    // Over 257 rows of ones it is 257, which bfloat16 does not have.
    let g = Graph::new("product");
    let x = g.full(&Shape::new(DType::Bf16, [1, 257, 2]), 1.0);
    let gradient = |dtype: DType| {
        let w = g.full(&Shape::new(DType::F32, [2, 3]), 1.0).convert(dtype);
        let y = product(x, w, [LogicalAxis::Embed, LogicalAxis::Mlp], DType::Bf16);
        g.gradients(y.convert(DType::F32).sum_all(), &[w])[0].convert(DType::F32)
    };
    let outputs = [DType::F32, DType::Bf16].map(gradient);
    let program = compile(&g.finish(&outputs, &[]).unwrap());
    let [wide, narrow] = &run(&program, &[])[..] else {
        panic!("two outputs")
    };
    assert_eq!(wide.to_vec::<f32>().unwrap(), [257.0; 6]);
    assert_ne!(narrow.to_vec::<f32>().unwrap(), [257.0; 6]);
}

/// The result and the gradients of queries, keys, values and relative bias, for `[batch, heads,
/// length, kv]` = [2, 2, 3, 4].
fn attend(dtype: DType, hidden: Hidden, numbers: [&[i32]; 2]) -> Vec<Vec<f64>> {
    let g = Graph::new("attention");
    let shape = |dims: &[i64]| Shape::new(DType::F64, dims);
    let shapes = [
        shape(&[2, 2, 3, 4]),
        shape(&[2, 2, 3, 4]),
        shape(&[2, 2, 3, 4]),
        shape(&[2, 3, 3]),
    ];
    let names = ["q", "k", "v", "relative"];
    let inputs: Vec<Tensor<'_>> = (names.iter().zip(&shapes))
        .map(|(name, shape)| g.parameter(name, shape.clone()))
        .collect();
    let x: Vec<Tensor<'_>> = inputs.iter().map(|x| x.convert(dtype)).collect();
    let bias = Bias {
        // The bias is float32 whatever the queries are.
        relative: Some(x[3].convert(DType::F32)),
        mask: hidden.mask(&g, numbers, 2),
    };
    let y = weighted_sum(x[0], x[1], x[2], bias);
    let mut outputs = vec![y.convert(DType::F64)];
    outputs.extend(g.gradients(mixed(y.convert(DType::F64)), &inputs));
    let program = compile(&g.finish(&outputs, &[]).unwrap());
    let random = &mut Random(7);
    let tensors =
        shapes.map(|s| HostTensor::new::<f64>(s.dims.clone(), &random.signed(s.elements())));
    let outputs = run(&program, &tensors);
    outputs.iter().map(|t| t.to_vec::<f64>().unwrap()).collect()
}

#[test]
fn a_query_without_visible_keys_stays_finite_and_changes_no_other() {
    let cases = [
        (Hidden::Padding, [1, 1, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0]),
        // The last query is of the second segment, which has no keys in the second row.
        (Hidden::Others, [1, 2, 2, 1, 1, 2], [1, 2, 2, 1, 1, 0]),
    ];
    for (hidden, mask, missing) in cases {
        let queries = [1, 1, 2, 1, 1, 2];
        let mask = attend(DType::F32, hidden, [&queries, &mask]);
        for dtype in [DType::F32, DType::Bf16] {
            let found = attend(dtype, hidden, [&queries, &missing]);
            for value in found.iter().flatten() {
                assert!(value.is_finite(), "{hidden:?}, {dtype:?}");
            }
            if dtype == DType::F32 {
                // The first row's half of the result and of the gradients of queries, keys and
                // values.
                for (found, mask) in found[..4].iter().zip(&mask) {
                    assert_eq!(found[..24], mask[..24], "{hidden:?}");
                }
            }
        }
    }
}

#[test]
fn a_hidden_key_and_its_value_have_no_gradient() {
    // The first row hides key 2 from all queries, the second key 1.
    let cases = [
        (Hidden::Padding, [1; 6], [1, 1, 0, 1, 0, 1]),
        (Hidden::Others, [1, 1, 1, 2, 2, 2], [1, 1, 3, 2, 3, 2]),
    ];
    for (hidden, queries, keys) in cases {
        let found = attend(DType::F32, hidden, [&queries, &keys]);
        for (what, gradient) in [("keys", &found[2]), ("values", &found[3])] {
            for (row, gradient) in gradient.chunks(4).enumerate() {
                // Rows count [batch, heads, keys].
                let expected = matches!((row / 6, row % 3), (0, 2) | (1, 1));
                let zero = gradient.iter().all(|v| *v == 0.0);
                assert_eq!(
                    zero, expected,
                    "{hidden:?}, {what}, row {row}: {gradient:?}"
                );
            }
        }
    }
}

/// The sum over the wanted tokens of `-sum target * log softmax + z_loss * z^2`, written down.
fn plain_loss<'g>(logits: Tensor<'g>, labels: &[i32], loss: &Loss) -> Tensor<'g> {
    let dims = logits.dims();
    let vocabulary = dims[2] as usize;
    let mut one_hot = vec![0f32; labels.len() * vocabulary];
    let mut weights = vec![0f32; labels.len()];
    for (i, &label) in labels.iter().enumerate() {
        if let Ok(label) = usize::try_from(label) {
            one_hot[i * vocabulary + label] = 1.0;
            weights[i] = 1.0;
        }
    }
    let constant = |dims: &[i64], values: &[f32]| {
        let literal = Literal::f32(dims, values).unwrap();
        logits.graph().literal(literal).convert(DType::F64)
    };
    let smoothing = loss.label_smoothing;
    let target = constant(&dims, &one_hot) * (1.0 - smoothing) + smoothing / dims[2] as f64;
    let z = logits.exp().sum(&[2]).log();
    let cost = z.square() * loss.z_loss - (target * (logits - z.expand_dims(&[2]))).sum(&[2]);
    (cost * constant(&dims[..2], &weights)).sum_all()
}

#[test]
fn the_loss_matches_finite_differences_and_the_plain_formula() {
    for (seed, (z_loss, label_smoothing)) in [(0.0, 0.0), (0.3, 0.0), (0.0, 0.2), (0.1, 0.1)]
        .into_iter()
        .enumerate()
    {
        let random = &mut Random(seed as u64);
        let [batch, length] = [3, 4].map(|most| 1 + random.below(most));
        let vocabulary = 2 + random.below(6);
        let loss = Loss {
            z_loss,
            label_smoothing,
        };
        let labels: Vec<i32> = (0..batch * length)
            .map(|i| {
                let label = random.below(vocabulary) as i32;
                let ignored = i > 0 && random.uniform() < 0.3;
                if ignored { -100 } else { label }
            })
            .collect();
        let shape = vec![batch, length, vocabulary];
        let case = format!("seed {seed}, {loss:?}, {shape:?}");
        check(&case, &[shape], random, |g, x| {
            let targets = Literal::s32(&[batch, length], &labels).unwrap();
            let ours = token_loss(x[0] * 2.0, Targets(g.literal(targets)), &loss);
            let plain = plain_loss(x[0] * 2.0, &labels, &loss);
            [ours.objective, plain].map(|objective| objective * 0.7)
        });
    }
}
