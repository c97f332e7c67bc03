//! VJPs of loops, branches and calls: their bodies are differentiated into new bodies.
//!
//! The derivative of a scan is a scan in the opposite direction. Its carries are the cotangents of
//! the carries and, accumulated, those of the constants. It scans over the cotangents of the
//! results and over the residuals of the forward pass. Which residuals these are is known once the
//! rules have run. Each value that a rule asks for is taken from the slices and constants, or
//! becomes a residual (the forward scan gets one more result), or is computed again from other
//! values, as the scan's [`Remat`] policy says.

use std::rc::Rc;

use super::primal_body::{BodyInput, PrimalBody};
use super::rules::Cotangents;
use super::{Primal, ResultCotangents, VjpContext, activity, backward_pass};
use crate::graph::Tensor;
use crate::ir::{Function, NodeId, Op, Remat, Scan};
use crate::shape::Shape;

/// The cotangents of a scan's carries, sliced arrays and constants.
pub(super) fn scan<'g>(
    n: &VjpContext<'g, '_, '_>,
    scan: &Scan,
    results: &ResultCotangents<'g>,
) -> Cotangents<'g> {
    let graph = n.graph();
    let f = &*scan.body;
    let (carries, xs) = (scan.carries, scan.xs);
    let body_inputs = f.parameters.iter().enumerate().map(|(i, &p)| {
        let input = if i < carries {
            BodyInput::Residual
        } else if i < carries + xs {
            BodyInput::Slice(i)
        } else {
            BodyInput::Value(n.input(i))
        };
        (p, input)
    });
    let body = PrimalBody::new(graph, f, scan.remat.clone(), body_inputs.collect());
    let primal = Primal::Body(&body);
    let wanted = wanted_parameters(n, scan, &primal);
    let shape = |i: usize| f.nodes[f.parameters[i]].ty.array();
    let of_carries: Vec<usize> = (0..carries).filter(|&i| wanted[i]).collect();
    let of_constants: Vec<usize> = (carries + xs..f.parameters.len())
        .filter(|&i| wanted[i])
        .collect();
    let of_slices: Vec<usize> = (carries..carries + xs).filter(|&i| wanted[i]).collect();
    let of_results: Vec<usize> = results.keys().copied().filter(|&r| r >= carries).collect();

    let closed = graph.body("scan_gradient", || {
        let dcarries: Vec<Tensor<'g>> = of_carries
            .iter()
            .map(|&i| graph.body_parameter(shape(i)))
            .collect();
        let sums: Vec<Tensor<'g>> = of_constants
            .iter()
            .map(|&i| graph.body_parameter(shape(i)))
            .collect();
        let dys: Vec<Tensor<'g>> = of_results
            .iter()
            .map(|&r| graph.body_parameter(f.nodes[f.outputs[r]].ty.array()))
            .collect();
        let seeds: Vec<(NodeId, Tensor<'g>)> = of_carries
            .iter()
            .zip(&dcarries)
            .chain(of_results.iter().zip(&dys))
            .map(|(&output, &dy)| (f.outputs[output], dy))
            .collect();
        let nodes: Vec<NodeId> = (0..wanted.len())
            .filter(|&i| wanted[i])
            .map(|i| f.parameters[i])
            .collect();
        let found = backward_pass(&primal, &seeds, &nodes);
        let gradient = |i: usize| found.get(&f.parameters[i]).copied();
        let mut out: Vec<Tensor<'g>> = Vec::new();
        out.extend(
            of_carries
                .iter()
                .map(|&i| gradient(i).unwrap_or_else(|| graph.zeros(&shape(i)))),
        );
        out.extend(
            of_constants
                .iter()
                .zip(&sums)
                .map(|(&i, &sum)| gradient(i).map_or(sum, |d| sum + d)),
        );
        out.extend(
            of_slices
                .iter()
                .map(|&i| gradient(i).unwrap_or_else(|| graph.zeros(&shape(i)))),
        );
        let parameters = dcarries
            .into_iter()
            .chain(sums)
            .chain(dys)
            .chain(body.slices.borrow().iter().map(|s| s.1))
            .chain(body.residuals.borrow().iter().map(|s| s.1))
            .collect();
        (parameters, out)
    });

    let PrimalBody {
        function,
        slices,
        residuals,
        ..
    } = body;
    let residuals = save_residuals(n, scan, function.into_inner(), &residuals.into_inner());
    let zeros = |i: usize| graph.zeros(&shape(i));
    let mut inputs: Vec<Tensor<'g>> = Vec::new();
    inputs.extend(
        of_carries
            .iter()
            .map(|&i| results.get(&i).copied().unwrap_or_else(|| zeros(i))),
    );
    inputs.extend(of_constants.iter().map(|&i| zeros(i)));
    let backward_carries = inputs.len();
    inputs.extend(of_results.iter().map(|r| results[r]));
    inputs.extend(slices.into_inner().iter().map(|s| n.input(s.0)));
    inputs.extend(residuals);
    let backward = Scan {
        carries: backward_carries,
        xs: inputs.len() - backward_carries,
        body: Rc::new(closed.function),
        length: scan.length,
        reverse: !scan.reverse,
        unroll: scan.unroll,
        remat: scan.remat.clone(),
    };
    inputs.extend(closed.captures);
    let gradients = graph.emit_scan(backward, &inputs);
    let mut out = vec![None; f.parameters.len()];
    let inputs_with_gradient = of_carries.iter().chain(&of_constants).chain(&of_slices);
    for (&input, gradient) in inputs_with_gradient.zip(gradients) {
        out[input] = Some(gradient);
    }
    out
}

/// Which parameters of the body carry cotangents: those wanted from outside, and carries that
/// become active over the steps.
fn wanted_parameters(
    n: &VjpContext<'_, '_, '_>,
    scan: &Scan,
    primal: &Primal<'_, '_>,
) -> Vec<bool> {
    let f = &*scan.body;
    let is_float = |i: usize| f.nodes[f.parameters[i]].ty.array().dtype.is_float();
    let mut wanted: Vec<bool> = (0..f.parameters.len())
        .map(|i| n.wanted[i] && is_float(i))
        .collect();
    loop {
        let nodes: Vec<NodeId> = (0..wanted.len())
            .filter(|&i| wanted[i])
            .map(|i| f.parameters[i])
            .collect();
        let active = activity(primal, &nodes);
        let more = (0..scan.carries).find(|&c| !wanted[c] && is_float(c) && active[f.outputs[c]]);
        match more {
            Some(c) => wanted[c] = true,
            None => return wanted,
        }
    }
}

/// Makes the forward scan return the residuals, and gives them stacked.
fn save_residuals<'g>(
    n: &VjpContext<'g, '_, '_>,
    scan: &Scan,
    mut function: Function,
    residuals: &[(NodeId, Tensor<'g>)],
) -> Vec<Tensor<'g>> {
    let mut indices = Vec::with_capacity(residuals.len());
    for (id, _) in residuals {
        // The loop may return the value already: as a result of its own, or for another derivative.
        let results = &function.outputs[scan.carries..];
        let found = results.iter().position(|output| output == id);
        indices.push(scan.carries + found.unwrap_or(results.len()));
        if found.is_none() {
            function.outputs.push(*id);
        }
    }
    let body = Rc::new(function);
    let scan = Scan {
        body,
        ..scan.clone()
    };
    n.primal.extend_scan(n.id, scan, &indices)
}

/// The cotangents of a call's inputs: a call of the derivative, which runs the function once more.
pub(super) fn call<'g>(
    n: &VjpContext<'g, '_, '_>,
    function: &Rc<Function>,
    results: &ResultCotangents<'g>,
) -> Cotangents<'g> {
    let derivative = derivative(n, function, 0, results);
    let shapes = derivative.output_shapes();
    let inputs = inputs_and_cotangents(n, results);
    let out = n.graph().emit_tuple(
        Op::Call {
            function: Rc::new(derivative),
        },
        &inputs,
        shapes,
    );
    cotangents_from(n, 0, out)
}

/// The cotangents of what the branches use: the derivative of the branch that ran.
pub(super) fn conditional<'g>(
    n: &VjpContext<'g, '_, '_>,
    on_true: &Rc<Function>,
    on_false: &Rc<Function>,
    results: &ResultCotangents<'g>,
) -> Cotangents<'g> {
    let on_true = derivative(n, on_true, 1, results);
    let on_false = derivative(n, on_false, 1, results);
    let shapes = on_true.output_shapes();
    let inputs = inputs_and_cotangents(n, results);
    let op = Op::Conditional {
        on_true: Rc::new(on_true),
        on_false: Rc::new(on_false),
    };
    let out = n.graph().emit_tuple(op, &inputs, shapes);
    cotangents_from(n, 1, out)
}

/// The function from a function's inputs and its results' cotangents to the cotangents of its
/// wanted inputs. The node's inputs are the function's from `first` on.
fn derivative<'g>(
    n: &VjpContext<'g, '_, '_>,
    f: &Function,
    first: usize,
    results: &ResultCotangents<'g>,
) -> Function {
    let graph = n.graph();
    let shape = |p: NodeId| -> Shape { f.nodes[p].ty.array() };
    // The node's inputs are of the function being built, which within the body is another one.
    let wanted: Vec<NodeId> = wanted_inputs(n, first)
        .map(|i| f.parameters[i - first])
        .collect();
    let closed = graph.body(&format!("{}_gradient", f.name), || {
        let parameters: Vec<Tensor<'g>> = f
            .parameters
            .iter()
            .map(|&p| graph.body_parameter(shape(p)))
            .collect();
        let dys: Vec<Tensor<'g>> = results
            .keys()
            .map(|&r| graph.body_parameter(shape(f.outputs[r])))
            .collect();
        let body_inputs = f
            .parameters
            .iter()
            .zip(&parameters)
            .map(|(&p, &t)| (p, BodyInput::Value(t)))
            .collect();
        let body = PrimalBody::new(graph, f, Remat::SaveNothing, body_inputs);
        let seeds: Vec<(NodeId, Tensor<'g>)> = results
            .keys()
            .zip(&dys)
            .map(|(&r, &dy)| (f.outputs[r], dy))
            .collect();
        let found = backward_pass(&Primal::Body(&body), &seeds, &wanted);
        let out = wanted
            .iter()
            .map(|p| {
                found
                    .get(p)
                    .copied()
                    .unwrap_or_else(|| graph.zeros(&shape(*p)))
            })
            .collect();
        (parameters.into_iter().chain(dys).collect(), out)
    });
    closed.function
}

fn wanted_inputs<'a>(
    n: &'a VjpContext<'_, '_, '_>,
    first: usize,
) -> impl Iterator<Item = usize> + 'a {
    (first..n.node.inputs.len()).filter(|&i| n.wanted[i] && n.input_shape(i).dtype.is_float())
}

/// What a derivative takes: the node's inputs, then the cotangents of its results.
fn inputs_and_cotangents<'g>(
    n: &VjpContext<'g, '_, '_>,
    results: &ResultCotangents<'g>,
) -> Vec<Tensor<'g>> {
    n.inputs_from(0)
        .into_iter()
        .chain(results.values().copied())
        .collect()
}

/// Puts the cotangents of the wanted inputs, which begin at `first`, at their positions.
fn cotangents_from<'g>(
    n: &VjpContext<'g, '_, '_>,
    first: usize,
    gradients: Vec<Tensor<'g>>,
) -> Cotangents<'g> {
    let mut out = vec![None; n.node.inputs.len()];
    for (i, gradient) in wanted_inputs(n, first).zip(gradients) {
        out[i] = Some(gradient);
    }
    out
}
