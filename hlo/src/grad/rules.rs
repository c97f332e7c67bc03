//! The table of derivatives (VJPs): for each operation, the cotangents of its inputs from that of
//! its output.

use super::dot::inverse;
use super::{ResultCotangents, VjpContext, bodies};
use crate::graph::Tensor;
use crate::ir::{Binary, Op, PadDim, Reduction, Unary};
use crate::shape::{DType, Shape, Size, list};

/// One cotangent an input; `None` where it is not wanted or is zero everywhere.
pub(super) type Cotangents<'g> = Vec<Option<Tensor<'g>>>;

/// Why there is no VJP.
#[derive(Debug, thiserror::Error)]
pub(super) enum VjpError {
    #[error("there is no rule for {0}")]
    NoRule(&'static str),
    #[error("a while loop has none; use a scan")]
    While,
    #[error("the hand-written rule gives {}, for inputs of {}", list(.found), list(.expected))]
    CustomShapes {
        found: Vec<Shape>,
        expected: Vec<Shape>,
    },
    #[error("{0} is padded too far")]
    Padding(Shape),
}

/// Applies the rule of the context's operation to the cotangents of its results.
pub(super) fn apply<'g>(
    n: &VjpContext<'g, '_, '_>,
    results: &ResultCotangents<'g>,
) -> Result<Cotangents<'g>, VjpError> {
    // The cotangent of an operation's only result, where it has one.
    let dy = *results
        .values()
        .next()
        .expect("a node is reached through one of its results");
    Ok(match &n.node.op {
        Op::Scan(scan) => bodies::scan(n, scan, results),
        Op::Call { function } => bodies::call(n, function, results),
        Op::Conditional { on_true, on_false } => bodies::conditional(n, on_true, on_false, results),
        Op::OptimizationBarrier => {
            let one = |i: usize| results.get(&i).copied();
            (0..n.node.inputs.len()).map(one).collect()
        }
        Op::While { .. } => return Err(VjpError::While),
        Op::Unary(op) => vec![unary(*op, n, dy)],
        Op::Binary(op) => binary(*op, n, dy),
        Op::Select => {
            let zero = dy.zeros_like();
            vec![
                None,
                n.cotangent(1, || n.input(0).select(dy, zero)),
                n.cotangent(2, || n.input(0).select(zero, dy)),
            ]
        }
        Op::Convert => vec![Some(dy.convert(n.input_shape(0).dtype))],
        Op::Broadcast { dims } => {
            let added: Vec<i64> = (0..dy.rank() as i64)
                .filter(|d| !dims.contains(d))
                .collect();
            vec![Some(dy.sum(&added))]
        }
        Op::Reshape => vec![Some(dy.reshape(&n.input_shape(0).dims))],
        Op::Transpose { permutation } => vec![Some(dy.transpose(&inverse(permutation)))],
        Op::Dot { dims } => {
            // A product accumulated in a wider type is differentiated in the operands' own.
            let (lhs, rhs) = (n.input_shape(0), n.input_shape(1));
            let dy = dy.convert(lhs.dtype);
            vec![
                n.cotangent(0, || dims.lhs_cotangent(dy, n.input(1), &lhs)),
                n.cotangent(1, || dims.rhs_cotangent(n.input(0), dy, &rhs)),
            ]
        }
        Op::Reduce {
            kind: Reduction::Sum,
            dims,
        } => vec![Some(spread(dy, dims, &n.input_shape(0).dims))],
        Op::Reduce { dims, .. } => {
            // Elements that share the extreme share its gradient.
            let x = n.input(0);
            let chosen = x
                .equal(spread(n.output(), dims, &x.dims()))
                .convert(x.dtype());
            vec![Some(
                chosen * spread(dy / chosen.sum(dims), dims, &x.dims()),
            )]
        }
        Op::Slice { start, stride, .. } => {
            let whole = n.input_shape(0).dims;
            let size = dy.dims();
            // What was sliced lies within the array, so that no sum here is larger than its
            // dimensions.
            let pads = (0..whole.len()).map(|i| {
                let covered = start[i]
                    + if size[i] == 0 {
                        0
                    } else {
                        (size[i] - 1) * stride[i] + 1
                    };
                PadDim {
                    low: start[i],
                    high: whole[i] - covered,
                    interior: stride[i] - 1,
                }
            });
            vec![Some(dy.pad(
                &pads.collect::<Vec<_>>(),
                n.graph().scalar(dy.dtype(), 0.0),
            ))]
        }
        Op::DynamicSlice { .. } => {
            let zeros = n.graph().zeros(&n.input_shape(0));
            only_first(zeros.dynamic_update_slice(dy, &n.inputs_from(1)), n)
        }
        Op::DynamicUpdateSlice => {
            let update = n.input_shape(1);
            let starts = n.inputs_from(2);
            let mut out = vec![None; n.node.inputs.len()];
            out[0] = n.cotangent(0, || {
                dy.dynamic_update_slice(n.graph().zeros(&update), &starts)
            });
            out[1] = n.cotangent(1, || dy.dynamic_slice(&starts, &update.dims));
            out
        }
        Op::Pad { dims } => pad(n, dims, dy)?,
        Op::Concatenate { dim } => {
            let mut start = 0;
            let part = |i: usize| {
                let limit = start + n.input_shape(i).dims[*dim as usize];
                Some(dy.slice_dim(*dim as usize, std::mem::replace(&mut start, limit), limit))
            };
            (0..n.node.inputs.len()).map(part).collect()
        }
        Op::Reverse { dims } => vec![Some(dy.reverse(dims))],
        Op::GatherRows => {
            // Where an index was clamped, so is its gradient's.
            let table = n.input_shape(0);
            let at = n.input(1);
            let inside = at
                .maximum(at.full_like(0.0))
                .minimum(at.full_like((table.dims[0] - 1) as f64));
            only_first(n.graph().zeros(&table).scatter_add_rows(inside, dy), n)
        }
        Op::ScatterAddRows => {
            let update = || {
                // An update that was dropped has no gradient.
                let (at, rows) = (n.input(1), n.input_shape(0).dims[0]);
                let kept = at.greater_equal(at.full_like(0.0)) & at.less(at.full_like(rows as f64));
                let rows: Vec<i64> = (at.rank() as i64..n.input_shape(2).rank() as i64).collect();
                let kept = kept.expand_dims(&rows);
                let read = dy.gather_rows(at);
                kept.select(read, read.zeros_like())
            };
            vec![Some(dy), None, n.cotangent(2, update)]
        }
        Op::CheckpointName { .. } => vec![Some(dy)],
        Op::ShardingConstraint { sharding } => {
            vec![Some(dy.with_sharding_constraint(sharding.clone()))]
        }
        Op::CustomVjp { inputs, rule } => {
            // Mistakes within the rule are at the rule's own lines.
            let dx = {
                let scope = n.graph().scope_here();
                let _attribution = n.graph().attribute(scope, None);
                let rule = n.graph().vjp_rule(*rule);
                rule.apply(&n.inputs_from(1), n.output(), dy)
            };
            let found: Vec<Shape> = dx.iter().map(|t| t.shape()).collect();
            let expected: Vec<Shape> = (1..=*inputs).map(|i| n.input_shape(i)).collect();
            if found != expected {
                return Err(VjpError::CustomShapes { found, expected });
            }
            let mut out = vec![None];
            out.extend(dx.into_iter().map(Some));
            out.resize(n.node.inputs.len(), None);
            out
        }
        // None of these has an input that a cotangent could go to, or its results are no functions
        // of the inputs that have a derivative that is known here.
        Op::Invalid
        | Op::Parameter { .. }
        | Op::Constant(_)
        | Op::Iota { .. }
        | Op::Compare(_)
        | Op::RngBits { .. }
        | Op::GetTupleElement { .. }
        | Op::CustomCall(_)
        | Op::ManualComputation(_)
        | Op::StopGradient => return Err(VjpError::NoRule(n.node.op.name())),
    })
}

fn unary<'g>(op: Unary, n: &VjpContext<'g, '_, '_>, dy: Tensor<'g>) -> Option<Tensor<'g>> {
    let x = || n.input(0);
    let y = || n.output();
    Some(match op {
        Unary::Abs => dy * x().sign(),
        Unary::Cos => -(dy * x().sin()),
        Unary::Erf => dy * (-x().square()).exp() * std::f64::consts::FRAC_2_SQRT_PI,
        Unary::Exp => dy * y(),
        Unary::Expm1 => dy * (y() + 1.0),
        Unary::Log => dy / x(),
        Unary::Log1p => dy / (x() + 1.0),
        Unary::Logistic => dy * y() * (1.0 - y()),
        Unary::Neg => -dy,
        Unary::Rsqrt => dy * y() * y().square() * -0.5,
        Unary::Sin => dy * x().cos(),
        Unary::Sqrt => dy * 0.5 / y(),
        Unary::Tanh => dy * (1.0 - y().square()),
        Unary::Ceil | Unary::Floor | Unary::Sign | Unary::Not => return None,
    })
}

fn binary<'g>(op: Binary, n: &VjpContext<'g, '_, '_>, dy: Tensor<'g>) -> Cotangents<'g> {
    let x = || n.input(0);
    let y = || n.input(1);
    match op {
        Binary::Add => vec![Some(dy), Some(dy)],
        Binary::Sub => vec![Some(dy), n.cotangent(1, || -dy)],
        Binary::Mul => vec![n.cotangent(0, || dy * y()), n.cotangent(1, || dy * x())],
        Binary::Div => vec![
            n.cotangent(0, || dy / y()),
            n.cotangent(1, || -(dy * n.output() / y())),
        ],
        // At a tie each gets half.
        Binary::Max | Binary::Min => {
            let share = |a: Tensor<'g>, b: Tensor<'g>| {
                let ahead = if op == Binary::Max {
                    a.greater(b)
                } else {
                    a.less(b)
                };
                ahead.select(dy, a.equal(b).select(dy * 0.5, dy.zeros_like()))
            };
            vec![
                n.cotangent(0, || share(x(), y())),
                n.cotangent(1, || share(y(), x())),
            ]
        }
        Binary::Pow => vec![
            n.cotangent(0, || dy * y() * x().pow(y() - 1.0)),
            // 0^y stays 0 as y changes.
            n.cotangent(1, || {
                x().equal(x().zeros_like())
                    .select(dy.zeros_like(), dy * n.output() * x().log())
            }),
        ],
        // x - y trunc(x / y)
        Binary::Rem => vec![
            Some(dy),
            n.cotangent(1, || {
                let quotient = x() / y();
                -(dy * quotient.sign() * quotient.abs().floor())
            }),
        ],
        Binary::And | Binary::Or | Binary::Xor | Binary::ShiftLeft | Binary::ShiftRight => {
            vec![None, None]
        }
    }
}

fn pad<'g>(
    n: &VjpContext<'g, '_, '_>,
    dims: &[PadDim],
    dy: Tensor<'g>,
) -> Result<Cotangents<'g>, VjpError> {
    // Where padding was negative the cropped elements get zeros back; then every kept element is
    // read.
    let back = |p: &PadDim| {
        let cropped = |edge: i64| (Size::from(0) - edge.min(0)).get();
        Some(PadDim {
            low: cropped(p.low)?,
            high: cropped(p.high)?,
            interior: 0,
        })
    };
    let size = n.input_shape(0).dims;
    let start: Vec<i64> = dims.iter().map(|p| p.low.max(0)).collect();
    let stride = |p: &PadDim| (Size::from(p.interior) + 1).get();
    let limit = |i: usize| match size[i] {
        0 => Some(start[i]),
        size => ((Size::from(dims[i].interior) + 1) * (size - 1) + start[i] + 1).get(),
    };
    let far = || VjpError::Padding(n.input_shape(0));
    let back: Option<Vec<PadDim>> = dims.iter().map(back).collect();
    let stride: Option<Vec<i64>> = dims.iter().map(stride).collect();
    let limit: Option<Vec<i64>> = (0..size.len()).map(limit).collect();
    let whole = dy.pad(&back.ok_or_else(far)?, n.graph().scalar(dy.dtype(), 0.0));
    let kept = whole.strided_slice(&start, &limit.ok_or_else(far)?, &stride.ok_or_else(far)?);
    Ok(vec![
        Some(kept),
        n.cotangent(1, || dy.sum_all() - kept.sum_all()),
    ])
}

fn only_first<'g>(dx: Tensor<'g>, n: &VjpContext<'g, '_, '_>) -> Cotangents<'g> {
    let mut out = vec![None; n.node.inputs.len()];
    out[0] = Some(dx);
    out
}

/// Repeats `t` along the dimensions `dims` that a reduction of an array of `to` removed.
fn spread<'g>(t: Tensor<'g>, dims: &[i64], to: &[i64]) -> Tensor<'g> {
    let kept: Vec<i64> = (0..to.len() as i64).filter(|d| !dims.contains(d)).collect();
    t.broadcast_in_dims(to, &kept)
}

impl<'g> VjpContext<'g, '_, '_> {
    /// The cotangent of input `i`, computed only where it is wanted, so that no value is saved in
    /// vain.
    fn cotangent(&self, i: usize, compute: impl FnOnce() -> Tensor<'g>) -> Option<Tensor<'g>> {
        (self.wanted[i] && self.input_shape(i).dtype != DType::Pred).then(compute)
    }
}
