//! Loops, branches and calls. Their bodies are closures over tensors. Outer tensors that a body
//! uses are captured: they become parameters of the body.

use std::rc::Rc;

use crate::graph::{Closure, Graph, Tensor, shapes};
use crate::ir::{Function, Node, Op, Remat, Scan};
use crate::shape::{DType, Shape, list};

/// How a scan runs.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// What the forward pass keeps for the derivative.
    pub remat: Remat,
    /// From the last slice to the first.
    pub reverse: bool,
    /// The number of steps, from 1 to 2^31 - 1; needed only where nothing is sliced.
    pub length: Option<i64>,
    /// How many steps one iteration of the loop computes, a divisor of their number. With all of
    /// them there is no loop: nothing is stacked, and the compiler may then merge what is computed
    /// again with the forward pass, whatever `remat` says.
    pub unroll: i64,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions {
            remat: Remat::default(),
            reverse: false,
            length: None,
            unroll: 1,
        }
    }
}

impl Graph {
    /// A loop over the leading dimension of `xs`: `body(carries, slices) -> (carries, results)`
    /// runs once a slice, and the results are stacked on a new leading dimension. Gives the last
    /// carries and the stacked results.
    #[track_caller]
    pub fn scan<'g>(
        &'g self,
        options: ScanOptions,
        init: &[Tensor<'g>],
        xs: &[Tensor<'g>],
        body: impl FnOnce(&[Tensor<'g>], &[Tensor<'g>]) -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>),
    ) -> (Vec<Tensor<'g>>, Vec<Tensor<'g>>) {
        let (enter, whole) = (shapes(init), shapes(xs));
        let leading = whole.first().and_then(|s| s.dims.first().copied());
        let length = options.length.or(leading).unwrap_or(0);
        if length < 1 || whole.iter().any(|s| s.dims.first() != Some(&length)) {
            let problem = format!(
                "{length} steps over leading dimensions of {}; there has to be one at least, and one slice for each",
                list(&whole)
            );
            self.refuse("scan", problem);
        }
        if length > i32::MAX.into() {
            let problem = format!("{length} steps; a loop counts 2^31 - 1 at most, in s32");
            self.refuse("scan", problem);
        }
        if options.unroll < 1 || length % options.unroll != 0 {
            let problem = format!(
                "{} steps in an iteration, of {length}; it has to divide them",
                options.unroll
            );
            self.refuse("scan", problem);
        }
        let mut results = 0;
        let closed = self.body("scan", || {
            let carries = self.body_parameters(&enter);
            let slice = |s: &Shape| Shape::new(s.dtype, s.dims.get(1..).unwrap_or(&[]));
            let slices = self.body_parameters(&whole.iter().map(slice).collect::<Vec<_>>());
            let (mut next, ys) = body(&carries, &slices);
            results = ys.len();
            next.extend(ys);
            (carries.into_iter().chain(slices).collect(), next)
        });
        let mut leave = closed.function.output_shapes();
        leave.truncate(leave.len() - results);
        if leave != enter {
            let problem = format!(
                "carries enter as {} and leave as {}",
                list(&enter),
                list(&leave)
            );
            self.refuse("scan", problem);
        }
        if self.error().is_some() {
            // The body may not be what its type says; what comes after needs the number of results
            // only.
            let bad = self.invalid();
            return (vec![bad; init.len()], vec![bad; results]);
        }
        let scan = Scan {
            body: Rc::new(closed.function),
            carries: init.len(),
            xs: xs.len(),
            length,
            reverse: options.reverse,
            unroll: options.unroll,
            remat: options.remat,
        };
        let inputs: Vec<Tensor<'g>> = init
            .iter()
            .chain(xs)
            .chain(&closed.captures)
            .copied()
            .collect();
        let mut out = self.emit_scan(scan, &inputs);
        let ys = out.split_off(init.len());
        (out, ys)
    }

    /// Adds a scan whose inputs are carries, sliced arrays and constants, in the order of its
    /// body's parameters.
    #[track_caller]
    pub(crate) fn emit_scan<'g>(&'g self, scan: Scan, inputs: &[Tensor<'g>]) -> Vec<Tensor<'g>> {
        let shapes = scan.result_shapes();
        self.emit_tuple(Op::Scan(scan), inputs, shapes)
    }

    /// Runs `body` while `condition` (a scalar predicate) holds. It has no derivative;
    /// [`Graph::scan`] has.
    #[track_caller]
    pub fn while_loop<'g>(
        &'g self,
        init: &[Tensor<'g>],
        condition: impl FnOnce(&[Tensor<'g>]) -> Tensor<'g>,
        body: impl FnOnce(&[Tensor<'g>]) -> Vec<Tensor<'g>>,
    ) -> Vec<Tensor<'g>> {
        let shapes = shapes(init);
        let test = self.body("condition", || {
            let p = self.body_parameters(&shapes);
            let holds = condition(&p);
            (p, vec![holds])
        });
        let step = self.body("body", || {
            let p = self.body_parameters(&shapes);
            let next = body(&p);
            (p, next)
        });
        let truth = test.function.output_shapes();
        if truth != [Shape::new(DType::Pred, [])] || step.function.output_shapes() != shapes {
            let found = list(&step.function.output_shapes());
            let problem = format!(
                "the condition gives {}, the state enters as {} and leaves as {found}",
                list(&truth),
                list(&shapes)
            );
            let bad = self.refuse("while", problem);
            return vec![bad; init.len()];
        }
        let (functions, captures) = unify([test, step], init.len());
        let [condition, body] = functions;
        let inputs: Vec<Tensor<'g>> = init.iter().chain(&captures).copied().collect();
        self.emit_tuple(
            Op::While {
                condition,
                body,
                state: init.len(),
            },
            &inputs,
            shapes,
        )
    }

    /// The results of `on_true` where `predicate` (a scalar) holds, else those of `on_false`; only
    /// that branch runs.
    #[track_caller]
    pub fn conditional<'g>(
        &'g self,
        predicate: Tensor<'g>,
        on_true: impl FnOnce() -> Vec<Tensor<'g>>,
        on_false: impl FnOnce() -> Vec<Tensor<'g>>,
    ) -> Vec<Tensor<'g>> {
        let yes = self.body("on_true", || (vec![], on_true()));
        let no = self.body("on_false", || (vec![], on_false()));
        let (shapes, others) = (yes.function.output_shapes(), no.function.output_shapes());
        if predicate.shape() != Shape::new(DType::Pred, []) || shapes != others {
            let problem = format!(
                "by {}, branches of {} and {}",
                predicate.shape(),
                list(&shapes),
                list(&others)
            );
            let bad = self.refuse("conditional", problem);
            return vec![bad; shapes.len()];
        }
        let ([on_true, on_false], captures) = unify([yes, no], 0);
        let inputs: Vec<Tensor<'g>> = [predicate].iter().chain(&captures).copied().collect();
        self.emit_tuple(Op::Conditional { on_true, on_false }, &inputs, shapes)
    }

    /// The results of `function` applied to `inputs`, kept as one computation called `name`.
    #[track_caller]
    pub fn call<'g>(
        &'g self,
        name: &str,
        inputs: &[Tensor<'g>],
        function: impl FnOnce(&[Tensor<'g>]) -> Vec<Tensor<'g>>,
    ) -> Vec<Tensor<'g>> {
        let given = shapes(inputs);
        let closed = self.body(name, || {
            let p = self.body_parameters(&given);
            let out = function(&p);
            (p, out)
        });
        let shapes = closed.function.output_shapes();
        let inputs: Vec<Tensor<'g>> = inputs.iter().chain(&closed.captures).copied().collect();
        self.emit_tuple(
            Op::Call {
                function: Rc::new(closed.function),
            },
            &inputs,
            shapes,
        )
    }
}

/// Gives two bodies the same parameters: their first `own` ones, then all that either captures.
pub(crate) fn unify<'g>(
    bodies: [Closure<'g>; 2],
    own: usize,
) -> ([Rc<Function>; 2], Vec<Tensor<'g>>) {
    let captures: Vec<Tensor<'g>> = bodies
        .iter()
        .flat_map(|b| b.captures.iter().copied())
        .collect();
    let [first, second] = bodies;
    let (before, after) = (first.captures.len(), second.captures.len());
    let mut first = first.function;
    let mut second = second.function;
    let foreign = |f: &Function, range: std::ops::Range<usize>| -> Vec<_> {
        f.parameters[range]
            .iter()
            .map(|&p| Node {
                inputs: vec![],
                ..f.nodes[p].clone()
            })
            .collect()
    };
    let of_first = foreign(&first, own..own + before);
    let of_second = foreign(&second, own..own + after);
    for node in of_second {
        first.nodes.push(node);
        first.parameters.push(first.nodes.len() - 1);
    }
    for (i, node) in of_first.into_iter().enumerate() {
        second.nodes.push(node);
        second.parameters.insert(own + i, second.nodes.len() - 1);
    }
    ([Rc::new(first), Rc::new(second)], captures)
}
