//! Which nodes the outputs of a function depend on; scans lose what nothing depends on.

use std::collections::HashMap;

use crate::ir::{Function, NodeId, Op, Scan};

/// Which nodes of a function have to be lowered.
pub(super) struct Liveness {
    pub live: Vec<bool>,
    /// Scans without the parts that nothing depends on.
    pub scans: HashMap<NodeId, PrunedScan>,
}

/// A scan, which of its inputs remain, and for each old result its new index.
pub(super) struct PrunedScan {
    pub scan: Scan,
    pub inputs: Vec<usize>,
    pub results: Vec<Option<usize>>,
}

impl Liveness {
    pub fn new(function: &Function) -> Liveness {
        let count = function.nodes.len();
        let mut live = vec![false; count];
        let mut used: HashMap<NodeId, Vec<usize>> = HashMap::new();
        let mut scans = HashMap::new();
        for &o in &function.outputs {
            live[o] = true;
        }
        for id in (0..count).rev() {
            if !live[id] {
                continue;
            }
            let node = &function.nodes[id];
            match &node.op {
                Op::GetTupleElement { index } => {
                    used.entry(node.inputs[0]).or_default().push(*index);
                    live[node.inputs[0]] = true;
                }
                Op::Scan(scan) => {
                    let pruned = prune(scan, used.get(&id).map_or(&[], |u| u));
                    for &i in &pruned.inputs {
                        live[node.inputs[i]] = true;
                    }
                    scans.insert(id, pruned);
                }
                Op::CustomVjp { .. } => live[node.inputs[0]] = true,
                _ => {
                    for &i in &node.inputs {
                        live[i] = true;
                    }
                }
            }
        }
        Liveness { live, scans }
    }
}

/// Leaves out the carries, slices, constants and results that the `used` results do not depend on.
fn prune(scan: &Scan, used: &[usize]) -> PrunedScan {
    let results = scan.body.outputs.len();
    let mut keep = vec![false; results];
    for &u in used {
        keep[u] = true;
    }
    let live = loop {
        let mut body = (*scan.body).clone();
        body.outputs = (0..results)
            .filter(|&o| keep[o])
            .map(|o| scan.body.outputs[o])
            .collect();
        let live = Liveness::new(&body).live;
        // A carry that the kept results read has to be carried on.
        let more: Vec<usize> = (0..scan.carries)
            .filter(|&c| !keep[c] && live[scan.body.parameters[c]])
            .collect();
        if more.is_empty() {
            break live;
        }
        for c in more {
            keep[c] = true;
        }
    };
    let inputs: Vec<usize> = (0..scan.body.parameters.len())
        .filter(|&i| {
            if i < scan.carries {
                keep[i]
            } else {
                live[scan.body.parameters[i]]
            }
        })
        .collect();
    let mut body = (*scan.body).clone();
    body.parameters = inputs.iter().map(|&i| scan.body.parameters[i]).collect();
    body.outputs = (0..results)
        .filter(|&o| keep[o])
        .map(|o| scan.body.outputs[o])
        .collect();
    let mut next = 0..;
    let indices = keep
        .iter()
        .map(|&k| if k { next.next() } else { None })
        .collect();
    let scan = Scan {
        carries: inputs.iter().filter(|&&i| i < scan.carries).count(),
        xs: inputs
            .iter()
            .filter(|&&i| i >= scan.carries && i < scan.carries + scan.xs)
            .count(),
        body: body.into(),
        ..scan.clone()
    };
    PrunedScan {
        scan,
        inputs,
        results: indices,
    }
}
