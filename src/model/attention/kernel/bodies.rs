//! The kernels: what each place computes.

use ankh_hlo::{DType, Shape, Tensor};
use ankh_mosaic::{Carried, Kernel, Output, Step};

use super::super::{MASK_VALUE, accumulation_dtype};
use super::Direction;
use super::sizes::{Axes, BIAS_AT, K, Q, Sizes, V};

/// What a backward kernel gives.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gradients {
    /// Those of queries, keys, values and, where there is one, the relative bias.
    All,
    /// The first three.
    Operands,
    /// The last.
    Relative,
}

impl Sizes {
    /// q, k, v, the bias, the masks, to the weighted sums and the logarithms of the sums.
    pub fn forward(self) -> Kernel {
        let axes = Axes {
            heads: 0,
            queries: Some(1),
            batch: 2,
        };
        let grid = [self.heads, self.blocks(), self.groups()];
        let kernel = Kernel::new(&self.name("forward"), &grid);
        self.with_inputs(kernel, axes)
            .output(Output::Each(self.query(axes)))
            .output(Output::Each(self.sums(axes)))
            .body(move |step| {
                self.each_sequence(|sequence| {
                    let x = self.operands(step, sequence);
                    let scores = self.scores(step, axes, &x);
                    let max = scores.max(&[0]).expand_dims(&[0]);
                    let exp = (scores - max).exp();
                    let sum = exp.sum(&[0]).expand_dims(&[0]);
                    let o = self.product("dk,kq->dq", x[V], exp.convert(self.dtype)) / sum;
                    vec![o.convert(self.dtype), max + sum.log()]
                })
            })
    }

    /// q, k, v, the bias, the masks, the logarithms of the sums, the output and its cotangent, to
    /// the gradients: all of them by one kernel, or by one for the operands and one for the bias.
    pub fn backward(self) -> Vec<Kernel> {
        let one_block = self.blocks() == 1;
        match (one_block, self.biased) {
            (true, _) => vec![self.backward_kernel(Gradients::All)],
            (false, false) => vec![self.backward_kernel(Gradients::Operands)],
            (false, true) => vec![
                self.backward_kernel(Gradients::Operands),
                self.backward_kernel(Gradients::Relative),
            ],
        }
    }

    fn backward_kernel(self, gradients: Gradients) -> Kernel {
        let (name, axes, grid) = match gradients {
            Gradients::All => (
                "backward",
                Axes {
                    heads: 0,
                    batch: 1,
                    queries: None,
                },
                vec![self.heads, self.groups()],
            ),
            Gradients::Operands => (
                "backward",
                Axes {
                    heads: 0,
                    batch: 1,
                    queries: Some(2),
                },
                vec![self.heads, self.groups(), self.blocks()],
            ),
            Gradients::Relative => (
                "backward_relative",
                Axes {
                    heads: 0,
                    queries: Some(1),
                    batch: 2,
                },
                vec![self.heads, self.blocks(), self.groups()],
            ),
        };
        let mut kernel = self
            .with_inputs(Kernel::new(&self.name(name), &grid), axes)
            .input(self.sums(axes))
            .input(self.query(axes))
            .input(self.query(axes));
        if gradients != Gradients::Relative {
            kernel = kernel
                .output(Output::Each(self.query(axes)))
                .output(Output::Each(self.key(axes)))
                .output(Output::Each(self.key(axes)));
        }
        let relative = match gradients {
            Gradients::All => self.biased,
            Gradients::Operands => false,
            Gradients::Relative => true,
        };
        if relative {
            kernel = kernel.output(Output::Accumulated {
                block: self.relative(axes),
                init: 0.0,
            });
        }
        if gradients == Gradients::Operands {
            for _ in 0..2 * self.sequences {
                kernel = kernel.scratch(Carried {
                    shape: Shape::new(accumulation_dtype(self.dtype), [self.kv, self.keys]),
                    init: 0.0,
                    first_axis: 2,
                });
            }
        }
        kernel.body(move |step| self.gradients(step, axes, gradients))
    }

    fn gradients<'a>(&self, step: &Step<'a>, axes: Axes, gradients: Gradients) -> Vec<Tensor<'a>> {
        let wide = accumulation_dtype(self.dtype);
        let relative = gradients != Gradients::Operands && self.biased;
        let mut scratch = vec![];
        let mut of_bias = step.carried.first().filter(|_| relative).copied();
        let mut given = self.each_sequence(|sequence| {
            let x = self.operands(step, sequence);
            let [log_sum, o, dy] = x[x.len() - 3..] else {
                unreachable!("a backward kernel reads three more arrays than a forward one")
            };
            let weights = (self.scores(step, axes, &x) - log_sum).exp();
            let row = (dy.convert(wide) * o.convert(wide)).sum(&[0]);
            let dweights = self.product("dk,dq->kq", x[V], dy);
            let dscores = weights * (dweights - row.expand_dims(&[0]));
            of_bias = of_bias.map(|sum| sum + dscores.expand_dims(&[0]));
            if gradients == Gradients::Relative {
                return vec![];
            }
            let narrow = dscores.convert(self.dtype);
            let dk = self.product("dq,kq->dk", x[Q], narrow);
            let dv = self.product("dq,kq->dk", dy, weights.convert(self.dtype));
            let dq = self.product("dk,kq->dq", x[K], narrow);
            // Sums over the blocks of queries, where there are several.
            let sums = match gradients {
                Gradients::Operands => {
                    let before = &step.carried[2 * sequence as usize..];
                    let sums = [before[0] + dk, before[1] + dv];
                    scratch.extend(sums);
                    sums
                }
                Gradients::All | Gradients::Relative => [dk, dv],
            };
            let gradients = [dq, sums[0], sums[1]];
            gradients.map(|t| t.convert(self.dtype)).to_vec()
        });
        given.extend(of_bias);
        given.extend(scratch);
        given
    }

    /// What `compute` gives for each sequence of a place, put together.
    fn each_sequence<'a>(&self, compute: impl FnMut(i64) -> Vec<Tensor<'a>>) -> Vec<Tensor<'a>> {
        let each: Vec<Vec<Tensor<'a>>> = (0..self.sequences).map(compute).collect();
        let outputs = 0..each.first().map_or(0, Vec::len);
        let joined = outputs.map(|output| {
            let parts = each.iter().map(|parts| parts[output].expand_dims(&[0]));
            let parts: Vec<Tensor<'a>> = parts.collect();
            match parts[..] {
                [one] => one,
                _ => parts[0].graph().concatenate(&parts, 0),
            }
        });
        joined.collect()
    }

    /// The operands of a sequence of a place, in order. The bias is the same for all.
    fn operands<'a>(&self, step: &Step<'a>, sequence: i64) -> Vec<Tensor<'a>> {
        let own = |(number, block): (usize, &Tensor<'a>)| {
            let part = match self.biased && number == BIAS_AT {
                true => *block,
                false => block.slice_dim(0, sequence, sequence + 1),
            };
            part.reshape(&part.dims()[1..])
        };
        step.inputs.iter().enumerate().map(own).collect()
    }

    /// A product of two matrices, summed in the wide type.
    fn product<'a>(&self, equation: &str, x: Tensor<'a>, y: Tensor<'a>) -> Tensor<'a> {
        let wide = Some(accumulation_dtype(self.dtype));
        x.graph().einsum_with(equation, x, y, wide)
    }

    /// The scores of a sequence, masked: `[keys, queries]`, at least float32.
    fn scores<'a>(&self, step: &Step<'a>, axes: Axes, x: &[Tensor<'a>]) -> Tensor<'a> {
        let mut scores = self.product("dk,dq->kq", x[K], x[Q]);
        let mut next = BIAS_AT;
        if self.biased {
            scores = scores + x[BIAS_AT];
            next += 1;
        }
        let (of_queries, of_keys) = (x[next], x[next + 1]);
        let mut seen = of_keys.equal(of_queries);
        if self.direction == Direction::Causal {
            let grid = Shape::new(DType::S32, scores.dims());
            let (key, mut query) = (step.graph.iota(grid.clone(), 0), step.graph.iota(grid, 1));
            if let Some(axis) = axes.queries.filter(|_| self.blocks() > 1) {
                query = query + step.place[axis] * self.block as f64;
            }
            seen = seen & key.less_equal(query);
        }
        seen.select(scores, scores.full_like(MASK_VALUE))
    }
}
